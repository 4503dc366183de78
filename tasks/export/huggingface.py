"""Writes what Hugging Face's `datasets` loads by its folder: Parquet with the images inside, or imagefolder.

In Parquet the schema's metadata says what the columns are (Image, ClassLabel), as `datasets` itself writes it; pyarrow
alone is needed. An imagefolder is the images and a metadata.jsonl in each split's folder.
"""

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, BinaryIO, Final

import pyarrow as pa
import pyarrow.parquet as pq

from vouch_labels.tasks.export.label_files import LabelFiles
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage
from vouch_labels.tasks.labels.records import AnnotationFile

GROUP_BYTES: Final = 32 << 20
"""Images of a row group: what a reader holds at once."""
FILE_BYTES: Final = 480 << 20
"""Images of a file; the hub shows and streams files of this size."""

SPLIT_NAMES: Final = {None: "train", "train": "train", "val": "validation", "test": "test"}
"""Our splits -> theirs; without splits all is train."""

_OBJECTS: Final = pa.struct(
    {
        "id": pa.list_(pa.int64()),
        "bbox": pa.list_(pa.list_(pa.float64(), 4)),  # x, y, width, height in pixels
        "category": pa.list_(pa.int64()),
        "area": pa.list_(pa.float64()),
        "iscrowd": pa.list_(pa.bool_()),
        "rle_counts": pa.list_(pa.string()),  # compressed RLE of the image's size; null without a mask
        "score": pa.list_(pa.float64()),
        "p_correct": pa.list_(pa.float64()),
        "provenance": pa.list_(pa.string()),
        "label_id": pa.list_(pa.string()),
    }
)
_COLUMNS: Final = {
    "image": pa.struct({"bytes": pa.binary(), "path": pa.string()}),
    "image_id": pa.int64(),
    "file_name": pa.string(),
    "width": pa.int32(),
    "height": pa.int32(),
    "objects": _OBJECTS,
    "not_exhaustive": pa.list_(pa.int64()),  # classes of which there may be more objects
}


class HuggingfaceFiles:
    """data/<split>-00000.parquet and so on, and the README.md that names them."""

    def __init__(self, target: Target) -> None:
        """Take where it goes."""
        self._target = target
        self._numbers = {name: number for number, name in enumerate(target.class_names)}
        self._schema = pa.schema(_COLUMNS).with_metadata({"huggingface": json.dumps(_features(target.class_names))})
        self._splits: dict[str, _Shards] = {}

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["HuggingfaceFiles"]:
        """Open the folder; README.md comes last, files of an earlier export go."""
        files = cls(target)
        names = dict.fromkeys(SPLIT_NAMES[name] for name in target.splits or (None,))
        with ExitStack() as stack:
            for name in names:
                files._splits[name] = stack.enter_context(_Shards(target, name, files._schema))
            yield files
        written = {one.file for shards in files._splits.values() for one in shards.files}
        for info in list(target.store.list(f"{target.prefix}/data/")):
            if info.key not in written:
                target.store.delete(info.key)
        target.store.put(f"{target.prefix}/README.md", _readme(target, names).encode())

    def add(self, image: WrittenImage) -> None:
        """Append an image with its content."""
        row = {
            "image": {"bytes": image.data, "path": image.image.key.rpartition("/")[2]},
            "image_id": image.number,
            "file_name": image.image.key,
            "width": image.image.width,
            "height": image.image.height,
            "objects": objects(image, self._numbers, with_masks=self._target.config.masks == "rle"),
            "not_exhaustive": [self._numbers[name] for name in image.not_exhaustive],
        }
        self._splits[SPLIT_NAMES[image.split]].add(row, len(image.data), len(image.labels))

    def files(self, split: str) -> list[AnnotationFile]:
        """The files of a split."""
        wanted = self._splits.values() if split == ALL else [self._splits[SPLIT_NAMES[split]]]
        return [one for shards in wanted for one in shards.files]


def objects(image: WrittenImage, numbers: dict[str, int], *, with_masks: bool) -> dict[str, list[Any]]:
    """An image's labels, a list for each property: the way of detection data sets on the hub."""
    found: dict[str, list[Any]] = {field.name: [] for field in _OBJECTS}
    for one in image.labels:
        label, (x0, y0, x1, y1) = one.label, one.box
        width, height = round(x1 - x0, 2), round(y1 - y0, 2)
        values = {
            "id": one.number,
            "bbox": [x0, y0, width, height],
            "category": numbers[label.class_name],
            "area": float(label.area or max(round(width * height, 2), 0.01)),
            "iscrowd": one.crowd,
            "rle_counts": label.rle_counts.decode() if with_masks and label.rle_counts is not None else None,
            "score": label.score if label.score == label.score else None,  # NaN
            "p_correct": label.p_correct,
            "provenance": label.provenance,
            "label_id": label.label_id,
        }
        for name, value in values.items():
            found[name].append(value)
    return found


