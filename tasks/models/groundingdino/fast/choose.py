"""Settles which forward pass of GroundingDINO an engine uses."""

from typing import TYPE_CHECKING

from tasks.models.engine.linear import install_onednn
from tasks.models.groundingdino.fast.model import FastGroundingDino, fits
from tasks.models.groundingdino.fast.weights import round_weights
from tasks.models.groundingdino.forward import ReferenceForward
from tasks.models.runtime import Runtime

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

SWITCHES = ("static_shapes", "folded_fusion", "fused_attention", "deformable", "late_heads", "channels_last")
"""The switches that this forward pass has."""


def choose_forward(model: "GroundingDINO", runtime: Runtime) -> FastGroundingDino | ReferenceForward:
    """The fast forward pass where any of its switches is on, else the package's own.

    Args:
        model: groundingdino-py's GroundingDINO, in eval mode on the runtime's device.
        runtime: With bf16 and a switch on, the model's weights are rounded for good.
    """
    if not _switches(runtime) or not fits(model):
        return ReferenceForward(model)
    fast = FastGroundingDino(model, runtime.engine)
    if runtime.device == "cpu":
        install_onednn(model)
    if runtime.precision == "bf16":
        round_weights(model)
    return fast


def part_of_fingerprint(runtime: Runtime) -> str:
    """What of the runtime changes numbers beyond their last bits: in fp32 no switch does."""
    return "+".join([runtime.precision, *(_switches(runtime) if runtime.precision == "bf16" else [])])


def _switches(runtime: Runtime) -> list[str]:
    return [name for name in SWITCHES if runtime.engine.has(name)]
