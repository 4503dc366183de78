"""Weights rounded to bfloat16 once, which autocast would round at each use."""

from typing import TYPE_CHECKING

import torch
from torch import nn

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO


def round_weights(model: "GroundingDINO") -> None:
    """Round the matrices of backbone and transformer, in place; heads, text encoder and normalisations stay float32.

    Under autocast a model gives the same numbers before and after, and is of use under autocast only.

    Args:
        model: groundingdino-py's GroundingDINO.
    """
    transformer = model.transformer
    heads = nn.ModuleList([model.bbox_embed, transformer.enc_out_bbox_embed])
    exact = {id(module) for module in heads.modules()}
    for module in [*model.backbone.modules(), *model.input_proj.modules(), *transformer.modules()]:
        if id(module) in exact or not isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
            continue
        for parameter in module.parameters(recurse=False):
            parameter.data = parameter.data.to(torch.bfloat16)
