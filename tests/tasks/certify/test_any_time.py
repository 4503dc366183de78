"""A large sample is tested after any answer: the order drawn, the same test at each look, what a partial one covers."""

import itertools

import numpy as np
import pytest

from tests.fake_campaign import label
from vouch_labels.schemas.errors import NotCertifiedError, UserError
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.data import BLOCK
from vouch_labels.tasks.certify.judge import drawing_as_test
from vouch_labels.tasks.certify.live import drawn_sample
from vouch_labels.tasks.certify.monitor import expired_reason
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import last_round, newest_certified, read_tests
from vouch_labels.tasks.policy import read_policy
from vouch_labels.tasks.reviews.log import every_test
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.statistics.betting import FEWEST, PART
from vouch_labels.tasks.statistics.threshold_tests import delta_of_growth, delta_of_test


@pytest.fixture(params=["accepted", "delivered"])
def sampled(request, campaigned):
    """A campaign whose labels are nearly all right, with a sample drawn that is tested after any answer."""
    campaigned.with_routing(gate=request.param, precision=0.8, confidence=0.8)
    campaigned.wrong = lambda labels: np.array([int(one[:8], 16) % 50 == 0 for one in labels.label_ids.to_pylist()])
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    campaigned.answer()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=FEWEST * 1.6 / 60 + 0.5))
    assert planned.plan.any_time_delta > 0
    assert "each look at them is the same test" in " ".join(planned.words)
    return campaigned


def _round(campaigned):
    return last_round(campaigned.reviews.plans)


def test_the_order_is_one_of_the_labels_drawn_block_by_block(sampled):
    found = _round(sampled)
    asked = found.plans[0], found.certify["label_id"].to_pylist()
    order = found.in_order["label_id"].to_pylist()
    assert order != asked[1]
    for start in range(0, len(order), BLOCK):
        assert set(order[start : start + BLOCK]) == set(asked[1][start : start + BLOCK])
        names = found.certify["class_name"].to_pylist()[start : start + BLOCK]
        assert sum(one != other for one, other in itertools.pairwise(names)) == len(set(names)) - 1
    assert _round(sampled).in_order["label_id"].to_pylist() == order


def test_a_part_of_the_answers_certifies_and_more_of_them_are_the_same_test(sampled):
    sampled.answer(part=0.5)
    half = certify_campaign(sampled.campaign)
    assert half.version is not None
    assert "in the order drawn" in " ".join(half.remarks)
    (test,) = read_tests(sampled.workspace, "main")
    seen = _round(sampled).answered(sampled.reviews.answers)
    assert (test.answered, test.whole, test.began, test.look) == (seen, False, None, 1)
    assert half.delta == pytest.approx(delta_of_test(0.2, 1) * PART)
    assert half.covers[0].labels == sampled.reviews.plans[-1][0].population.labels
    assert certify_campaign(sampled.campaign) == half, "the same answers are the same test"
    sampled.answer(part=0.75)
    more = certify_campaign(sampled.campaign)
    sampled.answer()
    whole = certify_campaign(sampled.campaign)
    assert half.accepted <= more.accepted <= whole.accepted
    tests = read_tests(sampled.workspace, "main")
    assert [(one.look, one.began, one.whole, one.repeat) for one in tests] == [
        (1, None, False, 0),
        (1, 1, False, 1),
        (1, 1, True, 2),
    ]
    assert whole.delta == pytest.approx(delta_of_test(0.2, 1) * (1 - PART))
    assert certify_campaign(sampled.campaign) == whole


def test_a_changed_answer_is_another_test(sampled):
    sampled.answer(part=0.5)
    certify_campaign(sampled.campaign)
    first = _round(sampled).in_order["label_id"].to_pylist()[0]
    answers = sampled.reviews.answers
    was = answers.wrong_of(_round(sampled).in_order["label_id"][:1])[0]
    verdict = "not_an_object" if was == 0 else "correct"
    write_verdicts(sampled.workspace, sampled.verdicts([first], [verdict], minutes=30))
    certify_campaign(sampled.campaign)
    assert [(one.look, one.began) for one in read_tests(sampled.workspace, "main")] == [(1, None), (2, None)]


