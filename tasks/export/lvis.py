"""Writes LVIS: as COCO, but every image says which classes it surely lacks, and of which it may show more.

A label in doubt is no annotation. Where its class has others in the image, the class is not exhaustively annotated
there; where it has none, it is neither among the image's classes nor among those that it lacks, and so not judged.
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from vouch_labels.tasks.export.coco import info_and_licences, provenance_members
from vouch_labels.tasks.export.files import CocoDocument, open_document
from vouch_labels.tasks.export.polygons import decoded, polygons
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.labels.records import AnnotationFile, ExportImage


class _File:
    """The file of one split."""

    def __init__(self, key: str, document: CocoDocument, tail: dict[str, Any]) -> None:
        self.key, self.document, self.tail = key, document, tail
        self.images_of: Counter[str] = Counter()
        self.annotations_of: Counter[str] = Counter()


class LvisFiles:
    """lvis.json, and lvis_<split>.json beside it."""

    def __init__(self, target: Target, files: Mapping[str, _File]) -> None:
        """Take the file of each split, open."""
        self._target, self._files = target, files
        self._ids = {name: number for number, name in enumerate(target.class_names, 1)}

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["LvisFiles"]:
        """Open the file of every split; those of other splits go."""
        names = {
            name: f"{target.prefix}/lvis{'' if name == ALL else f'_{name}'}.json" for name in (ALL, *target.splits)
        }
        with ExitStack() as stack:
            opened = {}
            for name, key in names.items():
                # The categories come last, and count what came before.
                tail: dict[str, Any] = {}
                document = stack.enter_context(open_document(target.store, key, info_and_licences(target), tail))
                opened[name] = _File(key, document, tail)
            files = cls(target, opened)
            yield files
            for one in opened.values():
                one.tail["categories"] = files._categories(one)
        for info in list(target.store.list(f"{target.prefix}/lvis_")):
            if info.key not in names.values():
                target.store.delete(info.key)

    def add(self, image: WrittenImage) -> None:
        """Append an image to the files of all and of its split."""
        classes = Counter(one.label.class_name for one in image.labels)
        entries = [self._annotation(one, image) for one in image.labels]
        text = self._image(image, classes)
        for name in (ALL,) if image.split is None else (ALL, image.split):
            file = self._files[name]
            file.document.add(text, entries)
            file.images_of.update(classes.keys())
            file.annotations_of.update(classes)

    def files(self, split: str) -> list[AnnotationFile]:
        """The file of a split."""
        one = self._files[split]
        return [AnnotationFile(file=one.key, images=one.document.images, annotations=one.document.annotations)]

    def _image(self, written: WrittenImage, classes: Mapping[str, int]) -> str:
        image, doubtful = written.image, set(written.not_exhaustive)
        entry = {
            "id": written.number,
            "file_name": written.file_name,
            # Readers take the file from here: detectron2 its last two parts, mmdetection all of it.
            "coco_url": written.file_name,
            "width": image.width,
            "height": image.height,
            "license": 1 if self._target.config.licences else 0,
            "neg_category_ids": [n for name, n in self._ids.items() if name not in doubtful and name not in classes],
            "not_exhaustive_category_ids": [n for name, n in self._ids.items() if name in doubtful and name in classes],
        }
        if image.orientation != 1:
            entry["exif_orientation"] = image.orientation
        return json.dumps(entry, ensure_ascii=False)

    def _annotation(self, written: WrittenLabel, image: WrittenImage) -> str:
        label, (x0, y0, x1, y1) = written.label, written.box
        area = label.area or round(max((x1 - x0) * (y1 - y0), 0.01), 2)
        mask = json.dumps(_polygons(written, image.image), separators=(",", ":"))
        return (
            f'{{"id": {written.number}, "image_id": {image.number}, "category_id": {self._ids[label.class_name]}, '
            f'"bbox": [{x0:.2f}, {y0:.2f}, {x1 - x0:.2f}, {y1 - y0:.2f}], "area": {area}, "segmentation": {mask}, '
            f"{provenance_members(label)}}}"
        )

    def _categories(self, file: _File) -> list[dict[str, Any]]:
        return [
            {
                "id": number,
                "name": name,
                # What WordNet calls it and how it is defined is not known.
                "synset": "",
                "synonyms": [name],
                "def": "",
                "image_count": file.images_of[name],
                "instance_count": file.annotations_of[name],
                "frequency": frequency(file.images_of[name]),
            }
            for name, number in self._ids.items()
        ]


def frequency(images: int) -> str:
    """LVIS's groups of classes: r, c or f, of up to 10, up to 100, and more images."""
    return "r" if images <= 10 else "c" if images <= 100 else "f"


def _polygons(written: WrittenLabel, image: ExportImage) -> list[list[float]]:
    """Polygons of the mask, the box's corners where there is none: readers end at an annotation without one."""
    label, (x0, y0, x1, y1) = written.label, written.box
    if label.rle_counts is None or not label.area:
        return [[x0, y0, x1, y0, x1, y1, x0, y1]]
    return [part.astype(float).ravel().tolist() for part in polygons(decoded(label.rle_counts, image))]
