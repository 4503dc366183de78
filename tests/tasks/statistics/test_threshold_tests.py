import itertools

import numpy as np
import pytest
import scipy
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.tasks.statistics import threshold_tests
from vouch_labels.tasks.statistics.bounds import (
    TRUSTED,
    ReviewerError,
    binomial_p,
    hypergeometric_p,
    labels_needed,
    reviewer_error,
)
from vouch_labels.tasks.statistics.sampling import certification_sample
from vouch_labels.tasks.statistics.threshold_tests import (
    SPARE_ERRORS,
    Evidence,
    Population,
    Sample,
    accepted_counts,
    binomial_gate_b,
    certified_groups,
    certified_step,
    delta_of_growth,
    delta_of_test,
    gate_a,
    gate_b,
    threshold_grid,
)

DELTA = 0.1


def sample(scores, wrong):
    return Sample(np.array(scores, np.float64), np.array(wrong, np.bool_))


def test_gate_a_counts_what_is_at_or_above():
    drawn = sample([0.9, 0.8, 0.8, 0.7, np.nan], [0, 1, 0, 1, 1])
    evidence = gate_a(drawn, np.array([0.95, 0.8, 0.7]), np.array([3, 30, 50]), 0.95, DELTA)
    assert evidence.reviewed.tolist() == [0, 3, 4]
    assert evidence.errors.tolist() == [0, 1, 2]
    assert evidence.p_values.tolist() == pytest.approx(
        [1.0, float(hypergeometric_p(1, 3, 30, 0.05)), float(hypergeometric_p(2, 4, 50, 0.05))]
    )


def test_binomial_gate_b_drops_what_people_mend():
    drawn = sample([0.9, 0.8, 0.7, 0.6, np.nan], [0, 1, 1, 0, 1])
    evidence = binomial_gate_b(drawn, np.array([0.95, 0.8, 0.5]), 0.95, DELTA)
    assert evidence.reviewed.tolist() == [2, 3, 4]
    assert evidence.errors.tolist() == [0, 1, 2]
    assert evidence.p_values == pytest.approx(binomial_p([0, 1, 2], [2, 3, 4], 0.05))


def test_a_score_that_is_missing_is_counted_nowhere():
    assert accepted_counts(np.array([np.nan, 0.2, 0.4]), np.array([0.4, 0.2, -1.0])).tolist() == [1, 2, 2]


def population(rng, count=3000, precision=0.95, top=0.3):
    """Scores that are worthless above `top` of the labels: there the share of wrong ones is just above 1 - T."""
    scores = np.round(rng.random(count), 3)
    wrong = rng.random(count) < 0.5
    high = np.flatnonzero(scores >= 1 - top)
    bad = int(np.floor((1 - precision) * len(high) + 1e-9)) + 1
    wrong[high] = False
    wrong[rng.permutation(high)[:bad]] = True
    return scores, wrong


def test_at_the_boundary_gate_a_certifies_a_broken_guarantee_with_chance_delta_at_most():
    rng = np.random.default_rng(1)
    scores, wrong = population(rng)
    steps = np.array([0.7])
    accepted = accepted_counts(scores, steps)
    passed = 0
    for seed in range(3000):
        rows = certification_sample(scores >= 0.7, 300, seed).rows
        evidence = gate_a(Sample(scores[rows], wrong[rows]), steps, accepted, 0.95, DELTA)
        passed += certified_step(evidence) is not None
    assert 0.03 < passed / 3000 <= DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / 3000)


def test_at_the_boundary_binomial_gate_b_certifies_a_broken_guarantee_with_chance_delta_at_most():
    rng = np.random.default_rng(2)
    scores = rng.random(4000)
    wrong = rng.random(4000) < 0.4
    accepted = scores >= 0.5
    delivered = accepted | ~wrong
    # Errors are moved until the delivered set is wrong by a hair.
    spare = np.flatnonzero(accepted & wrong)
    wrong[spare[int(0.05 * delivered.sum()) + 1 :]] = False
    assert (accepted & wrong).sum() > 0.05 * (accepted | ~wrong).sum()
    passed = 0
    for seed in range(3000):
        rows = certification_sample(np.ones(4000, np.bool_), 500, seed).rows
        evidence = binomial_gate_b(Sample(scores[rows], wrong[rows]), np.array([0.5]), 0.95, DELTA)
        passed += certified_step(evidence) is not None
    assert 0.03 < passed / 3000 <= DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / 3000)


