"""Writes COCO instances, as JSON or as Parquet: streamed in constant memory, images before annotations.

The preset of a trainer decides the category id that it expects first. Every image names the classes that it was not
exhaustively annotated for.
"""

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import lru_cache, partial
from typing import Any, Final

import numpy as np

from vouch_labels.schemas.campaign import Masks
from vouch_labels.tasks.export.files import FORMATS, Document, FileSeries, Open, images_key
from vouch_labels.tasks.export.polygons import decoded, polygons
from vouch_labels.tasks.export.written import ALL, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.labels.records import AnnotationFile, ExportImage, ExportLabel
from vouch_labels.tasks.store.source import frame_of
from vouch_labels.tasks.store.store import Store


class CocoFiles:
    """The annotation files of every split, in both forms where both are asked for."""

    def __init__(self, target: Target, series: Mapping[str, Sequence[FileSeries]]) -> None:
        """Take the files of each split, open."""
        self._config = target.config
        self._categories = category_ids(target.class_names, target.config.preset)
        self._series = series

    @classmethod
    @contextmanager
    def open(cls, target: Target) -> Iterator["CocoFiles"]:
        """Open the files of every split; those of an earlier export that are not written again go at the end."""
        config = target.config
        head, tail = info_and_licences(target), _tail(target)
        with ExitStack() as stack:
            series: dict[str, list[FileSeries]] = {}
            for name in (ALL, *target.splits):
                stem = f"{target.prefix}/annotations" if name == ALL else f"{target.prefix}/annotations_{name}"
                series[name] = [
                    stack.enter_context(
                        FileSeries(
                            partial(_opened, open_file, target.store, head, tail),
                            f"{stem}.{suffix}",
                            config.images_per_file,
                        )
                    )
                    for suffix, open_file in (FORMATS[form] for form in config.formats)
                ]
            files = cls(target, series)
            yield files
        written = {one.file for name in series for one in files.files(name)}
        _delete_others(target.store, target.prefix, written)

    def add(self, image: WrittenImage) -> None:
        """Append an image to the files of all and of its split."""
        entries = [
            annotation_entry(label, image.image, image.number, self._categories, self._config.masks)
            for label in image.labels
        ]
        text = image_entry(image, 1 if self._config.licences else None, self._categories)
        for name in (ALL,) if image.split is None else (ALL, image.split):
            for series in self._series[name]:
                series.add(text, entries)

    def files(self, split: str) -> list[AnnotationFile]:
        """The annotation files of a split."""
        return [one for series in self._series[split] for one in series.files]


def _opened(
    open_file: Open, store: Store, head: Mapping[str, Any], tail: Mapping[str, Any], key: str
) -> AbstractContextManager[Document]:
    return open_file(store, key, head, tail)


_OURS: Final = re.compile(r"annotations(_train|_val|_test)?(-\d{5,})?\.(json|parquet)")


def _delete_others(store: Store, prefix: str, written: Collection[str]) -> None:
    """Delete the files of an earlier export that had other splits, formats, or more files."""
    for info in list(store.list(f"{prefix}/annotations")):
        if info.key not in written and _OURS.fullmatch(info.key.removeprefix(f"{prefix}/")):
            if info.key.endswith(".parquet"):
                store.delete(images_key(info.key))
            store.delete(info.key)


def info_and_licences(target: Target) -> dict[str, Any]:
    """The first members of a file."""
    config, created = target.config, target.created
    info = {
        "description": config.description,
        "version": target.version,
        "year": created.year,
        "contributor": config.contributor,
        "date_created": created.isoformat(timespec="seconds"),
    }
    licences = [{"id": place, "name": entry.name, "url": entry.url} for place, entry in enumerate(config.licences, 1)]
    return {"info": info, "licenses": licences}


def _tail(target: Target) -> dict[str, Any]:
    ids = category_ids(target.class_names, target.config.preset)
    # Never the name of a class, and none is empty: trainers (RF-DETR) leave out what is another class's parent.
    parent = "" if "object" in {name.casefold() for name in ids} else "object"
    return {"categories": [{"id": number, "name": name, "supercategory": parent} for name, number in ids.items()]}


def image_entry(written: WrittenImage, licence: int | None, categories: Mapping[str, int]) -> str:
    """An element of `images`.

    The categories of which it may show objects without an annotation stand there as LVIS has them.
    """
    image = written.image
    parts = [f'"id": {written.number}, "file_name": {json.dumps(written.file_name, ensure_ascii=False)}']
    parts.append(f'"width": {image.width}, "height": {image.height}')
    frame = frame_of(image.key)
    if frame is not None:
        parts.append(f'"video": {json.dumps(frame[0], ensure_ascii=False)}, "timestamp_s": {frame[1]:.3f}')
    if licence is not None:
        parts.append(f'"license": {licence}')
    if image.orientation != 1:
        parts.append(f'"exif_orientation": {image.orientation}')
    parts.append(f'"not_exhaustive_category_ids": {_list(tuple(categories[name] for name in written.not_exhaustive))}')
    return "{" + ", ".join(parts) + "}"


