"""Overlays the reviewers' corrections on the labels of the models, image by image."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.boxes_masks import box_iou, clip_boxes, rle_area
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel, Provenance, Reviewed
from vouch_labels.tasks.reviews.resolve import Answers, ImageAnswers, missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import mask_trouble

SAME_OBJECT: Final = 0.5
"""Least IoU of two boxes of one class that show one object."""
SAME_BOX: Final = 0.9
"""The same of two boxes that one reviewer drew, who may well draw two objects that overlap."""
_UNCHANGED: Final = 0.01
"""Pixels by which a box may differ and count as the same: tools round."""

Box = tuple[float, float, float, float]


class Missed(NamedTuple):
    """An object that people drew and no label shows."""

    class_name: str
    xyxy: Box
    reviewer: str
    simulated: bool
    rle_counts: bytes | None


@dataclass(frozen=True)
class HumanLabel:
    """The verdicts on labels and images, by id and key; some 600 bytes a reviewed label or image, and masks."""

    answers: Answers
    place: dict[str, int]
    """Label id -> place in the answers."""
    checked: dict[str, frozenset[str]]
    """Key of an image -> classes of which every object is known."""
    missed: dict[str, list[Missed]]
    """Key of an image -> objects, in the order in which they were drawn."""
    class_names: frozenset[str]
    """The categories."""

    @classmethod
    def of(cls, verdicts: pa.Table, class_names: Iterable[str]) -> "HumanLabel":
        """Resolve the verdicts of a workspace; class_names are the categories of the data set."""
        answers, images = resolve(verdicts), missed_and_checked(verdicts)
        names = frozenset(class_names)
        place = {label_id: row for row, label_id in enumerate(answers.label_ids)}
        return cls(answers, place, _checked(images, names), _missed(images), names)

    def over(self, images: Iterable[ExportImage]) -> Iterator[ExportImage]:
        """Yield the images with their labels as people left them; others stay as they are."""
        for image in images:
            labels = _once([self._reviewed(label, image) for label in image.labels])
            drawn = self._drawn(image, labels)
            checked = self.checked.get(image.key, image.checked)
            yield image._replace(labels=labels + drawn, checked=checked)

    def _reviewed(self, label: ExportLabel, image: ExportImage) -> ExportLabel:
        row = self.place.get(label.label_id)
        if row is None:
            return label
        verdict, simulated = self.answers.verdict[row], bool(self.answers.simulated[row])
        if verdict == "disputed":
            return label._replace(reviewed="disputed", verdict=verdict)
        class_name, box = self.answers.class_name[row], _box(self.answers.boxes[row])
        reviewed = self._outcome(verdict, class_name, box)
        result = label._replace(reviewed=reviewed, verdict=verdict)
        if reviewed == "corrected":
            result = result._replace(class_name=class_name or label.class_name)
            # A mask goes with the box that it was made for.
            if box and max(abs(new - old) for new, old in zip(box, label.xyxy, strict=True)) > _UNCHANGED:
                result = result._replace(xyxy=_cut(box, image), rle_counts=None, area=0)
        if reviewed in ("kept", "corrected"):
            result = _with_mask(result, self.answers.masks[row].as_py(), image)
            result = result._replace(provenance=_provenance(simulated))
        return result

    def _outcome(self, verdict: str, class_name: str | None, box: Box | None) -> Reviewed:
        if verdict == "correct":
            return "kept"
        if verdict == "not_an_object":
            return "rejected"
        if class_name is not None and class_name not in self.class_names:
            # A class that the data set does not have (any more): to it, there is no object.
            return "rejected"
        return "corrected" if (class_name if verdict == "wrong_class" else box) is not None else "unclear"

    def _drawn(self, image: ExportImage, labels: list[ExportLabel]) -> list[ExportLabel]:
        """Objects that people drew and that no plain label shows; two boxes of one object count once."""
        there = [(label.class_name, label.xyxy, "") for label in labels if _is_plain(label)]
        drawn = []
        for one in self.missed.get(image.key, ()):
            alike = [(xyxy, reviewer) for name, xyxy, reviewer in there if name == one.class_name]
            others = [xyxy for xyxy, reviewer in alike if reviewer != one.reviewer]
            own = [xyxy for xyxy, reviewer in alike if reviewer == one.reviewer]
            covered = _covers(others, one.xyxy) or _covers(own, one.xyxy, SAME_BOX)
            if one.class_name in self.class_names and not covered:
                drawn.append(_new_label(image, one))
                there.append((one.class_name, one.xyxy, one.reviewer))
        return drawn


def _checked(images: ImageAnswers, class_names: frozenset[str]) -> dict[str, frozenset[str]]:
    found: dict[str, frozenset[str]] = {}
    for key, name in zip(images.checked["key"].to_pylist(), images.checked["class_name"].to_pylist(), strict=True):
        found[key] = class_names if name is None else found.get(key, frozenset()) | ({name} & class_names)
    return found


def _missed(images: ImageAnswers) -> dict[str, list[Missed]]:
    found: dict[str, list[Missed]] = {}
    columns = [
        images.missed[name].to_pylist() for name in ("key", "class_name", *BOX, "reviewer", "simulated", "rle_counts")
    ]
    for key, name, x0, y0, x1, y1, reviewer, simulated, mask in zip(*columns, strict=True):
        found.setdefault(key, []).append(Missed(name, (x0, y0, x1, y1), reviewer, simulated, mask))
    return found


def _new_label(image: ExportImage, one: Missed) -> ExportLabel:
    digest = hashlib.sha256(repr((image.key, one.class_name, one.xyxy)).encode()).hexdigest()
    label = ExportLabel(
        label_id=f"missed-{digest[:16]}",
        class_name=one.class_name,
        xyxy=_cut(one.xyxy, image),
        rle_counts=None,
        area=0,
        score=float("nan"),
        p_correct=None,
        decision=None,
        policy=None,
        reviewed="added",
        provenance=_provenance(one.simulated),
        verdict="missed",
    )
    return _with_mask(label, one.rle_counts, image)


def _with_mask(label: ExportLabel, rle_counts: bytes | None, image: ExportImage) -> ExportLabel:
    """A label with a person's mask, if there is one; passed over where the image has another size by now."""
    if rle_counts is None or mask_trouble(rle_counts, image.height, image.width):
        return label
    return label._replace(rle_counts=rle_counts, area=rle_area(rle_counts))


