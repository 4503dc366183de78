"""Damaged images by their seed: a small sound file of some format and mode, changed at random in a few places."""

import io
import random
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

SIZE: Final = (37, 29)

_WRITTEN: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    ("JPEG", "RGB", {}),
    ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("JPEG", "L", {}),
    ("JPEG", "CMYK", {}),
    ("MPO", "RGB", {"save_all": True}),
    *(("PNG", mode, {}) for mode in ("RGB", "RGBA", "P", "L", "LA", "1", "I;16")),
    ("PNG", "RGB", {"save_all": True}),
    *(("TIFF", mode, {}) for mode in ("RGB", "RGBA", "L", "1", "I;16", "I", "F", "CMYK", "YCbCr", "P")),
    ("TIFF", "RGB", {"save_all": True}),
    *(("TIFF", "RGB", {"compression": f"tiff_{kind}"}) for kind in ("lzw", "adobe_deflate", "jpeg")),
    ("TIFF", "1", {"compression": "group4"}),
    ("TIFF", "F", {"compression": "tiff_lzw"}),
    ("WEBP", "RGB", {}),
    ("WEBP", "RGBA", {"lossless": True}),
    ("WEBP", "RGBA", {"save_all": True}),
    *(("BMP", mode, {}) for mode in ("RGB", "P", "1")),
    ("GIF", "P", {}),
    ("GIF", "P", {"save_all": True, "transparency": 0}),
    ("JPEG2000", "RGB", {}),
    ("JPEG2000", "RGBA", {"no_jp2": True, "tile_size": (16, 16)}),
    ("JPEG2000", "I;16", {}),
    ("AVIF", "RGB", {}),
    ("AVIF", "RGBA", {}),
    ("HEIF", "RGB", {}),
    ("HEIF", "RGBA", {}),
    ("HEIF", "L", {}),
)


@cache
def sound_files() -> tuple[bytes, ...]:
    """One file of each kind, the same each time that the writers are."""
    import pillow_heif

    pillow_heif.register_heif_opener()
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (SIZE[1], SIZE[0], 3), np.uint8))
    exif = Image.Exif()
    exif[274] = 6
    files = []
    for kind, mode, options in _WRITTEN:
        image = noise.convert("L").convert("I").convert(mode) if mode == "I;16" else noise.convert(mode)
        more: dict[str, Any] = {"append_images": [image, image]} if options.get("save_all") else {}
        if kind in ("JPEG", "PNG", "WEBP", "AVIF"):
            more["exif"] = exif
        out = io.BytesIO()
        image.save(out, kind, **options, **more)
        files.append(out.getvalue())
    return tuple(files)


def image_file(seed: int) -> bytes:
    """A file by its seed, sound or damaged in a few places."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(sound_files()))
    for _ in range(rng.choice([0, 1, 1, 2, 4, 8, 16])):
        _change(rng, data)
    return bytes(data)


_NUMBERS: Final = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0x7FFF,
    0x8000,
    0xFFFF,
    0x10000,
    0x7FFF_FFFF,
    0x8000_0000,
    2**32 - 1,
)


def _change(rng: random.Random, data: bytearray) -> None:
    """Change a file in one place; headers decide most, so half of the changes go there."""
    end = max(1, rng.choice([min(64, len(data)), min(400, len(data)), len(data), len(data)]))
    at = rng.randrange(end)
    match rng.randrange(8):
        case 0 | 1:
            data[at : at + 1] = bytes([rng.randrange(256)])
        case 2:
            data[at : at + 1] = bytes([(data[at] if at < len(data) else 0) ^ 1 << rng.randrange(8)])
        case 3 | 4:
            width = rng.choice([2, 4])
            number = rng.choice(_NUMBERS) & (1 << 8 * width) - 1
            data[at : at + width] = number.to_bytes(width, rng.choice(["big", "little"]))
        case 5:
            del data[at : at + rng.choice([1, 4, 40, len(data)])]
        case 6:
            other = rng.choice(sound_files())
            start = rng.randrange(len(other))
            data[at : at + rng.choice([0, 16])] = other[start : start + rng.choice([4, 16, 200])]
        case _:
            data[at:at] = data[at : at + rng.choice([4, 12, 100])]
