"""Runs the transformer's encoder, query selection and decoder.

The encoder fuses image and text and lets each attend to itself; the decoder's queries attend to each other, the text
and the image, and refine their boxes. Deformable attention is a kernel on GPUs, weighted sums of table rows elsewhere
(switch deformable); heads are computed only for the cells that become queries (switch late_heads).
"""

import math
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from vouch_labels.tasks.models.compile import compiled, linear
from vouch_labels.tasks.models.groundingdino.fast.attention import (
    FoldedFusion,
    FoldedText,
    by_rows,
    fusion,
    head_attention,
    product,
)
from vouch_labels.tasks.models.groundingdino.fast.multiscale import Layout, Levels, Places, places_of_boxes, sample
from vouch_labels.tasks.models.runtime import Engine

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
    from groundingdino.models.GroundingDINO.ms_deform_attn import MultiScaleDeformableAttention
    from groundingdino.models.GroundingDINO.transformer import (
        DeformableTransformerDecoderLayer,
        DeformableTransformerEncoderLayer,
        Transformer,
        TransformerEncoder,
    )
    from groundingdino.models.GroundingDINO.transformer_vanilla import TransformerEncoderLayer
    from torch import nn

CHANNELS = 128
"""Of the sine embedding of one coordinate."""
TEMPERATURE = 10000.0
"""Of the sine embedding; both as the package's gen_sineembed_for_position has them."""


class FastText(NamedTuple):
    """One caption, asked of every image of a batch."""

    encoded: Tensor
    """(1, T, D)."""
    positions: Tensor
    """(1, T, D): sine embeddings of the places of tokens within their phrases."""
    allowed: Tensor
    """(1, T, T) boolean: which tokens look at which."""
    folded: FoldedText | None
    """What the first layer of the fusion makes of it."""


class Encoder:
    """The package's TransformerEncoder, for images and captions in which nothing is padded."""

    def __init__(self, encoder: "TransformerEncoder", engine: Engine) -> None:
        """Take the package's TransformerEncoder; fusion and text layers may be absent."""
        self.fusions = [fusion(block, engine) for block in encoder.fusion_layers]
        self._texts = [TextLayer(layer, engine) for layer in encoder.text_layers]
        self._images = [ImageLayer(layer, engine) for layer in encoder.layers]

    def fold(self, text: Tensor) -> FoldedText | None:
        """What the first fusion needs of a text (1, T, D), which no image has touched yet."""
        first = self.fusions[0] if self.fusions else None
        return first.fold(text) if isinstance(first, FoldedFusion) else None

    def __call__(self, image: Tensor, text: FastText, layout: Layout) -> tuple[Tensor, Tensor]:
        """Encode cells (B, N, D) of all levels; give them and the text (B, T, D)."""
        encoded, folded = text.encoded, text.folded
        for number, layer in enumerate(self._images):
            if self.fusions:
                image, encoded = self.fusions[number](image, encoded, folded)
                folded = None
            if self._texts:
                encoded = self._texts[number].forward(encoded, text.positions, text.allowed)
            image = layer.forward(image, layout.positions, layout.places, layout.levels)
        return image, encoded.expand(len(image), -1, -1)


class ImageLayer:
    """The package's DeformableTransformerEncoderLayer."""

    def __init__(self, layer: "DeformableTransformerEncoderLayer", engine: Engine) -> None:
        """Take the package's layer."""
        self._layer = layer
        self._own = engine.has("deformable")
        self._attend = deformable_attention(layer.self_attn, engine)
        self.forward = compiled(self._forward, engine, "a layer of GroundingDINO's encoder")

    def _forward(self, image: Tensor, positions: Tensor, places: Places, levels: Levels) -> Tensor:
        values = self._attend.project(image)

        def attend(cells: Tensor, place: Tensor, x: Tensor, y: Tensor, centres: Tensor) -> Tensor:
            here = Places(x, y, None, None, centres)
            cells = self._layer.norm1(cells + self._attend(cells + place, values, here, levels))
            return feed_forward(self._layer, cells, self._layer.norm2) if self._own else cells

        if self._own:
            return by_rows(attend, image, positions, places.x, places.y, places.reference)
        attended = attend(image, positions, places.x, places.y, places.reference)
        return by_rows(lambda cells: feed_forward(self._layer, cells, self._layer.norm2), attended)


class TextLayer:
    """The package's TransformerEncoderLayer of the text."""

    def __init__(self, layer: "TransformerEncoderLayer", engine: Engine) -> None:
        """Take the package's layer."""
        self._layer = layer
        self._attend = head_attention(layer.self_attn, engine)
        self.forward = compiled(self._forward, engine, "a text layer of GroundingDINO's encoder")

    def _forward(self, text: Tensor, positions: Tensor, allowed: Tensor) -> Tensor:
        placed = text + positions
        text = self._layer.norm1(text + self._attend(placed, placed, text, allowed))
        return feed_forward(self._layer, text, self._layer.norm2)


