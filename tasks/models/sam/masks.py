"""Turns SAM's small mask logits into compressed COCO RLE, areas, boxes and stability scores.

Logits are upscaled to the image's size only where a mask can be; masks are described by their runs of pixels.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.tasks.boxes_masks import rle_of_crop, rles_of_runs
from vouch_labels.tasks.models.registry import Floats, Masks

if TYPE_CHECKING:
    import torch

STABILITY_OFFSET: Final = 1.0
"""Logits added to and taken from the threshold; the default of the package's SamAutomaticMaskGenerator."""
PIXELS_AT_ONCE: Final = 1 << 24
"""Most mask pixels upscaled at once: 64 MiB of float32 logits."""


class Upscale:
    """The package's two bilinear steps (small logits -> padded encoder input -> original image) as one linear map.

    Sam.postprocess_masks in segment_anything/modeling/sam.py interpolates twice with a cut in between. Both steps are
    separable and linear, so logits = rows @ small @ columns.T, and any part of the result can be had alone. The values
    are weighted means, so where all small logits that a pixel depends on are at most v, the pixel is at most v.
    """

    def __init__(self, small: int, padded: int, input_size: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Prepare for one image of (H, W), which is (h, w) without padding in the encoder's input.

        `small` and `padded` are the sides of the small logits and of the encoder's input.
        """
        self.size = (size[0], size[1])
        """(H, W) of the image."""
        self._axes = [_Axis(small, padded, kept, length) for kept, length in zip(input_size, size, strict=True)]

    def reach(self, above: "torch.Tensor") -> NDArray[np.int64]:
        """Where the image can exceed a value that (N, small, small) small logits are `above`.

        Returns:
            (N, 4) xyxy in pixels of the image, right and bottom exclusive; without extent where nothing can.
        """
        return self.reach_of(above.any(dim=2).cpu().numpy(), above.any(dim=1).cpu().numpy())

    def reach_of(self, rows: NDArray[np.bool_], columns: NDArray[np.bool_]) -> NDArray[np.int64]:
        """As `reach`, from the rows and the columns (N, small) of the small logits in which some exceed the value."""
        hit = (rows, columns)
        (top, bottom), (left, right) = (axis.reach(cells) for axis, cells in zip(self._axes, hit, strict=True))
        return np.stack([left, top, right, bottom], axis=1)

    def part(self, small: "torch.Tensor", xyxy: tuple[int, int, int, int]) -> "torch.Tensor":
        """(y1 - y0, x1 - x0) logits of a part of the image, in its pixels, from the (small, small) of one mask."""
        left, top, right, bottom = xyxy
        rows, first_row, last_row = self._axes[0].part(top, bottom, small.device)
        columns, first_column, last_column = self._axes[1].part(left, right, small.device)
        cells = small[first_row:last_row, first_column:last_column]
        return rows @ cells @ columns.T


def encode_masks(small: "torch.Tensor", upscale: Upscale, threshold: float, iou: NDArray[np.float32]) -> Masks:
    """Upscale, threshold and describe the masks of one image, one after the other and only where each can be.

    From (N, s, s) float32 logits of the mask decoder, on any device, and the model's own estimates `iou` (N,), which
    are clipped to [0, 1]. Pixels above the threshold belong to the mask. Stability is
    |logits > threshold + 1| / |logits > threshold - 1| at the image's size (calculate_stability_score in
    segment_anything/utils/amg.py, with wide integers), 0 where nothing exceeds the lower cut.
    """
    reach = upscale.reach(small > threshold - STABILITY_OFFSET)
    counts: list[bytes] = []
    boxes = np.zeros((len(small), 4), dtype=np.float32)
    areas = np.zeros(len(small), dtype=np.int64)
    stability = np.zeros(len(small), dtype=np.float32)
    for place, (left, top, right, bottom) in enumerate(reach.tolist()):
        crop, stability[place] = _cut(small[place], upscale, threshold, (left, top, right, bottom))
        counts.append(rle_of_crop(crop, left, top, *upscale.size))
        areas[place] = crop.sum()
        boxes[place] = _box(crop, left, top)
    return Masks(counts, areas, boxes, np.clip(iou, 0, 1).astype(np.float32), stability)


def no_masks() -> Masks:
    """The masks of an image without boxes."""
    none = np.zeros(0, dtype=np.float32)
    return Masks([], np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32), none, none)


def join_masks(parts: Sequence[Masks]) -> Masks:
    """The masks of all parts as one, in order."""
    if not parts:
        return no_masks()
    return Masks(
        [counts for part in parts for counts in part.rle_counts],
        np.concatenate([part.areas for part in parts]),
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.predicted_iou for part in parts]),
        np.concatenate([part.stability for part in parts]),
    )


def split_masks(masks: Masks) -> list[Masks]:
    """Each mask alone."""
    return [
        Masks(masks.rle_counts[one], masks.areas[one], masks.boxes[one], masks.predicted_iou[one], masks.stability[one])
        for one in (slice(place, place + 1) for place in range(len(masks.areas)))
    ]


def _cut(
    small: "torch.Tensor", upscale: Upscale, threshold: float, xyxy: tuple[int, int, int, int]
) -> tuple[NDArray[np.bool_], float]:
    """The mask in a part of the image, and its stability; a few columns at a time, so that memory is bounded."""
    left, top, right, bottom = xyxy
    crop = np.zeros((bottom - top, right - left), dtype=bool)
    if crop.size == 0:
        return crop, 0.0
    inner = outer = 0
    step = max(1, PIXELS_AT_ONCE // (bottom - top))
    for start in range(left, right, step):
        end = min(start + step, right)
        logits = upscale.part(small, (start, top, end, bottom))
        crop[:, start - left : end - left] = (logits > threshold).cpu().numpy()
        inner += int((logits > threshold + STABILITY_OFFSET).sum())
        outer += int((logits > threshold - STABILITY_OFFSET).sum())
    return crop, inner / outer if outer else 0.0


def _box(crop: NDArray[np.bool_], left: int, top: int) -> tuple[int, int, int, int]:
    """Xyxy around the true pixels of a crop, in pixels of the image; zeros without any."""
    columns, rows = np.flatnonzero(crop.any(axis=0)), np.flatnonzero(crop.any(axis=1))
    if not len(columns):
        return 0, 0, 0, 0
    return left + int(columns[0]), top + int(rows[0]), left + int(columns[-1]) + 1, top + int(rows[-1]) + 1


class _Axis:
    """One direction of the map."""

    def __init__(self, small: int, padded: int, kept: int, length: int) -> None:
        first_low, first_high, first_weight = _taps(small, padded)
        low, high, weight = _taps(kept, length)
        self._small = small
        self._on: dict[torch.device, torch.Tensor] = {}
        # Each pixel is a mean of four small logits; neighbours, some of them the same.
        self._cells = np.stack([first_low[low], first_high[low], first_low[high], first_high[high]])
        self._weights = np.stack(
            [
                (1 - weight) * (1 - first_weight[low]),
                (1 - weight) * first_weight[low],
                weight * (1 - first_weight[high]),
                weight * first_weight[high],
            ]
        )

    def reach(self, hit: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """First pixel, and the one after the last, that depend on cells between the outermost hits of (N, small)."""
        first = hit.argmax(axis=1)
        last = self._small - 1 - hit[:, ::-1].argmax(axis=1)
        start = np.searchsorted(self._cells[3], first, side="left")
        end = np.searchsorted(self._cells[0], last, side="right")
        some = hit.any(axis=1)
        return np.where(some, start, 0), np.where(some, end, 0)

    def part(self, start: int, end: int, device: "torch.device") -> "tuple[torch.Tensor, int, int]":
        """Weights (end - start, K) float32 of some pixels, at least one, on the small logits from i to j, K = j - i."""
        first, last = int(self._cells[0, start]), int(self._cells[3, end - 1]) + 1
        if device not in self._on:
            self._on[device] = self._matrix.to(device, non_blocking=True)
        return self._on[device][start:end, first:last], first, last

    @cached_property
    def _matrix(self) -> "torch.Tensor":
        import torch

        length = self._cells.shape[1]
        matrix = np.zeros((length, self._small), dtype=np.float64)
        for cells, weights in zip(self._cells, self._weights, strict=True):
            # A pixel may name one cell several times.
            np.add.at(matrix, (np.arange(length), cells), weights)
        return torch.from_numpy(matrix.astype(np.float32))


def _taps(source: int, target: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Neighbours and weight of the second one, for `target` pixels of a bilinear step with align_corners=False."""
    places = np.maximum((np.arange(target) + 0.5) * (source / target) - 0.5, 0)
    low = np.minimum(places.astype(np.int64), source - 1)
    high = np.minimum(low + 1, source - 1)
    return low, high, np.minimum(places - low, 1)


