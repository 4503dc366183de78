"""Resizes CLIP's crops on the GPU."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from tasks.models.protocols import Pixels
from tasks.models.runtime import Runtime

if TYPE_CHECKING:
    from open_clip.transform import PreprocessCfg
    from torch import Tensor


def fits_device(preprocess: "PreprocessCfg", runtime: Runtime) -> bool:
    """Tell whether crops are resized on the device: on CUDA, for what CLIP's published models do to an image.

    Args:
        preprocess: open_clip's PreprocessCfg.
        runtime: The device, and whether the switch is on.
    """
    size = preprocess.size
    square = isinstance(size, int) or size[0] == size[1]
    usual = preprocess.interpolation == "bicubic" and preprocess.resize_mode == "shortest"
    return square and usual and runtime.device.startswith("cuda") and runtime.engine.has("device_crops")


def resize_on_device(crops: Sequence[Pixels], side: int, device: str) -> "Tensor":
    """Resize each crop so that its shorter side fits, bicubic and antialiased, and cut out the central square.

    Pillow computes in fixed point and rounds between the two directions; this rounds once. So values differ from those
    of open_clip's transform by up to 2 of 255.

    Args:
        crops: (h, w, 3) uint8 each; all go to the device in one copy.
        side: Of the square, in pixels.
        device: Where to.

    Returns:
        (N, 3, side, side) float32 whole numbers in [0, 255].
    """
    import torch
    from torch.nn import functional

    ends = np.cumsum([crop.size for crop in crops])
    packed = torch.empty(int(ends[-1]), dtype=torch.uint8, pin_memory=device.startswith("cuda"))
    for crop, end in zip(crops, ends.tolist(), strict=True):
        packed[end - crop.size : end].numpy().reshape(crop.shape)[:] = crop
    on_device = packed.to(device, non_blocking=True)
    squares = torch.empty((len(crops), 3, side, side), device=device)
    for number, (crop, end) in enumerate(zip(crops, ends.tolist(), strict=True)):
        height, width = crop.shape[:2]
        pixels = on_device[end - crop.size : end].view(1, height, width, 3).permute(0, 3, 1, 2).float()
        rows, columns = _size(height, width, side)
        if (rows, columns) != (height, width):
            pixels = functional.interpolate(pixels, (rows, columns), mode="bicubic", antialias=True)
        # The rounding of torchvision's center_crop.
        top, left = round((rows - side) / 2), round((columns - side) / 2)
        squares[number] = pixels[0, :, top : top + side, left : left + side]
    return squares.clamp_(0, 255).round_()


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of an image whose shorter side becomes `side`, as torchvision's resize computes them."""
    longer = int(side * max(height, width) / min(height, width))
    return (side, longer) if height <= width else (longer, side)
