"""What a source costs: planning many keys, and the memory and time of decoding large images."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options, filled_bucket
from benchmarks.harness import Measured, Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

    from PIL.ImageFile import ImageFile

    from vouch_labels.schemas.campaign import S3Options
    from vouch_labels.schemas.records import ImageRef
    from vouch_labels.tasks.decode import DecodedImage
    from vouch_labels.tasks.store.s3 import S3Store

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

FAR_SECONDS: Final = 0.05
FETCH_SECONDS: Final = 0.02
FETCHED: Final = 400
FETCH_SIZE: Final = (1280, 960)
SHAPES: Final[dict[str, Callable[[int], str]]] = {
    "64 folders": lambda number: f"camera-{number % 64:02d}/{number // 64:09d}.jpg",
    "flat": lambda number: f"images/{number:09d}.jpg",
}
"""Kinds of buckets: key of an object by its number."""

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


def measure_far_listing(options: Options) -> Table:
    """List a bucket whose answers take a while, page after page as boto3 does it, and as Vouch does."""
    keys = 20_000 if options.quick else MADE_UP if options.huge else LISTED
    delay = 0.01 if options.quick else FAR_SECONDS
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for shape in SHAPES:
        digests = set()
        first = 0.0
        for how in ("boto3's pages", "s3.threads: 1", "s3.threads: 16"):
            done = in_child(list_far, keys=keys, shape=shape, how=how, delay=delay)
            value = done.value
            digests.add(value["digest"])
            first = first or value["seconds"]
            requests = f"{value['requests']:,.0f}"
            cells = [seconds(value["seconds"]), seconds(value["cpu_seconds"]), requests, _memory(done)]
            rows.append([f"{shape}: {how}", *cells, f"{first / value['seconds']:.1f}"])
            figures |= {f"{shape}: {how}: {name}": figure for name, figure in value.items() if name != "digest"}
            figures[f"{shape}: {how}: peak_bytes"] = float(done.peak_bytes)
        if len(digests) > 1:
            raise ValueError(f"{shape}: keys, ETags, sizes or their order differ")
    return Table(
        title=f"listing {keys:,} keys of a bucket whose answers take {delay * 1000:.0f} ms",
        columns=["keys: how", "time", "CPU time", "requests", "peak memory", "times as fast"],
        rows=rows,
        notes=[
            "A server on loopback in a process of its own makes pages of 1,000 keys and sends each so long after its "
            "request. 64 folders: as many keys in each; flat: all in one folder.",
            "boto3's pages: its paginator, one request after the other, which is what Vouch did before it listed in "
            "threads. All rows of a kind give the same keys, ETags and sizes in the same order.",
            "Peak memory is that of the whole process, Python and boto3 included; no row keeps what it has listed.",
        ],
        figures=figures,
    )


def list_far(keys: int, shape: str, how: str, delay: float) -> dict[str, float]:
    """List a made-up bucket once, with its server in a process of its own."""
    import time

    from benchmarks.campaigns import client_of
    from vouch_labels.schemas.campaign import S3Options
    from vouch_labels.tasks.store.s3 import S3Store

    digest, count = hashlib.sha256(), 0
    with far_server(keys, shape, delay) as (endpoint, requests_so_far):
        client = client_of(endpoint)
        store = None
        if how.startswith("s3.threads"):
            threads = int(how.rpartition(" ")[2])
            store = S3Store("b", "", S3Options(endpoint_url=endpoint, path_style=True, threads=threads))
            store.client  # noqa: B018 - making it is no part of listing
        started, cpu = time.perf_counter(), time.process_time()
        if store is None:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket="b")
            found = ((one["Key"], one["ETag"].strip('"'), one["Size"]) for page in pages for one in page["Contents"])
        else:
            found = ((info.key, info.etag, info.size) for info in store.list())
        for key, etag, size in found:
            digest.update(f"{key} {etag} {size}\n".encode())
            count += 1
        taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
        requests = requests_so_far()
    if count != keys:
        raise RuntimeError(f"{count:,} of {keys:,} keys were listed")
    return taken | {"requests": float(requests), "digest": float(int(digest.hexdigest()[:12], 16))}


@contextmanager
def far_server(keys: int, shape: str, delay: float, content: bytes = b"") -> Iterator[tuple[str, Callable[[], int]]]:
    """Run `serve_keys` in a process of its own; gives its address and what says how many requests it had."""
    import multiprocessing

    os.environ |= {"AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any", "AWS_DEFAULT_REGION": "us-east-1"}
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_keys, args=(theirs, keys, shape, delay, content), daemon=True)
    server.start()

    def requests() -> int:
        ours.send("how many?")
        return int(ours.recv())

    try:
        yield f"http://127.0.0.1:{ours.recv()}", requests
    finally:
        server.terminate()
        server.join()


def serve_keys(pipe: "Connection", keys: int, shape: str, delay: float, content: bytes = b"") -> None:
    """Answer ListObjectsV2 by pages that are ready before they are sent, and GetObject by one content."""
    import asyncio
    from bisect import bisect_right
    from urllib.parse import parse_qs, urlsplit

    names = sorted(SHAPES[shape](number) for number in range(keys))
    tag = hashlib.md5(content, usedforsecurity=False).hexdigest()
    asked = 0

    def page(target: str) -> bytes:
        query = parse_qs(urlsplit(target).query)
        if "continuation-token" in query:
            start = int(query["continuation-token"][0])
        else:
            start = bisect_right(names, query["start-after"][0]) if "start-after" in query else 0
        end = start + 1000
        more = f"<NextContinuationToken>{end}</NextContinuationToken>" if end < keys else ""
        objects = "".join(
            f"<Contents><Key>{name}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;"
            f"{start + place:032x}&quot;</ETag><Size>1000</Size><StorageClass>STANDARD</StorageClass></Contents>"
            for place, name in enumerate(names[start:end])
        )
        return (
            '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
            f"<Name>b</Name><Prefix></Prefix><IsTruncated>{str(bool(more)).lower()}</IsTruncated>"
            f"<EncodingType>url</EncodingType>{more}{objects}</ListBucketResult>"
        ).encode()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        while head := await reader.readuntil(b"\r\n\r\n"):
            asked += 1
            waited = asyncio.create_task(asyncio.sleep(delay))
            target = head.split(b" ", 2)[1].decode()
            body = page(target) if "list-type=2" in target else content
            about = f'ETag: "{tag}"\r\nLast-Modified: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: {len(body)}'
            await waited
            writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: application/xml\r\n{about}\r\n\r\n".encode() + body)

    async def serve() -> None:
        server = await asyncio.start_server(converse, "127.0.0.1", 0)
        pipe.send(server.sockets[0].getsockname()[1])
        while True:
            await asyncio.sleep(0.05)
            if pipe.poll():
                pipe.recv()
                pipe.send(asked)

    asyncio.run(serve())


def measure_fetching(options: Options) -> Table:
    """Fetch and decode images of a bucket whose answers take 20 ms, by numbers of threads, and with obstore."""
    from importlib.util import find_spec

    images, delay = (40, 0.005) if options.quick else (FETCHED, FETCH_SECONDS)
    ways = [f"boto3, {threads} threads" for threads in (8, 16, 32, 64)] + ["boto3, fetch_threads: auto"]
    if find_spec("obstore") is not None:
        ways += [f"obstore, {threads} threads" for threads in (8, 16, 32)]
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        _make_photo(f"{folder}/one.jpg")
        content = Path(f"{folder}/one.jpg").read_bytes()
    with far_server(0, "flat", delay, content) as (endpoint, _):
        fetch_far(endpoint, 8, len(content), ways[0])  # imports, and the first connections
        for decoded in (True, False):
            for way in ways:
                value = fetch_far(endpoint, images, len(content), way, decoded=decoded)
                name = f"{way}{'' if decoded else ', read alone'}"
                cpu = f"{1000 * value['cpu_seconds'] / images:.2f} ms"
                rows.append([name, f"{images / value['seconds']:,.0f}", cpu, f"{value['threads']:.0f}"])
                figures |= {f"{name}: {key}": number for key, number in value.items()}
    return Table(
        title=f"fetching {images:,} images of a bucket whose answers take {delay * 1000:.0f} ms",
        columns=["how", "images/s", "CPU time an image", "threads at the end"],
        rows=rows,
        notes=[
            f"JPEGs of {FETCH_SIZE[0]} x {FETCH_SIZE[1]} and {len(content) / 1000:.0f} kB, fetched and decoded as a "
            "run does it (acquire) for a consumer that does nothing; read alone: the bytes are read and dropped. The "
            "server runs on loopback in a process of its own.",
            "CPU time is that of the process that fetches. obstore: it reads instead of boto3, all else as it is; "
            "measured where it is installed, which Vouch does not do.",
        ],
        figures=figures,
    )


def fetch_far(endpoint: str, images: int, size: int, way: str, *, decoded: bool = True) -> dict[str, float]:
    """Take made-up images through `acquire` once, or only read them; seconds, CPU time and threads."""
    import time
    from contextlib import nullcontext
    from unittest import mock

    from vouch_labels.schemas.campaign import S3Options, Source
    from vouch_labels.schemas.records import ImageRef
    from vouch_labels.tasks import acquire as acquiring
    from vouch_labels.tasks.acquire import acquire, pace_of
    from vouch_labels.tasks.store.s3 import S3Store

    client, _, how = way.partition(", ")
    threads = int(how.split()[0]) if how.endswith("threads") else None
    options = S3Options(endpoint_url=endpoint, path_style=True, checksums="when_required", threads=threads or 64)
    # Another bucket for each: what the pace has found for one must not help another.
    store = (_obstore_reader if client == "obstore" else S3Store)(f"b{int(decoded)}", "", options)
    refs = [ImageRef(f"images/{number:09d}.jpg", "", size) for number in range(images)]
    with nullcontext() if decoded else mock.patch.object(acquiring, "decode", _read_alone):
        started, cpu = time.perf_counter(), time.process_time()
        for item in acquire(refs, store, Source(uri=store.uri, s3=options), threads):
            if item.image is None:
                raise RuntimeError(f"{item.ref.key}: {item.failed}")
        taken = {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    return taken | {"threads": float(threads or pace_of(store.uri, options.threads).threads)}


def _read_alone(*_: object) -> "DecodedImage":
    import numpy as np

    from vouch_labels.tasks.decode import DecodedImage

    return DecodedImage(np.zeros((1, 1, 3), np.uint8), "", "JPEG", "RGB", 1)


def _obstore_reader(bucket: str, prefix: str, options: "S3Options") -> "S3Store":
    """A store that reads objects by obstore and does all else by boto3."""
    import obstore  # type: ignore[import-not-found] # not a dependency
    from obstore.store import S3Store as Reader  # type: ignore[import-not-found] # not a dependency

    from vouch_labels.tasks.store.s3 import S3Store
    from vouch_labels.tasks.store.store import Blob

    reader = Reader(bucket, endpoint=options.endpoint_url, region="us-east-1", client_options={"allow_http": True})

    class ByObstore(S3Store):
        def get(self, key: str) -> Blob:
            answer = obstore.get(reader, key)
            tag = answer.meta["e_tag"].strip('"')
            data = bytes(answer.bytes())
            if hashlib.md5(data, usedforsecurity=False).hexdigest() != tag:
                raise RuntimeError(f"{key} is damaged")
            return Blob(data, tag)

    return ByObstore(bucket, prefix, options)


def _make_photo(path: str) -> None:
    """Write a JPEG with as much in it as a photograph has: smooth shapes and some noise."""
    import numpy as np
    from PIL import Image

    rng = np.random.default_rng(0)
    width, height = FETCH_SIZE
    coarse = Image.fromarray(rng.integers(0, 256, (height // 40, width // 40, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noisy = np.clip(smooth + rng.integers(-8, 9, smooth.shape), 0, 255).astype(np.uint8)
    Image.fromarray(noisy).save(path, "JPEG", quality=88)


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