def feed_forward(
    layer: "DeformableTransformerEncoderLayer | DeformableTransformerDecoderLayer | TransformerEncoderLayer",
    rows: Tensor,
    norm: "nn.LayerNorm",
) -> Tensor:
    """Two linear layers of one of the package's layers, with residual and normalisation."""
    hidden = layer.linear1(rows)
    # In place where it can be: the hidden layer is the widest of all.
    hidden = hidden.relu_() if layer.activation is functional.relu else layer.activation(hidden)
    fed: Tensor = norm(rows + layer.linear2(hidden))
    return fed


class Decoder:
    """The package's TransformerDecoder and the heads behind it."""

    def __init__(self, model: "GroundingDINO", engine: Engine) -> None:
        """Take the package's GroundingDINO."""
        self._decoder = model.transformer.decoder
        self._boxes, self._classes = model.bbox_embed, model.class_embed
        self._late = engine.has("late_heads")
        self._layers = [DecoderLayer(layer, engine) for layer in self._decoder.layers]
        device = self._decoder.norm.weight.device
        waves = TEMPERATURE ** (torch.arange(0, CHANNELS, 2, dtype=torch.float32) / CHANNELS)
        self._waves = (2 * math.pi / waves.double()).float().to(device)

    def __call__(
        self, queries: Tensor, logits: Tensor, memory: Tensor, text: Tensor, levels: Levels
    ) -> tuple[Tensor, Tensor]:
        """Decode (B, Q, D) states with (B, Q, 4) logits of their boxes, by the encoder's image and text.

        Returns:
            Token logits (B, Q, at least T) and boxes (B, Q, 4): centre x, y, width, height in [0, 1].
        """
        from groundingdino.util.misc import inverse_sigmoid

        boxes = logits.float().sigmoid()
        for number, layer in enumerate(self._layers):
            places = places_of_boxes(boxes, levels, layer.points)
            position = self._decoder.ref_point_head(self._embed(boxes))
            queries = layer.forward(queries, position, memory, text, places, levels)
            unrefined = inverse_sigmoid(boxes)
            is_last = number == len(self._layers) - 1
            if not (is_last and self._late):
                boxes = (self._boxes[number](queries) + unrefined).sigmoid()
            if is_last or not self._late:
                states = self._decoder.norm(queries)
        found = (self._boxes[-1](states) + unrefined).sigmoid()
        if self._late:
            return token_logits(states, text), found
        return self._classes[-1](states, as_texts(text)), found

    def _embed(self, boxes: Tensor) -> Tensor:
        """Sine embedding of boxes (B, Q, 4): (B, Q, 4 * 128) of y, x, width, height."""
        # A list of indices would be brought to the device, which waits for all that runs there.
        turned = torch.cat([boxes[..., 1:2], boxes[..., :1], boxes[..., 2:]], 2)
        angles = turned[..., None] * self._waves
        return torch.stack([angles.sin(), angles.cos()], 4).flatten(2)


class DecoderLayer:
    """The package's DeformableTransformerDecoderLayer, batch first."""

    def __init__(self, layer: "DeformableTransformerDecoderLayer", engine: Engine) -> None:
        """Take the package's layer."""
        self._layer = layer
        self.points = layer.cross_attn.num_points
        self._look_around = head_attention(layer.self_attn, engine)
        self._look_at_text = head_attention(layer.ca_text, engine) if layer.use_text_cross_attention else None
        self._look_at_image = deformable_attention(layer.cross_attn, engine)
        self.forward = compiled(self._forward, engine, "a layer of GroundingDINO's decoder")

    def _forward(
        self, queries: Tensor, position: Tensor, memory: Tensor, text: Tensor, places: Places, levels: Levels
    ) -> Tensor:
        layer = self._layer
        placed = queries + position
        queries = layer.norm2(queries + self._look_around(placed, placed, queries, None))
        if self._look_at_text is not None:
            queries = layer.catext_norm(queries + self._look_at_text(queries + position, text, text, None))
        values = self._look_at_image.project(memory)
        queries = layer.norm1(queries + self._look_at_image(queries + position, values, places, levels))
        return feed_forward(layer, queries, layer.norm3)


class Attention(Protocol):
    """Multi-scale deformable attention, without its residual."""

    def project(self, memory: Tensor) -> Tensor:
        """Cells (B, N, D) of all levels to what is sampled."""

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        """Queries (B, Q, D) at their places to (B, Q, D); `values` are what `project` gave."""


def deformable_attention(attention: "MultiScaleDeformableAttention", engine: Engine) -> Attention:
    """The package's MultiScaleDeformableAttention, with sampling of our own or as it is."""
    return DeformableAttention(attention) if engine.has("deformable") else _PackageAttention(attention)


