"""Campaigns of reviews, played many times.

Whole campaigns by the functions of the commands, and the same campaigns played on arrays.
"""

import json
from dataclasses import replace

import numpy as np
import pytest

from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.data import Guarantee
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest
from vouch_labels.tasks.evaluate.evaluate import evaluate_campaign
from vouch_labels.tasks.evaluate.run_truth import NOT_AN_OBJECT, UNKNOWN, truth_of_campaign
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.reviews.resolve import WRONG, resolve
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.simulate.reviewer import PERFECT, Errors, Question
from vouch_labels.tasks.simulate.simulate import board, minutes_of, play, review_next, reviews_to_fit, simulate
from vouch_labels.tasks.statistics.bounds import upper_bound
from vouch_labels.tasks.store.open import open_store

NAMES = ("truth.json", "main")


def question(**changes) -> Question:
    plain = Question((0.9,), (200, 800), 20, "delivered", 0.9, Errors(), 0.3)
    return replace(plain, **changes)


@pytest.mark.parametrize("gate", ["delivered", "accepted"])
def test_more_reviews_automate_more_and_the_guarantee_holds(make_run, gate):
    labels, truth = make_run(images=1_000)
    seen: list[tuple[int, int]] = []
    asked = question(gate=gate, precisions=(0.9, 0.95), reviews=(60, 800))
    found = simulate(labels, truth, asked, NAMES, lambda *done: seen.append(done))
    assert seen == [(number, 40) for number in range(1, 41)]
    assert [(row.precision, row.reviews) for row in found.rows] == [(0.9, 60), (0.9, 800), (0.95, 60), (0.95, 800)]
    by = {(row.precision, row.reviews): row for row in found.rows}
    assert by[0.9, 800].automation.median > by[0.9, 60].automation.median
    assert by[0.9, 800].automation.median >= by[0.95, 800].automation.median
    for row in found.rows:
        # 20 draws can show no more than a rate far above 10%; the benchmark counts many more.
        assert row.broken <= upper_bound(2, 20, 0.01)
        assert row.automation.worst <= row.automation.tenth <= row.automation.median <= row.oracle <= 1
        assert row.broken_interval[0] <= row.broken <= row.broken_interval[1]
    best = by[0.9, 800]
    assert best.certified > 0.9
    precision = best.accepted_precision if gate == "accepted" else best.delivered_precision
    assert precision.worst <= precision.tenth <= precision.median
    assert precision.median >= 0.9
    assert best.seconds_per_box < found.seconds_per_box_by_hand
    assert found.correct == pytest.approx(truth.correct.mean())


def test_the_naive_rule_breaks_guarantees(make_run):
    labels, truth = make_run(images=600)
    found = simulate(labels, truth, question(draws=40, reviews=(200,)), NAMES)
    assert found.rows[0].naive_broken > 0.2
    assert found.rows[0].broken <= upper_bound(4, 40, 0.01)


def test_equal_questions_have_equal_answers(make_run):
    labels, truth = make_run()
    asked = question(draws=3, errors=Errors(missed=0.1, false_alarms=0.1))
    assert simulate(labels, truth, asked, NAMES) == simulate(labels, truth, asked, NAMES)


def test_the_answer_names_the_fewest_reviews(make_run):
    labels, truth = make_run(images=1_000)
    found = simulate(labels, truth, question(precisions=(0.9, 0.99), reviews=(40, 800), draws=10), NAMES)
    easy, hard = found.answers
    assert easy.reviews == 800
    assert "800 reviews (about" in easy.words
    assert "automate 30% of these labels at 0.9:" in easy.words
    assert hard.reviews is None
    assert hard.words.startswith("none of the reviews tried automates 30% of these labels at 0.99")


def test_more_reviews_than_labels(make_run):
    """All of them are reviewed, nothing twice, so nothing is left to automate."""
    labels, truth = make_run(images=40)
    row = simulate(labels, truth, question(reviews=(5_000,), draws=2), NAMES).rows[0]
    assert row.reviewed == labels.count
    assert row.broken == 0


def test_assumed_misses_cost_automation_and_honeypots_take_their_place(make_run):
    labels, truth = make_run(images=600)
    asked = question(draws=10, reviews=(400,), gate="accepted")
    trusting, assuming, measuring = (
        simulate(labels, truth, replace(asked, assumed=assumed, honeypots=honeypots), NAMES)
        for assumed, honeypots in ((0.0, 0), (0.3, 0), (0.3, 100))
    )
    assert assuming.rows[0].automation.median < trusting.rows[0].automation.median
    assert (trusting.assumed, assuming.assumed, measuring.assumed) == (0, 0.3, 0)
    words = [block for block in assuming.blocks() if isinstance(block, str)]
    assert any("if reviewers miss at most 30% of the wrong labels" in line for line in words)
    assert not any("if reviewers miss" in line for line in trusting.blocks() if isinstance(line, str))


