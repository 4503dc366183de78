"""Upscales SAM's small mask logits to the image's size, only where a mask can be."""

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch


class Upscale:
    """The package's two bilinear steps (small logits -> padded encoder input -> original image) as one linear map.

    Sam.postprocess_masks in segment_anything/modeling/sam.py interpolates twice with a cut in between. Both steps are
    separable and linear, so logits = rows @ small @ columns.T, and any part of the result can be had alone. The values
    are weighted means, so where all small logits that a pixel depends on are at most v, the pixel is at most v.
    """

    def __init__(self, small: int, padded: int, input_size: tuple[int, ...], size: tuple[int, ...]) -> None:
        """Prepare for one image.

        Args:
            small: Side of the small logits.
            padded: Side of the encoder's input.
            input_size: (h, w) of the image in the encoder's input, without padding.
            size: (H, W) of the image.
        """
        self.size = (size[0], size[1])
        """(H, W) of the image."""
        self._axes = [_Axis(small, padded, kept, length) for kept, length in zip(input_size, size, strict=True)]

    def reach(self, above: "torch.Tensor") -> NDArray[np.int64]:
        """Where the image can exceed a value.

        Args:
            above: (N, small, small) bool: which small logits exceed it.

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
        """Logits of a part of the image.

        Args:
            small: (small, small) float32 logits of one mask.
            xyxy: The part, in pixels of the image.

        Returns:
            (y1 - y0, x1 - x0) float32, on the device of `small`.
        """
        left, top, right, bottom = xyxy
        rows, first_row, last_row = self._axes[0].part(top, bottom, small.device)
        columns, first_column, last_column = self._axes[1].part(left, right, small.device)
        cells = small[first_row:last_row, first_column:last_column]
        return rows @ cells @ columns.T


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