class DeformableAttention:
    """The package's attention in pixels of each level, with offsets and weights from one matrix product."""

    def __init__(self, attention: "MultiScaleDeformableAttention") -> None:
        """Order the rows of offsets and weights as (heads, 3, levels * points): x, y, weight."""
        heads, width = attention.num_heads, attention.embed_dim
        samples = attention.num_levels * attention.num_points
        self._heads, self._samples = heads, samples
        self._value, self._out = attention.value_proj, attention.output_proj

        def ordered(offsets: Tensor, weights: Tensor) -> Tensor:
            pairs = offsets.view(heads, samples, 2, -1).transpose(1, 2)
            return torch.cat([pairs, weights.view(heads, 1, samples, -1)], 1).reshape(heads * 3 * samples, -1)

        offsets, weights = attention.sampling_offsets, attention.attention_weights
        self._weight = ordered(offsets.weight, weights.weight).view(-1, width)
        self._bias = ordered(offsets.bias, weights.bias).flatten()

    def project(self, memory: Tensor) -> Tensor:
        """Cells (B, N, D) to values (B, N, heads, D / heads)."""
        values: Tensor = self._value(memory)
        return values.view(*memory.shape[:2], self._heads, -1)

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        """Sample the values around each query's place."""
        asked = linear(query, self._weight, self._bias).float()
        x, y, weights = asked.view(*query.shape[:2], self._heads, 3, self._samples).unbind(3)
        if places.scale_x is None or places.scale_y is None:
            x, y = places.x + x, places.y + y
        else:
            x, y = torch.addcmul(places.x, x, places.scale_x), torch.addcmul(places.y, y, places.scale_y)
        sampled = sample(values, levels.shapes, x, y, weights.softmax(3))
        mixed: Tensor = self._out(sampled)
        return mixed


class _PackageAttention:
    def __init__(self, attention: "MultiScaleDeformableAttention") -> None:
        self._attention = attention

    def project(self, memory: Tensor) -> Tensor:
        return memory

    def __call__(self, query: Tensor, values: Tensor, places: Places, levels: Levels) -> Tensor:
        reference = places.reference[:, :, None].expand(len(query), -1, len(levels.shapes), -1)
        mixed: Tensor = self._attention(
            query=query, value=values, reference_points=reference, spatial_shapes=levels.tensor
        )
        return mixed


class Selection:
    """The two-stage selection: cells whose tokens score best propose the boxes that the decoder refines."""

    def __init__(self, transformer: "Transformer", engine: Engine) -> None:
        """Take the package's Transformer."""
        self._transformer, self._late = transformer, engine.has("late_heads")

    def __call__(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        """Logits of the first boxes (B, Q, 4) and states (B, Q, D) of queries, from the encoder's image and text."""
        outputs, best = (self._select if self._late else self._select_all)(memory, text, layout)
        if self._transformer.embed_init_tgt:
            return outputs, self._transformer.tgt_embed.weight.expand(len(memory), -1, -1)
        return outputs, self._propose(_rows(memory, best), _rows(layout.rejected, best))

    def best(self, scores: Tensor) -> Tensor:
        """Indices (B, Q) of the greatest scores (B, N), greatest first."""
        return scores.topk(self._transformer.num_queries, 1).indices

    def _select(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        def score(cells: Tensor, rejected: Tensor) -> Tensor:
            return token_logits(self._propose(cells, rejected), text).amax(2)

        best = self.best(by_rows(score, memory, layout.rejected))
        proposed = self._propose(_rows(memory, best), _rows(layout.rejected, best))
        return self._transformer.enc_out_bbox_embed(proposed) + _rows(layout.proposals, best), best

    def _select_all(self, memory: Tensor, text: Tensor, layout: Layout) -> tuple[Tensor, Tensor]:
        proposed = self._propose(memory, layout.rejected)
        logits = self._transformer.enc_out_class_embed(proposed, as_texts(text)).amax(2)
        boxes = self._transformer.enc_out_bbox_embed(proposed) + layout.proposals
        best = self.best(logits)
        return _rows(boxes, best), best

    def _propose(self, cells: Tensor, rejected: Tensor) -> Tensor:
        proposed: Tensor = self._transformer.enc_output(cells.masked_fill(rejected, 0))
        normed: Tensor = self._transformer.enc_output_norm(proposed)
        return normed


def token_logits(states: Tensor, text: Tensor) -> Tensor:
    """(B, Q, D) and (B, T, D) to (B, Q, T), in float32 whatever the rest computes in."""
    with torch.autocast(states.device.type, enabled=False):
        return product(states.float(), text.float().transpose(1, 2))


def as_texts(text: Tensor) -> dict[str, Tensor]:
    """The dictionary that the package's class heads take, for texts (B, T, D) without padding."""
    return {"encoded_text": text, "text_token_mask": torch.ones_like(text[..., 0], dtype=torch.bool)}


def _rows(values: Tensor, chosen: Tensor) -> Tensor:
    """Rows (B, Q, D) of (B or 1, N, D) at indices (B, Q)."""
    index = chosen[..., None].expand(-1, -1, values.shape[2])
    return values.expand(len(chosen), -1, -1).gather(1, index)
