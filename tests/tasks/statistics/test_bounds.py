import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from vouch_labels.tasks.statistics.bounds import (
    binomial_p,
    hypergeometric_p,
    hypergeometric_upper_bound,
    korn_graubard,
    labels_needed,
    lower_bound,
    most_errors,
    shrunken_shares,
    upper_bound,
    wrong_allowed,
)

NEEDED = {
    0.95: {0: 45, 1: 77, 2: 105, 5: 184, 10: 306},
    0.98: {0: 114, 1: 194, 2: 265, 5: 462, 10: 768},
    0.99: {0: 230, 1: 388, 2: 531, 5: 926, 10: 1538},
}


@pytest.mark.parametrize(("precision", "errors"), [(t, k) for t, row in NEEDED.items() for k in row])
def test_labels_needed_at_a_confidence_of_90_percent(precision, errors):
    assert labels_needed(errors, 1 - precision, 0.1) == NEEDED[precision][errors]


def test_impossible_questions_are_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        labels_needed(0, 0.0, 0.1)
    with pytest.raises(ValueError, match="more than 10,000,000 labels"):
        labels_needed(0, 1e-9, 0.1)


@settings(deadline=None)
@given(st.integers(0, 3000), st.sampled_from([0.5, 0.05, 0.02, 0.01]), st.sampled_from([0.1, 0.05, 0.01]))
def test_most_errors_is_the_last_count_that_passes(reviewed, limit, delta):
    most = int(most_errors(reviewed, limit, delta))
    assert most == -1 or binomial_p(most, reviewed, limit) <= delta
    assert binomial_p(most + 1, reviewed, limit) > delta


@settings(deadline=None)
@given(st.integers(1, 300), st.floats(0.01, 0.3), st.integers(1, 300), st.sampled_from([0.1, 0.02]))
def test_both_tests_keep_their_level_for_every_set(labels, limit, reviewed, delta):
    """Exact probability to certify the least bad set that breaks the guarantee, by summing over all samples."""
    reviewed = min(reviewed, labels)
    wrong = min(int(wrong_allowed(labels, limit)) + 1, labels)
    errors = np.arange(reviewed + 1)
    chance = stats.hypergeom.pmf(errors, labels, wrong, reviewed)
    for p_values in (binomial_p(errors, reviewed, limit), hypergeometric_p(errors, reviewed, labels, limit)):
        assert chance[p_values <= delta].sum() <= delta + 1e-12


def test_the_hypergeometric_test_is_exact_and_sharper():
    assert hypergeometric_p(0, 10, 10, 0.1) == 0
    assert hypergeometric_p(0, 9, 10, 0.1) == 0
    assert hypergeometric_p(0, 8, 10, 0.1) == pytest.approx(1 / 45)
    assert hypergeometric_p(3, 200, 400, 0.05) < binomial_p(3, 200, 0.05)
    assert hypergeometric_p(3, 200, 10_000_000, 0.05) == pytest.approx(binomial_p(3, 200, 0.05), rel=1e-3)
    assert hypergeometric_p(0, 0, 0, 0.05) == 1


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 400), st.integers(0, 30), st.sampled_from([0.01, 0.05, 0.2]))
def test_the_hypergeometric_bound_and_test_agree(labels, reviewed, errors, limit):
    reviewed = min(reviewed, labels)
    errors = min(errors, reviewed)
    bound = hypergeometric_upper_bound(errors, reviewed, labels, 0.1)
    assert errors / labels <= bound <= 1
    if wrong_allowed(labels, limit) < labels - (reviewed - errors):
        certified = hypergeometric_p(errors, reviewed, labels, limit) <= 0.1
        assert certified == (bound * labels <= wrong_allowed(labels, limit) + 1e-6)


def test_shares_are_counted_without_rounding_errors():
    assert wrong_allowed([10, 100, 50, 99], [1 - 0.9, 1 - 0.99, 1 - 0.98, 1 - 0.95]).tolist() == [1, 1, 1, 4]


def test_clopper_pearson_agrees_with_scipy():
    for count, trials in [(0, 10), (3, 50), (10, 10), (7, 8)]:
        both = stats.binomtest(count, trials).proportion_ci(0.8, method="exact")
        assert upper_bound(count, trials, 0.1) == pytest.approx(both.high)
        assert lower_bound(count, trials, 0.1) == pytest.approx(both.low)
    assert upper_bound(0, 0, 0.1) == 1
    assert lower_bound(0, 0, 0.1) == 0


def whole_images(rng, draws, images=150):
    """Errors and labels of whole images, drawn from a population whose share is 6%, strongly clustered."""
    labels = 1 + rng.poisson(4, (draws, images))
    bad = rng.random((draws, images)) < 0.06
    return np.where(bad, labels, 0), labels


def test_whole_images_need_korn_graubard():
    rng = np.random.default_rng(0)
    errors, labels = whole_images(rng, 800)
    naive = binomial_p(errors.sum(axis=1), labels.sum(axis=1), 0.06)
    clustered = np.array([korn_graubard(k, n, 0.1) < 0.06 for k, n in zip(errors, labels, strict=True)])
    assert (naive <= 0.1).mean() > 0.2
    assert clustered.mean() <= 0.1 + 2 * np.sqrt(0.09 / 800)


def test_korn_graubard_without_clustering_is_near_the_binomial_bound():
    errors, labels = np.array([1] * 10 + [0] * 190), np.ones(200, np.int64)
    assert korn_graubard(errors, labels, 0.1) == pytest.approx(float(upper_bound(10, 200, 0.1)), abs=0.005)


def test_korn_graubard_at_its_edges():
    ones = np.ones(5, np.int64)
    assert korn_graubard(ones[:1] * 0, ones[:1], 0.1) == 1
    assert korn_graubard(ones, ones, 0.1) == 1
    assert korn_graubard(0 * ones, 40 * ones, 0.1) == pytest.approx(float(upper_bound(0, 5, 0.1)))


def test_few_labels_are_drawn_towards_all_and_many_speak_for_themselves():
    errors, reviewed = np.array([40, 4, 1, 0, 0]), np.array([400, 400, 2, 1, 0])
    found = shrunken_shares(errors, reviewed)
    share = 45.5 / 804
    assert found[0] == pytest.approx(0.1, abs=0.01)
    assert found[1] == pytest.approx(0.01, abs=0.01)
    assert share < found[2] < 0.5
    assert 0 < found[3] < share
    assert found[4] == pytest.approx(share)


def test_equal_classes_are_drawn_together():
    rng = np.random.default_rng(0)
    errors = rng.binomial(20, 0.1, 50)
    assert np.std(shrunken_shares(errors, np.full(50, 20))) < 0.4 * np.std(errors / 20)


def test_no_review_at_all():
    assert shrunken_shares(np.zeros(3, np.int64), np.zeros(3, np.int64)) == pytest.approx(0.5)
