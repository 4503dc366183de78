"""Estimates of classes beside the certificates."""

import json
from dataclasses import replace

import numpy as np
import pytest

from vouch_labels.schemas.errors import NotCertifiedError, StoreError, UserError
from vouch_labels.schemas.policy import Policy, Reviewers
from vouch_labels.schemas.reviews import GroupPlan
from vouch_labels.tasks.certify.certify import (
    certify_campaign,
    class_estimates,
    make_policy,
    not_sampled,
    policy_groups,
)
from vouch_labels.tasks.certify.data import Candidates, Guarantee
from vouch_labels.tasks.certify.judge import Reviewed, RoundResult, SampleTest, judge_round
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import labels_of_round, last_round, read_tests
from vouch_labels.tasks.policy import among, read_coverage, read_policy
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.statistics.betting import PART


def policy_of(campaigned, version) -> Policy:
    return read_policy(campaigned.workspace, version, campaigned.campaign.classes)


def test_a_policy_with_all_that_it_rests_on(campaigned):
    planned = campaigned.fitted().sampled()
    found = certify_campaign(campaigned.campaign)
    assert found.version.startswith("certified-1-")
    assert not found.simulated
    assert "it holds if reviewers miss nothing, which is assumed" in " ".join(found.remarks)
    assert "would be tested at 0.016" in found.remarks[-1]
    policy = policy_of(campaigned, found.version)
    guarantee = policy.certification
    assert (guarantee.precision, guarantee.confidence, guarantee.gate, guarantee.look) == (0.7, 0.8, "delivered", 1)
    assert guarantee.inputs == campaigned.reviews.current.inputs
    assert guarantee.plans == (planned.plan.number,)
    assert guarantee.fit_labels >= 20
    assert {"p_correct", "detector_score"} < set(guarantee.reference)
    assert sorted(name for group in policy.groups for name in group.classes) == ["cat", "dog"]
    labels = campaigned.reviews.labels
    asked_before = labels.places(campaigned.reviews.plans[0][1]["label_id"].to_pylist())
    population = np.ones(labels.count, np.bool_)
    population[asked_before] = False
    (covered,) = guarantee.covers
    assert (covered.labels, covered.plan) == (population.sum(), planned.plan.number)
    assert covered.images == len(np.unique(labels.image_index[population]))
    assert (among(campaigned.reviews.numbers, read_coverage(campaigned.workspace, policy).labels) == population).all()
    assert (found.covers, found.outside) == (guarantee.covers, 0)
    for group in policy.groups:
        inside = np.isin(np.array(labels.class_names)[labels.class_index], group.classes)
        assert group.certificate.labels == (population & inside).sum()
        # The level is that of its part of delta, or above where so few labels keep delta all the same.
        assert 0.2 * 0.8 * (1 - PART) / len(policy.groups) * (1 - 1e-12) <= group.certificate.delta <= 0.5
        if group.p_correct is not None:
            assert group.certificate.errors <= group.certificate.reviewed
            assert group.certificate.bound <= 1 - guarantee.precision
    assert found.accepted == sum(group.certificate.accepted for group in policy.groups) > 0
    assert {one.name for one in found.classes} <= {"cat", "dog"}


def test_again_with_nothing_new_is_the_same_look_and_the_same_policy(campaigned):
    campaigned.fitted().sampled()
    first = certify_campaign(campaigned.campaign)
    # The same verdicts once more, and one on a label of another model, change nothing.
    campaigned.answer(minutes=1)
    again = certify_campaign(campaigned.campaign)
    assert again == first
    assert len(read_tests(campaigned.workspace, "main")) == 1


def test_another_precision_of_the_same_labels_is_another_look(campaigned):
    campaigned.fitted().sampled()
    first = certify_campaign(campaigned.campaign)
    campaigned.with_routing(precision=0.6, confidence=0.8)
    second = certify_campaign(campaigned.campaign)
    assert second.look == 2
    assert second.delta == pytest.approx(first.delta / 10)
    campaigned.with_routing(precision=0.7, confidence=0.8)
    assert certify_campaign(campaigned.campaign).look == 1


