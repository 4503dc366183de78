"""Works through long sequences in pieces that stay in a CPU's cache."""

from collections.abc import Callable

import torch
from torch import Tensor

ROWS = 2048
"""Rows a piece on a CPU: a hidden layer of 2,048 floats a row is then 16 MiB."""


def by_rows(function: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Apply a function that treats every row alone, piece by piece on a CPU, at once elsewhere.

    Args:
        function: Of as many tensors as `inputs`, to one of (B, rows, ...).
        inputs: (B or 1, N, ...) each; the first has the batch's B.

    Returns:
        (B, N, ...).
    """
    first = inputs[0]
    total = first.shape[1]
    rows = max(1, ROWS // first.shape[0]) if first.device.type == "cpu" else total
    if total <= rows:
        return function(*inputs)
    pieces = zip(*(torch.split(each, rows, 1) for each in inputs), strict=True)
    return torch.cat([function(*piece) for piece in pieces], 1)
