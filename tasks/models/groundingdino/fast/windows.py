"""Which cells of a feature map share an attention window (switch static_shapes keeps it by shape)."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

APART = -100.0
"""What Swin adds to the attention between cells that are neighbours only because the map was rolled."""


class Windows(NamedTuple):
    """A feature map cut into windows, after rolling it by `shift`: of one image, as they are the same for all."""

    order: Tensor
    """(windows * cells,) int64: the place, in the flattened (H, W), of each cell of each window; of padding: any."""
    padding: Tensor | None
    """(P,) int64: which of these are padding; None where none is."""
    back: Tensor
    """(H * W,) int64: where in `order` each place is."""
    kinds: Tensor | None
    """(windows,) int64 in 0..3: at the lower border 2 more, at the right border 1 more. None: not rolled."""


def cut(shape: tuple[int, int], side: int, shift: int, device: torch.device) -> Windows:
    """Cut a map of (height, width) into windows of side x side cells."""
    down, across = (-(-length // side) for length in shape)
    rows, columns = ((np.arange(-(-length // side) * side) + shift) % (-(-length // side) * side) for length in shape)
    outside = (rows >= shape[0])[:, None] | (columns >= shape[1])
    places = np.minimum(rows, shape[0] - 1)[:, None] * shape[1] + np.minimum(columns, shape[1] - 1)
    outside, places = (
        each.reshape(down, side, across, side).transpose(0, 2, 1, 3).ravel() for each in (outside, places)
    )
    back = np.empty(shape[0] * shape[1], np.int64)
    back[places[~outside]] = np.flatnonzero(~outside)
    kinds = 2 * (np.arange(down) == down - 1)[:, None] + (np.arange(across) == across - 1)
    arrays = places, np.flatnonzero(outside), back, kinds.ravel()
    order, padding, there, kind = (torch.from_numpy(each).to(device) for each in arrays)
    return Windows(order, padding if len(padding) else None, there, kind if shift else None)


def of_all(places: Tensor, images: int, length: int) -> Tensor:
    """Places within one image as places in a batch, image after image, each with `length` of them: (images * P,)."""
    return (places + length * torch.arange(images, device=places.device)[:, None]).flatten()


def masks_of_kinds(side: int, shift: int) -> Tensor:
    """What is added to the attention in windows of each kind: (4, side * side, side * side) float32."""
    rolled = torch.arange(side) >= side - shift
    rows, columns = rolled.repeat_interleave(side), rolled.repeat(side)
    masks = []
    for kind in range(4):
        part = (rows if kind & 2 else torch.zeros_like(rows)) * 2 + (
            columns if kind & 1 else torch.zeros_like(rows)
        ) * 1
        masks.append((part[:, None] != part) * APART)
    return torch.stack(masks)
