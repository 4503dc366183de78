"""Makes the small pictures that benchmarks without models label."""

from pathlib import Path
from typing import Final

DISTINCT: Final = 64
"""Different pictures; their copies get other names."""
PER_FOLDER: Final = 1000


def draw_pictures(folder: Path, count: int) -> None:
    """Write `count` JPEG files of 160 x 120 pixels, dark with a few bright rectangles, into subfolders."""
    drawn = [_picture(seed) for seed in range(min(DISTINCT, count))]
    for number in range(count):
        path = folder / f"{number // PER_FOLDER:04d}" / f"{number:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(drawn[number % len(drawn)])


def _picture(seed: int) -> bytes:
    import io

    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 40, (120, 160, 3), dtype=np.uint8)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.integers(0, 120), rng.integers(0, 80)
        width, height = rng.integers(16, 40, 2)
        pixels[y : y + height, x : x + width] = rng.integers(150, 255, 3, dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
