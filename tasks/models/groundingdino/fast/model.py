"""Assembles GroundingDINO's fast forward pass from the parts that are switched on.

Weights are rounded to bfloat16 once, which autocast would round at each use.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from vouch_labels.tasks.models.compile import install_onednn
from vouch_labels.tasks.models.groundingdino.fast.backbone import FastSwin, project_level
from vouch_labels.tasks.models.groundingdino.fast.multiscale import Layout, Shapes, make_layout
from vouch_labels.tasks.models.groundingdino.fast.transformer import Decoder, Encoder, FastText, Selection
from vouch_labels.tasks.models.groundingdino.forward import ReferenceForward, TextFeatures
from vouch_labels.tasks.models.runtime import Engine, Runtime

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

KEPT = 8
"""Layouts that are kept: each takes some 30 MB at 800 x 1333."""

SWITCHES = ("static_shapes", "folded_fusion", "fused_attention", "deformable", "late_heads", "channels_last")
"""The switches that this forward pass has."""


class Seen(NamedTuple):
    """What the backbone saw in a batch of images."""

    cells: Tensor
    """(B, N, D): cells of all levels, row by row, finest level first."""
    shapes: Shapes
    """Of the levels."""


def fits(model: "GroundingDINO") -> bool:
    """Whether this forward pass can stand in for a model's own: Swin before a two-stage selection."""
    from groundingdino.models.GroundingDINO.backbone.swin_transformer import SwinTransformer

    backbone = model.backbone[0]
    return isinstance(backbone, SwinTransformer) and not backbone.ape and model.transformer.two_stage_type == "standard"


class FastGroundingDino:
    """Computes what groundingdino-py's GroundingDINO computes, on the same weights, which it leaves as they are.

    For batches of images of one exact size and one caption: nothing is padded, so there are no masks of padding.
    """

    def __init__(self, model: "GroundingDINO", engine: Engine) -> None:
        """Take a loaded model that `fits`, in eval mode, on its device; parts that are not fast call the package's."""
        self._model = model
        self._backbone = FastSwin(model.backbone[0], engine)
        self._projections = [project_level(part, engine) for part in model.input_proj]
        self._encoder = Encoder(model.transformer.encoder, engine)
        self._selection = Selection(model.transformer, engine)
        self._decoder = Decoder(model, engine)
        points = model.transformer.encoder.layers[0].self_attn.num_points if model.transformer.encoder.layers else 1

        def layout(shapes: Shapes, device: torch.device) -> Layout:
            return make_layout(model, shapes, points, device)

        self._layout: Callable[[Shapes, torch.device], Layout] = (
            lru_cache(KEPT)(layout) if engine.has("static_shapes") else layout
        )

    def prepare(self, text: TextFeatures) -> FastText:
        """Do all that depends on nothing but one caption, as `encode_text` gave it."""
        from groundingdino.models.GroundingDINO.utils import get_sine_pos_embed

        encoded = text["encoded_text"]
        positions = get_sine_pos_embed(
            text["position_ids"][..., None], num_pos_feats=encoded.shape[2], exchange_xy=False
        )
        return FastText(encoded, positions, text["text_self_attention_masks"], self._encoder.fold(encoded))

    def encode_images(self, images: Tensor) -> Seen:
        """Run the image backbone on (B, 3, H, W) float32, normalised."""
        stages = self._backbone(images)
        levels = [project(*stage) for project, stage in zip(self._projections, stages, strict=False)]
        for project in self._projections[len(stages) :]:
            levels.append(project(*(stages[-1] if len(levels) == len(stages) else levels[-1])))
        return Seen(torch.cat([cells for cells, _ in levels], 1), tuple(shape for _, shape in levels))

    def find(self, seen: Seen, text: FastText) -> tuple[Tensor, Tensor]:
        """Let text and images meet.

        Returns:
            Logits (B, Q, at least T), -inf beyond the T tokens of the caption, and boxes (B, Q, 4): centre x, y,
            width, height in [0, 1].
        """
        layout = self._layout(seen.shapes, seen.cells.device)
        memory, encoded = self._encoder(seen.cells, text, layout)
        logits, queries = self._selection(memory, encoded, layout)
        return self._decoder(queries, logits, memory, encoded, layout.levels)


def choose_forward(model: "GroundingDINO", runtime: Runtime) -> FastGroundingDino | ReferenceForward:
    """The fast forward pass where any of its switches is on, else the package's own.

    The model is in eval mode on the runtime's device. With bf16 and a switch on, its weights are rounded for good.
    """
    if not any(runtime.engine.has(name) for name in SWITCHES) or not fits(model):
        return ReferenceForward(model)
    fast = FastGroundingDino(model, runtime.engine)
    if runtime.device == "cpu":
        install_onednn(model)
    if runtime.precision == "bf16":
        round_weights(model)
    return fast


def round_weights(model: "GroundingDINO") -> None:
    """Round the matrices of backbone and transformer, in place; heads, text encoder and normalisations stay float32.

    Under autocast a model gives the same numbers before and after, and is of use under autocast only.
    """
    transformer = model.transformer
    heads = nn.ModuleList([model.bbox_embed, transformer.enc_out_bbox_embed])
    exact = {id(module) for module in heads.modules()}
    for module in [*model.backbone.modules(), *model.input_proj.modules(), *transformer.modules()]:
        if id(module) in exact or not isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)
