"""Writes labelled images as a data set: numbers and counts what each format then writes in its own way."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Final

from vouch_labels.schemas.campaign import ExportConfig, Undecided
from vouch_labels.tasks.export.decide import (
    ExportStatus,
    export_status,
    exported_box,
    is_left_out,
    mask_box,
    not_exhaustive,
    split_of_image,
)
from vouch_labels.tasks.export.formats import image_path, open_format
from vouch_labels.tasks.export.written import ALL, Format, Target, WrittenImage, WrittenLabel
from vouch_labels.tasks.labels.records import (
    ClassCounts,
    ExportImage,
    ExportSummary,
    Guarantee,
    SplitCounts,
)
from vouch_labels.tasks.store.store import Store, map_ordered

READERS: Final = 4
"""Threads that read images into the files of a format that holds them."""


def write_dataset(
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
    contents: Callable[[ExportImage], bytes | str] | None = None,
    missed: dict[str, str] | None = None,
    progress: Callable[[int], None] | None = None,
) -> ExportSummary:
    """Write a data set in its format; returns what `write_summary` keeps of it.

    Equal input gives equal bytes, but for `created`. Images get ids from 1 in the order they come, annotations as well;
    a split keeps the ids of the whole. Labels that wait for review end as `undecided` says, and files of an earlier
    export that this one does not write go. The images themselves are put there by `place_images`, before. prefix is the
    key of the data set's folder, without a slash at its end; version names what the labels depend on; progress is
    called with the number of images written since the last call. contents reads an image for a format that holds them;
    text says why it cannot be had: such an image is left out, and goes to `missed`.

    Raises:
        StoreError: The workspace cannot be written to; no partial file is left.
        VouchError: The folder for temporary files is full.
    """
    (settled,) = config.data_sets(linkable=False)
    target = Target(store, prefix, tuple(class_names), settled, created, version)
    with open_format(target) as form:
        writer = _Writer(target, form)
        for image, data in _with_contents(images, contents, settled.undecided or "ignore"):
            if isinstance(data, bytes):
                writer.add(image, data)
            elif missed is not None:
                missed[image.key] = data
            if progress is not None:
                progress(1)
    return writer.summary(run, image_root, guarantee)


def _with_contents(
    images: Iterable[ExportImage], contents: Callable[[ExportImage], bytes | str] | None, undecided: Undecided
) -> Iterator[tuple[ExportImage, bytes | str]]:
    if contents is None:
        yield from ((image, b"") for image in images)
        return

    def read(image: ExportImage) -> tuple[ExportImage, bytes | str]:
        return image, b"" if is_left_out(image, undecided) else contents(image)

    yield from map_ordered(read, images, READERS)


class _Writer:
    """Numbers, writes and counts images and their labels."""

    def __init__(self, target: Target, form: Format) -> None:
        self._target, self._config, self._form = target, target.config, form
        self._undecided = target.config.undecided or "ignore"
        self._images = self._annotations = 0
        self._statuses: Counter[tuple[str, str]] = Counter()
        self._written: dict[str, Counter[str]] = {name: Counter() for name in (ALL, *target.splits)}
        self._sizes: dict[str, Counter[str]] = {name: Counter() for name in (ALL, *target.splits)}
        self._left_out: Counter[int] = Counter()
        self._filled = self._bare = self._incomplete = self._rotated = self._checked = self._simulated = (
            self._unreviewed
        ) = 0

    def add(self, image: ExportImage, data: bytes) -> None:
        if is_left_out(image, self._undecided):
            self._leave_out(image)
            return
        labels: list[WrittenLabel] = []
        statuses: list[ExportStatus] = []
        for label in image.labels:
            status, crowd = export_status(label, self._undecided)
            if crowd and not self._config.can_ignore:
                status = "dropped"
            box = exported_box(label, image) if self._config.boxes == "detector" else mask_box(label, image)
            if status in ("accepted", "kept", "corrected", "added", "undecided"):
                if box is None:
                    status = "unusable"
                else:
                    labels.append(WrittenLabel(label, self._annotations + len(labels) + 1, box, crowd))
                    self._simulated += label.provenance == "simulated"
                    self._unreviewed += status == "undecided" and not crowd
            statuses.append(status)
            self._statuses[label.class_name, status] += 1
        filled = self._undecided == "blank" and "dropped" in statuses
        self._filled += filled
        self._bare += not labels
        doubt_is_told = filled or self._undecided == "ignore"
        self._incomplete += "unusable" in statuses or ("dropped" in statuses and not doubt_is_told)
        self._rotated += image.orientation != 1 and not filled
        doubtful = not_exhaustive(image, statuses, self._target.class_names)
        self._checked += not doubtful
        split = split_of_image(self._config.splits, image)
        file_name = image.key if self._config.images == "none" else image_path(self._config, image)
        # Whoever fills regions writes an upright image.
        upright = image._replace(orientation=1) if filled else image
        self._images += 1
        self._annotations += len(labels)
        self._form.add(WrittenImage(upright, self._images, file_name, split, labels, doubtful, data))
        for name in (ALL,) if split is None else (ALL, split):
            self._written[name].update(one.label.class_name for one in labels)
            self._sizes[name].update(images=1, annotations=len(labels))

    def _leave_out(self, image: ExportImage) -> None:
        """Count an image whose labels in doubt keep it out."""
        waits = 0
        for label in image.labels:
            status, _ = export_status(label, self._undecided)
            waits += status == "dropped"
            if status in ("accepted", "kept", "corrected", "added"):
                status = "left_out"
            self._statuses[label.class_name, status] += 1
        self._left_out[waits] += 1

    def summary(self, run: str, image_root: str, guarantee: Guarantee | str) -> ExportSummary:
        if isinstance(guarantee, Guarantee):
            waits = sum(count for (_, status), count in self._statuses.items() if status in ("undecided", "dropped"))
            guarantee = self._of_the_rest(guarantee.model_copy(update={"waiting": waits}))
        return ExportSummary(
            name=self._config.name or "",
            formats=list(self._config.formats),
            run=run,
            preset=self._config.preset,
            undecided_as=self._undecided,
            image_root=image_root,
            images=self._images,
            images_without_annotations=self._bare,
            images_incomplete=self._incomplete,
            images_rotated=self._rotated,
            images_left_out=sum(self._left_out.values()),
            images_filled=self._filled,
            waiting_of_left_out=dict(sorted(self._left_out.items())),
            annotations=self._annotations,
            classes={name: self._class_counts(name) for name in self._target.class_names},
            splits={name: self._split_counts(name) for name in self._written},
            images_checked=self._checked,
            simulated=self._simulated,
            unreviewed=self._unreviewed,
            guarantee=guarantee if isinstance(guarantee, Guarantee) else None,
            not_guaranteed=guarantee if isinstance(guarantee, str) else "",
        )

    def _of_the_rest(self, guarantee: Guarantee) -> Guarantee:
        """What is left of a guarantee where images are left out: at worst every wrong label is among the others."""
        kinds = ("accepted",) if guarantee.gate == "accepted" else ("accepted", "kept", "corrected", "added")
        here = sum(count for (_, status), count in self._statuses.items() if status in kinds)
        gone = sum(count for (_, status), count in self._statuses.items() if status == "left_out")
        if not gone or not here:
            return guarantee
        wrong = (1 - guarantee.precision) * (here + gone)
        return guarantee.model_copy(
            update={"left_out": gone, "precision_of_rest": max(0.0, round(1 - wrong / here, 6))}
        )

    def _class_counts(self, class_name: str) -> ClassCounts:
        return ClassCounts(**{status: self._statuses[class_name, status] for status in ClassCounts.model_fields})

    def _split_counts(self, name: str) -> SplitCounts:
        files = self._form.files(name)
        classes = {class_name: self._written[name][class_name] for class_name in self._target.class_names}
        return SplitCounts(file=files[0].file, files=files, classes=classes, **self._sizes[name])