def test_more_reviews_are_another_look(campaigned):
    campaigned.fitted().sampled(minutes=2)
    campaigned.with_routing(precision=0.99, confidence=0.8)
    with pytest.raises(NotCertifiedError, match=r"even if all of it were correct.*no test was spent.*--minutes \d"):
        certify_campaign(campaigned.campaign)
    assert read_tests(campaigned.workspace, "main") == []
    campaigned.with_routing(precision=0.94, confidence=0.8)
    refused = certify_campaign(campaigned.campaign)
    assert refused.look == 1
    assert refused.version is None
    assert refused.more_reviews
    assert all(group.certificate.refusal for group in refused.groups)
    planned = campaigned.sampled(minutes=10)
    assert planned.stage == "certify"
    assert planned.plan.round == 1
    again = certify_campaign(campaigned.campaign)
    assert again.look == 2
    assert len(read_tests(campaigned.workspace, "main")[1].plans) == 2


def test_disputed_labels_and_plants_that_were_missed_cost(campaigned):
    campaigned.fitted().sampled(honeypots=20)
    clean = certify_campaign(campaigned.campaign)
    assert clean.reviewers.planted == 20
    assert clean.reviewers.missed == 0
    assert 0 < clean.reviewers.accepted < 0.3
    assert clean.reviewers.spent == pytest.approx(0.2 * 0.8 * 0.2)
    assert "planted" not in " ".join(clean.remarks)
    campaigned.answer(wrong=False, reviewer="bob", minutes=2)
    disputed = certify_campaign(campaigned.campaign)
    assert disputed.look == 2
    # What bob calls correct and the other calls wrong is disputed, so wrong; honeypots too are found by one of them.
    assert disputed.reviewers.missed == 0
    assert disputed.accepted < clean.accepted
    campaigned.answer(wrong=False, minutes=3)
    with pytest.raises(NotCertifiedError, match=r"add honeypots.*--honeypots N adds some.*no test was spent"):
        certify_campaign(campaigned.campaign)


def test_all_wrong_and_all_right(campaigned):
    campaigned.fitted(wrong=True).sampled()
    campaigned.answer(wrong=True, minutes=1)
    found = certify_campaign(campaigned.campaign)
    assert found.version is None
    assert found.accepted == 0
    assert "more reviews will not help" in found.groups[0].certificate.refusal
    assert "no better than guessing" in " ".join(found.remarks)


def test_all_right_accepts_all(campaigned):
    campaigned.fitted(wrong=False).sampled()
    campaigned.answer(wrong=False, minutes=1)
    found = certify_campaign(campaigned.campaign)
    assert found.accepted == found.covers[0].labels < found.labels


def test_a_simulated_reviewer_is_told_and_not_mixed_with_people(campaigned):
    plan_reviews(campaigned.campaign)
    campaigned.answer(simulated=True)
    plan_reviews(campaigned.campaign)
    campaigned.answer(simulated=True)
    found = certify_campaign(campaigned.campaign)
    assert found.simulated
    assert policy_of(campaigned, found.version).certification.simulated
    campaigned.answer(part=0.5, simulated=False, reviewer="bob", minutes=1)
    # Bob's verdicts replace the program's, which spoke of the other half alone.
    with pytest.raises(UserError, match="people the others"):
        certify_campaign(campaigned.campaign)
    campaigned.answer(simulated=False, reviewer="bob", minutes=2)
    assert not certify_campaign(campaigned.campaign).simulated


def test_answers_of_both_kinds_are_refused(campaigned):
    campaigned.fitted()
    plan_reviews(campaigned.campaign)
    campaigned.answer(part=0.5, simulated=True)
    reviews = campaigned.reviews
    tasks = reviews.plans[-1][1]
    rest = tasks.slice(int(tasks.num_rows * 0.5))["label_id"].to_pylist()
    write_verdicts(campaigned.workspace, campaigned.verdicts(rest, ["correct"] * len(rest)))
    with pytest.raises(UserError, match=r"a simulated reviewer answered .* people the others; .*--fresh"):
        certify_campaign(campaigned.campaign)


def test_every_refusal_says_what_to_do(campaigned):
    with pytest.raises(UserError, match=r"there are no verdicts in .*vouch plan-reviews"):
        certify_campaign(campaigned.campaign)
    campaigned.fitted()
    with pytest.raises(
        UserError, match=r"no certification sample was drawn: the verdicts on \d+ labels .* serve to fit"
    ):
        certify_campaign(campaigned.campaign)
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=8))
    with pytest.raises(UserError, match=r"none of the \d+ certification tasks of review plan 2 is answered"):
        certify_campaign(campaigned.campaign)
    campaigned.answer(part=0.5)
    with pytest.raises(UserError, match=r"\d+ of \d+ certification tasks without an answer; .*--unanswered-as-wrong"):
        certify_campaign(campaigned.campaign)
    assert not read_tests(campaigned.workspace, "main")
    half = certify_campaign(campaigned.campaign, unanswered_as_wrong=True)
    assert "counted as wrong" in " ".join(half.remarks)
    campaigned.answer()
    whole = certify_campaign(campaigned.campaign, unanswered_as_wrong=True)
    assert whole == certify_campaign(campaigned.campaign)
    assert whole.accepted >= half.accepted
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    with pytest.raises(UserError, match=r"drawn for gate delivered, routing.gate is accepted; .*--fresh"):
        certify_campaign(campaigned.campaign)


