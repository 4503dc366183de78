"""Damaged inputs: files of verdicts and truth, campaigns, images."""

import gzip
import io
import json
import random
from copy import deepcopy
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import numpy as np
from PIL import Image

STRANGE: list[Any] = [
    None, True, False, 0, 1, -1, 1.5, -0.0, 2**31, 2**63, 10**40, 10**400, 1e308, float("nan"), float("inf"), "", " ",
    "0", "1", "1.0", "true", "nan", "x" * 300, "ä\ud800", "\x00", "a/../b", "..\\a.jpg", [], {}, [[]], [None],
    {"a": []}, [1, 2, 3, 4], "2026-03-04T05:06:07Z", "9999-99-99", "correct", "missed", "checked", "cat", "=1+1",
]  # fmt: skip


_SOUND = "hb0d0Tb0"
"""600, 20 and 580 pixels, as pycocotools writes them."""
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


def truth_file(seed: int) -> bytes:
    """A COCO file."""
    rng = random.Random(seed)
    images = [{"id": n, "file_name": f"{n}.jpg", "width": 40, "height": 30} for n in range(rng.randint(1, 4))]
    annotations: list[dict[str, Any]] = [
        {
            "id": n,
            "image_id": rng.randrange(len(images)),
            "category_id": rng.randint(1, 2),
            "iscrowd": 0,
            "bbox": _box(rng),
        }
        for n in range(rng.randint(1, 6))
    ]
    for annotation in annotations:
        annotation["segmentation"] = rng.choice(
            [
                [[rng.uniform(-5, 45) for _ in range(2 * rng.randint(3, 6))]],
                {"size": [30, 40], "counts": [600, 20, 580]},
                {"size": [30, 40], "counts": rng.choice([_SOUND, _SOUND, "0123", "PPPP"])},
                [],
            ]
        )
    document: dict[str, Any] = {"info": {"year": 2026}, "images": images, "annotations": annotations}
    document["categories"] = [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        document = _changed(rng, document)
    return _damaged(rng, json.dumps(document).encode())


def verdict_file(seed: int) -> tuple[str, bytes]:
    """A table of verdicts: suffix and content."""
    rng = random.Random(seed)
    rows = [_verdict(rng) for _ in range(rng.randint(0, 6))]
    for _ in range(rng.choice([0, 1, 1, 2, 4])):
        rows = _changed(rng, rows)
    suffix = rng.choice([".csv", ".json", ".jsonl", ".parquet"])
    if suffix == ".json":
        content = json.dumps(rows).encode()
    elif suffix == ".jsonl":
        content = "\n".join(json.dumps(row) for row in rows).encode()
    elif suffix == ".csv":
        content = _csv(rng, [row for row in rows if isinstance(row, dict)])
    else:
        content = _parquet(rng, [row for row in rows if isinstance(row, dict)])
    return suffix, _damaged(rng, content)


def campaign_file(seed: int) -> bytes:
    """A campaign file."""
    import yaml

    rng = random.Random(seed)
    content: dict[str, Any] = {
        "source": "images",
        "workspace": {"uri": "workspace"},
        "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        "models": {"device": "cpu", "detector": {"backend": "fake"}},
        "routing": {"accept": {"detector_score": 0.5}, "precision": 0.95},
        "export": {"undecided": "ignore"},
    }
    for _ in range(rng.choice([0, 1, 2, 4])):
        content = _changed(rng, content)
    text = yaml.safe_dump(content, allow_unicode=True)
    if rng.random() < 0.5:
        at = rng.randrange(len(text) + 1)
        parts = [
            "&a",
            "*a",
            "<<: ",
            "!!",
            "- ",
            "\t",
            ": ",
            "{",
            "[",
            '"',
            "'",
            "|",
            ">",
            "#",
            "%",
            "@",
            "\ufeff",
            "---\n",
        ]
        text = text[:at] + rng.choice(parts) + text[at:]
    return _damaged(rng, text.encode("utf-8", "surrogatepass"))


def _box(rng: random.Random) -> list[float]:
    return [rng.uniform(0, 20), rng.uniform(0, 15), rng.uniform(1, 20), rng.uniform(1, 15)]


def _verdict(rng: random.Random) -> dict[str, Any]:
    verdict = rng.choice(["correct", "wrong_class", "bad_box", "not_an_object", "checked", "missed", "Bad Box", ""])
    row: dict[str, Any] = {"label_id": rng.choice(["l0", "l1", "other"]), "key": "0.jpg", "verdict": verdict}
    if verdict in ("checked", "missed"):
        row["label_id"] = None
    if verdict in ("wrong_class", "missed"):
        row["class_name"] = rng.choice(["cat", "DOG", "wolf"])
    if verdict in ("bad_box", "missed"):
        x, y, width, height = _box(rng)
        row |= {"x0": x, "y0": y, "x1": x + width, "y1": y + height}
    cells: dict[str, list[Any]] = {
        "reviewer": ["ann", "bob", None],
        "seconds": [1, 2.5, None],
        "reviewed_at": ["2026-03-04T05:06:07Z", "2026-03-04", None],
        "simulated": [True, "no", None],
        "rle_counts": ["6230>", None],
    }
    for name, values in cells.items():
        if rng.random() < 0.3:
            row[name] = rng.choice(values)
    return row


def _csv(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    import csv

    names = list(dict.fromkeys(name for row in rows for name in row)) or ["label_id", "verdict"]
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=rng.choice(",,,;\t"))
    writer.writerow(names)
    writer.writerows([row.get(name) for name in names] for row in rows)
    return out.getvalue().encode(rng.choice(["utf-8", "utf-8", "utf-8-sig", "utf-16", "latin-1"]), "replace")


def _parquet(rng: random.Random, rows: list[dict[str, Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[str(name)] = pa.array(values)
        except (pa.ArrowException, OverflowError, ValueError, TypeError):
            columns[str(name)] = pa.array([repr(value) for value in values])
    count = len(rows)
    if columns and rng.random() < 0.5:
        columns[rng.choice(list(columns))] = rng.choice(
            [
                pa.array([b"\xff\xfe"] * count, pa.binary()).view(pa.string()),
                pa.array([2**62] * count, pa.int64()).cast(pa.timestamp("us")),
                pa.array([-(2**62)] * count, pa.int64()).cast(pa.timestamp("ms", tz="UTC")),
                pa.array([2**31 - 1] * count, pa.int32()).cast(pa.date32()),
                pa.array([datetime(2026, 3, 4, tzinfo=UTC)] * count, pa.timestamp("ns", tz="Europe/Berlin")),
                pa.array(["cat"] * count).dictionary_encode(),
                pa.array([float("nan")] * count, pa.float16()),
                pa.array([None] * count, pa.null()),
                pa.array([[1]] * count),
            ]
        )
    out = io.BytesIO()
    # Structures without a field are what Parquet does not know.
    pq.write_table(pa.table({name: column for name, column in columns.items() if column.type != pa.struct([])}), out)
    return out.getvalue()


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all values within a value."""
    found = [path] if path else []
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in entries:
        found += _places(inner, (*path, key))
    return found


def _changed(rng: random.Random, document: Any) -> Any:
    """Replace, drop or repeat a value, or rename its key."""
    document = deepcopy(document)
    places = _places(document)
    if not places:
        return document
    *path, key = rng.choice(places)
    holder = document
    for step in path:
        holder = holder[step]
    match rng.randrange(5):
        case 0 | 1:
            holder[key] = deepcopy(rng.choice(STRANGE))
        case 2:
            del holder[key]
        case 3 if isinstance(holder, list):
            holder.append(deepcopy(holder[key]))
        case _ if isinstance(holder, dict):
            holder[rng.choice(["id", "bbox", "verdict", "name", "label_id", "x0", "ignore", "unknown"])] = holder.pop(
                key
            )
    return document


def _damaged(rng: random.Random, data: bytes) -> bytes:
    """Most often as it is; else cut, flipped, doubled or wrapped."""
    match rng.randrange(12):
        case 0:
            return data[: rng.randrange(len(data) + 1)]
        case 1:
            changed = bytearray(data)
            for _ in range(rng.randint(1, 8)):
                if changed:
                    changed[rng.randrange(len(changed))] = rng.randrange(256)
            return bytes(changed)
        case 2:
            at, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
            return data[:end] + data[at:]
        case 3:
            return rng.choice(
                [gzip.compress(data), b"PK\x03\x04" + data, b"\xef\xbb\xbf" + data, b"\xff\xfe" + data, b""]
            )
    return data


# Damaged images by their seed: a small sound file of some format and mode, changed at random in a few places.


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
