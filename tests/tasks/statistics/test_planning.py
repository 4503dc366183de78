import numpy as np
import pytest
from scipy import stats

from vouch_labels.tasks.statistics.bounds import ReviewerError, labels_needed, most_errors, upper_bound
from vouch_labels.tasks.statistics.planning import (
    FitLabels,
    both_precisions,
    certify,
    fewest_labels,
    plan_gate_a,
    predicted_shares,
    reviews_needed,
)
from vouch_labels.tasks.statistics.sampling import certification_sample
from vouch_labels.tasks.statistics.threshold_tests import (
    NEXT_TEST,
    DeliveredTest,
    Population,
    Sample,
    accepted_counts,
    binomial_gate_b,
    certified_step,
    delta_of_test,
    gate_a,
    gate_b,
    threshold_grid,
)

DELTA = 0.1


def batch(seed, count=10_000):
    """Scores that are calibrated: the share of wrong labels at p is 1 - p."""
    rng = np.random.default_rng([21, seed])
    scores = rng.beta(4, 1, count)
    return scores, rng.random(count) > scores


def fit_labels(scores, wrong, seed, count=400):
    rows = np.random.default_rng([22, seed]).permutation(len(scores))[:count]
    return FitLabels(scores[rows], wrong[rows], np.ones(count))


def test_predicted_shares_hold_the_true_one():
    scores, wrong = batch(0)
    steps = threshold_grid(scores)
    shares = predicted_shares(scores, steps, fit_labels(scores, wrong, 0))
    true = np.array([wrong[scores >= step].mean() for step in steps])
    assert (shares[0] <= true)[5:].all()
    assert (true <= shares[-1])[5:].all()


def test_a_plan_passes_about_as_often_as_it_says():
    certified, powers, automated, strict = [], [], [], []
    for seed in range(60):
        scores, wrong = batch(seed)
        plan = plan_gate_a(scores, fit_labels(scores, wrong, seed), 600, 0.95, DELTA)
        assert plan.power >= 0.8
        rows = certification_sample(scores >= plan.region, 600, seed).rows
        drawn = Sample(scores[rows], wrong[rows])
        found = gate_a(drawn, plan.thresholds, accepted_counts(scores, plan.thresholds), 0.95, DELTA)
        step = certified_step(found)
        certified.append(step is not None)
        powers.append(plan.power)
        automated.append(0 if step is None else (scores >= plan.thresholds[step]).mean())
        # The same reviews without a plan: drawn from all labels, the threshold grid from its strictest end.
        rows = certification_sample(np.ones(len(scores), np.bool_), 600, seed).rows
        steps = threshold_grid(scores)
        found = gate_a(Sample(scores[rows], wrong[rows]), steps, accepted_counts(scores, steps), 0.95, DELTA)
        step = certified_step(found)
        strict.append(0 if step is None else (scores >= steps[step]).mean())
    assert np.mean(certified) == pytest.approx(np.mean(powers), abs=0.1)
    assert np.mean(automated) > 2 * np.mean(strict)


def test_where_nothing_can_pass_the_plan_is_empty():
    scores, wrong = batch(1)
    plan = plan_gate_a(scores, fit_labels(scores, wrong, 1), 30, 0.95, DELTA)
    assert not len(plan.thresholds)
    assert plan.power < 0.8
    assert plan.region == np.inf
    assert not len(plan_gate_a(np.full(9, np.nan), fit_labels(scores, wrong, 1), 600, 0.95, DELTA).thresholds)


def test_constant_scores_have_one_threshold():
    fit = FitLabels(np.full(100, 0.99), np.zeros(100, np.bool_), np.ones(100))
    assert plan_gate_a(np.full(5000, 0.99), fit, 300, 0.95, DELTA).thresholds.tolist() == [0.99]


@pytest.mark.parametrize(("error", "limit"), [(0.0, 0.05), (0.02, 0.05), (0.04, 0.05), (0.005, 0.01)])
def test_reviews_needed_have_the_power(error, limit):
    count = reviews_needed(error, limit, DELTA)
    assert stats.binom.cdf(most_errors(count, limit, DELTA), count, error) >= 0.8
    fewer = int(count * 0.9)
    assert stats.binom.cdf(most_errors(fewer, limit, DELTA), fewer, error) < 0.85


def test_no_number_of_reviews_helps_where_too_many_are_wrong():
    assert reviews_needed(0.05, 0.05, DELTA) is None
    assert reviews_needed(0.3, 0.05, DELTA) is None
    assert reviews_needed(0.01 - 1e-9, 0.01, DELTA) is None