def test_ties_are_accepted_together():
    scores = np.array([0.9] * 50 + [0.4] * 50)
    steps = threshold_grid(scores)
    assert steps.tolist() == [0.9, 0.4]
    assert accepted_counts(scores, steps).tolist() == [50, 100]


def reviewed_by_tired_people(seed, eta, corrected):
    """A sample that a reviewer looks at who misses a share of the wrong labels; the guarantee is just broken."""
    rng = np.random.default_rng([5, seed])
    wrong = rng.random(400) < 0.0505
    seen = wrong & (rng.random(400) >= eta)
    missed = int(rng.binomial(200, eta))
    reviewers = reviewer_error(200, missed, DELTA) if corrected else TRUSTED
    evidence = gate_a(sample(np.ones(400), seen), np.array([0.5]), np.array([10**6]), 0.95, DELTA, reviewers)
    return certified_step(evidence) is not None


@pytest.mark.parametrize(("corrected", "low", "high"), [(False, 0.15, 1.0), (True, 0.0, 0.11)])
def test_reviewers_who_miss_errors_break_the_guarantee_unless_they_are_corrected(corrected, low, high):
    rate = np.mean([reviewed_by_tired_people(seed, 0.16, corrected) for seed in range(1000)])
    assert low <= rate <= high


def test_binomial_gate_b_counts_what_reviewers_leave_in_the_routed_part():
    drawn = sample([0.9] * 500 + [0.1] * 200, [0] * 500 + [1] * 150 + [0] * 50)
    steps = np.array([0.5])
    sharp = binomial_gate_b(drawn, steps, 0.95, DELTA)
    careless = binomial_gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.10, 0.02))
    worthless = binomial_gate_b(drawn, steps, 0.95, DELTA, ReviewerError(0.0, 0.30, 0.02))
    assert sharp.limits[0] == pytest.approx(0.05)
    assert 0.05 - 0.11 * 200 / 550 < careless.limits[0] < 0.05 - 0.11 * 150 / 550
    assert worthless.limits[0] == 0
    assert worthless.p_values[0] == 1
    assert careless.delta == pytest.approx((DELTA - 0.02) / 2)


def test_no_plants_certify_nothing():
    unknown = reviewer_error(0, 0, DELTA)
    assert unknown.accepted == unknown.routed == 1
    drawn = sample(np.ones(1000), np.zeros(1000))
    assert certified_step(gate_a(drawn, np.array([0.5]), np.array([1000]), 0.95, DELTA, unknown)) is None
    assert certified_step(binomial_gate_b(drawn, np.array([0.5]), 0.95, DELTA, unknown)) is None


def test_plants_on_both_sides_have_bounds_of_their_own():
    both = reviewer_error(100, 10, DELTA, 100, 1)
    assert 0.10 < both.accepted < 0.25
    assert 0.01 < both.routed < 0.10
    assert both.spent == pytest.approx(0.02)


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9, np.nan]), max_size=50), st.integers(1, 20))
def test_a_ladder_descends_over_values_that_are_there(scores, steps):
    scores = np.array(scores, np.float64)
    found = threshold_grid(scores, steps)
    known = scores[np.isfinite(scores)]
    assert (np.diff(found) < 0).all()
    assert np.isin(found, known).all()
    assert len(found) <= steps
    assert bool(len(found)) == bool(len(known))
    assert not len(found) or found[-1] == known.min()


def test_steps_are_equally_many_labels_apart():
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert np.diff(accepted_counts(scores, threshold_grid(scores, 10)), prepend=0).tolist() == [100] * 10


def evidence(p_values):
    zeros = np.zeros(len(p_values), np.int64)
    values = np.linspace(1, 0, len(p_values))
    return Evidence(values, zeros, zeros, values, np.array(p_values), DELTA)


def test_the_first_failure_ends_the_sequence():
    assert certified_step(evidence([0.01, 0.1, 0.2, 0.01])) == 1
    assert certified_step(evidence([0.2, 0.01])) is None
    assert certified_step(evidence([0.05, 0.05])) == 1
    assert certified_step(evidence([])) is None
    assert certified_step(evidence([0.05, np.nan, 0.01])) == 0


def never_enough(seed):
    """Fifty nested sets, wrong a little more often than the guarantee allows, and a sample of all."""
    rng = np.random.default_rng([11, seed])
    scores = rng.random(20_000)
    wrong = rng.random(20_000) < 0.0525
    steps = threshold_grid(scores, 50)
    rows = certification_sample(np.ones(20_000, np.bool_), 2000, seed).rows
    drawn = Sample(scores[rows], wrong[rows])
    return gate_a(drawn, steps, accepted_counts(scores, steps), 0.95, DELTA), scores, wrong


