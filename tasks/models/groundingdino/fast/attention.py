"""Computes attention: windows, text and decoder as one kernel (fused_attention), image and text folded (folded_fusion).

The package projects every cell of the image three times to heads of as many channels as the image has itself: as
queries, as values and back. Attention is linear in each of them, so all three can be taken to the text's side, which
has a hundredth of the rows. With Wq, Wk, ... the weights of one head, v the image and l the text (both normalised):

    scores        (Wq v + bq) . (Wk l + bk)        =  v . Wq'(Wk l + bk)  +  bq . (Wk l + bk)
    to the image  Wo sum_t p_t (Wv l_t + bv)       =  sum_t p_t (Wo (Wv l_t + bv))
    to the text   Wo sum_n p_n (Wv v_n + bv)       =  Wo (Wv (sum_n p_n v_n) + bv),  as the p_n sum to 1

Products of weights are made in float64 once. Long sequences are processed in pieces that stay in a CPU's cache; which
cells share an attention window is kept by shape (switch static_shapes).
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from vouch_labels.tasks.models.compile import linear
from vouch_labels.tasks.models.runtime import Engine

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import WindowAttention as PackageAttention
    from groundingdino.models.GroundingDINO.fuse_modules import BiAttentionBlock
    from torch import nn

WindowAttention = Callable[[Tensor, Tensor | None], Tensor]
"""(windows (W, cells, C), kinds (W,) or None) -> (W, cells, C)."""
HeadAttention = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]
"""(query (B, Q, D), key (B, K, D), value (B, K, D), allowed (1, Q, K) boolean or None) -> (B, Q, D)."""

ALIGNED = 16
"""Kernels on GPUs want rows of masks to begin at multiples of this; others are copied at each call."""

ROWS = 2048
"""Rows a piece on a CPU: a hidden layer of 2,048 floats a row is then 16 MiB."""

APART = -100.0
"""What Swin adds to the attention between cells that are neighbours only because the map was rolled."""


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


class FoldedText(NamedTuple):
    """A text as the image side of one fusion layer meets it; Bt is 1 where all images have the same text."""

    normed: Tensor
    """(Bt, T, D)."""
    keys: Tensor
    """(Bt, heads * T, D)."""
    bias: Tensor
    """(Bt, heads * T)."""
    values: Tensor
    """(Bt, heads * T, D)."""


class Fusion(Protocol):
    """A layer of the fusion: image (B, N, D) and text (B or 1, T, D) in and out, the text (B, T, D)."""

    def __call__(self, image: Tensor, text: Tensor, folded: FoldedText | None = None) -> tuple[Tensor, Tensor]:
        """Let them meet; `folded`: the text as `FoldedFusion.fold` gives it, where that was done before."""


def fusion(block: "BiAttentionBlock", engine: Engine) -> Fusion:
    """A BiAttentionBlock of the package, folded or as it is."""
    return FoldedFusion(block) if engine.has("folded_fusion") else _PackageFusion(block)


class FoldedFusion:
    """A BiAttentionBlock whose image side has no projections of its own.

    The package's clamps at +-50,000 are left out: in float32 and bfloat16 scores do not get there.
    """

    def __init__(self, block: "BiAttentionBlock") -> None:
        """Fold the weights, in float64."""
        attn = block.attn
        heads, depth = attn.num_heads, attn.head_dim
        self.heads = heads
        self._norm_image, self._norm_text = block.layer_norm_v, block.layer_norm_l

        def split(layer: "nn.Linear") -> tuple[Tensor, Tensor]:
            """Weight and bias by head: (heads, depth, D), (heads, depth)."""
            return layer.weight.double().view(heads, depth, -1), layer.bias.double().view(heads, depth)

        (query, query_bias), (key, key_bias) = split(attn.v_proj), split(attn.l_proj)
        (image_value, image_bias), (text_value, text_bias) = split(attn.values_v_proj), split(attn.values_l_proj)
        to_image, to_text = (
            gamma.double()[:, None, None] * layer.weight.double().view(len(gamma), heads, depth)
            for gamma, layer in ((block.gamma_v, attn.out_v_proj), (block.gamma_l, attn.out_l_proj))
        )
        scale = float(attn.scale)
        values_bias = torch.einsum("ihd,hd->hi", to_image, text_bias)
        # Shares of a head sum to 1, so what is added to all of its values is added to the image.
        values_bias[0] += block.gamma_v.double() * attn.out_v_proj.bias.double()
        weights = [
            scale * torch.einsum("hdi,hdj->hij", query, key).flatten(0, 1),
            scale * torch.einsum("hd,hdj->hj", query_bias, key),
            torch.einsum("ihd,hdj->hij", to_image, text_value).flatten(0, 1),
        ]
        biases = [
            scale * torch.einsum("hdi,hd->hi", query, key_bias).flatten(),
            scale * (query_bias * key_bias).sum(1),
            values_bias.flatten(),
        ]
        dtype = attn.v_proj.weight.dtype
        self._sizes = [len(bias) for bias in biases]
        self._fold_weight, self._fold_bias = torch.cat(weights).to(dtype), torch.cat(biases).to(dtype)
        self._text_weight = torch.einsum("jhd,hdi->jhi", to_text, image_value).flatten(1).to(dtype)
        text_bias = torch.einsum("jhd,hd->j", to_text, image_bias)
        self._text_bias = (text_bias + block.gamma_l.double() * attn.out_l_proj.bias.double()).to(dtype)

    def fold(self, text: Tensor) -> FoldedText:
        """What the image side needs of text (Bt, T, D)."""
        normed = self._norm_text(text)
        folded = linear(normed, self._fold_weight, self._fold_bias)
        keys, bias, values = torch.split(folded, self._sizes, 2)
        return FoldedText(normed, self._by_head(keys), self._by_head(bias)[..., 0], self._by_head(values))

    def __call__(self, image: Tensor, text: Tensor, folded: FoldedText | None = None) -> tuple[Tensor, Tensor]:
        """Let image and text meet."""
        folded = folded or self.fold(text)
        image = self._norm_image(image)
        batch, cells, _ = image.shape
        scores = product(image, folded.keys.transpose(1, 2), folded.bias)
        of_text = scores.view(batch, cells, self.heads, -1).softmax(3).flatten(2)
        to_image = product(of_text, folded.values)
        met = product(scores.softmax(1).transpose(1, 2), image)  # (B, heads * T, D)
        met = met.view(batch, self.heads, -1, met.shape[2]).transpose(1, 2).flatten(2)
        return image + to_image, folded.normed + linear(met, self._text_weight, self._text_bias)

    def _by_head(self, rows: Tensor) -> Tensor:
        """(Bt, T, heads * K) -> (Bt, heads * T, K)."""
        return rows.reshape(*rows.shape[:2], self.heads, -1).transpose(1, 2).flatten(1, 2)


class _PackageFusion:
    def __init__(self, block: "BiAttentionBlock") -> None:
        self._block = block

    def __call__(
        self,
        image: Tensor,
        text: Tensor,
        folded: FoldedText | None = None,  # noqa: ARG002 - of the layers' interface
    ) -> tuple[Tensor, Tensor]:
        met: tuple[Tensor, Tensor] = self._block(image, text.expand(len(image), -1, -1))
        return met


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, N, K) times (B or 1, K, M), plus (B or 1, M) to all N rows: (B, N, M)."""
    if len(right) == 1:
        return linear(left, right[0].T, None if bias is None else bias[0])
    if left.is_cpu:
        added = [None] * len(right) if bias is None else list(bias)
        return torch.stack([linear(one, other.T, row) for one, other, row in zip(left, right, added, strict=True)])
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias[:, None], left, right)


def by_rows(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply a function that treats every row alone, piece by piece on a CPU, at once elsewhere.

    Inputs are (B or 1, N, ...) each, the first of the batch's B; the function gives (B, rows, ...).
    """
    first = inputs[0]
    total = first.shape[1]
    rows = max(1, ROWS // first.shape[0]) if first.device.type == "cpu" else total
    if total <= rows:
        return function(*inputs)
    pieces = zip(*(torch.split(each, rows, 1) for each in inputs), strict=True)
    return torch.cat([function(*piece) for piece in pieces], 1)


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
