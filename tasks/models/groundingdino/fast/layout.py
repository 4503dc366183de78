"""What the transformer needs of the feature maps' shapes (switch static_shapes keeps it by shape)."""

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

Shapes = tuple[tuple[int, int], ...]
"""Height and width of each level's feature map."""


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
    """Ask the package's functions for what they would say of maps in which nothing is padded.

    Args:
        model: groundingdino-py's GroundingDINO.
        shapes: Of each level.
        points: Sampling points a level in the encoder.
        device: Where the model is.
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


@lru_cache(64)
def levels_table(shapes: Shapes, device: torch.device) -> Tensor:
    """(L, 3) int32: height, width and first cell of each level."""
    first = [sum(height * width for height, width in shapes[:level]) for level in range(len(shapes))]
    table = [(*shape, start) for shape, start in zip(shapes, first, strict=True)]
    return torch.tensor(table, dtype=torch.int32).to(device)


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
