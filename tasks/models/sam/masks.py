"""Turns SAM's small mask logits into compressed COCO RLE, areas, boxes and stability scores.

Logits are upscaled to the image's size only where a mask can be; masks are described by their runs of pixels. Of one
image, mask by mask; or of several at once on the device (switch device_masks).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vouch_labels.tasks.boxes_masks import rle_of_crop, rles_of_runs
from vouch_labels.tasks.models.registry import Floats, Masks

STABILITY_OFFSET: Final = 1.0
"""Logits added to and taken from the threshold; the default of the package's SamAutomaticMaskGenerator."""
PIXELS_AT_ONCE: Final = 1 << 24
"""Most mask pixels upscaled at once: 64 MiB of float32 logits."""
PIXELS_ON_DEVICE: Final = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Most mask pixels upscaled at once: 16 MiB of float32 logits, which stay near a CPU; 256 MiB."""


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

    def reach(self, above: Tensor) -> NDArray[np.int64]:
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

    def part(self, small: Tensor, xyxy: tuple[int, int, int, int]) -> Tensor:
        """(y1 - y0, x1 - x0) logits of a part of the image, in its pixels, from the (small, small) of one mask."""
        left, top, right, bottom = xyxy
        rows, first_row, last_row = self._axes[0].part(top, bottom, small.device)
        columns, first_column, last_column = self._axes[1].part(left, right, small.device)
        cells = small[first_row:last_row, first_column:last_column]
        return rows @ cells @ columns.T


def encode_masks(small: Tensor, upscale: Upscale, threshold: float, iou: NDArray[np.float32]) -> Masks:
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


def split_masks(masks: Masks) -> list[Masks]:
    """Each mask alone."""
    return [
        Masks(masks.rle_counts[one], masks.areas[one], masks.boxes[one], masks.predicted_iou[one], masks.stability[one])
        for one in (slice(place, place + 1) for place in range(len(masks.areas)))
    ]


def _cut(
    small: Tensor, upscale: Upscale, threshold: float, xyxy: tuple[int, int, int, int]
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
        self._on: dict[torch.device, Tensor] = {}
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

    def part(self, start: int, end: int, device: torch.device) -> tuple[Tensor, int, int]:
        """Weights (end - start, K) float32 of some pixels, at least one, on the small logits from i to j, K = j - i."""
        first, last = int(self._cells[0, start]), int(self._cells[3, end - 1]) + 1
        if device not in self._on:
            self._on[device] = self._matrix.to(device, non_blocking=True)
        return self._on[device][start:end, first:last], first, last

    @cached_property
    def _matrix(self) -> Tensor:
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


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of one mask, in pixels of its image."""

    mask: int
    xyxy: tuple[int, int, int, int]

    @property
    def pixels(self) -> int:
        """How many it has."""
        return (self.xyxy[2] - self.xyxy[0]) * (self.xyxy[3] - self.xyxy[1])


def encode_batch(
    small: Tensor, iou: Tensor, upscales: Sequence[Upscale], image: Sequence[int], threshold: float
) -> list[Masks]:
    """Upscale, threshold and describe masks of several images.

    Only where a mask can be is it upscaled. Where each run of true pixels begins and ends is found on the device; the
    runs of all masks come to the host in one copy, where all are compressed together.

    Args:
        small: (N, s, s) float32 logits of the mask decoder, on any device.
        iou: (N,) the model's own estimates, on the same device.
        upscales: One an image.
        image: N indices into `upscales`, ascending.
        threshold: Logit above which a pixel belongs to the mask.

    Returns:
        One mask in each, in the order given, as `encode_masks` describes them. The predicted
        IoU of a mask with a logit that is not finite is NaN.
    """
    iou = torch.where(small.isfinite().flatten(1).all(1), iou.clamp(0, 1), torch.nan)
    reach, estimates = _reaches(small, iou, upscales, image, threshold - STABILITY_OFFSET)
    budget = PIXELS_ON_DEVICE.get(small.device.type, PIXELS_ON_DEVICE["cuda"])
    starts, ends, masks = [], [], []
    inside = np.zeros((len(small), 2), dtype=np.int64)
    for pieces in _groups(reach, budget):
        edges, levels = _edges(small, [upscales[image[piece.mask]] for piece in pieces], pieces, threshold)
        owners = np.array([piece.mask for piece in pieces])
        np.add.at(inside, owners, levels)
        heights = np.array([upscales[image[piece.mask]].size[0] for piece in pieces])
        first, last, piece_of = _runs(edges, pieces, heights)
        starts.append(first)
        ends.append(last)
        masks.append(owners[piece_of])
    none = np.zeros(0, dtype=np.int64)
    runs = Runs(*(np.concatenate([none, *parts]) for parts in (starts, ends, masks)))
    counts, areas, boxes = describe(
        runs, np.array([upscales[index].size for index in image], dtype=np.int64).reshape(-1, 2)
    )
    stability = (inside[:, 0] / np.maximum(inside[:, 1], 1)).astype(np.float32)
    return split_masks(Masks(counts, areas, boxes, estimates, stability))