@pytest.mark.parametrize("gate", ["delivered", "accepted"])
def test_the_guarantee_is_about_what_it_covers(make_run, gate):
    """Labels that were fitted to are known; of delivered labels the guarantee counts them, of accepted ones not."""
    labels, truth = make_run(images=100)
    played = board(labels, truth, PERFECT)
    (draw,) = play(played, [Guarantee(0.5, 0.9, gate)], 200, 0)
    assert draw.automation > 0
    fitted = reviews_to_fit(labels.count, 200)
    # With so low a target all is accepted but the labels that were answered before the sample was drawn.
    if gate == "delivered":
        assert draw.automation == pytest.approx((labels.count - fitted) / labels.count)
    assert draw.automation <= (labels.count - fitted) / labels.count
    assert draw.delivered_precision > truth.correct.mean()


def test_a_reviewer_who_misses_breaks_promises_unless_plants_measure_it(make_run):
    labels, truth = make_run(images=600)
    asked = question(draws=20, reviews=(800,))
    careful, tired, measured = (
        simulate(labels, truth, replace(asked, errors=errors, honeypots=honeypots), NAMES).rows[0]
        for errors, honeypots in ((Errors(), 0), (Errors(missed=0.6), 0), (Errors(missed=0.6), 100))
    )
    assert tired.broken > 0.5 > careful.broken
    assert measured.broken <= upper_bound(2, 20, 0.01)
    assert measured.review_minutes > tired.review_minutes


def test_all_wrong_automates_nothing(make_run):
    labels, truth = make_run()
    wrong = replace(truth, verdict=np.full(labels.count, NOT_AN_OBJECT, np.int8))
    row = simulate(labels, wrong, question(draws=3), NAMES).rows[0]
    assert (row.certified, row.automation.median, row.oracle, row.broken) == (0, 0, 0, 0)
    assert (row.accepted_precision, row.seconds_per_box) == (None, None)


def test_too_few_reviews_to_fit(make_run):
    labels, truth = make_run()
    row = simulate(labels, truth, question(reviews=(10,), draws=3), NAMES).rows[0]
    assert (row.certified, row.automation.median) == (0, 0)


def test_labels_without_truth_are_no_part(make_run):
    labels, truth = make_run()
    verdict = truth.verdict.copy()
    verdict[::2] = UNKNOWN
    known = replace(truth, verdict=verdict, left_out={"on a crowd region": 750})
    found = simulate(labels, known, question(draws=1), NAMES)
    assert (found.labels, found.without_truth) == (750, {"on a crowd region": 750})
    with pytest.raises(UserError, match="none of the run's labels"):
        simulate(labels, replace(truth, verdict=np.full_like(verdict, UNKNOWN)), question(draws=1), NAMES)


REVIEWS = 150


@pytest.fixture
def labelled(tmp_path, make_images, make_campaign, label):
    """Labels of fake models, and a truth in which those with the higher scores are right."""
    make_images(tmp_path / "images", 120)
    label(make_campaign(export={"undecided": "include"}, run={"shard_size": 60}))
    path = tmp_path / "workspace/exports/coco/annotations.json"
    document = json.loads(path.read_text())
    items = document["annotations"]
    by_score = sorted(items, key=lambda item: item["score"])
    document["annotations"] = by_score[len(items) // 3 :]
    (tmp_path / "truth.json").write_text(json.dumps(document))
    return tmp_path / "truth.json"


@pytest.mark.parametrize("gate", ["delivered", "accepted"])
@pytest.mark.parametrize("seed", [0, 1])
def test_a_played_draw_is_what_the_commands_do(labelled, write_campaign, gate, seed):
    """Same seed, same reviews: the same labels are accepted, and the same is true of them."""
    routing = {"precision": 0.8, "seed": seed, "gate": gate, "missed": 0.02}
    campaign = load_campaign(write_campaign(routing=routing, run={"shard_size": 60}))
    labels, truth = truth_of_campaign(campaign, labelled)
    first = review_next(campaign, labels, truth, ReviewRequest(minutes_of(reviews_to_fit(labels.count, REVIEWS))))
    assert (first.planned.stage, first.answers) == ("first", len(first.rows))
    second = review_next(campaign, labels, truth, ReviewRequest(minutes_of(REVIEWS - len(first.rows))))
    assert second.planned.stage == "certify"
    certified = certify_campaign(campaign)
    assert certified.simulated
    (draw,) = play(board(labels, truth, PERFECT), [Guarantee(0.8, 0.9, gate, 0.02)], REVIEWS, seed)
    assert certified.version is not None
    applied = apply_policy(campaign, certified.version)
    assert applied.accepted == certified.accepted == round(draw.automation * labels.count) > 0
    assert draw.reviewed == len(first.rows) + len(second.rows)
    found = evaluate_campaign(campaign, labelled).contract
    assert found.held is not draw.broken
    assert found.simulated
    side = found.covered
    assert (side.accepted_precision, side.delivered_precision) == (draw.accepted_precision, draw.delivered_precision)
    decided, _ = truth_of_campaign(campaign, labelled)
    workspace = open_store(campaign.workspace)
    said = resolve(present_verdicts(workspace, current_of(workspace, "main"))).wrong_of(decided.label_ids)
    assert int(decided.accepted.sum()) == applied.accepted
    # Labels that people called wrong are corrected, so the policy's word on them counts no more.
    assert found.whole_run.accepted == applied.accepted - int((decided.accepted & (said == WRONG)).sum())
