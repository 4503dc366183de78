"""Keeps parts of a model in fp32 while the rest runs in bf16."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn


def compute_in_fp32(module: nn.Module) -> None:
    """Make a module compute in fp32 under autocast too, from inputs widened to fp32.

    For heads whose outputs are coordinates or final scores: bf16 has 8 bits, which is 2.6 pixels in 1333.
    """
    compute = module.forward

    def forward(*inputs: object, **named: object) -> object:
        device = next(_tensors([*inputs, *named.values()])).device.type
        with torch.autocast(device, enabled=False):
            return compute(*(_wide(value) for value in inputs), **{name: _wide(value) for name, value in named.items()})

    module.forward = forward


def _wide(value: object) -> object:
    if isinstance(value, Tensor):
        return value.float() if value.is_floating_point() else value
    return {name: _wide(inner) for name, inner in value.items()} if isinstance(value, dict) else value


def _tensors(values: list[object]) -> Iterator[Tensor]:
    return (value for value in values if isinstance(value, Tensor))
