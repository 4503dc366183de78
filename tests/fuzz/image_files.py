"""Gives the decoder damaged images, in a process of its own: `python -m tests.fuzz.image_files FIRST COUNT FOLDER`.

Each is a small sound file of some format and mode, changed at random by its seed. Each gives pixels or one line; a
process that ends by a signal, or hangs, leaves its seed in FOLDER/seed. The last line printed is the peak memory.
"""

import io
import random
import signal
import sys
import warnings
from functools import cache
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

MOST_PIXELS: Final = 1_000_000
CPU_SECONDS: Final = 30
"""Of one file, after which it is taken to hang; a sound one takes milliseconds."""
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


def main(first: int, count: int, folder: Path) -> None:
    """Decode so many files, from a seed on.

    Raises:
        AssertionError: One gave neither pixels nor one line.
    """
    from vouch_labels.schemas.records import Failed
    from vouch_labels.tasks.bench.timing import peak_bytes
    from vouch_labels.tasks.decode import decode

    warnings.simplefilter("ignore")  # Pillow's, about what is damaged
    # By default this signal ends the process, also within native code.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    taken = 0
    for seed in range(first, first + count):
        (folder / "seed").write_text(str(seed))
        signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
        found = decode("picture.jpg", image_file(seed), MOST_PIXELS)
        if isinstance(found, Failed):
            assert found.reason, seed
            assert found.reason.isprintable(), (seed, found.reason)
            assert found.step == "acquire", (seed, found.reason)
        else:
            taken += 1
            height, width, channels = found.pixels.shape
            assert (channels, height * width <= MOST_PIXELS, found.pixels.dtype) == (3, True, np.uint8), seed
    signal.setitimer(signal.ITIMER_PROF, 0)
    print(f"{taken} of {count} decoded")
    print(peak_bytes())


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
