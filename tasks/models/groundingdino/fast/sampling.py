"""Weighted bilinear samples of feature maps at several levels."""

from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.groundingdino.fast.layout import Shapes, levels_table
from tasks.models.groundingdino.fast.sampling_gpu import sample_on_gpu

PIECE = 65536
"""Samples worked on together on a CPU: a column of them is 256 KiB and stays in its cache."""


def sample(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """Sum bilinear samples as grid_sample takes them with align_corners=False and zeros around the maps.

    Args:
        values: (B, N, heads, C) float32 or bfloat16: cells of all levels, row by row, finest level first.
        shapes: (height, width) of each of L levels; N is the sum of their products.
        x: (B, Q, heads, L * P) float32: columns in pixels of the level, 0 at the centre of the first one.
        y: As x: rows.
        weights: As x: what each sample counts.

    Returns:
        (B, Q, heads * C) of the values' type.
    """
    flat = [side for shape in shapes for side in shape]
    sampled: Tensor = torch.ops.vouch.sample_levels(values, flat, x, y, weights)
    return sampled


@torch.library.custom_op("vouch::sample_levels", mutates_args=())
def _sample(values: Tensor, shapes: list[int], x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    pairs = tuple(zip(shapes[::2], shapes[1::2], strict=True))
    if values.device.type == "cuda":
        return sample_on_gpu(values, pairs, x, y, weights)
    return sample_rows(values, pairs, x, y, weights)


@_sample.register_fake
def _shape_of_sample(values: Tensor, _shapes: list[int], x: Tensor, *_: Tensor) -> Tensor:
    return values.new_empty(x.shape[0], x.shape[1], values.shape[2] * values.shape[3])


def sample_rows(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """As `sample`, by embedding_bag in pieces for a CPU: values are a table, each query and head a bag of its rows."""
    batch, cells, heads, depth = values.shape
    queries, samples = x.shape[1], x.shape[3]
    known = _constants(shapes, samples // len(shapes), heads, values.device)
    step = max(1, PIECE // (heads * samples))
    sampled = values.new_empty(batch, queries, heads * depth)
    for image in range(batch):
        table = values[image].float().reshape(cells * heads, depth)
        for start in range(0, queries, step):
            part = slice(start, start + step)
            rows, shares = _corners(x[image, part], y[image, part], weights[image, part], known, heads)
            bags = functional.embedding_bag(
                rows.view(-1, 4 * samples), table, mode="sum", per_sample_weights=shares.view(-1, 4 * samples)
            )
            sampled[image, part] = bags.view(-1, heads * depth)
    return sampled


class _Constants(NamedTuple):
    width: Tensor  # (L * P,) float32
    last_x: Tensor  # (L * P,) float32: the last column that has one to its right
    last_y: Tensor
    single: Tensor | None  # (2, L * P) float32: 0 where the map has one column (row) only, else 1; None: none has
    first: Tensor  # (heads, L * P) int32: the row of the table where the level's first cell stands
    steps: Tensor  # (4, L * P) int32: rows from the upper left neighbour to each of the four
    zero: Tensor


@lru_cache(64)
def _constants(shapes: Shapes, points: int, heads: int, device: torch.device) -> _Constants:
    height, width, first = levels_table(shapes, torch.device("cpu")).T.repeat_interleave(points, 1)
    right, down = (width > 1).int() * heads, (height > 1) * width * heads
    single = torch.stack([width > 1, height > 1]).float()
    return _Constants(
        width.float().to(device),
        (width - 2).clamp(min=0).float().to(device),
        (height - 2).clamp(min=0).float().to(device),
        None if single.all() else single.to(device),
        (first * heads + torch.arange(heads)[:, None]).int().to(device),
        torch.stack([torch.zeros_like(right), right, down, down + right]).int().to(device),
        torch.zeros((), device=device),
    )


def _corners(x: Tensor, y: Tensor, weights: Tensor, known: _Constants, heads: int) -> tuple[Tensor, Tensor]:
    """Rows of the table and shares of the four neighbours of each sample: (Q, heads, 4, L * P) int32, float32."""
    column, left, right = _neighbours(x, known.last_x, known.zero)
    row, above, below = _neighbours(y, known.last_y, known.zero)
    if known.single is not None:
        right, below = right * known.single[0], below * known.single[1]
    above, below = above * weights, below * weights
    corner = row.mul_(known.width).add_(column).to(torch.int32).mul_(heads).add_(known.first)
    shares = torch.stack([above, below], 2)[:, :, :, None] * torch.stack([left, right], 2)[:, :, None]
    return corner[:, :, None] + known.steps, shares


def _neighbours(places: Tensor, last: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first of two neighbouring pixels within the map, and the shares of both.

    A pixel's share is 1 less its distance, and 0 beyond 1: at the border, and outside, that is what zeros around the
    map leave.
    """
    first = torch.fmin(torch.fmax(places.floor(), zero), last)  # a NaN stays out of the index, not out of the shares
    distance = places - first
    second_share = (distance - 1).abs_().neg_().add_(1).clamp_(min=0)
    return first, distance.abs_().neg_().add_(1).clamp_(min=0), second_share