class _Shards:
    """The Parquet files of one split; a context that ends the last one."""

    def __init__(self, target: Target, name: str, schema: pa.Schema) -> None:
        self._store, self._stem, self._schema = target.store, f"{target.prefix}/data/{name}", schema
        self._rows: list[dict[str, Any]] = []
        self._waiting = self._written = 0
        self._stack = ExitStack()
        self.files: list[AnnotationFile] = []

    def __enter__(self) -> "_Shards":
        self._next()
        return self

    def __exit__(self, *error: Any) -> None:  # noqa: ANN401 - as contextlib's
        if error[0] is not None:
            self._stack.__exit__(*error)
            return
        with self._stack:
            self._flush()

    def add(self, row: dict[str, Any], size: int, labels: int) -> None:
        if self._written >= FILE_BYTES:
            self._flush()
            self._stack.close()
            self._next()
        self._rows.append(row)
        self._waiting += size
        self._written += size
        last = self.files[-1]
        self.files[-1] = AnnotationFile(file=last.file, images=last.images + 1, annotations=last.annotations + labels)
        if self._waiting >= GROUP_BYTES:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._writer.write_table(pa.Table.from_pylist(self._rows, self._schema))
        self._rows, self._waiting = [], 0

    def _next(self) -> None:
        key = f"{self._stem}-{len(self.files):05d}.parquet"
        self._stack = ExitStack()
        out = self._stack.enter_context(self._store.open_writer(key))
        # Images are compressed already.
        self._writer = self._stack.enter_context(pq.ParquetWriter(out, self._schema, compression="snappy"))
        self._written = 0
        self.files.append(AnnotationFile(file=key))


def _features(class_names: tuple[str, ...]) -> dict[str, Any]:
    """The columns in the words of `datasets`."""

    def value(dtype: str) -> dict[str, Any]:
        return {"dtype": dtype, "_type": "Value"}

    def listed(feature: dict[str, Any], length: int = -1) -> dict[str, Any]:
        return {"feature": feature, "length": length, "_type": "Sequence"}

    label = {"names": list(class_names), "_type": "ClassLabel"}
    kinds = {
        "id": value("int64"),
        "bbox": listed(value("float64"), 4),
        "category": label,
        "area": value("float64"),
        "iscrowd": value("bool"),
        "rle_counts": value("string"),
        "score": value("float64"),
        "p_correct": value("float64"),
        "provenance": value("string"),
        "label_id": value("string"),
    }
    features = {
        "image": {"_type": "Image"},
        "image_id": value("int64"),
        "file_name": value("string"),
        "width": value("int32"),
        "height": value("int32"),
        "objects": {name: listed(kind) for name, kind in kinds.items()},
        "not_exhaustive": listed(label),
    }
    return {"info": {"features": features}}


def _readme(target: Target, names: dict[str, None]) -> str:
    lines = ["---", "task_categories:", "- object-detection", "configs:", "- config_name: default", "  data_files:"]
    for name in names:
        lines += [f"  - split: {name}", f"    path: data/{name}-*.parquet"]
    text = target.config.description or f"Data set {target.config.name}."
    return "\n".join([*lines, "---", "", text, ""])


def imagefolder_path(key: str, split: str | None) -> str:
    """Where an image lies: in its split's folder."""
    return f"{SPLIT_NAMES[split]}/{key}"


class ImageFolder:
    """<split>/metadata.jsonl beside the images of each split."""

    def __init__(self, target: Target, files: LabelFiles, lists: dict[str, BinaryIO]) -> None:
        """Take the metadata of each split, open."""
        self._target, self._files, self._lists = target, files, lists
        self._numbers = {name: number for number, name in enumerate(target.class_names)}
        self._images: Counter[str] = Counter()
        self._objects: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["ImageFolder"]:
        """Open the folder; the metadata comes last, and names classes by number: classes.txt has them in order."""
        names = list(dict.fromkeys(SPLIT_NAMES[name] for name in target.splits or (None,)))
        with ExitStack() as stack:
            lists = {
                name: stack.enter_context(target.store.open_writer(f"{target.prefix}/{name}/metadata.jsonl"))
                for name in names
            }
            folders = dict.fromkeys(SPLIT_NAMES.values())
            with LabelFiles.open(target.store, target.prefix, *folders) as files:
                files.put("classes.txt", "".join(f"{name}\n" for name in target.class_names))
                for name in names:
                    files.keep(f"{name}/metadata.jsonl")
                yield cls(target, files, lists)

    def add(self, image: WrittenImage) -> None:
        """Append an image."""
        split = SPLIT_NAMES[image.split]
        self._files.keep(image.file_name)
        row = {
            "file_name": image.file_name.removeprefix(f"{split}/"),
            "image_id": image.number,
            "width": image.image.width,
            "height": image.image.height,
            "objects": objects(image, self._numbers, with_masks=self._target.config.masks == "rle"),
        }
        self._lists[split].write((json.dumps(row, ensure_ascii=False) + "\n").encode())
        for name in {ALL, image.split or ALL}:
            self._images[name] += 1
            self._objects[name] += len(image.labels)

    def files(self, split: str) -> list[AnnotationFile]:
        """The metadata of a split; of all, the first one's."""
        name = next(iter(self._lists)) if split == ALL else SPLIT_NAMES[split]
        key = f"{self._target.prefix}/{name}/metadata.jsonl"
        return [AnnotationFile(file=key, images=self._images[split], annotations=self._objects[split])]