def broken(threshold, scores, wrong):
    return wrong[scores >= threshold].mean() > 0.05


def test_order_keeps_the_guarantee_and_picking_afterwards_does_not():
    """The same tests: in order, any that passes, and the naive choice by the share of errors that was seen."""
    ordered = anywhere = naive = 0
    draws = 300
    for seed in range(draws):
        found, scores, wrong = never_enough(seed)
        step = certified_step(found)
        ordered += step is not None and broken(found.thresholds[step], scores, wrong)
        passing = np.flatnonzero(found.p_values <= DELTA)
        anywhere += len(passing) > 0 and broken(found.thresholds[passing[-1]], scores, wrong)
        seen = np.flatnonzero((found.reviewed > 0) & (found.errors <= 0.05 * found.reviewed))
        naive += len(seen) > 0 and broken(found.thresholds[seen[-1]], scores, wrong)
    limit = DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / draws)
    assert ordered / draws <= limit
    assert anywhere / draws > limit
    assert naive / draws > 0.4


def test_looking_again_after_a_refusal_breaks_the_guarantee_unless_delta_is_spent():
    """One threshold, just broken; reviews are added until it passes or ten looks are over."""

    rng = np.random.default_rng(4)
    errors = np.cumsum(rng.binomial(100, 0.0501, (2000, 10)), axis=1)
    reviewed = 100 * np.arange(1, 11)
    p_values = binomial_p(errors, reviewed, 0.05)
    spent = np.array([delta_of_test(DELTA, look) for look in range(1, 11)])
    assert (p_values <= DELTA).any(axis=1).mean() > 0.15
    assert (p_values <= spent).any(axis=1).mean() <= DELTA + 2 * np.sqrt(0.09 / 2000)
    assert spent.sum() <= DELTA


LABELS = np.array([4000, 9000, 300, 2000, 0, 50])


def test_frequent_classes_stand_alone_and_rare_ones_are_pooled():
    groups = certified_groups(LABELS, 2400, 0.95, 0.1)
    assert [group.tolist() for group in groups] == [[1], [0], [3, 2, 5, 4]]


@pytest.mark.parametrize("reviews", [0, 100, 600, 2400, 50_000])
def test_every_class_is_in_one_group_and_groups_get_enough(reviews):
    groups = certified_groups(LABELS, reviews, 0.95, 0.1)
    assert sorted(np.concatenate(groups)) == list(range(len(LABELS)))
    if len(groups) > 1:
        least = labels_needed(SPARE_ERRORS, 0.05, 0.1 / len(groups))
        assert min(LABELS[group].sum() for group in groups) * reviews / LABELS.sum() >= least


def test_without_labels_there_is_one_group():
    assert len(certified_groups(np.zeros(3, np.int64), 500, 0.95, 0.1)) == 1


def test_looks_spend_delta_and_no_more():
    spent = [delta_of_test(0.1, look) for look in range(1, 50)]
    grown = [delta_of_growth(0.1, look) for look in range(1, 50)]
    assert spent[0] == pytest.approx(0.08)
    assert grown[0] == pytest.approx(0.01)
    assert sum(spent[1:]) + sum(grown[1:]) == pytest.approx(0.01)
    assert 0.1 * (1 - 1e-12) <= sum(spent) + sum(grown) <= 0.1 * (1 + 1e-12)


@pytest.mark.parametrize("looks", range(1, 10))
def test_tests_of_earlier_versions_left_enough_for_later_ones(looks):
    before = sum(0.1 * 0.8 * 0.2 ** (look - 1) for look in range(1, looks + 1))
    later = sum(delta_of_test(0.1, look) + delta_of_growth(0.1, look) for look in range(looks + 1, 60))
    assert before + later <= 0.1


def delivered_test(labels, drawn, precision, known_correct=0, known_wrong=0, missed=0.0):
    return threshold_tests.DeliveredTest(Population(labels, known_correct, known_wrong), drawn, precision, missed)


def unseen_that_break(labels, correct, precision, known_correct=0, known_wrong=0, missed=0.0):
    """The least u that breaks the guarantee, counted."""
    slipped = missed / (1 - missed) * (labels - correct + known_wrong)
    return next(
        unseen
        for unseen in itertools.count()
        if unseen + slipped > (1 - precision) * (unseen + correct + known_correct) + 1e-9
    )


