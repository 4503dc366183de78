"""A detector without a model: bright regions become boxes, for tests and measurements of everything else."""

import hashlib
from collections.abc import Sequence

import numpy as np

from schemas.campaign import DetectorConfig
from tasks.fingerprint import fingerprint
from tasks.models.protocols import Detector, Phrase, Pixels, RawDetections
from tasks.models.runtime import Runtime

CELL = 16
BRIGHT = 64


def load(config: DetectorConfig, runtime: Runtime) -> Detector:  # noqa: ARG001 - every backend is loaded alike
    """Make the detector; nothing is read and the config is not looked at."""
    return FakeDetector()


class FakeDetector:
    """Boxes are the cells of a 16-pixel grid that are brighter than the darkest, scores a hash of cell and text."""

    fingerprint = fingerprint("fake detector", 1)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Any text can be asked for."""

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Give the same boxes and scores for the same pixels and texts, on every machine."""
        return [_detect(image, phrases, min_score) for image in images]


def _detect(image: Pixels, phrases: Sequence[Phrase], min_score: float) -> RawDetections:
    height, width = image.shape[:2]
    rows, columns = -(-height // CELL), -(-width // CELL)
    padded = np.zeros((rows * CELL, columns * CELL), np.uint8)
    padded[:height, :width] = np.maximum(np.maximum(image[..., 0], image[..., 1]), image[..., 2])
    means = padded.reshape(rows, CELL, columns, CELL).mean(axis=(1, 3))
    y, x = np.nonzero(means > means.min() + BRIGHT)
    corners = np.stack([x * CELL, y * CELL, (x + 1) * CELL, (y + 1) * CELL], axis=1)
    boxes = np.minimum(corners, [width, height, width, height]).astype(np.float32)
    cells = zip(x.tolist(), y.tolist(), np.rint(means[y, x]).astype(int).tolist(), strict=True)
    scores = np.array([[_score(cell, phrase.text) for phrase in phrases] for cell in cells], np.float32)
    scores = scores.reshape(len(boxes), len(phrases))
    kept = scores.max(axis=1, initial=0) >= min_score
    return RawDetections(boxes[kept], scores[kept])


def _score(cell: tuple[int, int, int], text: str) -> float:
    digest = hashlib.blake2s(f"{cell} {text}".encode(), digest_size=2).digest()
    return int.from_bytes(digest, "big") / 65535
