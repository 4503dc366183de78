"""Products of batches of matrices by the kernel that is fastest on the device."""

import torch
from torch import Tensor

from tasks.models.engine.linear import linear


def product(left: Tensor, right: Tensor, bias: Tensor | None = None) -> Tensor:
    """(B, N, K) times (B or 1, K, M), plus (B or 1, M) to all N rows: (B, N, M)."""
    if len(right) == 1:
        return linear(left, right[0].T, None if bias is None else bias[0])
    if left.is_cpu:
        added = [None] * len(right) if bias is None else list(bias)
        return torch.stack([linear(one, other.T, row) for one, other, row in zip(left, right, added, strict=True)])
    return torch.bmm(left, right) if bias is None else torch.baddbmm(bias[:, None], left, right)
