"""Writes Pascal VOC: an XML file an image in Annotations/, images in JPEGImages/, lists of splits in ImageSets/Main/.

Boxes count pixels from 1 and hold the last one, as VOC's own do: xmin is the first pixel, xmax the last. They are whole
pixels, each side at the nearest edge, since readers parse them as integers. A region to be ignored is difficult.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO
from xml.sax.saxutils import escape

from vouch_labels.tasks.export.label_files import LabelFiles
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.export.yolo import label_name
from vouch_labels.tasks.labels.records import AnnotationFile


class VocFolder:
    """One data set in the layout of VOC2012."""

    def __init__(self, target: Target, files: LabelFiles, lists: dict[str, BinaryIO]) -> None:
        """Take what writes the annotations, and the list of each split."""
        self._target, self._files, self._lists = target, files, lists
        self._images: Counter[str] = Counter()
        self._objects: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["VocFolder"]:
        """Open the folder; the lists come last, trainval has the images of train and val, or all without splits."""
        names = ["trainval", *target.splits]
        keys = {name: _list_key(target, name) for name in names}
        for name in ("trainval", "train", "val", "test"):
            target.store.delete(_list_key(target, name))
        with ExitStack() as stack:
            lists = {name: stack.enter_context(target.store.open_writer(key)) for name, key in keys.items()}
            with LabelFiles.open(target.store, target.prefix, "JPEGImages", "Annotations") as files:
                yield cls(target, files, lists)

    def add(self, image: WrittenImage) -> None:
        """Write the annotations of an image."""
        key = image.file_name.removeprefix("JPEGImages/")
        folder, slash, name = key.rpartition("/")
        stem = f"{folder}{slash}{label_name(name, '')}"
        self._files.keep(image.file_name)
        self._files.put(f"Annotations/{stem}.xml", self._xml(image, folder, name))
        lists = ["trainval"] if image.split != "test" else []
        for split in [*lists, *([] if image.split is None else [image.split])]:
            self._lists[split].write(f"{stem}\n".encode())
        for split in (ALL,) if image.split is None else (ALL, image.split):
            self._images[split] += 1
            self._objects[split] += len(image.labels)

    def files(self, split: str) -> list[AnnotationFile]:
        """The list of a split; of all, that of train and val."""
        key = _list_key(self._target, "trainval" if split == ALL else split)
        return [AnnotationFile(file=key, images=self._images[split], annotations=self._objects[split])]

    def _xml(self, written: WrittenImage, folder: str, name: str) -> str:
        image, database = written.image, self._target.config.description or self._target.config.name or ""
        lines = [
            "<annotation>",
            f"\t<folder>{escape('/'.join(['JPEGImages', *([folder] if folder else [])]))}</folder>",
            f"\t<filename>{escape(name)}</filename>",
            f"\t<source><database>{escape(database)}</database></source>",
            f"\t<size><width>{image.width}</width><height>{image.height}</height><depth>3</depth></size>",
            "\t<segmented>0</segmented>",
            *(line for label in written.labels for line in _object(label)),
            "</annotation>",
        ]
        return "\n".join(lines) + "\n"


def voc_path(key: str, _: str | None) -> str:
    """Where an image lies, whatever its split."""
    return f"JPEGImages/{key}"


def voc_refuses(key: str) -> str:
    """Why no annotation can name an image: XML has no control characters, and the lists one image a line."""
    return "" if key.isprintable() else "its name has characters that XML or the lists of images cannot hold"


def _object(written: WrittenLabel) -> Iterator[str]:
    x0, y0, x1, y1 = written.box
    xmin, xmax = _pixels(x0, x1)
    ymin, ymax = _pixels(y0, y1)
    yield "\t<object>"
    yield f"\t\t<name>{escape(written.label.class_name)}</name>"
    yield "\t\t<pose>Unspecified</pose>"
    yield "\t\t<truncated>0</truncated>"
    yield f"\t\t<difficult>{int(written.crowd)}</difficult>"
    yield f"\t\t<bndbox><xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax></bndbox>"
    yield "\t</object>"


def _pixels(start: float, end: float) -> tuple[int, int]:
    """First and last pixel, counted from 1, of a side from edge to edge; one pixel at least."""
    first = min(int(start + 0.5), max(0, int(end - 0.005)))
    return first + 1, max(first + 1, int(end + 0.5))


def _list_key(target: Target, name: str) -> str:
    return f"{target.prefix}/ImageSets/Main/{name}.txt"
