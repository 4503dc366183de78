"""Writes labelled images as a COCO instances data set, in constant memory."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import datetime
from typing import Any

from schemas.campaign import ExportConfig
from tasks.export.document import CocoDocument, open_document
from tasks.export.entries import annotation_entry, image_entry
from tasks.export.fates import Fate, fate_of, not_exhaustive
from tasks.export.presets import category_ids
from tasks.export.records import ClassCounts, ExportImage, ExportSummary, Promise, SplitCounts
from tasks.export.splits import SPLITS, split_of
from tasks.store.store import Store

ALL = "all"


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
    promise: Promise | None = None,
    progress: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Write annotations.json, with splits annotations_<split>.json too, and dataset.json last.

    Equal input gives equal bytes, but for `created`. Images get ids from 1 in the order they come, annotations as
    well; a split's file keeps the ids of annotations.json. Labels that wait for review become crowd regions (COCO's
    evaluation neither rewards nor punishes detections there; many trainers leave them out), are dropped, or are
    written as plain labels, as the config says. What people said of a label goes before what the policy decided.

    Args:
        images: The images with their labels, each image once.
        class_names: The categories, in the order of their ids; every label's class is among them.
        config: Preset, splits, what to do with undecided labels, what goes into info.
        store: The workspace.
        prefix: Key of the data set's folder, without a slash at its end.
        run: Goes into the summary.
        created: Goes into info.
        version: Goes into info; names what the labels depend on.
        image_root: Where the images lie, for the summary.
        promise: Goes into the summary.
        progress: Called with the number of images written since the last call.

    Returns:
        What was written.

    Raises:
        StoreError: The workspace cannot be written to; no partial file is left.
        VouchError: The folder for temporary files is full.
    """
    wanted = [name for name in SPLITS if config.splits is not None and getattr(config.splits, name) > 0]
    keys = {ALL: f"{prefix}/annotations.json"} | {name: f"{prefix}/annotations_{name}.json" for name in wanted}
    head, tail = _head(config, created, version), _tail(class_names, config)
    with ExitStack() as stack:
        documents = {name: stack.enter_context(open_document(store, key, head, tail)) for name, key in keys.items()}
        writer = _Writer(class_names, config, documents)
        for image in images:
            writer.add(image)
            if progress is not None:
                progress(1)
    for name in set(SPLITS) - set(wanted):
        # An earlier export may have had this split.
        store.delete(f"{prefix}/annotations_{name}.json")
    summary = writer.summary(run, keys, image_root, promise)
    store.put(f"{prefix}/dataset.json", (summary.model_dump_json(indent=2) + "\n").encode())
    return summary


class _Writer:
    """Numbers, writes and counts images and their labels."""

    def __init__(self, class_names: Sequence[str], config: ExportConfig, documents: dict[str, CocoDocument]) -> None:
        self._config = config
        self._documents = documents
        self._categories = category_ids(tuple(class_names), config.preset)
        self._fates: Counter[tuple[str, str]] = Counter()
        self._written: dict[str, Counter[str]] = {name: Counter() for name in documents}
        self._bare = self._incomplete = self._rotated = self._checked = self._simulated = 0

    def add(self, image: ExportImage) -> None:
        whole = self._documents[ALL]
        image_id, first = whole.images + 1, whole.annotations + 1
        entries: list[str] = []
        classes: Counter[str] = Counter()
        fates: list[Fate] = []
        for label in image.labels:
            entry, (fate, crowd) = None, fate_of(label, self._config.undecided)
            if fate not in ("dropped", "rejected"):
                entry = annotation_entry(label, image, first + len(entries), image_id, self._categories, crowd)
                fate = "unusable" if entry is None else fate
            if entry is not None:
                entries.append(entry)
                classes[label.class_name] += 1
                self._simulated += label.provenance == "simulated"
            fates.append(fate)
            self._fates[label.class_name, fate] += 1
        self._bare += not entries
        self._incomplete += any(fate in ("dropped", "unusable") for fate in fates)
        self._rotated += image.orientation != 1
        file_name = image.key if self._config.images == "none" else f"images/{image.key}"
        doubtful = not_exhaustive(image, fates, self._categories)
        self._checked += not doubtful
        text = image_entry(image, image_id, file_name, 1 if self._config.licences else None, doubtful)
        for name in self._targets(image):
            self._documents[name].add(text, entries)
            self._written[name] += classes

    def _targets(self, image: ExportImage) -> tuple[str, ...]:
        if self._config.splits is None:
            return (ALL,)
        return ALL, split_of(self._config.splits, image.sha256 or image.key)

    def summary(self, run: str, keys: dict[str, str], image_root: str, promise: Promise | None) -> ExportSummary:
        whole = self._documents[ALL]
        if promise is not None:
            waiting = sum(count for (_, fate), count in self._fates.items() if fate in ("undecided", "dropped"))
            promise = promise.model_copy(update={"waiting": waiting})
        return ExportSummary(
            name=self._config.name,
            run=run,
            preset=self._config.preset,
            undecided_as=self._config.undecided,
            image_root=image_root,
            images=whole.images,
            images_without_annotations=self._bare,
            images_incomplete=self._incomplete,
            images_rotated=self._rotated,
            annotations=whole.annotations,
            classes={name: self._class_counts(name) for name in self._categories},
            splits={name: self._split_counts(name, key) for name, key in keys.items()},
            images_checked=self._checked,
            simulated=self._simulated,
            promise=promise,
        )

    def _class_counts(self, class_name: str) -> ClassCounts:
        return ClassCounts(**{fate: self._fates[class_name, fate] for fate in ClassCounts.model_fields})

    def _split_counts(self, name: str, key: str) -> SplitCounts:
        document = self._documents[name]
        classes = {class_name: self._written[name][class_name] for class_name in self._categories}
        return SplitCounts(file=key, images=document.images, annotations=document.annotations, classes=classes)


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
    return {"categories": [{"id": number, "name": name, "supercategory": "object"} for name, number in ids.items()]}
