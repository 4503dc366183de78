"""The meeting of image and text, with the image's projections folded into the text's (switch folded_fusion).

The package projects every cell of the image three times to heads of as many channels as the image has itself: as
queries, as values and back. Attention is linear in each of them, so all three can be taken to the text's side, which
has a hundredth of the rows. With Wq, Wk, ... the weights of one head, v the image and l the text (both normalised):

    scores        (Wq v + bq) . (Wk l + bk)        =  v . Wq'(Wk l + bk)  +  bq . (Wk l + bk)
    to the image  Wo sum_t p_t (Wv l_t + bv)       =  sum_t p_t (Wo (Wv l_t + bv))
    to the text   Wo sum_n p_n (Wv v_n + bv)       =  Wo (Wv (sum_n p_n v_n) + bv),  as the p_n sum to 1

Products of weights are made in float64 once.
"""

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.products import product

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.fuse_modules import BiAttentionBlock
    from torch import nn


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
        ...


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
