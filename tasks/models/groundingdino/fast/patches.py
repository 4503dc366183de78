"""Convolutions around the backbone without reordering memory (switch channels_last)."""

from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from torch import Tensor
from torch.nn import functional

from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import PatchEmbed
    from torch import nn

Shape = tuple[int, int]


def embed_patches(embed: "PatchEmbed", engine: Engine) -> Callable[[Tensor], tuple[Tensor, Shape]]:
    """What turns images (B, 3, H, W) into cells (B, H' * W', C) and (H', W')."""
    return _PatchProduct(embed) if engine.has("channels_last") else _PackagePatches(embed)


def project_level(project: "nn.Sequential", engine: Engine) -> Callable[[Tensor, Shape], tuple[Tensor, Shape]]:
    """What turns cells (B, H * W, C) of a stage and their shape into cells of 256 channels and theirs.

    Args:
        project: Convolution and group normalisation, one of the package's input_proj.
        engine: With channels_last the channels of a cell stay side by side, as they come.
    """
    return _LevelProduct(project) if engine.has("channels_last") else _PackageLevel(project)


class _PatchProduct:
    """Patches do not overlap, so their convolution is a matrix product, which leaves cells as Swin wants them."""

    def __init__(self, embed: "PatchEmbed") -> None:
        self._norm, self._side, self._proj = embed.norm, tuple(embed.patch_size), embed.proj

    def __call__(self, images: Tensor) -> tuple[Tensor, Shape]:
        down, across = self._side
        below, right = (-side % step for side, step in zip(images.shape[2:], self._side, strict=True))
        if below or right:
            images = functional.pad(images, (0, right, 0, below))
        batch, channels, height, width = images.shape
        shape = height // down, width // across
        patches = images.view(batch, channels, shape[0], down, shape[1], across).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(batch, shape[0] * shape[1], -1)
        cells = linear(flat, self._proj.weight.flatten(1), self._proj.bias)
        return (cells if self._norm is None else self._norm(cells)), shape


class _PackagePatches:
    def __init__(self, embed: "PatchEmbed") -> None:
        self._embed = embed

    def __call__(self, images: Tensor) -> tuple[Tensor, Shape]:
        maps: Tensor = self._embed(images)
        return maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3])


class _LevelProduct:
    def __init__(self, project: "nn.Sequential") -> None:
        self._convolve, self._norm = cast("tuple[nn.Conv2d, nn.GroupNorm]", project)

    def __call__(self, cells: Tensor, shape: Shape) -> tuple[Tensor, Shape]:
        if self._convolve.kernel_size == (1, 1):
            maps = _as_map(linear(cells, self._convolve.weight.flatten(1), self._convolve.bias), shape)
        else:
            maps = self._convolve(_as_map(cells, shape))
        return _as_cells(self._norm(maps))


class _PackageLevel:
    def __init__(self, project: "nn.Sequential") -> None:
        self._project = project

    def __call__(self, cells: Tensor, shape: Shape) -> tuple[Tensor, Shape]:
        return _as_cells(self._project(_as_map(cells, shape).contiguous()))


def _as_map(cells: Tensor, shape: Shape) -> Tensor:
    """(B, H * W, C) -> (B, C, H, W), a view."""
    return cells.reshape(len(cells), *shape, -1).permute(0, 3, 1, 2)


def _as_cells(maps: Tensor) -> tuple[Tensor, Shape]:
    return maps.flatten(2).transpose(1, 2), (maps.shape[2], maps.shape[3])