SMALL = [
    (9, 4, 0.7, 0, 0, 0.0),
    (10, 5, 0.6, 3, 0, 0.0),
    (10, 7, 0.8, 2, 1, 0.0),
    (9, 5, 0.6, 4, 2, 0.1),
    (8, 6, 0.5, 0, 3, 0.3),
    (12, 8, 0.7, 0, 0, 0.0),
]


@pytest.mark.parametrize("design", SMALL)
def test_over_every_sample_and_every_grid_gate_b_certifies_what_is_broken_with_chance_delta_at_most(design):
    """Each threshold adds one label, or any number; all samples are drawn, for every count of correct labels."""
    labels, drawn, precision, *rest = design
    samples = list(itertools.combinations(range(labels), drawn))
    delta, found = 0.3, []
    test = delivered_test(*design)
    critical = threshold_tests._rule(test, delta)[1]
    for correct in range(labels + 1):
        wrong = np.arange(labels) < labels - correct
        scores = 1 - np.arange(labels) / 20
        least = unseen_that_break(labels, correct, precision, *rest)
        steps, passes = [], []
        for rows in samples:
            drawn_rows = np.array(rows)
            evidence = gate_b(
                Sample(scores[drawn_rows], wrong[drawn_rows]),
                scores,
                precision,
                delta,
                Population(labels, *rest[:2]),
                rest[2],
            )
            unseen = np.cumsum(wrong & ~np.isin(np.arange(labels), rows))
            steps.append(unseen >= least)
            passes.append(evidence.p_values <= evidence.delta)
        broken, passing = np.array(steps), np.array(passes)
        finest = np.mean([(b & np.logical_and.accumulate(p)).any() for b, p in zip(broken, passing, strict=True)])
        assert finest <= delta + 1e-9
        assert finest == pytest.approx(threshold_tests._chance(test, critical, correct, correct))
        for kept in itertools.product([False, True], repeat=min(labels - correct, 6)):
            grid = np.flatnonzero([*kept, *[True] * (labels - len(kept))])
            certified = np.logical_and.accumulate(passing[:, grid], axis=1)
            assert (certified & broken[:, grid]).any(axis=1).mean() <= finest + 1e-9
        found.append(finest)
    assert max(found) > 0.05


DESIGNS = [
    (450, 100, 0.95, 40, 0, 0.0),
    (450, 300, 0.95, 40, 20, 0.0),
    (300, 200, 0.9, 0, 0, 0.0),
    (450, 150, 0.95, 40, 20, 0.05),
    (300, 250, 0.8, 10, 100, 0.1),
    (200, 60, 0.98, 0, 0, 0.01),
]


def chances(design, critical):
    """Chance that a broken threshold is certified for every G, from the formula as it is written."""
    labels, drawn, precision, *rest = design
    found = []
    for correct in range(labels + 1):
        least, wrong = unseen_that_break(labels, correct, precision, *rest), labels - correct
        kept = np.arange(max(0, drawn - wrong), min(drawn, correct) + 1)
        most = np.minimum(critical[kept], wrong - least)
        inside = scipy.stats.hypergeom.cdf(most, wrong, np.clip(least + most, 0, wrong), drawn - kept)
        share = scipy.stats.hypergeom.pmf(kept, labels, correct, drawn)
        found.append(float(share @ np.where(most >= 0, inside, 0.0)))
    return np.array(found)


@pytest.mark.parametrize("design", DESIGNS)
def test_branch_and_bound_finds_what_trying_every_count_finds(design):
    test = delivered_test(*design)
    for level in [0.02, 0.1, 0.3]:
        critical = threshold_tests._critical(test, level)
        exact = chances(design, critical).max()
        assert threshold_tests._worst(test, critical, exact * 0.9) >= exact * 0.9
        assert threshold_tests._worst(test, critical, exact * 1.02 + 1e-5) <= exact * 1.02 + 1e-5
        # With nothing to compare it with, the bound is as tight as it is asked to be.
        assert exact - 1e-9 <= threshold_tests._worst(test, critical, exact) <= exact * 1.02 + 1e-5


