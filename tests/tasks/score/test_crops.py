import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.score.crops import LEAST_SIDE, crop

IMAGE = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)


def place(image: np.ndarray, cut: np.ndarray) -> tuple[int, int, int, int]:
    """Box xyxy of a view in its image."""
    offset = (cut.__array_interface__["data"][0] - image.__array_interface__["data"][0]) // 3
    top, left = divmod(offset, image.shape[1])
    return left, top, left + cut.shape[1], top + cut.shape[0]


@pytest.mark.parametrize(
    ("box", "context", "expected"),
    [
        ((50, 20, 90, 60), 1.0, (50, 20, 90, 60)),  # a square stays
        ((50, 20, 90, 60), 1.5, (40, 10, 100, 70)),  # and grows about its centre
        ((50, 40, 90, 60), 1.0, (50, 30, 90, 70)),  # the short side grows to the long one
        ((0, 0, 40, 40), 1.5, (0, 0, 60, 60)),  # shifted back into the image
        ((160, 60, 200, 100), 1.5, (140, 40, 200, 100)),
        ((20, 10, 180, 90), 1.0, (20, 0, 180, 100)),  # longer than the image is high: cut
        ((0, 0, 200, 100), 1.5, (0, 0, 200, 100)),
        ((100, 50, 102, 51), 1.0, (93, 42, 109, 58)),  # at least 16 pixels
        ((100, 50, 100, 50), 1.0, (92, 42, 108, 58)),  # no area
        ((300, 300, 340, 340), 1.0, (160, 60, 200, 100)),  # outside
    ],
)
def test_known_places(box: tuple[float, ...], context: float, expected: tuple[int, ...]) -> None:
    left, top, right, bottom = place(IMAGE, crop(IMAGE, np.array(box, np.float32), context))
    assert abs(left - expected[0]) + abs(top - expected[1]) <= 1  # halves may round either way
    assert (right - left, bottom - top) == (expected[2] - expected[0], expected[3] - expected[1])


def test_pixels_are_the_images_own() -> None:
    cut = crop(IMAGE, np.array([50, 20, 90, 60], np.float32), 1.0)
    np.testing.assert_array_equal(cut, IMAGE[20:60, 50:90])
    assert np.shares_memory(cut, IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_box_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        crop(IMAGE, np.array([0, 0, value, 5], np.float32), 1.0)


sizes = st.integers(1, 60)
coordinates = st.floats(-100, 200, width=32)


@given(sizes, sizes, st.tuples(coordinates, coordinates, coordinates, coordinates), st.floats(1, 4))
def test_always_inside_never_empty(height: int, width: int, box: tuple[float, ...], context: float) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    cut = crop(image, np.array(box, np.float32), context)
    assert 1 <= cut.shape[0] <= height
    assert 1 <= cut.shape[1] <= width
    assert cut.shape[0] == cut.shape[1] or max(cut.shape[:2]) >= min(height, width)
    assert min(cut.shape[:2]) >= min(LEAST_SIDE, height, width)


@given(
    st.integers(0, 150), st.integers(0, 70), st.integers(1, 50), st.integers(1, 30), st.sampled_from([1.0, 1.3, 1.5])
)
def test_the_box_lies_in_its_crop(x: int, y: int, width: int, height: int, context: float) -> None:
    left, top, right, bottom = place(IMAGE, crop(IMAGE, np.array([x, y, x + width, y + height], np.float32), context))
    assert left <= x
    assert top <= y
    assert right >= x + width
    assert bottom >= y + height
