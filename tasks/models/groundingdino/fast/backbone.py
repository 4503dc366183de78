"""Runs the image backbone: Swin with windows gathered in one step, and its convolutions (switch channels_last)."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, cast

from torch import Tensor
from torch.nn import functional

from vouch_labels.tasks.models.compile import compiled, linear
from vouch_labels.tasks.models.groundingdino.fast.attention import Windows, by_rows, cut, of_all, window_attention
from vouch_labels.tasks.models.runtime import Engine

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import (
        PatchEmbed,
        SwinTransformer,
        SwinTransformerBlock,
    )
    from torch import nn

KEPT = 256
"""Ways of cutting a map into windows that are kept: two a stage and shape of images, 3 MB a shape of 800 x 1333."""
Stage = tuple[Tensor, tuple[int, int]]
"""Cells (B, H * W, C) and their (H, W)."""

Shape = tuple[int, int]


class Block:
    """One Swin block: attention within windows, then a feed-forward network."""

    def __init__(self, block: "SwinTransformerBlock", engine: Engine) -> None:
        """Take the package's SwinTransformerBlock."""
        self.side, self.shift = block.window_size, block.shift_size
        self._norm1, self._norm2, self._mlp = block.norm1, block.norm2, block.mlp
        self._attend = window_attention(block.attn, block.shift_size, engine)
        self.forward = compiled(self._forward, engine, "a block of GroundingDINO's backbone")

    def _forward(self, cells: Tensor, windows: Windows) -> Tensor:
        """Map cells (B, H * W, C) to cells."""
        batch, places, width = cells.shape
        order = of_all(windows.order, batch, places)
        back = of_all(windows.back, batch, len(windows.order))
        gathered = self._norm1(cells).view(-1, width).index_select(0, order)
        if windows.padding is not None:
            gathered.view(batch, -1, width).index_fill_(1, windows.padding, 0.0)
        kinds = None if windows.kinds is None else windows.kinds.repeat(batch)
        mixed = self._attend(gathered.view(-1, self.side**2, width), kinds)
        mixed = mixed.view(-1, width).index_select(0, back).view(cells.shape)
        return by_rows(self._feed_forward, cells + mixed)

    def _feed_forward(self, cells: Tensor) -> Tensor:
        hidden = linear(self._norm2(cells), self._mlp.fc1.weight, self._mlp.fc1.bias, gelu=True)
        fed: Tensor = self._mlp.fc2(hidden)
        return cells + fed


class FastSwin:
    """The package's SwinTransformer, for images in which nothing is padded."""

    def __init__(self, swin: "SwinTransformer", engine: Engine) -> None:
        """Take the package's SwinTransformer."""
        self._swin = swin
        self._patches = embed_patches(swin.patch_embed, engine)
        self._stages = [[Block(block, engine) for block in layer.blocks] for layer in swin.layers]
        self._cut: Callable[..., Windows] = lru_cache(KEPT)(cut) if engine.has("static_shapes") else cut

    def __call__(self, images: Tensor) -> list[Stage]:
        """Run images (B, 3, H, W) through all stages; give those that the detector looks at, normalised."""
        cells, shape = self._patches(images)
        seen = []
        for number, (layer, blocks) in enumerate(zip(self._swin.layers, self._stages, strict=True)):
            for block in blocks:
                cells = block.forward(cells, self._cut(shape, block.side, block.shift, images.device))
            if number in self._swin.out_indices:
                seen.append((getattr(self._swin, f"norm{number}")(cells), shape))
            if layer.downsample is not None:
                cells = layer.downsample(cells, *shape)
                shape = (shape[0] + 1) // 2, (shape[1] + 1) // 2
        return seen


def embed_patches(embed: "PatchEmbed", engine: Engine) -> Callable[[Tensor], tuple[Tensor, Shape]]:
    """What turns images (B, 3, H, W) into cells (B, H' * W', C) and (H', W')."""
    return _PatchProduct(embed) if engine.has("channels_last") else _PackagePatches(embed)


def project_level(project: "nn.Sequential", engine: Engine) -> Callable[[Tensor, Shape], tuple[Tensor, Shape]]:
    """What turns cells (B, H * W, C) of a stage and their shape into cells of 256 channels and theirs.

    `project` is one of the package's input_proj: convolution and group normalisation.
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
