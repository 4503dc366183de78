"""The image backbone: Swin with windows gathered in one step."""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from torch import Tensor

from tasks.models.engine.compiling import compiled
from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.fused_attention import window_attention
from tasks.models.groundingdino.fast.patches import embed_patches
from tasks.models.groundingdino.fast.rows import by_rows
from tasks.models.groundingdino.fast.windows import Windows, cut, of_all

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer, SwinTransformerBlock

KEPT = 256
"""Ways of cutting a map into windows that are kept: two a stage and shape of images, 3 MB a shape of 800 x 1333."""
Stage = tuple[Tensor, tuple[int, int]]
"""Cells (B, H * W, C) and their (H, W)."""


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