def test_the_level_is_lowered_where_delta_would_not_hold():
    lowered = 0
    for labels, drawn in itertools.product([30, 60, 100, 300], [0.3, 0.6, 0.8]):
        design = (labels, int(labels * drawn), 0.9, 0, 0, 0.0)
        test = delivered_test(*design)
        level, critical = threshold_tests._rule(test, DELTA)
        lowered += level < DELTA
        assert chances(design, critical).max() <= DELTA + 1e-9
        if level < DELTA:
            assert chances(design, threshold_tests._critical(test, DELTA)).max() > DELTA
    assert lowered > 0


@pytest.mark.parametrize("design", DESIGNS)
def test_every_count_passes_as_early_as_delta_allows(design):
    test = delivered_test(*design)
    level, critical = threshold_tests._rule(test, DELTA)
    before = threshold_tests._critical(test, level)
    assert (critical >= before).all()
    assert (np.diff(critical) >= 0).all()
    exact = chances(design, critical).max()
    assert exact <= DELTA + 1e-9
    assert (critical > before).any() == (test.drawn <= threshold_tests._FEW and critical.max() >= 0)
    places = np.arange(test.drawn + 1)
    for errors in range(int(critical.max()) + 1):
        # One correct label less: not a certificate, or k would be too weak there, or the next threshold's turn.
        first = int(np.searchsorted(critical, errors))
        if test.drawn <= threshold_tests._FEW and first and critical[first - 1] == errors - 1:
            sooner = np.where(places == first - 1, errors, critical)
            assert chances(design, sooner).max() > DELTA * 0.99 or test.p(errors, first - 1) > 0.5
    # The level of each sample lets just those pass.
    for correct in places.tolist():
        counts = np.arange(test.drawn - correct + 1)
        passes = test.p(counts, np.full(len(counts), correct)) <= threshold_tests._level(test, DELTA, correct)
        assert (passes == (counts <= critical[correct])).all()


@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]),
    st.integers(0, 40),
    st.integers(0, 40),
    st.sampled_from([0.0, 0.02, 0.05, 0.3]),
)
def test_a_correct_label_more_never_hurts_and_a_wrong_one_never_helps(labels, drawn, precision, right, wrong, missed):
    drawn = min(labels, drawn)
    test = delivered_test(labels, drawn, precision, right, wrong, missed)
    errors, correct = np.meshgrid(np.arange(drawn + 1), np.arange(drawn + 1), indexing="ij")
    inside = errors + correct <= drawn
    p = np.where(inside, test.p(np.where(inside, errors, 0), np.where(inside, correct, 0)), np.nan)
    assert np.nanmin(np.diff(p, axis=0), initial=0) >= -1e-9
    assert np.nanmax(np.diff(p, axis=1), initial=0) <= 1e-9
    critical = threshold_tests._critical(test, DELTA)
    assert (np.diff(critical) >= 0).all()
    assert ((p <= DELTA) <= (errors <= critical[correct]))[inside].all()
    if not missed:
        size = labels - drawn + errors + correct
        least = np.minimum(np.floor(precision * errors + (1 - precision) * (size + right) + 1e-9) + 1, size)
        inside &= errors + correct > 0
        assert p[inside] == pytest.approx(scipy.stats.hypergeom.cdf(errors, size, least, errors + correct)[inside])


def test_at_the_worst_place_gate_b_keeps_delta():
    labels, drawn, right = 450, 300, 40
    test = delivered_test(labels, drawn, 0.95, right)
    critical = threshold_tests._rule(test, DELTA)[1]
    correct = int(np.argmax([threshold_tests._chance(test, critical, g, g) for g in range(labels + 1)]))
    scores = np.random.default_rng(3).permutation(labels) / labels
    wrong = np.arange(labels) >= correct
    steps, least = np.sort(scores)[::-1], unseen_that_break(labels, correct, 0.95, right)
    broken = 0
    for seed in range(1000):
        rows = certification_sample(np.ones(labels, np.bool_), drawn, seed).rows
        found = gate_b(Sample(scores[rows], wrong[rows]), steps, 0.95, DELTA, Population(labels, right))
        step = certified_step(found)
        unseen = wrong & (scores >= (np.inf if step is None else steps[step]))
        unseen[rows] = False
        broken += int(unseen.sum()) >= least
    assert 0.06 < broken / 1000 <= DELTA + 2 * np.sqrt(0.09 / 1000)


