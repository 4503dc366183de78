import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.certify.gates import Evidence, Sample, accepted_counts, gate_a
from tasks.certify.ladder import certified_step, ladder
from tasks.certify.sampling import certification_sample

DELTA = 0.1


@settings(deadline=None)
@given(st.lists(st.sampled_from([0.1, 0.2, 0.5, 0.9, np.nan]), max_size=50), st.integers(1, 20))
def test_a_ladder_descends_over_values_that_are_there(scores, steps):
    scores = np.array(scores, np.float64)
    found = ladder(scores, steps)
    known = scores[np.isfinite(scores)]
    assert (np.diff(found) < 0).all()
    assert np.isin(found, known).all()
    assert len(found) <= steps
    assert bool(len(found)) == bool(len(known))
    assert not len(found) or found[-1] == known.min()


def test_steps_are_equally_many_labels_apart():
    scores = np.random.default_rng(0).permutation(1000) / 1000
    assert np.diff(accepted_counts(scores, ladder(scores, 10)), prepend=0).tolist() == [100] * 10


def evidence(p_values):
    zeros = np.zeros(len(p_values), np.int64)
    values = np.linspace(1, 0, len(p_values))
    return Evidence("A", values, zeros, zeros, values, np.array(p_values), DELTA)


def test_the_first_failure_ends_the_sequence():
    assert certified_step(evidence([0.01, 0.1, 0.2, 0.01])) == 1
    assert certified_step(evidence([0.2, 0.01])) is None
    assert certified_step(evidence([0.05, 0.05])) == 1
    assert certified_step(evidence([])) is None


def never_enough(seed):
    """Fifty nested sets, wrong a little more often than the promise allows, and a sample of all."""
    rng = np.random.default_rng([11, seed])
    scores = rng.random(20_000)
    wrong = rng.random(20_000) < 0.0525
    steps = ladder(scores, 50)
    rows = certification_sample(np.ones(20_000, np.bool_), 2000, seed).rows
    drawn = Sample(scores[rows], wrong[rows])
    return gate_a(drawn, steps, accepted_counts(scores, steps), 0.95, DELTA), scores, wrong


def broken(threshold, scores, wrong):
    return wrong[scores >= threshold].mean() > 0.05


def test_order_keeps_the_promise_and_picking_afterwards_does_not():
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


def test_looking_again_after_a_refusal_breaks_the_promise_unless_delta_is_spent():
    """One threshold, just broken; reviews are added until it passes or ten looks are over."""
    from tasks.certify.bounds import binomial_p
    from tasks.certify.groups import delta_of_look

    rng = np.random.default_rng(4)
    errors = np.cumsum(rng.binomial(100, 0.0501, (2000, 10)), axis=1)
    reviewed = 100 * np.arange(1, 11)
    p_values = binomial_p(errors, reviewed, 0.05)
    spent = np.array([delta_of_look(DELTA, look) for look in range(1, 11)])
    assert (p_values <= DELTA).any(axis=1).mean() > 0.15
    assert (p_values <= spent).any(axis=1).mean() <= DELTA + 2 * np.sqrt(0.09 / 2000)
    assert spent.sum() <= DELTA
