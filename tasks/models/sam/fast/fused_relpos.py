"""The image encoder's blocks with fused attention; relative positions are looked up once."""

from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.models.engine.compiling import compiled
from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.image_encoder import Block

BIAS_LOGITS = 1 << 22
"""Most attention logits whose bias is written out at once on a CPU: 16 MiB, which stay near it."""


def install_blocks(sam: "Sam", engine: Engine) -> None:
    """Replace the blocks of the image encoder by blocks with fused attention, which hold the same parameters.

    Args:
        sam: With its weights, on its device.
        engine: Whether blocks are compiled.
    """
    encoder: Any = sam.image_encoder
    side = encoder.img_size // encoder.patch_embed.proj.kernel_size[0]
    blocks = [FusedBlock(block, side) for block in encoder.blocks]
    for block in blocks:
        setattr(block, "forward", compiled(block.forward, engine, "SAM's image encoder"))  # noqa: B010 - as mypy wants
    encoder.blocks = nn.ModuleList(blocks)


class FusedBlock(nn.Module):
    """Block of segment_anything/modeling/image_encoder.py, equal to it but for rounding.

    The decomposed relative positions of Li et al. 2022 (MViTv2, section 4.1) add to the logit of query (y, x) and key
    (v, u) the terms h[y, x, v] + w[y, x, u], with h = q . R_h and w = q . R_w. On GPUs h and w are further channels of
    the query, and the key has a one where v or u is its own row or column; so the kernel adds them and no bias of
    (HW)^2 is stored. On a CPU, whose kernel takes time for every channel, the bias is written out, a few rows at once.
    """

    _rows: Tensor
    _columns: Tensor

    def __init__(self, block: "Block", side: int) -> None:
        """Take the parts of a block of the package; `side` is that of the grid of tokens."""
        super().__init__()
        self.norm1, self.attn, self.norm2, self.mlp = block.norm1, block.attn, block.norm2, block.mlp
        self._window: int = block.window_size
        self._heads: int = block.attn.num_heads
        self._scale: float = block.attn.scale
        self._gelu = type(block.mlp.act) is nn.GELU and block.mlp.act.approximate == "none"
        self._span = self._window or side
        self._relative = bool(block.attn.use_rel_pos)
        if self._relative:
            self._keep_positions()

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        # The package's patches come as a transposed view, which every layer would copy anew.
        tokens = tokens.contiguous()
        tokens = tokens + self._attend(self.norm1(tokens))
        return tokens + self._expand(self.norm2(tokens))

    def _keep_positions(self) -> None:
        from segment_anything.modeling.image_encoder import get_rel_pos

        span = self._span
        for name, table in (("_rows", self.attn.rel_pos_h), ("_columns", self.attn.rel_pos_w)):
            self.register_buffer(name, get_rel_pos(span, span, table.detach()).contiguous(), persistent=False)

    def _expand(self, tokens: Tensor) -> Tensor:
        if not self._gelu:
            expanded: Tensor = self.mlp(tokens)
            return expanded
        first, second = self.mlp.lin1, self.mlp.lin2
        wide = linear(tokens, first.weight, first.bias, gelu=True)
        return linear(wide, second.weight, second.bias)

    def _attend(self, tokens: Tensor) -> Tensor:
        # Projections see the tokens only, not the padding of windows.
        joined = linear(tokens, self.attn.qkv.weight, self.attn.qkv.bias)
        found = self._windowed(joined) if self._window else self._global(joined)
        return linear(found, self.attn.proj.weight, self.attn.proj.bias)

    def _global(self, joined: Tensor) -> Tensor:
        batch, height, width, channels = joined.shape
        parts = joined.view(batch, height * width, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        return self._fused(parts).transpose(1, 2).reshape(batch, height, width, channels // 3)

    def _windowed(self, joined: Tensor) -> Tensor:
        batch, height, width, channels = joined.shape
        side, heads = self._window, self._heads
        padded = self._pad(joined)
        rows, columns = padded.shape[1] // side, padded.shape[2] // side
        parts = padded.view(batch, rows, side, columns, side, 3, heads, -1).permute(5, 0, 1, 3, 6, 2, 4, 7)
        found = self._fused(parts.reshape(3, batch * rows * columns, heads, side * side, -1))
        grid = found.view(batch, rows, columns, heads, side, side, -1).permute(0, 1, 4, 2, 5, 3, 6)
        whole = grid.reshape(batch, rows * side, columns * side, channels // 3)
        return whole[:, :height, :width]

    def _pad(self, joined: Tensor) -> Tensor:
        """The package pads windows by tokens of zeros before the projection, which are its bias behind it."""
        height, width = joined.shape[1:3]
        below, right = -height % self._window, -width % self._window
        if not below and not right:
            return joined
        padded = functional.pad(joined, (0, 0, 0, right, 0, below))
        if self.attn.qkv.bias is not None:
            padded[:, height:] = self.attn.qkv.bias
            padded[:, :height, width:] = self.attn.qkv.bias
        return padded

    def _fused(self, parts: Tensor) -> Tensor:
        """(3, N, heads, L, D) queries, keys and values to (N, heads, L, D)."""
        query, key, value = parts.unbind(0)
        if not self._relative:
            return functional.scaled_dot_product_attention(query, key, value, scale=self._scale)
        by_row, by_column = self._terms(query)
        way = with_bias if query.is_cpu else with_channels
        return way(query, key, value, self._scale, by_row, by_column)

    def _terms(self, query: Tensor) -> tuple[Tensor, Tensor]:
        """The terms h and w, (N, heads, H, W, H) and (N, heads, H, W, W)."""
        span = self._span
        placed = query.reshape(*query.shape[:2], span, span, -1)
        by_row = torch.einsum("nahwc,hkc->nahwk", placed, self._rows.to(query.dtype))
        by_column = torch.einsum("nahwc,wkc->nahwk", placed, self._columns.to(query.dtype))
        return by_row, by_column


def with_channels(query: Tensor, key: Tensor, value: Tensor, scale: float, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention whose relative positions are further channels of queries and keys; for GPUs.

    Args:
        query: (N, heads, H * W, D).
        key: As `query`.
        value: As `query`.
        scale: Of the products of queries and keys.
        by_row: (N, heads, H, W, H), what is added for each row of keys.
        by_column: (N, heads, H, W, W), the same for each column; H = W.

    Returns:
        As `query`.
    """
    batch, heads, length, width = query.shape
    span = by_row.shape[-1]
    own = torch.eye(span, dtype=key.dtype, device=key.device)
    rows = own[:, None].expand(span, span, span).reshape(length, span).expand(batch, heads, length, span)
    columns = own.expand(span, span, span).reshape(length, span).expand(batch, heads, length, span)
    # One width for all three, a multiple of eight, is what the fast kernels take.
    blank = -(width + 2 * span) % 8
    wide_query = torch.cat([query * scale, by_row.flatten(2, 3), by_column.flatten(2, 3)], dim=-1)
    wide_key = torch.cat([key, rows, columns], dim=-1)
    found = functional.scaled_dot_product_attention(
        functional.pad(wide_query, (0, blank)),
        functional.pad(wide_key, (0, blank)),
        functional.pad(value, (0, 2 * span + blank)),
        scale=1.0,
    )
    return found[..., :width]


def with_bias(query: Tensor, key: Tensor, value: Tensor, scale: float, by_row: Tensor, by_column: Tensor) -> Tensor:
    """As `with_channels`, by a bias that is written out for a few rows at once; for CPUs."""
    batch, heads, length, _ = query.shape
    span = by_row.shape[-1]
    images = max(1, BIAS_LOGITS // length**2)
    rows = min(span, max(1, BIAS_LOGITS // (length * span)))
    found = torch.empty_like(value)
    for head, first, top in product(range(heads), range(0, batch, images), range(0, span, rows)):
        block = (slice(first, first + images), slice(head, head + 1))
        lines, part = slice(top, top + rows), slice(top * span, (top + rows) * span)
        bias = by_row[block][:, :, lines, :, :, None] + by_column[block][:, :, lines, :, None, :]
        found[block][:, :, part] = functional.scaled_dot_product_attention(
            query[block][:, :, part], key[block], value[block], bias.flatten(4).flatten(2, 3), scale=scale
        )
    return found
