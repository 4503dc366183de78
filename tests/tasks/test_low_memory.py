"""With too little memory a sound file is never called damaged, whatever its decoder says: shown in processes apart."""

import io
import subprocess
import sys
from typing import Any

import pillow_heif
import pytest
from PIL import Image

pillow_heif.register_heif_opener()  # for writing

SIZE = (6000, 4000)
FILES: dict[str, dict[str, Any]] = {
    "PNG": {"compress_level": 1},
    "JPEG": {},
    "progressive JPEG": {"progressive": True},
    "TIFF": {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30},
    "WEBP": {"lossless": True, "method": 0, "quality": 0},
    "BMP": {},
    "GIF": {},
    "AVIF": {"speed": 10},
    "HEIF": {"enc_params": {"preset": "ultrafast"}},
    "JPEG2000": {"tile_size": (1024, 1024)},
}

CHILD = """
import pathlib, resource, sys
from vouch_labels.tasks.decode import DecodedImage, decode
data = sys.stdin.buffer.read()
small = pathlib.Path(sys.argv[1]).read_bytes()
assert isinstance(decode("a", small, 10**9), DecodedImage)  # whatever is loaded first
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (24 << 20), resource.RLIM_INFINITY))
short = decode("a", data, 10**9)
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert isinstance(decode("a", data, 10**9), DecodedImage)
print(short.step, short.reason)
"""


def encoded(kind: str, size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("L" if kind == "GIF" else "RGB", size, 7).save(file, kind.split()[-1], **FILES[kind])
    return file.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space as Linux does")
@pytest.mark.parametrize("kind", FILES)
def test_a_sound_file_is_left_for_the_next_run(kind: str, tmp_path) -> None:
    small = tmp_path / "small"
    small.write_bytes(encoded(kind, (64, 64)))
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(small)], input=encoded(kind, SIZE), capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().startswith("fetch unforeseen MemoryError: decoding it may need ")
