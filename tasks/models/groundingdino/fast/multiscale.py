"""Samples feature maps of several levels bilinearly, by Triton kernel, grid_sample or table rows on a CPU.

What the transformer needs of the feature maps' shapes is kept by shape (switch static_shapes).
"""

import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

logger = logging.getLogger(__name__)

PIECE = 65536
"""Samples worked on together on a CPU: a column of them is 256 KiB and stays in its cache."""

_TROUBLE: Final[list[str]] = []
"""Why the kernel cannot be used in this process, once that is known."""

Shapes = tuple[tuple[int, int], ...]
"""Height and width of each level's feature map."""


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


def sample_on_gpu(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """As `sample`, by Triton's kernel.

    Triton builds its launcher with a C compiler and Python's headers, and its kernel for the driver, at the first
    launch. Where any of these is missing, one warning says so and grid_sample takes over for good.

    Raises:
        torch.OutOfMemoryError: The device is full.
    """
    if _TROUBLE:
        return sample_grids(values, shapes, x, y, weights)
    try:
        return _launch(values, shapes, x, y, weights)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if "[CUDA]: out of memory" in reason:
        # Triton has no error of its own for what the next, smaller batch may well escape.
        raise torch.OutOfMemoryError(reason)
    # A device that is broken fails here too, and then it is not the kernel's fault.
    sampled = sample_grids(values, shapes, x, y, weights)
    _TROUBLE.append(reason)
    logger.warning("GroundingDINO's sampling kernel cannot be used, slower grid_sample takes its place: %s", reason)
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


@lru_cache(64)
def levels_table(shapes: Shapes, device: torch.device) -> Tensor:
    """(L, 3) int32: height, width and first cell of each level."""
    first = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    table = [(*shape, start) for shape, start in zip(shapes, first, strict=True)]
    return torch.tensor(table, dtype=torch.int32).to(device)


def _neighbours(places: Tensor, last: Tensor, zero: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The first of two neighbouring pixels within the map, and the shares of both.

    A pixel's share is 1 less its distance, and 0 beyond 1: at the border, and outside, that is what zeros around the
    map leave.
    """
    first = torch.fmin(torch.fmax(places.floor(), zero), last)  # a NaN stays out of the index, not out of the shares
    distance = places - first
    second_share = (distance - 1).abs_().neg_().add_(1).clamp_(min=0)
    return first, distance.abs_().neg_().add_(1).clamp_(min=0), second_share


def sample_grids(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """As `sample_on_gpu`, by grid_sample level by level: a few large kernels, and one level's samples in memory."""
    batch, _, heads, depth = values.shape
    queries, points = x.shape[1], x.shape[3] // len(shapes)
    total = values.new_zeros((batch * heads, depth, queries), dtype=torch.float32)
    if not batch or not queries:
        return total.view(batch, queries, heads * depth).to(values.dtype)
    maps = torch.split(values.float(), [height * width for height, width in shapes], 1)
    for level, (height, width) in enumerate(shapes):
        part = slice(level * points, (level + 1) * points)
        image = maps[level].permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        # grid_sample counts from -1 to 1, from border to border.
        grid = torch.stack([(2 * x[..., part] + 1) / width - 1, (2 * y[..., part] + 1) / height - 1], 4)
        found = functional.grid_sample(image, grid.transpose(1, 2).flatten(0, 1), align_corners=False)
        total += found.mul_(weights[..., part].transpose(1, 2).flatten(0, 1)[:, None]).sum(3)
    return total.view(batch, heads * depth, queries).transpose(1, 2).to(values.dtype).contiguous()


def _launch(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    from vouch_labels.tasks.models.groundingdino.fast.sampling_kernel import launch

    # Triton launches on the current device, whichever has the tensors.
    with torch.cuda.device(values.get_device()):
        return launch(values, levels_table(shapes, values.device), x, y, weights)


@_sample.register_fake
def _shape_of_sample(values: Tensor, _shapes: list[int], x: Tensor, *_: Tensor) -> Tensor:
    return values.new_empty(x.shape[0], x.shape[1], values.shape[2] * values.shape[3])


class Levels(NamedTuple):
    """The maps that deformable attention samples, finest first."""

    shapes: Shapes
    tensor: Tensor
    """(L, 2) int64, the same numbers on the device."""
    sizes: Tensor
    """(2, L) float32: widths, heights."""


class Places(NamedTuple):
    """Where each query looks from, in pixels of each level with 0 at the centre of the first one."""

    x: Tensor
    """(B or 1, Q, 1, L * P) float32."""
    y: Tensor
    """As x."""
    scale_x: Tensor | None
    """(B or 1, Q, 1, L * P): pixels that an offset of 1 moves by; None: one."""
    scale_y: Tensor | None
    """As scale_x."""
    reference: Tensor
    """(B or 1, Q, 2 or 4): the points or boxes in shares of the image that all of this was made from."""


class Layout(NamedTuple):
    """All that depends on nothing but the shapes of the feature maps."""

    levels: Levels
    positions: Tensor
    """(1, N, D) float32: sine embedding of each cell plus its level's embedding."""
    places: Places
    """The cells' own centres."""
    proposals: Tensor
    """(1, N, 4): logits of the box that each cell proposes; inf where it is too close to the border."""
    rejected: Tensor
    """(1, N, 1) boolean: cells whose proposal is inf."""


def make_layout(model: "GroundingDINO", shapes: Shapes, points: int, device: torch.device) -> Layout:
    """Ask the package's functions for what they would give for maps in which nothing is padded.

    `points` are the sampling points a level in the encoder.
    """
    from groundingdino.models.GroundingDINO.utils import gen_encoder_output_proposals

    cells = sum(height * width for height, width in shapes)
    unpadded = torch.zeros(1, cells, dtype=torch.bool)
    kept, proposals = gen_encoder_output_proposals(torch.ones(1, cells, 1), unpadded, torch.tensor(shapes))
    whole = torch.ones(1, len(shapes), 2)
    centres = model.transformer.encoder.get_reference_points(shapes, whole, "cpu")[:, :, 0]
    levels = make_levels(shapes, device)
    return Layout(
        levels=levels,
        positions=torch.cat([_positions(model, shape, level, device) for level, shape in enumerate(shapes)], 1),
        places=places_of_points(centres.to(device), levels, points),
        proposals=proposals.to(device),
        rejected=(kept == 0).to(device),
    )


def make_levels(shapes: Shapes, device: torch.device) -> Levels:
    """Put the shapes on the device."""
    tensor = torch.tensor(shapes, device=device)
    return Levels(shapes, tensor, tensor.flip(1).T.float().contiguous())


def places_of_points(centres: Tensor, levels: Levels, points: int) -> Places:
    """Turn points (B, Q, 2), in shares of the image, into pixels of each level."""
    x, y = (_pixels(centres[..., axis], levels.sizes[axis], points) for axis in (0, 1))
    return Places(x.sub_(0.5), y.sub_(0.5), None, None, centres)


def places_of_boxes(boxes: Tensor, levels: Levels, points: int) -> Places:
    """Turn boxes (B, Q, 4), centre and size in shares of the image, into pixels of each level.

    An offset of as many pixels as there are points moves by half a box (Deformable DETR, arXiv 2010.04159, A.3).
    """
    x, y, width, height = (_pixels(boxes[..., part], levels.sizes[part % 2], points) for part in range(4))
    half = 0.5 / points
    return Places(x.sub_(0.5), y.sub_(0.5), width.mul_(half), height.mul_(half), boxes)


def _pixels(shares: Tensor, sizes: Tensor, points: int) -> Tensor:
    """(B, Q) -> (B, Q, 1, L * P)."""
    return (shares[..., None, None] * sizes[:, None]).expand(-1, -1, -1, points).flatten(2)[:, :, None].contiguous()


def _positions(model: "GroundingDINO", shape: tuple[int, int], level: int, device: torch.device) -> Tensor:
    from groundingdino.util.misc import NestedTensor

    pixels = torch.zeros(1, 1, *shape, device=device)
    embedded: Tensor = model.backbone[1](NestedTensor(pixels, torch.zeros_like(pixels[:, 0], dtype=torch.bool)))
    of_level = getattr(model.transformer, "level_embed", None)
    flat = embedded.flatten(2).transpose(1, 2)
    return flat.contiguous() if of_level is None else flat + of_level[level]
