import numpy as np
import pytest

from tasks.certify.bounds import upper_bound
from tasks.certify.certificate import both_precisions, certify
from tasks.certify.gates import Sample, gate_a, gate_b
from tasks.certify.groups import delta_of_look
from tasks.certify.reviewers import ReviewerError

DELTA = 0.1


def certificate(errors, reviewed, gate=gate_b, delta=DELTA, **more):
    wrong = np.arange(reviewed) < errors
    drawn = Sample(np.full(reviewed, 0.9), wrong)
    sizes = {"accepted": np.array([10_000])} if gate is gate_a else {}
    evidence = gate(drawn, np.array([0.9]), precision=0.95, delta=delta, **sizes, **more)
    return certify(evidence, reviewed)


@pytest.mark.parametrize("gate", [gate_a, gate_b])
def test_enough_reviews_certify(gate):
    found = certificate(2, 105, gate)
    assert (found.threshold, found.reviewed, found.errors) == (0.9, 105, 2)
    assert found.bound == pytest.approx(float(upper_bound(2, 105, DELTA)), rel=0.01)
    assert found.bound <= 0.05
    assert found.p_value <= DELTA
    assert found.refusal == ""
    assert found.more_reviews is None
    assert found.tested.tolist() == [0.9]


def test_too_few_are_refused_with_how_many_more():
    found = certificate(0, 30)
    assert found.threshold is None
    assert found.more_reviews > 15
    assert found.refusal == (
        "0 of 30 reviewed labels are wrong at the strictest threshold, and so few certify nothing even without an "
        f"error; review about {found.more_reviews} more"
    )


def test_a_few_errors_too_many_may_be_chance():
    found = certificate(3, 50)
    assert found.more_reviews > 0
    assert found.refusal.endswith("more, enough if half as many are wrong as may be")


def test_what_is_missing_then_mostly_suffices_for_the_next_look():
    found = certificate(3, 100, delta=delta_of_look(0.1, 1))
    rng = np.random.default_rng(0)
    share = 3.5 / 101
    count = 100 + found.more_reviews
    again = [certificate(int(rng.binomial(count, share)), count, delta=delta_of_look(0.1, 2)) for _ in range(300)]
    assert np.mean([one.threshold is not None for one in again]) == pytest.approx(0.8, abs=0.08)


def test_labels_outside_the_set_are_reviewed_too():
    wrong = np.zeros(60, np.bool_)
    inside = gate_a(Sample(np.full(60, 0.9), wrong), np.array([0.9]), np.array([900]), 0.98, DELTA)
    half = np.where(np.arange(120) < 60, 0.9, 0.1)
    mixed = gate_a(Sample(half, np.zeros(120, np.bool_)), np.array([0.9]), np.array([900]), 0.98, DELTA)
    assert certify(mixed, 120).more_reviews == pytest.approx(2 * certify(inside, 60).more_reviews, abs=2)


def test_where_too_many_are_wrong_more_reviews_do_not_help():
    found = certificate(30, 100)
    assert found.threshold is None
    assert found.more_reviews is None
    assert "30 of 100 reviewed labels are wrong" in found.refusal
    assert "more reviews will not help" in found.refusal


def test_reviewers_who_miss_too_much_are_named():
    found = certificate(0, 3000, reviewers=ReviewerError(0.2, 1.0, 0.02))
    assert "reviewers may miss" in found.refusal


def test_nothing_reviewed_and_nothing_to_test():
    assert certificate(0, 0).threshold is None
    assert certificate(0, 0).more_reviews > 40
    empty = gate_b(Sample(np.zeros(0), np.zeros(0, np.bool_)), np.zeros(0), 0.95, DELTA)
    assert certify(empty, 0).refusal == "there is no threshold to test"


def test_both_precisions():
    drawn = Sample(np.array([0.9, 0.9, 0.9, 0.2, 0.2]), np.array([False, False, True, True, False]))
    found = both_precisions(drawn, 0.5, DELTA)
    assert found.accepted == pytest.approx(2 / 3)
    assert found.delivered == pytest.approx(3 / 4)
    assert found.automated == pytest.approx(3 / 5)
    assert found.accepted_at_least < found.accepted
    nothing = both_precisions(drawn, None, DELTA)
    assert np.isnan(nothing.accepted)
    assert (nothing.accepted_at_least, nothing.delivered, nothing.automated) == (0, 1, 0)
