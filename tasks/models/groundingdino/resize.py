"""Brings images to the size that GroundingDINO looks at."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.models.groundingdino.architectures import Resize
from tasks.models.host import in_threads
from tasks.models.protocols import Pixels

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)


def resized_shape(height: int, width: int, resize: Resize) -> tuple[int, int]:
    """Height and width that an image is resized to: short side first, unless the long side would pass its limit.

    Rounds as groundingdino.datasets.transforms.resize does, which lets the long side of thin images pass its limit
    (by a pixel at usual aspects); images so thin that the package's short side would be 0 are squeezed to the limit.
    """
    short, long = min(height, width), max(height, width)
    target = resize.short_side
    if long / short * target > resize.long_side:
        target = round(resize.long_side * short / long)
    if short == target:
        return height, width
    target, scaled = (target, int(target * long / short)) if target else (1, resize.long_side)
    return (target, scaled) if height <= width else (scaled, target)


def resize_image(image: Pixels, shape: tuple[int, int]) -> Pixels:
    """Resize with Pillow's antialiased bilinear filter, as the package does.

    Args:
        image: (H, W, 3) uint8.
        shape: Height and width wanted.
    """
    height, width = shape
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR))


def resize_images(images: Sequence[Pixels], shape: tuple[int, int]) -> Pixels:
    """As `resize_image`, several at a time: (B, height, width, 3)."""
    resized = np.empty((len(images), *shape, 3), np.uint8)

    def lay(place: int) -> None:
        resized[place] = resize_image(images[place], shape)

    in_threads(lay, range(len(images)))
    return resized


def normalise(images: Tensor, least_shape: tuple[int, int]) -> Tensor:
    """Turn (B, H, W, 3) uint8 into (B, 3, H', W') float32 with ImageNet's mean and deviation taken out.

    Args:
        images: On any device.
        least_shape: H' and W' are at least this; what is added at the bottom and right has the mean colour.
    """
    pixels = images.permute(0, 3, 1, 2).to(torch.float32).div(255)
    pixels = pixels.sub_(_channels(MEAN, images.device)).div_(_channels(STD, images.device))
    below, right = (max(least - side, 0) for least, side in zip(least_shape, pixels.shape[2:], strict=True))
    return torch.nn.functional.pad(pixels, (0, right, 0, below)) if below or right else pixels.contiguous()


@cache
def _channels(values: tuple[float, ...], device: torch.device) -> Tensor:
    """(3, 1, 1) on the device; kept, because bringing it there waits for all that runs there."""
    return torch.tensor(values, device=device).view(3, 1, 1)


def least_shape(shape: tuple[int, int], queries: int) -> tuple[int, int]:
    """The least shape not below the given one whose feature maps have a place for every query.

    The decoder picks its queries among the cells of maps at strides 8, 16 and 32 (and coarser). Only images much
    longer than wide have too few; the package fails on them.
    """
    height, width = shape
    while sum((height // stride) * (width // stride) for stride in (8, 16, 32)) < queries:
        if height <= width:
            height += 32
        else:
            width += 32
    return height, width
