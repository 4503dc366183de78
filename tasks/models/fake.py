"""Backends without a model: for tests and for benchmarks of everything else, and a detector that finds nothing.

The fake detector makes bright regions boxes, the segmenter fills the ellipse inside each box, the scorer puts texts and
crops into fixed places.
"""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.tasks.boxes_masks import rle_of_runs
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Floats, Masks, Phrase, Pixels, RawDetections

CELL = 16
BRIGHT = 64

_WIDTH: Final = 32
_GRID: Final = 4
_FEATURES: Final = _GRID * _GRID * 3 + 1


class FakeDetector:
    """Boxes are the cells of a 16-pixel grid that are brighter than the darkest, scores a hash of cell and text."""

    fingerprint = fingerprint("fake detector", 1)

    def __init__(self, *_: object) -> None:
        """Nothing is read, and no config looked at."""

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Any text can be asked for."""

    def tokens(self, text: str) -> tuple[str, ...]:
        """The text itself."""
        return (text,)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Give the same boxes and scores for the same pixels and texts, on every machine."""
        return [_detect(image, phrases, min_score) for image in images]


class NoDetector(FakeDetector):
    """Finds nothing: for labels that are imported, and no others."""

    fingerprint = fingerprint("no detector", 1)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Give no box."""
        del min_score
        return [RawDetections(np.zeros((0, 4), np.float32), np.zeros((0, len(phrases)), np.float32)) for _ in images]


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


class FakeSegmenter:
    """Draws ellipses: the same boxes give the same masks everywhere."""

    fingerprint = fingerprint("fake segmenter", 1)

    def __init__(self, *_: object) -> None:
        """Nothing is read, and no config looked at."""

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Mask the ellipse inscribed in each (N, 4) xyxy box; its estimates follow from the box's place alone."""
        return [
            _ellipses(image.shape[0], image.shape[1], prompts) for image, prompts in zip(images, boxes, strict=True)
        ]


def _ellipses(height: int, width: int, boxes: Floats) -> Masks:
    from pycocotools import mask as mask_utils

    counts = [_counts(height, width, box) for box in boxes]
    rles = [{"size": [height, width], "counts": each} for each in counts]
    around = np.zeros((0, 4), dtype=np.float32)
    areas = np.zeros(0, dtype=np.int64)
    if rles:
        around = np.asarray(mask_utils.toBbox(rles), dtype=np.float32).reshape(-1, 4)
        # One by one: for a list of more than 255 it raises OverflowError.
        areas = np.array([mask_utils.area(rle) for rle in rles], dtype=np.int64)
    around[:, 2:] += around[:, :2]
    place = np.floor(boxes.sum(axis=1)) % 16 / 100 if len(boxes) else np.zeros(0)
    return Masks(
        rle_counts=counts,
        areas=areas,
        boxes=around,
        predicted_iou=(0.80 + place).astype(np.float32),
        stability=(0.95 - place).astype(np.float32),
    )


def _counts(height: int, width: int, box: NDArray[np.float32]) -> bytes:
    """Compressed RLE of pixels whose centres lie in the ellipse; columns only, so that no mask is ever drawn."""
    x0, y0, x1, y1 = (float(value) for value in box)
    # A box without width holds no centre, though one may lie on it.
    columns = np.arange(max(0, int(x0)), min(width, int(np.ceil(x1)))) if x1 > x0 else np.zeros(0)
    across = (columns + 0.5 - (x0 + x1) / 2) / max((x1 - x0) / 2, 1e-6)
    half = np.sqrt(np.clip(1 - across**2, 0, None)) * (y1 - y0) / 2
    middle = (y0 + y1) / 2
    top = np.clip(np.ceil(middle - half - 0.5), 0, height).astype(np.int64)
    bottom = np.clip(np.ceil(middle + half - 0.5), 0, height).astype(np.int64)
    filled = bottom > top
    return rle_of_runs((columns * height + top)[filled], (columns * height + bottom)[filled], height, width)


class FakeScorer:
    """Places a text by its hash and a crop by its colours: the same input gives the same scores everywhere."""

    fingerprint = fingerprint("fake scorer", 1)
    logit_scale = 10.0

    def __init__(self, *_: object) -> None:
        """Make the projection of colours; no config is looked at."""
        self._projection = _noise("colours", _FEATURES * _WIDTH).reshape(_FEATURES, _WIDTH)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(T, 32) of unit length, from SHAKE-256 of the text."""
        return _unit(np.array([_noise(text, _WIDTH) for text in texts], np.float32).reshape(-1, _WIDTH))

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """(N, 32) of unit length, from the colours at 4 x 4 points of each crop; near colours, near places."""
        features = np.ones((len(crops), _FEATURES), np.float32)
        for row, crop in zip(features, crops, strict=True):
            height, width = crop.shape[:2]
            down = np.arange(_GRID) * height // _GRID + height // (2 * _GRID)
            across = np.arange(_GRID) * width // _GRID + width // (2 * _GRID)
            row[:-1] = crop[down[:, None], across].reshape(-1) / 127.5 - 1.0
        # Not a product of matrices, whose last bits depend on the processor and on how many crops there are.
        return _unit((features[:, :, None] * self._projection).sum(axis=1))


def _noise(seed: str, count: int) -> Floats:
    """`count` numbers in [-1, 1], the same for one seed on every machine."""
    data = hashlib.shake_256(seed.encode()).digest(count)
    return np.frombuffer(data, np.uint8).astype(np.float32) / 127.5 - 1.0


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
