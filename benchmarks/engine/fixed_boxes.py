"""The same ten boxes for both sides: the detector does its work, and its answer is replaced."""

from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.campaign import DetectorConfig
from tasks.models.registry import DETECTORS, Detector, Floats, Phrase, Pixels, RawDetections, load_detector
from tasks.models.runtime import Runtime

BACKEND: Final = "groundingdino, fixed boxes"
COLUMNS: Final = 5
ROWS: Final = 2
BOXES: Final = COLUMNS * ROWS
_FILLED: Final = 0.7
_SCORE: Final = 0.9


def register() -> None:
    """Let campaigns of this process name the backend."""
    DETECTORS[BACKEND] = f"{__name__}:load"


def load(config: DetectorConfig, runtime: Runtime) -> "FixedBoxes":
    """Load GroundingDINO behind the fixed boxes."""
    return FixedBoxes(load_detector(config.model_copy(update={"backend": "groundingdino"}), runtime))


class FixedBoxes:
    """A detector that works and is not listened to."""

    def __init__(self, detector: Detector) -> None:
        """Take the detector that does the work."""
        self._detector = detector
        self.fingerprint = f"fixed boxes, {detector.fingerprint}"

    def check(self, phrases: Sequence[Phrase]) -> None:
        """As the detector behind."""
        self._detector.check(phrases)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Detect, then give ten boxes an image, each of another class as far as there are so many."""
        self._detector.detect(images, phrases, min_score)
        scores = np.zeros((BOXES, len(phrases)), np.float32)
        scores[np.arange(BOXES), np.arange(BOXES) % len(phrases)] = _SCORE
        return [RawDetections(fixed_boxes(image.shape[1], image.shape[0]), scores) for image in images]


def fixed_boxes(width: int, height: int) -> Floats:
    """(10, 4) xyxy in pixels: a grid of five by two that leaves gaps."""
    rows, columns = np.divmod(np.arange(BOXES), COLUMNS)
    cell = np.array([width / COLUMNS, height / ROWS])
    low = np.stack([columns, rows], axis=1) * cell + cell * (1 - _FILLED) / 2
    return np.concatenate([low, low + cell * _FILLED], axis=1).astype(np.float32)
