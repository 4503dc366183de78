"""Puts the fast parts that are switched on into a SAM."""

from typing import TYPE_CHECKING

from tasks.models.engine.linear import install_onednn
from tasks.models.runtime import Runtime

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


def install(sam: "Sam", runtime: Runtime) -> None:
    """Replace parts of the package's model by faster ones that hold the same parameters.

    In bf16 the projections of the image encoder are kept in bf16 as well, which autocast would otherwise make anew for
    every batch.

    Args:
        sam: With its weights, on its device; changed in place.
        runtime: Which parts are on.
    """
    import torch
    from torch import nn

    from tasks.models.sam.fast.channels_last import install_ends
    from tasks.models.sam.fast.fused_relpos import install_blocks

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
