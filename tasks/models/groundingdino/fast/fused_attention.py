"""Attention of windows, text and decoder as one kernel (switch fused_attention)."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor
from torch.nn import functional

from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.windows import masks_of_kinds

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import WindowAttention as PackageAttention
    from torch import nn

WindowAttention = Callable[[Tensor, Tensor | None], Tensor]
"""(windows (W, cells, C), kinds (W,) or None) -> (W, cells, C)."""
HeadAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(query (B, Q, D), key (B, K, D), value (B, K, D), allowed (1, Q, K) boolean or None) -> (B, Q, D)."""

ALIGNED = 16
"""Kernels on GPUs want rows of masks to begin at multiples of this; others are copied at each call."""


def window_attention(attention: "PackageAttention", shift: int, engine: Engine) -> WindowAttention:
    """The attention of a Swin block whose map is rolled by `shift` cells."""
    return _FusedWindows(attention, shift) if engine.has("fused_attention") else _PackageWindows(attention, shift)


def head_attention(attention: "nn.MultiheadAttention", engine: Engine) -> HeadAttention:
    """An nn.MultiheadAttention with the batch first."""
    return _FusedHeads(attention) if engine.has("fused_attention") else _PackageHeads(attention)


class _FusedWindows:
    def __init__(self, attention: "PackageAttention", shift: int) -> None:
        self._qkv, self._proj, self._heads = attention.qkv, attention.proj, attention.num_heads
        self._scale = float(attention.scale)
        side = attention.window_size[0]
        index = attention.relative_position_index.flatten()
        bias = attention.relative_position_bias_table[index].view(side**2, side**2, -1).permute(2, 0, 1)
        masks = masks_of_kinds(side, shift).to(bias.device) if shift else bias.new_zeros(1, side**2, side**2)
        room = -(-(side**2) // ALIGNED) * ALIGNED
        self._masks = functional.pad(bias[None] + masks[:, None], (0, room - side**2))  # (kinds, heads, cells, room)

    def __call__(self, windows: Tensor, kinds: Tensor | None) -> Tensor:
        count, cells, width = windows.shape
        q, k, v = self._qkv(windows).view(count, cells, 3, self._heads, -1).permute(2, 0, 3, 1, 4)
        masks = self._masks.to(q.dtype)
        mask = (masks if kinds is None else masks.index_select(0, kinds))[..., :cells]
        mixed = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self._scale)
        joined: Tensor = self._proj(mixed.transpose(1, 2).reshape(count, cells, width))
        return joined


class _PackageWindows:
    def __init__(self, attention: "PackageAttention", shift: int) -> None:
        self._attention = attention
        self._masks = masks_of_kinds(attention.window_size[0], shift).to(attention.relative_position_index.device)

    def __call__(self, windows: Tensor, kinds: Tensor | None) -> Tensor:
        mixed: Tensor = self._attention(windows, mask=None if kinds is None else self._masks.index_select(0, kinds))
        return mixed


class _FusedHeads:
    def __init__(self, attention: "nn.MultiheadAttention") -> None:
        self._weight, self._bias = attention.in_proj_weight, attention.in_proj_bias
        self._out, self._heads = attention.out_proj, attention.num_heads

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        # Inputs that are the same tensor go through one matrix product.
        if query is key:
            q, k = self._project(query, 0, 2)
            (v,) = self._project(value, 2, 3)
        else:
            (q,) = self._project(query, 0, 1)
            k, v = (
                self._project(key, 1, 3) if key is value else (*self._project(key, 1, 2), *self._project(value, 2, 3))
            )
        mixed = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=None if allowed is None else allowed[:, None]
        )
        return linear(mixed.transpose(1, 2).flatten(2), self._out.weight, self._out.bias)

    def _project(self, inputs: Tensor, first: int, last: int) -> tuple[Tensor, ...]:
        """Parts `first` to `last` of query, key and value, each (B, heads, length, D / heads)."""
        width = self._weight.shape[1]
        rows = slice(first * width, last * width)
        projected = linear(inputs, self._weight[rows], self._bias[rows])
        by_head = projected.view(*inputs.shape[:2], last - first, self._heads, -1)
        return by_head.permute(2, 0, 3, 1, 4).unbind(0)


class _PackageHeads:
    def __init__(self, attention: "nn.MultiheadAttention") -> None:
        self._attention = attention

    def __call__(self, query: Tensor, key: Tensor, value: Tensor, allowed: Tensor | None) -> Tensor:
        forbidden = None if allowed is None else ~allowed[0]
        rows = [each.transpose(0, 1) for each in (query, key, value)]
        mixed: Tensor = self._attention(*rows, attn_mask=forbidden)[0]
        return mixed.transpose(0, 1)