@pytest.mark.parametrize(("assumed", "low", "high"), [(0.0, 0.3, 1.0), (0.1, 0.0, 0.11)])
def test_what_reviewers_miss_breaks_gate_b_unless_it_is_assumed(assumed, low, high):
    """A third of the labels is wrong, and of these a tenth is called correct."""
    rng = np.random.default_rng(8)
    scores = rng.random(1000)
    truly_wrong = rng.random(1000) < 0.6 * (1 - scores) + 0.05
    called = truly_wrong.copy()
    called[rng.permutation(np.flatnonzero(truly_wrong))[: int(truly_wrong.sum() * 0.1)]] = False
    steps, broken = threshold_grid(scores), 0
    for seed in range(300):
        rows = certification_sample(np.ones(1000, np.bool_), 400, seed).rows
        found = gate_b(Sample(scores[rows], called[rows]), steps, 0.95, DELTA, Population(1000), assumed)
        step = certified_step(found)
        seen = np.isin(np.arange(1000), rows)
        accepted = scores >= (np.inf if step is None else steps[step])
        delivered = ~called | (accepted & ~seen)
        broken += step is not None and truly_wrong[delivered].mean() > 0.05
    assert low <= broken / 300 <= high


@pytest.mark.parametrize("missed", [0.0, 0.03])
def test_the_bound_of_gate_b_is_the_least_share_that_passes(missed):
    drawn = sample([0.9] * 80 + [0.5] * 40 + [0.1] * 30, [1] * 2 + [0] * 78 + [1] * 5 + [0] * 35 + [1] * 20 + [0] * 10)
    steps, where = np.array([0.9, 0.5, 0.1]), Population(600, 20, 10)
    found = gate_b(drawn, steps, 0.95, DELTA, where, missed)
    for step in range(3):
        bound = found.bound(step)
        counts = int(found.errors[step]), int(found.reviewed[step] - found.errors[step])
        assert delivered_test(600, 150, 1 - bound - 1e-7, 20, 10, missed).p(*counts) <= found.delta
        assert delivered_test(600, 150, 1 - bound + 1e-7, 20, 10, missed).p(*counts) > found.delta
        assert (bound <= 0.05) == (found.p_values[step] <= found.delta)


def test_gate_b_certifies_nothing_from_nothing():
    nothing, steps = Sample(np.zeros(0), np.zeros(0, np.bool_)), np.array([0.5])
    assert certified_step(gate_b(nothing, steps, 0.95, DELTA, Population(100))) is None
    assert certified_step(gate_b(nothing, steps, 0.95, DELTA, Population(0, 5, 5))) is None
    assert certified_step(gate_b(nothing, np.zeros(0), 0.95, DELTA, Population(100))) is None
    assert gate_b(nothing, steps, 0.95, DELTA, Population(0)).bound(0) == 1
    wrong = sample([np.nan, 0.9], [1, 1])
    assert certified_step(gate_b(wrong, steps, 0.95, DELTA, Population(100))) is None
    hidden = sample([np.nan] * 90, [1] * 90)
    assert certified_step(gate_b(hidden, steps, 0.95, DELTA, Population(100), 0.5)) is None


def test_a_sample_of_all_is_the_truth():
    scores, wrong = np.array([0.9] * 9 + [0.4] * 3), np.array([0] * 9 + [1] * 3, np.bool_)
    found = gate_b(Sample(scores, wrong), np.array([0.9, 0.4]), 0.95, DELTA, Population(12))
    # All three wrong ones were found and corrected, so nothing wrong is delivered whatever is accepted.
    assert certified_step(found) == 1
    missing = gate_b(Sample(scores, wrong), np.array([0.9, 0.4]), 0.95, DELTA, Population(12), 0.2)
    assert certified_step(missing) is None


def test_gate_b_refuses_what_is_no_sample_of_the_population():
    drawn = sample([0.9, 0.8], [0, 0])
    with pytest.raises(ValueError, match="2 of 1 labels"):
        gate_b(drawn, np.array([0.5]), 0.95, DELTA, Population(1))
    with pytest.raises(ValueError, match="missed"):
        gate_b(drawn, np.array([0.5]), 0.95, DELTA, Population(9), 1.0)


def test_what_is_assumed_to_be_missed_lowers_the_limit_of_gate_a():
    drawn, sizes = sample(np.ones(100), np.arange(100) < 1), np.array([900])
    found = gate_a(drawn, np.array([0.5]), sizes, 0.95, DELTA, missed=0.2)
    assert found.limits[0] == pytest.approx(0.04)
    assert found.p_values[0] == pytest.approx(float(hypergeometric_p(1, 100, 900, 0.04)))
    assert found.sizes is sizes
