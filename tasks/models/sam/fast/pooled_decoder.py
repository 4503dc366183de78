"""The mask decoder for the boxes of many images at once, one mask a box."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.engine.compiling import compiled
from tasks.models.engine.linear import linear
from tasks.models.engine.switches import Engine

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock


class PooledDecoder:
    """MaskDecoder of segment_anything/modeling/mask_decoder.py for box prompts, equal to it but for rounding.

    Channels come last throughout, so that layers which the package writes as convolutions over channels are plain
    matrix products, and only the mask that is asked for (the first token's) is computed. Attention between the tokens
    of a box, a handful, and the places of the image, thousands, never projects the places: with q' = q W_k the logits
    q (W_k x)' are q' x', and with the weights a the answer W_o W_v (x' a) needs only means of x. What a bias of the
    keys adds is the same for all places and falls out of the softmax.
    """

    def __init__(self, sam: "Sam", engine: Engine) -> None:
        """Take the package's model, with its weights, on its device."""
        decoder: Any = sam.mask_decoder
        self._prompts: Any = sam.prompt_encoder
        self._transformer: Any = decoder.transformer
        self._mask_token: Any = decoder.output_hypernetworks_mlps[0]
        self._iou: Any = decoder.iou_prediction_head
        self._upscaling: Any = decoder.output_upscaling
        self._own_tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight]).detach()
        self._no_mask: Tensor = sam.prompt_encoder.no_mask_embed.weight.detach()
        # (1, HW, C)
        self._position: Tensor = self._prompts.get_dense_pe().detach().flatten(2).transpose(1, 2).contiguous()
        self._first, self._second = (_taps_first(self._upscaling[place].weight.detach()) for place in (0, 3))
        self._compiled = engine.compile
        self._decode = compiled(self.decode, engine, "SAM's mask decoder")

    def places(self, features: Tensor) -> Tensor:
        """What boxes attend to, once an image: encodings (B, C, h, w) to (B, hw, C)."""
        found: Tensor = features.flatten(2).transpose(1, 2) + self._no_mask
        return found

    def __call__(self, places: Tensor, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Decode boxes.

        Args:
            places: (B, hw, C) of `places`.
            image: (N,) int64, the image of each box, an index into `places`.
            boxes: (N, 4) xyxy in pixels of the encoder's input.

        Returns:
            Mask logits (N, 4h, 4w) and predicted IoU (N,), both float32.
        """
        prompts, _ = self._prompts(points=None, boxes=boxes, masks=None)
        count = len(boxes)
        # Few shapes for the compiler: what is missing to the next power of two is decoded for nothing.
        extra = (1 << (count - 1).bit_length()) - count if self._compiled else 0
        if extra:
            image, prompts = functional.pad(image, (0, extra)), functional.pad(prompts, (0, 0, 0, 0, 0, extra))
        logits, iou = self._decode(places.index_select(0, image), prompts)
        return logits[:count], iou[:count]

    def decode(self, keys: Tensor, prompts: Tensor) -> tuple[Tensor, Tensor]:
        """As calling, from the places (N, hw, C) and the prompts (N, P, C) of each box."""
        own = self._own_tokens.expand(prompts.shape[0], -1, -1)
        tokens = torch.cat([own, prompts], dim=1)
        queries = tokens
        for layer in self._transformer.layers:
            queries, keys = _two_way(layer, queries, keys, tokens, self._position)
        # Only the first two tokens are read: predicted IoU and mask.
        last = self._transformer.final_attn_token_to_image
        queries, tokens = queries[:, :2], tokens[:, :2]
        queries = queries + _look(last, queries + tokens, keys + self._position, keys)
        queries = self._transformer.norm_final_attn(queries)
        return self._masks(keys, self._mask_token(queries[:, 1])), self._iou(queries[:, 0])[:, 0]

    def _masks(self, keys: Tensor, channels: Tensor) -> Tensor:
        """Upscale places (N, hw, C) fourfold and weigh their channels by (N, C / 8): (N, 4h, 4w)."""
        first, norm, act, second, last = self._upscaling
        count, length, _ = keys.shape
        side = self._prompts.image_embedding_size
        once = linear(keys, self._first, first.bias.repeat(4)).view(count, 4 * length, -1)
        twice = linear(act(norm_last(once, norm)), self._second, second.bias.repeat(4)).view(count, 16 * length, -1)
        logits = (last(twice.view(count, 16 * length, -1)) * channels[:, None]).sum(-1)
        # Each place holds 2 x 2 parts of 2 x 2 pixels: (N, h, w, y, x, y, x) to (N, h, y, y, w, x, x).
        parts = logits.view(count, side[0], side[1], 2, 2, 2, 2).permute(0, 1, 3, 5, 2, 4, 6)
        masks: Tensor = parts.reshape(count, 4 * side[0], 4 * side[1])
        return masks


def norm_last(values: Tensor, norm: "LayerNorm2d") -> Tensor:
    """The package's LayerNorm2d, which normalises (N, C, h, w) over C, for values (..., C)."""
    return functional.layer_norm(values, (values.shape[-1],), norm.weight, norm.bias, norm.eps)


def _two_way(
    layer: "TwoWayAttentionBlock", queries: Tensor, keys: Tensor, tokens: Tensor, position: Tensor
) -> tuple[Tensor, Tensor]:
    """TwoWayAttentionBlock of segment_anything/modeling/transformer.py."""
    if layer.skip_first_layer_pe:
        queries = layer.self_attn(q=queries, k=queries, v=queries)
    else:
        placed = queries + tokens
        queries = queries + layer.self_attn(q=placed, k=placed, v=queries)
    queries = layer.norm1(queries)
    placed_keys = keys + position
    queries = layer.norm2(queries + _look(layer.cross_attn_token_to_image, queries + tokens, placed_keys, keys))
    queries = layer.norm3(queries + layer.mlp(queries))
    answer = _answer(layer.cross_attn_image_to_token, placed_keys, queries + tokens, queries, keys)
    return queries, layer.norm4(answer)


def _look(attention: "Attention", queries: Tensor, placed: Tensor, places: Tensor) -> Tensor:
    """Attention of tokens (N, T, C) to places (N, L, C): (N, T, C)."""
    heads: int = attention.num_heads
    split = _split(attention.q_proj(queries), heads)
    folded = torch.matmul(split, _by_head(attention.k_proj.weight, heads)) * split.shape[-1] ** -0.5
    # (N, heads * T, L)
    weights = torch.softmax(torch.bmm(folded.flatten(1, 2), placed.transpose(1, 2)), dim=-1)
    means = torch.bmm(weights, places).view(folded.shape)
    found = torch.matmul(means, _by_head(attention.v_proj.weight, heads).transpose(1, 2)).transpose(1, 2).flatten(2)
    answer: Tensor = attention.out_proj(found + attention.v_proj.bias)
    return answer


def _answer(attention: "Attention", placed: Tensor, keys: Tensor, values: Tensor, places: Tensor) -> Tensor:
    """Attention of places (N, L, C) to tokens (N, T, C), added to the places: (N, L, C)."""
    heads: int = attention.num_heads
    split = _split(attention.k_proj(keys), heads)
    split = split * split.shape[-1] ** -0.5
    folded = torch.matmul(split, _by_head(attention.q_proj.weight, heads)).flatten(1, 2)
    shift = torch.matmul(split, attention.q_proj.bias.view(heads, -1, 1)).flatten(1, 2)
    # (N, heads * T, L), so that the softmax over T runs along whole rows of places.
    logits = torch.baddbmm(shift, folded, placed.transpose(1, 2))
    weights = torch.softmax(logits.view(*split.shape[:3], -1), dim=2).flatten(1, 2)
    told = torch.matmul(_split(attention.v_proj(values), heads), _by_head(attention.out_proj.weight.T, heads))
    return torch.baddbmm(places + attention.out_proj.bias, weights.transpose(1, 2), told.flatten(1, 2))


def _split(values: Tensor, heads: int) -> Tensor:
    """(N, T, I) to (N, heads, T, I / heads)."""
    return values.view(*values.shape[:2], heads, -1).transpose(1, 2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(I, C) to (heads, I / heads, C)."""
    return weight.reshape(heads, -1, weight.shape[1])


def _taps_first(weight: Tensor) -> Tensor:
    """Weight (I, O, 2, 2) of a ConvTranspose2d of stride 2 as that of a linear layer, (4 * O, I); parts row by row."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous()
