"""Writes labelled images as COCO instances data sets, streamed in constant memory, images before annotations.

Images are assigned to train, val and test by a seeded hash. The preset of a trainer decides the category id that it
expects first. What a label becomes (annotation, crowd region, nothing) follows from its decision and reviews, and every
image names the classes that it was not exhaustively annotated for.
"""

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from functools import lru_cache, partial
from typing import Any, Final, Literal

import numpy as np

from vouch_labels.schemas.campaign import ExportConfig, Splits
from vouch_labels.tasks.export.files import FORMATS, Document, FileSeries, Open, images_key
from vouch_labels.tasks.labels.records import (
    ClassCounts,
    ExportImage,
    ExportLabel,
    ExportSummary,
    Guarantee,
    SplitCounts,
)
from vouch_labels.tasks.store.source import frame_of
from vouch_labels.tasks.store.store import Store

ALL = "all"

ExportStatus = Literal[
    "accepted", "kept", "corrected", "added", "rejected", "duplicate", "undecided", "dropped", "unusable"
]
"""A field of ClassCounts."""
Undecided = Literal["ignore", "drop", "include"]

SPLITS: Final = ("train", "val", "test")


def write_coco(
    images: Iterable[ExportImage],
    class_names: Sequence[str],
    config: ExportConfig,
    store: Store,
    prefix: str,
    *,
    run: str,
    created: datetime,
    version: str,
    image_root: str,
    guarantee: Guarantee | str = "",
    progress: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Write annotations.json, with splits annotations_<split>.json too; returns what `write_summary` keeps of it.

    Equal input gives equal bytes, but for `created`. Images get ids from 1 in the order they come, annotations as well;
    a split's file keeps the ids of annotations.json. Labels that wait for review become crowd regions (COCO's
    evaluation neither rewards nor punishes detections there; many trainers leave them out), are dropped, or are written
    as plain labels, as the config says. Verdicts go before the policy's decisions. With `images_per_file` there are
    annotations-00000.json and so on, with the format parquet annotations.parquet and images.parquet; files of an
    earlier export that this one does not write go. prefix is the key of the data set's folder, without a slash at its
    end; version names what the labels depend on; progress is called with the number of images written since the last
    call.

    Raises:
        StoreError: The workspace cannot be written to; no partial file is left.
        VouchError: The folder for temporary files is full.
    """
    wanted = [name for name in SPLITS if config.splits is not None and getattr(config.splits, name) > 0]
    head, tail = _head(config, created, version), _tail(class_names, config)
    with ExitStack() as stack:
        series: dict[str, list[FileSeries]] = {}
        for name in (ALL, *wanted):
            stem = f"{prefix}/annotations" if name == ALL else f"{prefix}/annotations_{name}"
            series[name] = [
                stack.enter_context(
                    FileSeries(
                        partial(_opened, open_file, store, head, tail), f"{stem}.{suffix}", config.images_per_file
                    )
                )
                for suffix, open_file in (FORMATS[form] for form in config.formats)
            ]
        writer = _Writer(class_names, config, series)
        for image in images:
            writer.add(image)
            if progress is not None:
                progress(1)
    summary = writer.summary(run, image_root, guarantee)
    _delete_others(store, prefix, {one.file for split in summary.splits.values() for one in split.files})
    return summary


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


class _Writer:
    """Numbers, writes and counts images and their labels."""

    def __init__(
        self, class_names: Sequence[str], config: ExportConfig, series: Mapping[str, Sequence[FileSeries]]
    ) -> None:
        self._config = config
        self._series = series
        self._images = self._annotations = 0
        self._categories = category_ids(tuple(class_names), config.preset)
        self._statuses: Counter[tuple[str, str]] = Counter()
        self._written: dict[str, Counter[str]] = {name: Counter() for name in series}
        self._bare = self._incomplete = self._rotated = self._checked = self._simulated = self._unreviewed = 0

    def add(self, image: ExportImage) -> None:
        image_id, first = self._images + 1, self._annotations + 1
        entries: list[str] = []
        classes: Counter[str] = Counter()
        statuses: list[ExportStatus] = []
        for label in image.labels:
            entry, (status, crowd) = None, export_status(label, self._config.undecided)
            if status not in ("dropped", "rejected", "duplicate"):
                entry = annotation_entry(label, image, first + len(entries), image_id, self._categories, crowd)
                status = "unusable" if entry is None else status
            if entry is not None:
                entries.append(entry)
                classes[label.class_name] += 1
                self._simulated += label.provenance == "simulated"
                self._unreviewed += status == "undecided" and not crowd
            statuses.append(status)
            self._statuses[label.class_name, status] += 1
        self._bare += not entries
        self._incomplete += any(status in ("dropped", "unusable") for status in statuses)
        self._rotated += image.orientation != 1
        file_name = image.key if self._config.images == "none" else f"images/{image.key}"
        doubtful = not_exhaustive(image, statuses, self._categories)
        self._checked += not doubtful
        text = image_entry(image, image_id, file_name, 1 if self._config.licences else None, doubtful)
        for name in self._targets(image):
            for series in self._series[name]:
                series.add(text, entries)
            self._written[name] += classes
        self._images += 1
        self._annotations += len(entries)

    def _targets(self, image: ExportImage) -> tuple[str, ...]:
        if self._config.splits is None:
            return (ALL,)
        frame = frame_of(image.key)
        # Frames of one video look alike: they must not stand in train and val.
        return ALL, split_of(self._config.splits, frame[0] if frame else image.sha256 or image.key)

    def summary(self, run: str, image_root: str, guarantee: Guarantee | str) -> ExportSummary:
        if isinstance(guarantee, Guarantee):
            waiting = sum(count for (_, status), count in self._statuses.items() if status in ("undecided", "dropped"))
            guarantee = guarantee.model_copy(update={"waiting": waiting})
        return ExportSummary(
            name=self._config.name,
            run=run,
            preset=self._config.preset,
            undecided_as=self._config.undecided,
            image_root=image_root,
            images=self._images,
            images_without_annotations=self._bare,
            images_incomplete=self._incomplete,
            images_rotated=self._rotated,
            annotations=self._annotations,
            classes={name: self._class_counts(name) for name in self._categories},
            splits={name: self._split_counts(name) for name in self._series},
            images_checked=self._checked,
            simulated=self._simulated,
            unreviewed=self._unreviewed,
            guarantee=guarantee if isinstance(guarantee, Guarantee) else None,
            not_guaranteed=guarantee if isinstance(guarantee, str) else "",
        )

    def _class_counts(self, class_name: str) -> ClassCounts:
        return ClassCounts(**{status: self._statuses[class_name, status] for status in ClassCounts.model_fields})

    def _split_counts(self, name: str) -> SplitCounts:
        files = [series.files for series in self._series[name]]
        classes = {class_name: self._written[name][class_name] for class_name in self._categories}
        return SplitCounts(
            file=files[0][0].file,
            files=[one for each in files for one in each],
            images=sum(one.images for one in files[0]),
            annotations=sum(one.annotations for one in files[0]),
            classes=classes,
        )


def _head(config: ExportConfig, created: datetime, version: str) -> dict[str, Any]:
    info = {
        "description": config.description,
        "version": version,
        "year": created.year,
        "contributor": config.contributor,
        "date_created": created.isoformat(timespec="seconds"),
    }
    licences = [{"id": place, "name": entry.name, "url": entry.url} for place, entry in enumerate(config.licences, 1)]
    return {"info": info, "licenses": licences}


def _tail(class_names: Sequence[str], config: ExportConfig) -> dict[str, Any]:
    ids = category_ids(tuple(class_names), config.preset)
    # Never the name of a class, and none is empty: trainers (RF-DETR) leave out what is another class's parent.
    parent = "" if "object" in {name.casefold() for name in class_names} else "object"
    return {"categories": [{"id": number, "name": name, "supercategory": parent} for name, number in ids.items()]}


def image_entry(
    image: ExportImage, image_id: int, file_name: str, licence: int | None, not_exhaustive: tuple[int, ...]
) -> str:
    """An element of `images`.

    not_exhaustive: ids of the categories of which it may show objects without an annotation, as LVIS has them.
    """
    parts = [f'"id": {image_id}, "file_name": {json.dumps(file_name, ensure_ascii=False)}']
    parts.append(f'"width": {image.width}, "height": {image.height}')
    frame = frame_of(image.key)
    if frame is not None:
        parts.append(f'"video": {json.dumps(frame[0], ensure_ascii=False)}, "timestamp_s": {frame[1]:.3f}')
    if licence is not None:
        parts.append(f'"license": {licence}')
    if image.orientation != 1:
        parts.append(f'"exif_orientation": {image.orientation}')
    parts.append(f'"not_exhaustive_category_ids": {_list(not_exhaustive)}')
    return "{" + ", ".join(parts) + "}"


def annotation_entry(
    label: ExportLabel,
    image: ExportImage,
    annotation_id: int,
    image_id: int,
    categories: Mapping[str, int],
    crowd: bool,
) -> str | None:
    """An element of `annotations`; None when the box has no extent inside the image at 1/100 pixel.

    Boxes are [x, y, width, height], rounded to 1/100 pixel. The mask is compressed RLE, [] without one. The area is
    the mask's, the box's without a mask or with an empty one, because trainers skip annotations of area 0. A crowd
    region without a pixel is the box filled, or evaluation of masks would punish detections there. annotation_id counts
    from 1, since pycocotools takes 0 for unmatched.
    """
    box = exported_box(label, image)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    width, height = x1 - x0, y1 - y0
    area: int | str = label.area or f"{max(width * height, 0.01):.2f}"
    counts = label.rle_counts
    if crowd and label.area == 0:
        counts = _rectangle(box, image)
    mask = "[]"
    if counts is not None:
        # Run lengths are printable ASCII without quotes; the backslash is the one that JSON escapes.
        escaped = counts.decode("ascii").replace("\\", "\\\\")
        mask = f'{{"size": [{image.height}, {image.width}], "counts": "{escaped}"}}'
    extra = "" if label.p_correct is None else f', "p_correct": {_number(label.p_correct)}'
    verdict = "" if label.verdict is None else f', "verdict": {_text(label.verdict)}'
    return (
        f'{{"id": {annotation_id}, "image_id": {image_id}, "category_id": {categories[label.class_name]}, '
        f'"bbox": [{x0:.2f}, {y0:.2f}, {width:.2f}, {height:.2f}], "area": {area}, "iscrowd": {int(crowd)}, '
        f'"segmentation": {mask}, "score": {_number(label.score)}{extra}, "decision": {_text(label.decision)}, '
        f'"policy": {_text(label.policy)}, "provenance": {_text(label.provenance)}{verdict}, '
        f'"label_id": {json.dumps(label.label_id)}}}'
    )


def exported_box(label: ExportLabel, image: ExportImage) -> tuple[float, float, float, float] | None:
    """The box as xyxy in pixels of the upright image, rounded to 1/100; None if it has no extent inside the image."""
    x0, y0, x1, y1 = (round(value, 2) if math.isfinite(value) else math.nan for value in label.xyxy)
    # Also false for what is not a number.
    return (x0, y0, x1, y1) if 0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height else None


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


def export_status(label: ExportLabel, undecided: Undecided) -> tuple[ExportStatus, bool]:
    """Say how a label ends, its box aside, and whether it is a crowd region.

    Verdicts go before the policy's decision. An object of unknown class or extent is never a plain label, even where
    unreviewed ones are: it is known to be wrong as it stands.
    """
    if label.reviewed in ("kept", "corrected", "added", "rejected", "duplicate"):
        return label.reviewed, False
    if label.decision == "accept" and not label.reviewed:
        return "accepted", False
    if undecided == "drop":
        return "dropped", False
    return "undecided", undecided == "ignore" or label.reviewed == "unclear"


def not_exhaustive(
    image: ExportImage, statuses: Sequence[ExportStatus], categories: Mapping[str, int]
) -> tuple[int, ...]:
    """Name the categories of which an image may show objects without a plain annotation, as ascending ids.

    Those that the image was not searched for; and of those searched for, the ones that a label in doubt may be of: its
    own class, every class if verdicts say that its own is wrong and not which one is right.
    """
    if not image.checked:
        return _ids(tuple(categories.values()), frozenset())
    known = set(image.checked)
    for label, status in zip(image.labels, statuses, strict=True):
        if status in ("undecided", "dropped", "unusable"):
            known -= known if label.verdict == "wrong_class" else {label.class_name}
    return _ids(tuple(categories.values()), frozenset(categories[name] for name in known if name in categories))


@lru_cache(maxsize=64)
def _ids(all_ids: tuple[int, ...], known: frozenset[int]) -> tuple[int, ...]:
    return tuple(sorted(number for number in all_ids if number not in known))


def split_of(splits: Splits, identity: str) -> str:
    """Name the split of an image, never one whose share is 0.

    The hash of the seed and the identity, as a number in [0, 1), is held against the cumulated shares. So an image
    keeps its split whatever other images come or go, and equal identities always share one. identity is the SHA-256 of
    its content, or its key where that is unknown; of a frame the key of its video.
    """
    digest = hashlib.sha256(f"{splits.seed}\n{identity}".encode()).digest()
    # 53 bits, so that the division is exact and the quotient stays below 1.
    place = (int.from_bytes(digest[:8]) >> 11) / 2**53
    shares = [(name, share) for name in SPLITS if (share := getattr(splits, name)) > 0]
    edge = 0.0
    for name, share in shares:
        edge += share
        if place < edge:
            return name
    # Shares may sum to a hair less than 1.
    return shares[-1][0]


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
