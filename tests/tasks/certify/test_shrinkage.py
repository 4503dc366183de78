import numpy as np
import pytest

from tasks.certify.shrinkage import shrunken_shares


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
