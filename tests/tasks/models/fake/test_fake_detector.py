import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from schemas.campaign import DetectorConfig
from tasks.models.protocols import Phrase
from tasks.models.registry import load_detector
from tasks.models.runtime import Runtime

DETECTOR = load_detector(DetectorConfig(backend="fake"), Runtime("cpu", "fp32"))
PHRASES = [Phrase("dog", 0), Phrase("cat", 1), Phrase("wolf", 0, negative=True)]


def test_bright_squares_are_found_where_they_are() -> None:
    image = np.zeros((64, 100, 3), np.uint8)
    image[16:32, 32:48] = (0, 255, 0)
    image[48:64, 96:100] = 255
    [found] = DETECTOR.detect([image], PHRASES, 0.0)
    assert found.boxes[0].tolist() == [32, 16, 48, 32]
    assert np.array_equal(found.scores, DETECTOR.detect([image.copy()], PHRASES, 0.0)[0].scores)


def test_scores_belong_to_texts() -> None:
    image = np.zeros((64, 64, 3), np.uint8)
    image[:32, :32] = 255
    [found] = DETECTOR.detect([image], PHRASES, 0.0)
    [turned] = DETECTOR.detect([image], PHRASES[::-1], 0.0)
    assert len(found.boxes) == 4
    np.testing.assert_array_equal(found.scores, turned.scores[:, ::-1])
    assert len(np.unique(found.scores)) == found.scores.size


@given(
    st.tuples(st.integers(1, 70), st.integers(1, 70)).flatmap(
        lambda shape: arrays(np.uint8, (*shape, 3), elements=st.sampled_from([0, 90, 255]))
    ),
    st.floats(0, 1),
)
def test_any_image_gives_boxes_within_it(image: np.ndarray, least: float) -> None:
    [found] = DETECTOR.detect([image], PHRASES, least)
    assert found.boxes.shape == (len(found.scores), 4)
    assert found.scores.shape[1] == 3
    assert (found.boxes >= 0).all()
    assert (found.boxes <= np.array([image.shape[1], image.shape[0]] * 2)).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.scores.max(axis=1, initial=1) >= np.float32(least)).all()
    assert ((found.scores >= 0) & (found.scores <= 1)).all()


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, numpy as np; from tasks.models.fake.detector import FakeDetector; "
        "FakeDetector().detect([np.zeros((4, 4, 3), np.uint8)], [], 0); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
