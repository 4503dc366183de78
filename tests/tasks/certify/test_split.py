import numpy as np
import pytest

from tasks.certify.split import fit_share, on_fit_side

IMAGES = [f"image-{number}" for number in range(4000)]


def test_an_image_keeps_its_side_whatever_others_there_are():
    sides = on_fit_side(IMAGES, 0.3, 7)
    assert on_fit_side(IMAGES[::-1], 0.3, 7).tolist() == sides[::-1].tolist()
    assert on_fit_side([IMAGES[17]], 0.3, 7)[0] == sides[17]
    assert abs(sides.mean() - 0.3) < 0.03


def test_a_larger_share_keeps_the_fit_side():
    small, large = on_fit_side(IMAGES, 0.1, 7), on_fit_side(IMAGES, 0.4, 7)
    assert not (small & ~large).any()


def test_seeds_give_independent_splits():
    first, second = on_fit_side(IMAGES, 0.5, 1), on_fit_side(IMAGES, 0.5, 2)
    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05


def test_known_answer():
    assert on_fit_side(["a", "b", "c", "d", "e", "f"], 0.5, 0).tolist() == [False, True, False, True, True, False]


def test_all_and_nothing():
    assert not on_fit_side(IMAGES, 0.0, 1).any()
    assert on_fit_side(IMAGES, 1.0, 1).all()
    assert on_fit_side([], 0.5, 1).shape == (0,)


@pytest.mark.parametrize(("labels", "reviews", "share"), [(40_000, 400, 0.015), (1_000, 400, 0.5), (0, 400, 0.0)])
def test_the_fit_side_is_just_large_enough(labels, reviews, share):
    assert fit_share(labels, reviews) == pytest.approx(share)