@dataclass(frozen=True, slots=True, eq=False)
class Runs:
    """The true pixels of M masks, of any sizes."""

    starts: NDArray[np.int64]
    """(R,) first pixel of each run, counted down the columns of its mask; ascending within a mask."""
    ends: NDArray[np.int64]
    """(R,) pixel after each run; a run may begin where the one before it ends."""
    masks: NDArray[np.int64]
    """(R,) which mask each run belongs to, ascending."""


def describe(runs: Runs, sizes: NDArray[np.int64]) -> tuple[list[bytes], NDArray[np.int64], Floats]:
    """Compress M masks of (M, 2) height and width, and measure them.

    Returns:
        Compressed COCO RLE counts; (M,) areas in pixels; (M, 4) float32 xyxy around each mask in pixels, right and
        bottom exclusive, zeros for an empty mask.
    """
    count = len(sizes)
    each = np.bincount(runs.masks, minlength=count)
    counts = rles_of_runs(runs.starts, runs.ends, each, sizes.prod(axis=1))
    total = np.append(0, np.cumsum(runs.ends - runs.starts))
    last = np.cumsum(each)
    return counts, total[last] - total[last - each], _boxes(runs, each, sizes[:, 0])


def _boxes(runs: Runs, each: NDArray[np.int64], heights: NDArray[np.int64]) -> Floats:
    boxes = np.zeros((len(each), 4), dtype=np.float32)
    some = np.flatnonzero(each)
    if not len(some):
        return boxes
    height = heights[runs.masks]
    left, top = np.divmod(runs.starts, height)
    right, bottom = np.divmod(runs.ends - 1, height)
    # A run that goes on in the next column has the last row of one and the first row of the other.
    over = left != right
    firsts = (np.cumsum(each) - each)[some]
    boxes[some, 0] = np.minimum.reduceat(left, firsts)
    boxes[some, 1] = np.minimum.reduceat(np.where(over, 0, top), firsts)
    boxes[some, 2] = np.maximum.reduceat(right, firsts) + 1
    boxes[some, 3] = np.maximum.reduceat(np.where(over, height - 1, bottom), firsts) + 1
    return boxes
