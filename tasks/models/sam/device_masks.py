"""Turns the mask decoder's small logits into run-length encodings of many masks at once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vouch_labels.tasks.models.registry import Masks
from vouch_labels.tasks.models.sam.masks import STABILITY_OFFSET, Runs, Upscale, describe, split_masks

PIXELS_AT_ONCE: Final = {"cpu": 1 << 22, "cuda": 1 << 26}
"""Most mask pixels upscaled at once: 16 MiB of float32 logits, which stay near a CPU; 256 MiB."""


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
        One mask in each, in the order given, as `tasks.models.sam.masks.encode_masks` describes them. The predicted
        IoU of a mask with a logit that is not finite is NaN.
    """
    iou = torch.where(small.isfinite().flatten(1).all(1), iou.clamp(0, 1), torch.nan)
    reach, estimates = _reaches(small, iou, upscales, image, threshold - STABILITY_OFFSET)
    budget = PIXELS_AT_ONCE.get(small.device.type, PIXELS_AT_ONCE["cuda"])
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
