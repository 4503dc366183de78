"""The sampling of deformable attention on a GPU: by the Triton kernel, or by grid_sample where there is none."""

import logging
from typing import Final

import torch
from torch import Tensor
from torch.nn import functional

from tasks.models.groundingdino.fast.layout import Shapes, levels_table

_TROUBLE: Final[list[str]] = []
"""Why the kernel cannot be used in this process, once that is known."""

logger = logging.getLogger(__name__)


def sample_on_gpu(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """As tasks.models.groundingdino.fast.sampling.sample.

    Triton builds its launcher with a C compiler and Python's headers, and its kernel for the driver, at the first
    launch. Where any of these is missing, one warning says so and grid_sample takes over for good.

    Raises:
        torch.OutOfMemoryError: The device is full.
    """
    if _TROUBLE:
        return sample_grids(values, shapes, x, y, weights)
    try:
        return _launch(values, shapes, x, y, weights)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        words = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    if "[CUDA]: out of memory" in words:
        # Triton has no error of its own for what the next, smaller batch may well escape.
        raise torch.OutOfMemoryError(words)
    # A device that is broken fails here too, and then it is not the kernel's fault.
    sampled = sample_grids(values, shapes, x, y, weights)
    _TROUBLE.append(words)
    logger.warning("GroundingDINO's sampling kernel cannot be used, slower grid_sample takes its place: %s", words)
    return sampled


def _launch(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    from tasks.models.groundingdino.fast.sampling_kernel import launch

    # Triton launches on the current device, whichever has the tensors.
    with torch.cuda.device(values.get_device()):
        return launch(values, levels_table(shapes, values.device), x, y, weights)


def sample_grids(values: Tensor, shapes: Shapes, x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    """As `sample_on_gpu`, by grid_sample level by level: a few large kernels, and one level's samples in memory."""
    batch, _, heads, depth = values.shape
    queries, points = x.shape[1], x.shape[3] // len(shapes)
    total = values.new_zeros((batch * heads, depth, queries), dtype=torch.float32)
    if not batch or not queries:
        return total.view(batch, queries, heads * depth).to(values.dtype)
    maps = torch.split(values.float(), [height * width for height, width in shapes], 1)
    for level, (height, width) in enumerate(shapes):
        part = slice(level * points, (level + 1) * points)
        image = maps[level].permute(0, 2, 3, 1).reshape(batch * heads, depth, height, width)
        # grid_sample counts from -1 to 1, from border to border.
        grid = torch.stack([(2 * x[..., part] + 1) / width - 1, (2 * y[..., part] + 1) / height - 1], 4)
        found = functional.grid_sample(image, grid.transpose(1, 2).flatten(0, 1), align_corners=False)
        total += found.mul_(weights[..., part].transpose(1, 2).flatten(0, 1)[:, None]).sum(3)
    return total.view(batch, heads * depth, queries).transpose(1, 2).to(values.dtype).contiguous()
