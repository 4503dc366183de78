"""Resizes CLIP's crops on the GPU."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np

from tasks.models.host import in_threads, to_device
from tasks.models.protocols import Pixels
from tasks.models.runtime import Runtime

if TYPE_CHECKING:
    from open_clip.transform import PreprocessCfg
    from torch import Tensor

PIECE: Final = 256 << 20
"""Most bytes of crops that are pinned, and copied to the device, at once."""
THREADED: Final = 16 << 20
"""Bytes from which on several threads lay a piece out: copying them takes longer than starting threads."""
MOST_SHRUNK: Final = 40.0
"""Most that a crop is shrunk by on the device. torch's antialiased kernel keeps 65 times the 2 * ceil(2 * s) + 1 floats
of scale s in 48 KiB of shared memory, and refuses scales above 47."""
MOST_SQUARES: Final = 64
"""Most squares in the longer side of what is resized on the device, in floats, of which one square is kept."""


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


def resize_on_device(crops: Sequence[Pixels], side: int, device: str, fit: Callable[[Pixels], Pixels]) -> "Tensor":
    """Resize each crop so that its shorter side fits, bicubic and antialiased, and cut out the central square.

    Pillow computes in fixed point and rounds between the two directions; this rounds once. So values differ from those
    of open_clip's transform by up to 2 of 255. Crops that are much too large, or much too thin, stay on the host.

    Args:
        crops: (h, w, 3) uint8 each; they go to the device in copies of up to `PIECE` bytes.
        side: Of the square, in pixels.
        device: Where to.
        fit: open_clip's transform on the host, to (side, side, 3) uint8.

    Returns:
        (N, 3, side, side) float32 whole numbers in [0, 255].
    """
    import torch

    squares = torch.empty((len(crops), 3, side, side), device=device)
    near = [number for number, crop in enumerate(crops) if suits_device(crop.shape[0], crop.shape[1], side)]
    pieces = list(pieces_of([crops[number].size for number in near], PIECE))
    for piece in pieces:
        chosen = [near[place] for place in piece]
        # A buffer that waits for its copy would stand beside that of the next piece.
        packed = _pack([crops[number] for number in chosen], pinned=device.startswith("cuda"))
        on_device = packed.to(device, non_blocking=len(pieces) == 1)
        parts = torch.split(on_device, [crops[number].size for number in chosen])
        for number, part in zip(chosen, parts, strict=True):
            squares[number] = _square(part.view(crops[number].shape), side)
    far = sorted(set(range(len(crops))).difference(near))
    if far:
        fitted = to_device(np.stack(in_threads(fit, [crops[number] for number in far])), device)
        for number, square in zip(far, fitted.permute(0, 3, 1, 2), strict=True):
            squares[number] = square
    return squares.clamp_(0, 255).round_()


def suits_device(height: int, width: int, side: int) -> bool:
    """Tell whether the device's kernel can shrink a crop that far, and holds all of what a thin one grows to."""
    rows, columns = _size(height, width, side)
    return max(height / rows, width / columns) <= MOST_SHRUNK and max(rows, columns) <= MOST_SQUARES * side


def pieces_of(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Consecutive indices whose sizes sum to `most` at most; what is larger alone stands alone."""
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and held + size > most:
            yield range(start, place)
            start, held = place, 0
        held += size
    if sizes:
        yield range(start, len(sizes))


def _pack(crops: Sequence[Pixels], pinned: bool) -> "Tensor":
    """All bytes of the crops, one crop after the other."""
    import torch

    ends = np.cumsum([crop.size for crop in crops]).tolist()
    packed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
    flat = packed.numpy()

    def lay(place: int) -> None:
        crop, end = crops[place], ends[place]
        flat[end - crop.size : end].reshape(crop.shape)[:] = crop

    if ends[-1] < THREADED:
        for place in range(len(crops)):
            lay(place)
    else:
        in_threads(lay, range(len(crops)))
    return packed


def _square(crop: "Tensor", side: int) -> "Tensor":
    """(h, w, 3) uint8 to (3, side, side) float32."""
    from torch.nn import functional

    height, width = crop.shape[:2]
    pixels = crop[None].permute(0, 3, 1, 2).float()
    rows, columns = _size(height, width, side)
    if (rows, columns) != (height, width):
        pixels = functional.interpolate(pixels, (rows, columns), mode="bicubic", antialias=True)
    # The rounding of torchvision's center_crop.
    top, left = round((rows - side) / 2), round((columns - side) / 2)
    return pixels[0, :, top : top + side, left : left + side]


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of an image whose shorter side becomes `side`, as torchvision's resize computes them."""
    longer = int(side * max(height, width) / min(height, width))
    return (side, longer) if height <= width else (longer, side)