def _reaches(
    small: Tensor, iou: Tensor, upscales: Sequence[Upscale], image: Sequence[int], cut: float
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """(N, 4) xyxy in pixels of the image, where each mask can be, and (N,) estimates: one copy from the device."""
    above = small > cut
    packed = torch.cat([above.any(dim=2).float(), above.any(dim=1).float(), iou[:, None]], dim=1).cpu().numpy()
    side = small.shape[1]
    rows, columns = packed[:, :side] > 0, packed[:, side : 2 * side] > 0
    reach = np.zeros((len(small), 4), dtype=np.int64)
    for index in dict.fromkeys(image):
        some = np.flatnonzero(np.asarray(image) == index)
        reach[some] = upscales[index].reach_of(rows[some], columns[some])
    return reach, packed[:, -1].copy()


def _groups(reach: NDArray[np.int64], budget: int) -> Iterator[list[Piece]]:
    """Pieces of all masks, in order; a few columns each where a mask is larger than the budget."""
    group: list[Piece] = []
    held = 0
    for mask, (left, top, right, bottom) in enumerate(reach.tolist()):
        if left == right or top == bottom:
            continue
        step = max(1, budget // (bottom - top))
        for start in range(left, right, step):
            piece = Piece(mask, (start, top, min(start + step, right), bottom))
            if group and held + piece.pixels > budget:
                yield group
                group, held = [], 0
            group.append(piece)
            held += piece.pixels
    if group:
        yield group


def _edges(
    small: Tensor, upscales: Sequence[Upscale], pieces: Sequence[Piece], threshold: float
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where pixels change along all pieces, laid out column after column, each column followed by a false pixel.

    Returns:
        Places of the changes, of which one half begin runs and the other half end them, in turn; and (P, 2) how many
        logits of each piece exceed threshold + STABILITY_OFFSET and threshold - STABILITY_OFFSET.
    """
    shapes = [(right - left, bottom - top + 1) for left, top, right, bottom in (piece.xyxy for piece in pieces)]
    # The pixel in front is false, so that a run may begin at the first.
    line = torch.zeros(1 + sum(columns * rows for columns, rows in shapes), dtype=torch.bool, device=small.device)
    levels = torch.empty((len(pieces), 2), dtype=torch.int64, device=small.device)
    place = 1
    for number, (piece, upscale, (columns, rows)) in enumerate(zip(pieces, upscales, shapes, strict=True)):
        # Transposed: runs go down the columns.
        logits = upscale.part(small[piece.mask], piece.xyxy).T
        line[place : place + columns * rows].view(columns, rows)[:, :-1] = logits > threshold
        levels[number, 0] = (logits > threshold + STABILITY_OFFSET).sum()
        levels[number, 1] = (logits > threshold - STABILITY_OFFSET).sum()
        place += columns * rows
    changes = torch.nonzero(line[1:] != line[:-1])[:, 0]
    if not line.is_cpu:
        both = torch.cat([levels.flatten(), changes]).cpu().numpy()
        return both[2 * len(pieces) :], both[: 2 * len(pieces)].reshape(-1, 2)
    return changes.numpy(), levels.numpy()


def _runs(
    edges: NDArray[np.int64], pieces: Sequence[Piece], heights: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """First pixel of each run and the one after its last, counted down the columns of its image, and its piece."""
    corners = np.array([piece.xyxy for piece in pieces])
    rows = corners[:, 3] - corners[:, 1] + 1
    ends = np.cumsum((corners[:, 2] - corners[:, 0]) * rows)
    piece = np.searchsorted(ends, edges[0::2], side="right")
    before = (ends - (corners[:, 2] - corners[:, 0]) * rows)[piece]
    column, first = np.divmod(edges[0::2] - before, rows[piece])
    start = (corners[piece, 0] + column) * heights[piece] + corners[piece, 1] + first
    return start, start + edges[1::2] - edges[0::2], piece