def test_changed_inputs_are_named(campaigned):
    campaigned.fitted().sampled(minutes=3)
    key = "runs/main/current.json"
    current = json.loads(campaigned.workspace.get(key).data)
    current["inputs"] |= {"prompts": "another", "scorer weights": "another"}
    campaigned.workspace.put(key, json.dumps(current).encode())
    with pytest.raises(
        UserError, match=r"changed since review plan 2 was drawn: prompts, scorer weights; .*draw again"
    ):
        certify_campaign(campaigned.campaign)
    # Its tasks are moot, so nothing keeps a new sample from being drawn.
    planned = plan_reviews(campaigned.campaign)
    assert (planned.stage, planned.plan.round) == ("certify", 2)


def test_a_run_without_labels_and_one_that_never_ran(campaigned, tmp_path):
    empty = campaigned.load(run={"name": "other"})
    for command in (lambda: certify_campaign(empty), lambda: plan_reviews(empty)):
        with pytest.raises(UserError, match="has no labels yet; use `vouch run` first"):
            command()


def test_gate_accepted(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    planned = campaigned.fitted().sampled()
    assert any(group.region is not None for group in planned.plan.groups)
    found = certify_campaign(campaigned.campaign)
    for group in found.groups:
        if group.p_correct is not None:
            assert group.certificate.delivered_precision >= group.certificate.accepted_precision


def test_images_that_left_are_told(campaigned, label):
    campaigned.fitted().sampled(minutes=3)
    key = campaigned.reviews.plans[-1][1]["key"][0].as_py()
    (campaigned.folder / "images" / key).unlink()
    label(campaigned.campaign)
    found = certify_campaign(campaigned.campaign)
    assert "labels have gone" in " ".join(found.remarks)
    assert plan_reviews(campaigned.campaign, ReviewRequest(stage="certify")).plan.round == 2


def test_a_damaged_calibrator_or_look_is_told(campaigned):
    campaigned.fitted().sampled()
    (info,) = campaigned.workspace.list("runs/main/calibrators/")
    kept = campaigned.workspace.get(info.key).data
    campaigned.workspace.put(info.key, kept.replace(b'"intercept":', b'"intercept": 1'))
    with pytest.raises(StoreError, match=r"is not the calibrator|is damaged"):
        certify_campaign(campaigned.campaign)
    campaigned.workspace.delete(info.key)
    with pytest.raises(StoreError, match="is missing; restore it"):
        certify_campaign(campaigned.campaign)
    campaigned.workspace.put(info.key, kept)
    certify_campaign(campaigned.campaign)
    last = max(info.key for info in campaigned.workspace.list("reviews/log/"))
    campaigned.workspace.put(last, b"{}")
    with pytest.raises(StoreError, match=f"{last} is damaged; restore it: without it nobody knows which answers"):
        certify_campaign(campaigned.campaign)


def test_verdicts_of_unknown_labels_change_nothing(campaigned):
    campaigned.fitted().sampled()
    write_verdicts(campaigned.workspace, campaigned.verdicts(["0" * 32, "f" * 32], ["bad_box", "correct"]))
    first = certify_campaign(campaigned.campaign)
    assert first.look == 1


def test_classes_that_were_not_sampled_are_a_group_that_accepts_nothing(campaigned):
    campaigned.fitted().sampled()
    certified = certify_campaign(campaigned.campaign)
    assert certified.not_sampled == ()
    reviews = campaigned.reviews
    accepted = replace(reviews.guarantee, gate="accepted")
    found = last_round(reviews.plans)
    of_round, (look,) = labels_of_round(reviews, found), read_tests(reviews.workspace, reviews.run)
    cats = found.certify.filter([name == "cat" for name in found.certify["class_name"].to_pylist()])
    wrong = reviews.answers.wrong_of(cats["label_id"]) != 0
    sample = Reviewed(np.asarray(cats["p_correct"].to_numpy(), np.float64), wrong, ("cat",) * len(wrong))
    judged = SampleTest(sample, found.plan.groups, of_round.candidates, accepted, 0.1).judge()
    assert not_sampled(judged) == ("dog",)
    assert [name for group in policy_groups(judged) for name in group.classes] == ["cat"]
    tested = RoundResult(0.1, judged, sample, Reviewers(), whole=True)
    policy = make_policy(reviews, found, of_round, look, tested, simulated=False)
    last = read_policy(reviews.workspace, policy.version, campaigned.campaign.classes).groups[-1]
    assert (last.classes, last.p_correct) == (("dog",), None)
    assert "no label of these classes was drawn" in last.certificate.refusal


@pytest.fixture
def estimates():
    """Of a group of cats, dogs and owls: 40 of 50 accepted cats are reviewed, 2 of 20 dogs below what is accepted."""
    scores = np.repeat([0.9, 0.9, 0.2, 0.9], [50, 5, 15, 30])
    candidates = Candidates(scores, np.repeat([0, 1, 2], [50, 20, 30]), ("cat", "dog", "owl"), np.ones(100, np.bool_))
    group = GroupPlan(name="animals", classes=("cat", "dog", "owl"), thresholds=(0.5,), region=0.5, power=0.9)
    reviewed = Reviewed(
        scores=np.repeat([0.9, 0.2, 0.9], [40, 2, 30]),
        wrong=np.arange(72) == 0,
        classes=("cat",) * 40 + ("dog",) * 2 + ("owl",) * 30,
    )
    judged = SampleTest(reviewed, (group,), candidates, Guarantee(0.8, 0.8, "accepted"), 0.2).judge()
    return {one.name: one for one in class_estimates(judged, reviewed, candidates)}


def test_a_class_of_which_nothing_accepted_was_reviewed_has_no_estimate(estimates) -> None:
    dog = estimates["dog"]
    assert (dog.accepted, dog.reviewed, dog.precision) == (5, 0, None)


def test_the_others_are_drawn_towards_their_group(estimates) -> None:
    cat, owl = estimates["cat"], estimates["owl"]
    assert (cat.reviewed, cat.errors, owl.reviewed, owl.errors) == (40, 1, 30, 0)
    assert 39 / 40 < owl.precision < 1
    assert 0.95 < cat.precision <= owl.precision


def test_second_readings_are_held_against_what_is_assumed(campaigned):
    campaigned.with_routing(precision=0.7, confidence=0.8, missed=0.05)
    campaigned.fitted().sampled()
    campaigned.answer(reviewer="bob", minutes=1)
    found = certify_campaign(campaigned.campaign)
    assert found.reviewers.assumed == 0.05
    assert "two people read" in found.remarks[0]
    assert "one of the two missed 0" in found.remarks[0]
    assert "if reviewers miss at most 5% of the wrong labels" in next(str(block) for block in found.blocks())
    # Of 300 more labels one calls all wrong, another all correct: one of the two misses every one.
    ids = campaigned.reviews.plans[0][1]["label_id"].to_pylist()
    for number in range(2):
        campaigned.more_images(60, start=200 + 100 * number)
    more = [one for one in campaigned.reviews.labels.label_ids.to_pylist() if one not in ids][-300:]
    for reviewer, word in (("dora", "not_an_object"), ("carl", "correct")):
        write_verdicts(
            campaigned.workspace, campaigned.verdicts(more, [word] * len(more), reviewer=reviewer, minutes=2)
        )
    with pytest.raises(
        UserError, match=r"two people read .* more than the 5% of routing\.missed, so nothing is certifi"
    ):
        certify_campaign(campaigned.campaign)
    campaigned.with_routing(precision=0.7, confidence=0.8)
    assert certify_campaign(campaigned.campaign).reviewers.assumed == 0


def test_known_labels_are_those_that_people_still_call_correct(campaigned):
    """Gate delivered counts labels that people kept before; a simulated reviewer's word is none of theirs."""
    campaigned.with_routing(gate="delivered", precision=0.8, confidence=0.8)
    plan_reviews(campaigned.campaign)
    campaigned.answer(simulated=True, reviewer="truth", wrong=False)
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=5))
    campaigned.answer()

    def known():
        reviews = campaigned.reviews
        found = last_round(reviews.plans)
        judged = judge_round(reviews, found, labels_of_round(reviews, found), 1).judged
        return sum(one.plan.known_correct for one in judged)

    declared = sum(group.known_correct for group in campaigned.reviews.plans[-1][0].groups)
    assert declared > 20
    assert known() == 0
    campaigned.answer(number=0, wrong=False, minutes=1)
    assert known() == declared
    campaigned.answer(number=0, wrong=True, part=0.5, minutes=2)
    assert 0 < known() < 0.6 * declared
