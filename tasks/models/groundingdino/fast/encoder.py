"""The encoder: layers in which image and text meet, and each attends to itself."""

from typing import TYPE_CHECKING, NamedTuple

from torch import Tensor
from torch.nn import functional

from tasks.models.engine.compiling import compiled
from tasks.models.engine.switches import Engine
from tasks.models.groundingdino.fast.deformable import deformable_attention
from tasks.models.groundingdino.fast.folded_fusion import FoldedFusion, FoldedText, fusion
from tasks.models.groundingdino.fast.fused_attention import head_attention
from tasks.models.groundingdino.fast.layout import Layout, Levels, Places
from tasks.models.groundingdino.fast.rows import by_rows

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.transformer import (
        DeformableTransformerDecoderLayer,
        DeformableTransformerEncoderLayer,
        TransformerEncoder,
    )
    from groundingdino.models.GroundingDINO.transformer_vanilla import TransformerEncoderLayer
    from torch import nn


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
        words, folded = text.encoded, text.folded
        for number, layer in enumerate(self._images):
            if self.fusions:
                image, words = self.fusions[number](image, words, folded)
                folded = None
            if self._texts:
                words = self._texts[number].forward(words, text.positions, text.allowed)
            image = layer.forward(image, layout.positions, layout.places, layout.levels)
        return image, words.expand(len(image), -1, -1)


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
