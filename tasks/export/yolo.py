"""Writes YOLO folders: an image's labels as a text file in labels/, which lies beside images/ and has the same folders.

A line is the class, counted from 0, and the box as shares of the image: centre, width, height. Segment labels are the
class and a polygon. An image without objects has an empty file; data.yaml names folders and classes.
"""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import numpy as np
import yaml
from numpy.typing import NDArray

from vouch_labels.tasks.export.label_files import LabelFiles
from vouch_labels.tasks.export.polygons import decoded, polygon
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.labels.records import AnnotationFile, ExportImage

_IMAGES: Final = re.compile(r"_*images")


def yolo_path(key: str, split: str | None) -> str:
    """Where an image lies: images/<split>/<key>.

    Readers find the labels by the last folder that is named images, so a folder of the source with this name gets an
    underscore before it.
    """
    *folders, name = key.split("/")
    safe = [f"_{folder}" if _IMAGES.fullmatch(folder) else folder for folder in folders]
    return "/".join(["images", *([] if split is None else [split]), *safe, name])


class YoloFolder:
    """Labels of detection, or of segmentation where masks are polygons."""

    def __init__(self, target: Target, files: LabelFiles) -> None:
        """Take what writes the label files."""
        self._numbers = {name: number for number, name in enumerate(target.class_names)}
        self._polygons = target.config.masks == "polygons"
        self._target, self._files = target, files
        self._images: Counter[str] = Counter()
        self._lines: Counter[str] = Counter()

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["YoloFolder"]:
        """Open the folder; data.yaml comes last."""
        target.store.delete(f"{target.prefix}/data.yaml")
        with LabelFiles.open(target.store, target.prefix, "images", "labels") as files:
            folder = cls(target, files)
            yield folder
        target.store.put(f"{target.prefix}/data.yaml", folder._yaml().encode())

    def add(self, image: WrittenImage) -> None:
        """Write the labels of an image."""
        lines = [self._line(label, image.image) for label in image.labels]
        path = image.file_name.replace("images/", "labels/", 1)
        folder, slash, name = path.rpartition("/")
        self._files.keep(image.file_name)
        self._files.put(f"{folder}{slash}{label_name(name, '.txt')}", "".join(lines))
        for split in (ALL,) if image.split is None else (ALL, image.split):
            self._images[split] += 1
            self._lines[split] += len(lines)

    def files(self, split: str) -> list[AnnotationFile]:
        """data.yaml, or the folder of a split's labels."""
        place = "data.yaml" if split == ALL else f"labels/{split}"
        key = f"{self._target.prefix}/{place}"
        return [AnnotationFile(file=key, images=self._images[split], annotations=self._lines[split])]

    def _line(self, written: WrittenLabel, image: ExportImage) -> str:
        x0, y0, x1, y1 = written.box
        width, height = image.width, image.height
        if not self._polygons:
            numbers = [(x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height]
        else:
            vertices = mask_polygon(written, image)
            numbers = (vertices / [width, height]).ravel().tolist()
        # Eight digits: 1/100 pixel of any image.
        return " ".join([str(self._numbers[written.label.class_name]), *(f"{number:.8f}" for number in numbers)]) + "\n"

    def _yaml(self) -> str:
        present = [name for name in self._target.splits if self._images[name]]
        folders = {name: f"images/{name}" for name in present} if present else {"train": "images"}
        lines = ["# Folders are relative to this file."]
        train = folders.get("train") or next(iter(folders.values()))
        if not {"train", "val"} <= folders.keys():
            lines.append("# Where there is no split train or val, its images are those of another: set export.splits.")
        content = {
            "train": train,
            "val": folders.get("val", train),
            **({"test": folders["test"]} if "test" in folders else {}),
            "nc": len(self._numbers),
            "names": list(self._numbers),
        }
        return "\n".join(lines) + "\n" + yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=10**6)


def label_name(image_name: str, suffix: str) -> str:
    """Name of an image's label file: the image's up to its last dot, and the suffix."""
    stem, dot, _ = image_name.rpartition(".")
    return (stem if dot else image_name) + suffix


def mask_polygon(written: WrittenLabel, image: ExportImage) -> NDArray[np.float64]:
    """One polygon of a label's mask, (N, 2) x and y in pixels, holes and parts joined; the box where it has none."""
    label = written.label
    if label.rle_counts is not None and label.area:
        return polygon(decoded(label.rle_counts, image)).astype(np.float64)
    x0, y0, x1, y1 = written.box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
