"""The decoder: queries that look at each other, the text and the image, and refine their boxes."""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tasks.models.engine.compiling import compiled
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.deformable import deformable_attention
from tasks.models.groundingdino.fast.encoder import feed_forward
from tasks.models.groundingdino.fast.fused_attention import head_attention
from tasks.models.groundingdino.fast.late_heads import as_texts, token_logits
from tasks.models.groundingdino.fast.layout import Levels, Places, places_of_boxes

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO
    from groundingdino.models.GroundingDINO.transformer import DeformableTransformerDecoderLayer

CHANNELS = 128
"""Of the sine embedding of one coordinate."""
TEMPERATURE = 10000.0
"""Of the sine embedding; both as the package's gen_sineembed_for_position has them."""


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
        """Decode.

        Args:
            queries: (B, Q, D) states.
            logits: (B, Q, 4) of their boxes.
            memory: (B, N, D) image from the encoder.
            text: (B, T, D) text from the encoder.
            levels: Of the image.

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
