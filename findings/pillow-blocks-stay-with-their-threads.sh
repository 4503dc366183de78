#!/usr/bin/env bash
# Expected: an image that is closed and out of reach gives its memory back, whichever thread decoded it.
# Happens: eight threads that decoded and closed one photograph of 48 megapixels each still hold more than half a
#   gigabyte. Pillow takes blocks of 16 MiB for its pixels, and glibc keeps what a thread frees in pieces below 32 MiB
#   in that thread's own arena. With PILLOW_BLOCK_SIZE=64m, or Image.core.set_block_size(64 << 20), nothing is kept.
# Versions: Pillow 13.0.0, glibc 2.36 (Debian 12), seen on 2026-11-30.
# Matters: whoever reads a detection data set by a pool of threads (loaders, labelling, converting) runs out of memory
#   with images that are long gone, the sooner the more threads there are and the larger its photographs.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check pillow==13.0.0
cat >"$folder/decode.py" <<'PY'
import gc
import io
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

from PIL import Image

THREADS = 8
file = io.BytesIO()
Image.new("RGB", (8000, 6000), (9, 90, 200)).save(file, "PNG")
data, together = file.getvalue(), Barrier(THREADS)
del file


def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) >> 10 for line in status if line.startswith("VmRSS"))


def decode(_):
    together.wait()
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        together.wait()


before = resident()
with ThreadPoolExecutor(THREADS) as pool:
    list(pool.map(decode, range(THREADS)))
    gc.collect()
    print(resident() - before)
PY
"$folder/venv/bin/python" -c 'import PIL, platform; print("Pillow", PIL.__version__, "and", *platform.libc_ver())'
usual=$("$folder/venv/bin/python" "$folder/decode.py")
larger=$(PILLOW_BLOCK_SIZE=64m "$folder/venv/bin/python" "$folder/decode.py")
echo "held after eight images of 48 megapixels are closed: $usual MiB; with blocks of 64 MiB: $larger MiB"
((usual > 500 && larger < 200))
echo "FINDING: threads keep the memory of images that Pillow has closed, unless its blocks are larger than 32 MiB"
