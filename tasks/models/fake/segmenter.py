"""A segmenter without a model: the ellipse inside each box, for tests and measurements of everything else."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from schemas.campaign import SegmenterConfig
from tasks.fingerprint import fingerprint
from tasks.models.protocols import Floats, Masks, Pixels, Segmenter
from tasks.models.runtime import Runtime
from tasks.rle import rle_of_runs


def load(config: SegmenterConfig, runtime: Runtime) -> Segmenter:  # noqa: ARG001 - every backend is loaded alike
    """Make the segmenter; nothing is read and the config is not looked at."""
    return FakeSegmenter()


class FakeSegmenter:
    """Draws ellipses: the same boxes give the same masks everywhere."""

    fingerprint = fingerprint("fake segmenter", 1)

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
