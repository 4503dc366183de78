"""What a source costs: planning many keys, and the memory and time of decoding large images."""

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options, filled_bucket
from benchmarks.harness import Measured, Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    from PIL.ImageFile import ImageFile

    from vouch_labels.schemas.records import ImageRef

LISTED: Final = 100_000
MADE_UP: Final = 1_000_000
HUGE: Final = 10_000_000
PER_FOLDER: Final = 1_000
SHARD_SIZE: Final = 1_000
SIZE: Final = (6000, 4000)
LARGE: Final = (12_000, 10_000)
QUICK: Final = (600, 400)
THREADS: Final = 8
COPIES: Final = 4
"""Images of each kind that the threads decode."""

KINDS: Final[dict[str, tuple[str, str, dict[str, Any]]]] = {
    "JPEG": ("JPEG", "RGB", {}),
    "JPEG, progressive": ("JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    "JPEG, CMYK": ("JPEG", "CMYK", {}),
    "JPEG, turned": ("JPEG", "RGB", {"orientation": 6}),
    "PNG": ("PNG", "RGB", {"compress_level": 1}),
    "PNG, alpha": ("PNG", "RGBA", {"compress_level": 1}),
    "PNG, palette": ("PNG", "P", {"compress_level": 1}),
    "PNG, 16-bit grey": ("PNG", "I;16", {"compress_level": 1}),
    "PNG, 16-bit colour of 12 bits": ("wide", "RGB", {}),
    "TIFF, float, one strip": ("TIFF", "F", {"compression": "tiff_adobe_deflate", "strip_size": 1 << 30}),
    "TIFF, float, not packed": ("TIFF", "F", {}),
    "TIFF, colour, turned": ("TIFF", "RGB", {"compression": "tiff_lzw", "tiffinfo": {274: 6}}),
    "WebP": ("WEBP", "RGB", {"method": 0}),
    "WebP, lossless": ("WEBP", "RGBA", {"lossless": True, "method": 0, "quality": 0}),
    "BMP": ("BMP", "RGB", {}),
    "GIF": ("GIF", "P", {}),
    "HEIC": ("HEIF", "RGB", {"quality": 50, "enc_params": {"preset": "ultrafast"}}),
    "AVIF": ("AVIF", "RGB", {"speed": 10}),
    "AVIF, alpha": ("AVIF", "RGBA", {"speed": 10}),
    "JPEG 2000": ("JPEG2000", "RGB", {}),
    "JPEG 2000, tiles": ("JPEG2000", "RGB", {"tile_size": (1024, 1024)}),
}
"""Row -> Pillow's format, mode, options."""
_TOGETHER: Final = ("TIFF, float, one strip", "WebP, lossless", "PNG")


def measure_listing(options: Options) -> Table:
    """List and plan a folder, a bucket where S3_TEST_ENDPOINT is set, and keys that lie nowhere."""
    listed = 2_000 if options.quick else LISTED
    made_up = [5_000] if options.quick else [LISTED, MADE_UP, *([HUGE] if options.huge else [])]
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        in_child(_fill_folder, folder=f"{folder}/images", keys=listed)
        found = {f"folder, {listed:,}": _plan(folder, "folder", uri=f"{folder}/images")}
        found |= {f"folder, {listed:,}, nothing new": _plan(folder, "folder", uri=f"{folder}/images")}
        endpoint = os.environ.get("S3_TEST_ENDPOINT")
        if endpoint:
            with filled_bucket(endpoint, listed) as uri:
                found[f"S3 on loopback, {listed:,}"] = _plan(folder, "s3", uri=uri, endpoint=endpoint)
        for keys in made_up:
            found[f"made up, {keys:,}"] = _plan(folder, f"made-up-{keys}", made_up=keys)
    rows = [
        [name, seconds(done.value["listing_seconds"]), seconds(done.value["planning_seconds"]), _memory(done)]
        for name, done in found.items()
    ]
    figures = {f"{name}: peak_bytes": float(done.peak_bytes) for name, done in found.items()}
    figures |= {f"{name}: {key}": value for name, done in found.items() for key, value in done.value.items()}
    return Table(
        title="planning many keys",
        columns=["source, keys", "listing alone", "listing and planning", "peak memory"],
        rows=rows,
        notes=[
            f"Shards of {SHARD_SIZE:,}; the plan goes to a local folder. Planning once more reads the first plan back.",
            "Made up: keys from a generator, so that only planning is measured.",
            "Peak memory is that of the whole process, Python and its imports included; each row is a process.",
        ],
        figures=figures,
    )


def _memory(done: Measured[dict[str, float]]) -> str:
    return mebibytes(done.peak_bytes)


def _plan(folder: str, run: str, *, uri: str = "", endpoint: str = "", made_up: int = 0) -> Measured[dict[str, float]]:
    return in_child(_list_and_plan, workspace=f"{folder}/workspace", run=run, uri=uri, endpoint=endpoint, keys=made_up)


def _list_and_plan(workspace: str, run: str, uri: str, endpoint: str, keys: int) -> dict[str, float]:
    """Go through the source once, then plan it; seconds of both."""
    import time

    from vouch_labels.tasks.plan.ledger import Ledger
    from vouch_labels.tasks.plan.plan import plan
    from vouch_labels.tasks.store.local import LocalStore

    store = LocalStore(Path(workspace))
    started = time.perf_counter()
    seen = sum(1 for _ in _source(uri, endpoint, keys))
    listed = time.perf_counter()
    with Ledger.load(store, run) as ledger:
        plan(_source(uri, endpoint, keys), store, run, ledger, SHARD_SIZE)
        if ledger.count() != seen:
            raise RuntimeError(f"{ledger.count()} of {seen} keys were planned")
    return {"listing_seconds": listed - started, "planning_seconds": time.perf_counter() - listed}


def _source(uri: str, endpoint: str, keys: int) -> "Iterator[ImageRef]":
    from vouch_labels.schemas.campaign import S3Options, Source
    from vouch_labels.schemas.records import ImageRef
    from vouch_labels.tasks.plan.plan import list_source
    from vouch_labels.tasks.store.open import open_store

    if keys:
        # In an order that is not that of the keys, as from several listings joined.
        return (ImageRef(f"camera/{number * 7_919 % keys:09d}.jpg", f"{number:032x}", 1000) for number in range(keys))
    options = S3Options(endpoint_url=endpoint, path_style=True, checksums="when_required") if endpoint else S3Options()
    source = Source(uri=uri, s3=options)
    return list_source(source, open_store(source))


def _fill_folder(folder: str, keys: int) -> int:
    """Make files without content: a listing does not read it, and disks take long to give its blocks back."""
    for number in range(keys):
        path = Path(folder) / f"{number // PER_FOLDER:04d}" / f"{number:09d}.jpg"
        if number % PER_FOLDER == 0:
            path.parent.mkdir(parents=True)
        path.touch()
    return keys


def measure_decoding(options: Options) -> Table:
    """Decode one image of each kind alone, and the largest kinds in eight threads together."""
    size, large = (QUICK, QUICK) if options.quick else (SIZE, LARGE)
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        for name in KINDS:
            path = f"{folder}/one"
            in_child(make_image, path=path, kind=name, width=size[0], height=size[1])
            done = in_child(decode_one, path=path).value
            rows.append([name, _pixels(size), mebibytes(done["reserved"]), mebibytes(done["taken"]), "", ""])
            figures |= {f"{name}: {key}_bytes": value for key, value in done.items()}
        together = Path(folder) / "together"
        together.mkdir()
        for number, name in enumerate(_TOGETHER):
            first = together / f"0{number}.jpg"
            in_child(make_image, path=str(first), kind=name, width=large[0], height=large[1])
            for copy in range(1, COPIES):
                (together / f"{copy}{number}.jpg").hardlink_to(first)
        many = in_child(decode_together, folder=str(together))
        figures |= {"together: peak_bytes": float(many.peak_bytes), "together: seconds": many.seconds}
    rows.append([
        f"{COPIES * len(_TOGETHER)} of {', '.join(_TOGETHER)} in {THREADS} threads",
        _pixels(large), "", "", mebibytes(many.peak_bytes), seconds(many.seconds),
    ])  # fmt: skip
    return Table(
        title="memory of decoding",
        columns=["images", "megapixels", "reserved", "taken", "whole process", "time"],
        rows=rows,
        notes=[
            "Reserved: what the header says that decoding may take, kept free before it begins; the file comes to it. "
            "Taken: how much more memory the process held at its most than before, in a process of its own.",
            f"Together: as a run does it, with its default of {many.value['limit'] >> 20:,} MiB for all threads; the "
            "consumer drops each image. The whole process includes Python and its imports, "
            f"{mebibytes(many.value['before'])}.",
        ],
        figures=figures,
    )


def _pixels(size: tuple[int, int]) -> str:
    return f"{size[0] * size[1] / 1e6:g}"


def make_image(path: str, kind: str, width: int, height: int) -> int:
    """Write an image of a kind; returns its bytes."""
    import numpy as np
    import pillow_heif
    from PIL import Image

    pillow_heif.register_heif_opener()
    form, mode, options = KINDS[kind]
    shade = (np.arange(width, dtype=np.uint32) * 255 // width).astype(np.uint8)
    if form == "wide":
        return _write_wide_png(path, width, height)
    if mode in ("F", "I;16"):
        line = shade.astype(np.float32) if mode == "F" else shade.astype(np.uint16) << 4
        image = Image.fromarray(np.broadcast_to(line, (height, width)))
    else:
        grey = Image.fromarray(np.broadcast_to(shade, (height, width)))
        image = grey.convert(mode) if mode != "CMYK" else grey.convert("RGB").convert("CMYK")
    options = dict(options)
    if orientation := options.pop("orientation", None):
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    image.save(path, form, **options)
    return Path(path).stat().st_size


def _write_wide_png(path: str, width: int, height: int) -> int:
    """Pillow writes no 16-bit colour."""
    import struct
    import zlib

    import numpy as np

    row = b"\0" + np.repeat(np.arange(width, dtype=np.uint32) * 4095 // width, 3).astype(">u2").tobytes()
    packer = zlib.compressobj(1)
    packed = b"".join([*(packer.compress(row) for _ in range(height)), packer.flush()])

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    Path(path).write_bytes(data)
    return len(data)


def decode_one(path: str) -> dict[str, float]:
    """Decode a file; bytes that were reserved and that it took."""
    import warnings

    from vouch_labels.tasks import decode as decoding
    from vouch_labels.tasks.bench.timing import peak_bytes
    from vouch_labels.tasks.decode import DecodedImage, decode

    warnings.simplefilter("ignore")
    data = Path(path).read_bytes()
    reserved: list[int] = []
    estimate = decoding.needed_bytes

    def needed_bytes(image: "ImageFile", found: str, data: bytes) -> int:
        reserved.append(estimate(image, found, data))
        return reserved[-1]

    decoding.needed_bytes = needed_bytes
    before = peak_bytes()
    image = decode("image", data, 10**9)
    if not isinstance(image, DecodedImage):
        raise RuntimeError(f"{path}: {image}")
    return {"reserved": float(reserved[0]), "taken": float(peak_bytes() - before)}


def decode_together(folder: str) -> dict[str, int]:
    """Take all images of a folder through `acquire`; the limit, and what the process held before."""
    import warnings

    from vouch_labels.schemas.campaign import Source
    from vouch_labels.schemas.records import ImageRef
    from vouch_labels.tasks.acquire import acquire
    from vouch_labels.tasks.bench.timing import peak_bytes
    from vouch_labels.tasks.memory import DEFAULT_MB
    from vouch_labels.tasks.store.local import LocalStore

    warnings.simplefilter("ignore")
    before = peak_bytes()
    store, source = LocalStore(Path(folder)), Source(uri=folder)
    for item in acquire([ImageRef(*info) for info in store.list()], store, source, THREADS):
        if item.image is None:
            raise RuntimeError(f"{item.ref.key}: {item.failed}")
    return {"limit": DEFAULT_MB << 20, "before": before}