def certificate(errors, reviewed, gate=binomial_gate_b, delta=DELTA, **more):
    wrong = np.arange(reviewed) < errors
    drawn = Sample(np.full(reviewed, 0.9), wrong)
    sizes = {"accepted": np.array([10_000])} if gate is gate_a else {}
    evidence = gate(drawn, np.array([0.9]), precision=0.95, delta=delta, **sizes, **more)
    return certify(evidence, reviewed)


@pytest.mark.parametrize("gate", [gate_a, binomial_gate_b])
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
    found = certificate(3, 100, delta=delta_of_test(0.1, 1))
    rng = np.random.default_rng(0)
    share = 3.5 / 101
    count = 100 + found.more_reviews
    again = [certificate(int(rng.binomial(count, share)), count, delta=delta_of_test(0.1, 2)) for _ in range(300)]
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


def delivered(drawn, errors, routed, labels=2000, missed=0.0, delta=DELTA):
    """One threshold under the exact test of gate B."""
    scores = np.where(np.arange(drawn) < drawn - routed, 0.9, 0.1)
    wrong = (np.arange(drawn) < errors) | (scores < 0.5)
    return certify(gate_b(Sample(scores, wrong), np.array([0.5]), 0.95, delta, Population(labels), missed), drawn)


@pytest.mark.parametrize("missed", [0.0, 0.03])
def test_how_many_more_reviews_of_a_fixed_population_mostly_suffice(missed):
    found = delivered(100, 3, 20, missed=missed)
    assert found.threshold is None
    assert "3 of 80 reviewed labels are wrong" in found.refusal
    assert f"review about {found.more_reviews:,} more" in found.refusal
    rng = np.random.default_rng(0)
    passed = []
    for _ in range(200):
        wrong, routed, _ = rng.multinomial(found.more_reviews, [3.5 / 101, 20 / 101, 1 - 23.5 / 101])
        again = delivered(100 + found.more_reviews, 3 + wrong, 20 + routed, missed=missed, delta=DELTA * NEXT_TEST)
        passed.append(again.threshold is not None)
    assert np.mean(passed) == pytest.approx(0.8, abs=0.1)


def test_a_population_that_is_reviewed_as_a_whole_certifies_unless_too_much_is_missed():
    found = delivered(100, 60, 20, labels=300)
    assert 0 < found.more_reviews <= 200
    missing = delivered(100, 60, 20, labels=300, missed=0.2)
    assert missing.more_reviews is None
    assert "reviewers may miss" in missing.refusal


def test_nothing_reviewed_and_nothing_to_test():
    assert certificate(0, 0).threshold is None
    assert certificate(0, 0).more_reviews > 40
    empty = binomial_gate_b(Sample(np.zeros(0), np.zeros(0, np.bool_)), np.zeros(0), 0.95, DELTA)
    assert certify(empty, 0).refusal == "there is no threshold to test"


def test_both_precisions():
    drawn = Sample(np.array([0.9, 0.9, 0.9, 0.2, 0.2]), np.array([False, False, True, True, False]))
    found = both_precisions(drawn, 0.5, DELTA)
    assert found.accepted == pytest.approx(2 / 3)
    assert found.delivered == pytest.approx(3 / 4)
    assert found.accepted_at_least < found.accepted
    nothing = both_precisions(drawn, None, DELTA)
    assert np.isnan(nothing.accepted)
    assert (nothing.accepted_at_least, nothing.delivered) == (0, 1)


def test_a_sample_without_an_error_is_not_told_that_many_are_wrong():
    sample = Sample(np.full(100, 0.9), np.zeros(100, np.bool_))
    found = certify(gate_b(sample, np.array([0.9]), 0.999, 0.1, Population(500), 0.49), 100)
    assert found.refusal == (
        "0 of 100 reviewed labels are wrong at the strictest threshold; more reviews will not help while reviewers may "
        "miss so many"
    )


@pytest.mark.parametrize("gate", ["accepted", "delivered"])
@pytest.mark.parametrize("missed", [0.0, 0.05])
@pytest.mark.parametrize("labels", [120, 5_000])
def test_the_fewest_labels_are_those_with_which_the_exact_test_first_passes(gate, missed, labels):
    population = Population(labels, 40, 10)
    few = fewest_labels(gate, population, 0.95, DELTA, missed)
    assert few is not None
    for count, passes in ((few, True), (few - 1, False)):
        if gate == "delivered":
            p = DeliveredTest(population, count, 0.95, missed).p(0, count)
        else:
            # More than 5% of all are wrong, of which reviewers see all but what they miss.
            wrong = int(np.floor(0.05 * (1 - missed) * labels + 1e-9)) + 1
            p = stats.hypergeom.cdf(0, labels, wrong, count)
        assert (p <= DELTA) == passes
    if gate == "accepted":
        # Fewer than of a population without end.
        assert few <= labels_needed(0, 0.05 * (1 - missed), DELTA)