def _cut(box: Box, image: ExportImage) -> Box:
    """A box cut to its image, since people draw beyond the border."""
    x0, y0, x1, y1 = clip_boxes(np.array([box], np.float32), image.width, image.height)[0].tolist()
    return x0, y0, x1, y1


def _is_plain(label: ExportLabel) -> bool:
    return label.reviewed in ("kept", "corrected") or (label.decision == "accept" and not label.reviewed)


def _once(labels: list[ExportLabel]) -> list[ExportLabel]:
    """Mark labels as duplicates that, as people corrected them, show an object which another plain label shows.

    One that people called correct stays before a corrected one, and that before one that nobody looked at.
    """
    if not any(label.reviewed == "corrected" for label in labels):
        return labels
    found = list(labels)
    there: list[tuple[str, Box, bool]] = []
    order = ("kept", "corrected", "")
    plain = [place for place, label in enumerate(labels) if _is_plain(label)]
    for place in sorted(plain, key=lambda place: order.index(labels[place].reviewed)):
        label = labels[place]
        corrected = label.reviewed == "corrected"
        # What models found side by side is two objects to them; only what people moved there is looked at.
        others = [box for name, box, moved in there if name == label.class_name and (corrected or moved)]
        if _covers(others, label.xyxy):
            found[place] = label._replace(reviewed="duplicate")
        else:
            there.append((label.class_name, label.xyxy, corrected))
    return found


def _covers(boxes: list[Box], box: Box, least: float = SAME_OBJECT) -> bool:
    if not boxes:
        return False
    return bool((box_iou(np.array(boxes, np.float32), np.array([box], np.float32)) >= least).any())


def _box(sides: NDArray[np.float32]) -> Box | None:
    if np.isnan(sides).any():
        return None
    x0, y0, x1, y1 = sides.tolist()
    return x0, y0, x1, y1


def _provenance(simulated: bool) -> Provenance:
    return "simulated" if simulated else "human"
