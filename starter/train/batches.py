"""Images as the detector wants them."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)


def normalised_batch(images: NDArray[np.uint8], size: tuple[int, int], gain: Tensor | None = None) -> Tensor:
    """Resize and normalise.

    Args:
        images: (B, H, W, 3) uint8 RGB.
        size: Height and width to resize to, in pixels.
        gain: (B, 1, 1, 1) factors on brightness.

    Returns:
        (B, 3, *size) float32.
    """
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255.0
    if pixels.shape[-2:] != size:
        pixels = functional.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True)
    if gain is not None:
        pixels = (pixels * gain).clamp(0, 1)
    return (pixels - torch.tensor(_MEAN)[:, None, None]) / torch.tensor(_STD)[:, None, None]
