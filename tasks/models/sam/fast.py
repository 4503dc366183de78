"""Installs faster parts into a SAM, on the package's own weights.

The encoder's patches and neck run channels last, its blocks with fused attention and relative positions looked up once;
the mask decoder takes the boxes of many images at once, one mask a box.
"""

from itertools import product
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vouch_labels.tasks.models.compile import compiled, install_onednn, linear
from vouch_labels.tasks.models.runtime import Engine, Runtime

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.modeling.common import LayerNorm2d
    from segment_anything.modeling.image_encoder import Block, PatchEmbed
    from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock

BIAS_LOGITS = 1 << 22
"""Most attention logits whose bias is written out at once on a CPU: 16 MiB, which stay near it."""


def install(sam: "Sam", runtime: Runtime) -> None:
    """Replace parts of the package's model, on its device, by faster ones that hold the same parameters.

    In bf16 the projections of the image encoder are kept in bf16 as well, which autocast would otherwise make again for
    every batch.
    """
    engine = runtime.engine
    if engine.has("channels_last"):
        install_ends(sam)
    if engine.has("fused_relpos"):
        install_blocks(sam, engine)
        install_onednn(sam.image_encoder)
        if runtime.precision == "bf16":
            for module in sam.image_encoder.modules():
                if isinstance(module, nn.Linear | nn.Conv2d):
                    module.to(torch.bfloat16)


def install_ends(sam: "Sam") -> None:
    """Replace the image encoder's patch embedding and neck by ones that hold the same parameters.

    The package's encoder hands its blocks a transposed view, which every layer norm and projection copies again.
    """
    encoder: Any = sam.image_encoder
    encoder.patch_embed = Patches(encoder.patch_embed)
    encoder.neck = Neck(encoder.neck)


class Patches(nn.Module):
    """PatchEmbed of the package: a convolution whose patches do not overlap is one matrix product."""

    def __init__(self, patches: "PatchEmbed") -> None:
        """Take the package's module."""
        super().__init__()
        self.proj = patches.proj

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) to (B, S / P, S / P, C), contiguous."""
        side = self.proj.kernel_size[0]
        batch, channels, height, width = images.shape
        rows, columns = height // side, width // side
        cut = images.view(batch, channels, rows, side, columns, side).permute(0, 2, 4, 1, 3, 5)
        tokens = cut.reshape(batch, rows, columns, -1)
        return linear(tokens, self.proj.weight.flatten(1), self.proj.bias)


class Neck(nn.Module):
    """The package's neck: 1 x 1 and 3 x 3 convolution, each normalised over channels."""

    def __init__(self, neck: nn.Sequential) -> None:
        """Take the package's sequence."""
        super().__init__()
        layers = cast("tuple[nn.Conv2d, LayerNorm2d, nn.Conv2d, LayerNorm2d]", neck)
        self.first, self.norm1, self.second, self.norm2 = layers
        self.second.weight.data = self.second.weight.data.contiguous(memory_format=torch.channels_last)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, C, h, w), a view of channels-last memory, to (B, O, h, w), the same."""
        places = linear(tokens.permute(0, 2, 3, 1), self.first.weight.flatten(1), self.first.bias)
        places = norm_last(places, self.norm1).permute(0, 3, 1, 2)
        convolved = functional.conv2d(places, self.second.weight, self.second.bias, padding=self.second.padding)
        return norm_last(convolved.permute(0, 2, 3, 1), self.norm2).permute(0, 3, 1, 2)


def install_blocks(sam: "Sam", engine: Engine) -> None:
    """Replace the blocks of the image encoder by blocks with fused attention, which hold the same parameters."""
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
            from segment_anything.modeling.image_encoder import get_rel_pos

            span = self._span
            for name, table in (("_rows", self.attn.rel_pos_h), ("_columns", self.attn.rel_pos_w)):
                self.register_buffer(name, get_rel_pos(span, span, table.detach()).contiguous(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, H, W, C) to (B, H, W, C)."""
        # The package's patches come as a transposed view, which every layer would copy again.
        tokens = tokens.contiguous()
        tokens = tokens + self._attend(self.norm1(tokens))
        return tokens + self._expand(self.norm2(tokens))

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
        # The terms h and w, (N, heads, H, W, H) and (N, heads, H, W, W).
        placed = query.reshape(*query.shape[:2], self._span, self._span, -1)
        by_row = torch.einsum("nahwc,hkc->nahwk", placed, self._rows.to(query.dtype))
        by_column = torch.einsum("nahwc,wkc->nahwk", placed, self._columns.to(query.dtype))
        way = with_bias if query.is_cpu else with_channels
        return way(query, key, value, self._scale, by_row, by_column)


def with_channels(query: Tensor, key: Tensor, value: Tensor, scale: float, by_row: Tensor, by_column: Tensor) -> Tensor:
    """Attention whose relative positions are further channels of queries and keys; for GPUs.

    Query, key, value and answer are (N, heads, H * W, D); `scale` is of the products of queries and keys.

    `by_row` (N, heads, H, W, H) is what is added for each row of keys, `by_column` (N, heads, H, W, W) the same for
    each column; H = W.
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


class PooledDecoder:
    """MaskDecoder of segment_anything/modeling/mask_decoder.py for box prompts, equal to it but for rounding.

    Channels come last throughout, so that layers which the package writes as convolutions over channels are plain
    matrix products, and only the mask that is asked for (the first token's) is computed. Attention between the tokens
    of a box, a few, and the places of the image, thousands, never projects the places: with q' = q W_k the logits
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
        # Of a ConvTranspose2d of stride 2, (I, O, 2, 2), as that of a linear layer, (4 * O, I); parts row by row.
        weights = (self._upscaling[place].weight.detach() for place in (0, 3))
        self._first, self._second = (weight.permute(2, 3, 1, 0).flatten(0, 2).contiguous() for weight in weights)
        self._compiled = engine.compile
        self._decode = compiled(self.decode, engine, "SAM's mask decoder")

    def places(self, features: Tensor) -> Tensor:
        """What boxes attend to, once an image: encodings (B, C, h, w) to (B, hw, C)."""
        found: Tensor = features.flatten(2).transpose(1, 2) + self._no_mask
        return found

    def __call__(self, places: Tensor, image: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Decode (N, 4) xyxy boxes in pixels of the encoder's input.

        Args:
            places: (B, hw, C) of `places`.
            image: (N,) int64, the image of each box, an index into `places`.
            boxes: (N, 4) xyxy float32, pixels of the encoder's input.

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
    projected = torch.matmul(_split(attention.v_proj(values), heads), _by_head(attention.out_proj.weight.T, heads))
    return torch.baddbmm(places + attention.out_proj.bias, weights.transpose(1, 2), projected.flatten(1, 2))


def _split(values: Tensor, heads: int) -> Tensor:
    """(N, T, I) to (N, heads, T, I / heads)."""
    return values.view(*values.shape[:2], heads, -1).transpose(1, 2)


def _by_head(weight: Tensor, heads: int) -> Tensor:
    """(I, C) to (heads, I / heads, C)."""
    return weight.reshape(heads, -1, weight.shape[1])