def annotation_entry(
    written: WrittenLabel, image: ExportImage, image_id: int, categories: Mapping[str, int], masks: Masks | None
) -> str:
    """An element of `annotations`.

    Boxes are [x, y, width, height], rounded to 1/100 pixel. The mask is compressed RLE, or polygons, one for each part,
    holes joined to it; [] without one. A crowd region has RLE always, as COCO's own have. The area is
    the mask's, the box's without a mask or with an empty one, because trainers skip annotations of area 0. A crowd
    region without a pixel is the box filled, or evaluation of masks would punish detections there.
    """
    label, crowd = written.label, written.crowd
    x0, y0, x1, y1 = written.box
    width, height = x1 - x0, y1 - y0
    area: int | str = label.area or f"{max(width * height, 0.01):.2f}"
    counts = None if masks == "none" else label.rle_counts
    if crowd and label.area == 0 and masks != "none":
        counts = _rectangle(written.box, image)
    mask = "[]"
    if counts is not None and masks == "polygons" and not crowd:
        mask = json.dumps([part.ravel().tolist() for part in polygons(decoded(counts, image))], separators=(",", ":"))
    elif counts is not None:
        # Run lengths are printable ASCII without quotes; the backslash is the one that JSON escapes.
        escaped = counts.decode("ascii").replace("\\", "\\\\")
        mask = f'{{"size": [{image.height}, {image.width}], "counts": "{escaped}"}}'
    return (
        f'{{"id": {written.number}, "image_id": {image_id}, "category_id": {categories[label.class_name]}, '
        f'"bbox": [{x0:.2f}, {y0:.2f}, {width:.2f}, {height:.2f}], "area": {area}, "iscrowd": {int(crowd)}, '
        f'"segmentation": {mask}, {provenance_members(label)}}}'
    )


def provenance_members(label: ExportLabel) -> str:
    """What stands in every annotation of where it comes from, as members of a JSON object."""
    extra = "" if label.p_correct is None else f', "p_correct": {_number(label.p_correct)}'
    verdict = "" if label.verdict is None else f', "verdict": {_text(label.verdict)}'
    return (
        f'"score": {_number(label.score)}{extra}, "decision": {_text(label.decision)}, '
        f'"policy": {_text(label.policy)}, "provenance": {_text(label.provenance)}{verdict}, '
        f'"label_id": {json.dumps(label.label_id)}'
    )


def _rectangle(box: tuple[float, float, float, float], image: ExportImage) -> bytes:
    """Compressed RLE of the pixels that a box touches."""
    from pycocotools import mask as mask_utils

    x0, y0 = math.floor(box[0]), math.floor(box[1])
    sides = np.array([[x0, y0, math.ceil(box[2]) - x0, math.ceil(box[3]) - y0]], dtype=np.float64)
    counts: bytes = mask_utils.frPyObjects(sides, image.height, image.width)[0]["counts"]
    return counts


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "null"


@lru_cache(maxsize=1024)
def _text(value: str | None) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=64)
def _list(ids: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, ids))}]"


FIRST_IDS: Final = {
    "coco": 1,  # COCO's own convention: 0 is left to the background
    # register_coco_instances maps ids to 0..K-1 in their order, whatever they are. Masks are RLE: set INPUT.MASK_FORMAT
    # to bitmask. Crowd regions are left out of training.
    "detectron2": 1,
    "yolox": 1,  # COCODataset maps the sorted ids to 0..K-1 by place; crowd regions are left out of training
    # With remap_mscoco_category: False (RT-DETR, D-FINE) the id itself is the class index, so ids must be 0..K-1;
    # num_classes is K.
    "rtdetr": 0,
    # The detection references use the id as the label and keep 0 for the background; num_classes is K + 1. Masks are
    # RLE: read them by wrap_dataset_for_transforms_v2, the older ConvertCocoPolysToMask takes polygons.
    "torchvision": 1,
    "zero_based": 0,  # for trainers that use the id as the class index
}
"""Preset, which names a trainer -> id of the first category; the others follow without a gap."""


def category_ids(class_names: tuple[str, ...], preset: str) -> dict[str, int]:
    """Number the categories in the order given, from the first id of the preset."""
    return {name: number for number, name in enumerate(class_names, FIRST_IDS[preset])}