def test_the_exact_test_after_more_was_drawn_is_another_one_and_the_bets_go_on(sampled):
    sampled.answer()
    certify_campaign(sampled.campaign)
    planned = plan_reviews(sampled.campaign, ReviewRequest(stage="certify", minutes=1))
    assert planned.plan.any_time_delta > 0
    before = _round(sampled)
    assert before.in_order["label_id"].to_pylist()[: len(before.parts[0])] == (
        last_round(sampled.reviews.plans[:-1]).in_order["label_id"].to_pylist()
    )
    sampled.answer()
    certify_campaign(sampled.campaign)
    tests = read_tests(sampled.workspace, "main")
    assert [(one.look, one.began, one.whole) for one in tests] == [(1, None, True), (2, 1, True)]


def test_answers_that_can_certify_nothing_yet_spend_nothing(sampled):
    sampled.answer(part=0.01)
    with pytest.raises((NotCertifiedError, UserError), match=r"even if all of it were correct|answer"):
        certify_campaign(sampled.campaign)
    assert not read_tests(sampled.workspace, "main")


def test_what_is_accepted_after_a_part_can_be_applied_and_ends_with_its_answers(sampled):
    sampled.answer(part=0.5)
    found = certify_campaign(sampled.campaign)
    policy = read_policy(sampled.workspace, found.version, sampled.campaign.classes)
    assert {group.certificate.test for group in policy.groups if group.p_correct is not None} == {"any time"}
    assert policy.certification.answered == read_tests(sampled.workspace, "main")[0].answered
    apply_policy(sampled.campaign)
    assert int(sampled.reviews.labels.accepted.sum()) > 0
    # The rest of the answers, right or wrong, are no change of what it rests on.
    sampled.answer(wrong=True, again=False)
    assert expired_reason(sampled.workspace, "main", policy) is None
    sampled.answer(wrong=True, minutes=20)
    assert "were changed since" in expired_reason(sampled.workspace, "main", policy)


def test_with_honeypots_the_whole_sample_is_tested(campaigned):
    campaigned.fitted()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=30, honeypots=5))
    assert planned.plan.any_time_delta == 0
    campaigned.answer(part=0.9)
    with pytest.raises(UserError, match="a part of a sample certifies nothing"):
        certify_campaign(campaigned.campaign)


def test_where_classes_may_be_left_out_of_accepted_labels_the_whole_sample_is_tested(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.8, confidence=0.8, unsampled="review")
    campaigned.fitted()
    assert plan_reviews(campaigned.campaign).plan.any_time_delta == 0


def test_looks_of_one_run_are_not_gone_on_with_by_the_sample_of_another(sampled):
    """All answers are right and plans of runs are numbered alike, so that the looks differ in their run alone."""
    first, routing = sampled.campaign, sampled.campaign.routing.model_dump(mode="json")
    other = sampled.load(routing=routing, run={"name": "other", "shard_size": 50, "retry_delay_s": 0})
    label(other)
    sampled.campaign = other
    plan_reviews(other, ReviewRequest(minutes=2))
    sampled.answer(wrong=False)
    plan_reviews(other, ReviewRequest(minutes=FEWEST * 1.6 / 60 + 0.5))
    sampled.campaign = first
    sampled.answer(wrong=False, part=0.4)
    certify_campaign(first)
    sampled.campaign = other
    sampled.answer(wrong=False)
    taken = max(one.look for one in every_test(sampled.workspace))
    # Drawing on in the first run is a test of the other's sample, which has not been looked at.
    plan_reviews(first, ReviewRequest(stage="certify", minutes=3, fresh=True))
    (test,) = [one for one in every_test(sampled.workspace) if one.run == "other"]
    assert (test.plans, test.began) == ((2,), None)
    assert test.look > taken
    assert certify_campaign(other).look == test.look


def test_the_same_answers_asked_of_sampled_classes_alone_are_another_test(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.8, confidence=0.8)
    campaigned.fitted(wrong=False)
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=5))
    campaigned.answer(wrong=False)
    assert certify_campaign(campaigned.campaign).look == 1
    campaigned.with_routing(gate="accepted", precision=0.8, confidence=0.8, unsampled="review")
    assert drawing_as_test(campaigned.reviews) == (), "drawing on after a test of just these answers is none"
    assert certify_campaign(campaigned.campaign).look == 2


