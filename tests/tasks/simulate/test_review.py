"""Whole campaigns by the functions of the commands, and the same campaigns played on arrays."""

import json

import pytest

from schemas.campaign_file import load_campaign
from tasks.certify.apply import apply_policy
from tasks.certify.certify import certify_campaign
from tasks.certify.data import Promise
from tasks.certify.plan_reviews import Wish
from tasks.evaluate.evaluate import evaluate_campaign
from tasks.simulate.board import board
from tasks.simulate.play import play, reviews_to_fit
from tasks.simulate.review import minutes_of, review_next
from tasks.simulate.reviewer import PERFECT
from tasks.simulate.truth import truth_of_campaign

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
    routing = {"precision": 0.8, "seed": seed, "gate": gate}
    campaign = load_campaign(write_campaign(routing=routing, run={"shard_size": 60}))
    labels, truth = truth_of_campaign(campaign, labelled)
    first = review_next(campaign, labels, truth, Wish(minutes_of(reviews_to_fit(labels.count, REVIEWS))))
    assert (first.planned.stage, first.answers) == ("first", len(first.rows))
    second = review_next(campaign, labels, truth, Wish(minutes_of(REVIEWS - len(first.rows))))
    assert second.planned.stage == "certify"
    certified = certify_campaign(campaign)
    assert certified.simulated
    (draw,) = play(board(labels, truth, PERFECT), [Promise(0.8, 0.9, gate)], REVIEWS, seed)
    assert certified.version is not None
    applied = apply_policy(campaign, certified.version)
    assert applied.accepted == certified.accepted == round(draw.automation * labels.count) > 0
    assert draw.reviewed == len(first.rows) + len(second.rows)
    found = evaluate_campaign(campaign, labelled).contract
    assert found.held is not draw.broken
    assert found.simulated
    side = found.certified_side
    assert (side.accepted_precision, side.delivered_precision) == (draw.accepted_precision, draw.delivered_precision)
    assert found.whole_run.automation == pytest.approx(draw.automation)
