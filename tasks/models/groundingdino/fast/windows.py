"""Which cells of a feature map share an attention window (switch static_shapes keeps it by shape)."""

from typing import NamedTuple

import torch
from torch import Tensor

APART = -100.0
"""What Swin adds to the attention between cells that are neighbours only because the map was rolled."""


class Windows(NamedTuple):
    """A feature map cut into windows, after rolling it by `shift`; all places are into flattened (B, H, W)."""

    order: Tensor
    """(windows * B * cells,) int64: the place of each cell of each window; of padding: any place."""
    padding: Tensor | None
    """Which of these are padding; None where none is."""
    back: Tensor
    """(B * H * W,) int64: where in `order` each place is."""
    kinds: Tensor | None
    """(windows * B,) int64 in 0..3: at the lower border 2 more, at the right border 1 more. None: not rolled."""


def cut(shape: tuple[int, int], batch: int, side: int, shift: int, device: torch.device) -> Windows:
    """Cut a map of (height, width) into windows of side x side cells."""
    height, width = shape
    down, across = -(-height // side), -(-width // side)
    rows = (torch.arange(down * side) + shift) % (down * side)
    columns = (torch.arange(across * side) + shift) % (across * side)
    inside = ((rows < height)[:, None] & (columns < width)).view(down, side, across, side)
    places = (rows.clamp(max=height - 1)[:, None] * width + columns.clamp(max=width - 1)).view(inside.shape)
    # (windows, cells), then the batch between the two
    inside, places = (each.transpose(1, 2).reshape(down * across, 1, side * side) for each in (inside, places))
    inside = inside.expand(-1, batch, -1).flatten()
    order = (places + (torch.arange(batch) * height * width)[:, None]).flatten()
    back = torch.empty(batch * height * width, dtype=torch.int64)
    back[order[inside]] = inside.nonzero()[:, 0]
    padding = None if inside.all() else (~inside).nonzero()[:, 0].to(device)
    lowest, rightmost = torch.arange(down) == down - 1, torch.arange(across) == across - 1
    kinds = (2 * lowest[:, None] + 1 * rightmost).flatten().repeat_interleave(batch)
    return Windows(order.to(device), padding, back.to(device), kinds.to(device) if shift else None)


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