def test_a_part_that_certifies_nothing_yet_says_what_to_answer_and_a_changed_answer_that_it_is_another_test(sampled):
    sampled.answer(part=0.02)
    with pytest.raises((NotCertifiedError, UserError), match="answer more of the"):
        certify_campaign(sampled.campaign)
    sampled.answer(part=0.5)
    certify_campaign(sampled.campaign)
    first = _round(sampled).in_order["label_id"].to_pylist()[:1]
    write_verdicts(sampled.workspace, sampled.verdicts(first, ["not_an_object"], reviewer="bob", minutes=30))
    again = certify_campaign(sampled.campaign)
    assert again.look == 2
    assert "were changed since, by a second reading" in " ".join(again.remarks)
    assert again.unanswered == _round(sampled).unanswered(sampled.reviews.answers) > 0


def test_a_dispute_that_is_settled_as_wrong_changes_nothing_that_was_tested(sampled):
    sampled.answer(part=0.5)
    first = _round(sampled).in_order["label_id"].to_pylist()[:1]
    write_verdicts(sampled.workspace, sampled.verdicts(first, ["correct"], reviewer="ann", minutes=30))
    write_verdicts(sampled.workspace, sampled.verdicts(first, ["not_an_object"], reviewer="bob", minutes=30))
    certify_campaign(sampled.campaign)
    write_verdicts(sampled.workspace, sampled.verdicts(first, ["not_an_object"], reviewer="cleo", minutes=31))
    assert certify_campaign(sampled.campaign).look == 1


def test_looks_share_what_extends_the_certificate_and_together_have_no_more(sampled):
    deltas = []
    for part in (0.4, 0.6, 0.8, 1):
        sampled.answer(part=part)
        found = certify_campaign(sampled.campaign)
        policy = read_policy(sampled.workspace, found.version, sampled.campaign.classes)
        deltas.append(policy.certification.extension_delta / delta_of_growth(0.2, 1))
    assert deltas == pytest.approx([1 / 2, 1 / 6, 1 / 12, 1 / 20])


def test_the_figure_while_people_review_is_of_the_test_that_would_be_made(sampled):
    def drawn(**asked):
        sampled.with_routing(**{"gate": routing.gate, "precision": 0.8, "confidence": 0.8} | asked)
        reviews = sampled.reviews
        return drawn_sample(sampled.workspace, reviews.plans, reviews.answers, reviews.guarantee)

    routing, other = (
        sampled.campaign.routing,
        "accepted" if sampled.campaign.routing.gate == "delivered" else "delivered",
    )
    level = delta_of_test(0.2, 1) * PART
    assert drawn().plan.any_time_delta == pytest.approx(level)
    assert drawn(confidence=0.9).plan.any_time_delta == pytest.approx(level / 2)
    assert drawn(precision=0.9).plan.precision == pytest.approx(0.9)
    assert drawn(gate=other) is None
    sampled.answer(part=0.5)
    drawn()
    certify_campaign(sampled.campaign)
    assert drawn().plan.any_time_delta == pytest.approx(level)
    assert drawn(precision=0.9).plan.any_time_delta == pytest.approx(delta_of_test(0.2, 2) * PART)
    first = _round(sampled).in_order["label_id"].to_pylist()[:1]
    write_verdicts(sampled.workspace, sampled.verdicts(first, ["not_an_object"], reviewer="bob", minutes=30))
    assert drawn().plan.any_time_delta == pytest.approx(delta_of_test(0.2, 2) * PART)


def test_the_policy_to_apply_is_the_newest_of_the_looks(sampled):
    versions = []
    for part in (0.3, 0.5, 0.7, 1):
        sampled.answer(part=part)
        versions.append(certify_campaign(sampled.campaign).version)
    with pytest.raises(UserError, match=f"policy {versions[-1]} is certified and not active"):
        plan_reviews(sampled.campaign)
    assert newest_certified(sampled.campaign, sampled.workspace, sampled.reviews.current).version == versions[-1]
