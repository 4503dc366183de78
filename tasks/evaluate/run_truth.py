"""Finds the right answer about every label of a run, and the objects that no label shows, from ground truth."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import TruthFile
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import LABEL_VERDICTS
from vouch_labels.tasks.evaluate.ground_truth import BoxCheck, Truth, objects_of, read_truth
from vouch_labels.tasks.evaluate.json_lists import OnBytes
from vouch_labels.tasks.evaluate.pairing import PairedClasses, PairedImages, pair_classes, pair_images
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.labels.read import image_sizes
from vouch_labels.tasks.matching import (
    NOT_MATCHED,
    ImageLabels,
    ImageObjects,
    match_labels,
    match_the_rest,
    overlaps,
    ranking,
)
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

_SCORE: Final = SIGNALS.index("detector_score")

CORRECT, WRONG_CLASS, BAD_BOX, NOT_AN_OBJECT = range(len(LABEL_VERDICTS))
UNKNOWN: Final = -1
"""No answer: no truth for its image or class, or it lies on a crowd region."""
EXAMPLES: Final = 3
LEAST_OVERLAP: Final = 0.1
"""IoU with an object of its class from which on a label that finds it badly is corrected, not thrown away."""


@dataclass(frozen=True)
class RunTruth:
    """The right answers about N labels of M images, in the order of the run's labels."""

    verdict: NDArray[np.int8]
    """(N,) place in LABEL_VERDICTS, or UNKNOWN."""
    class_index: NDArray[np.int64]
    """(N,) class as it should be, into the run's class_names; -1 where the label shows no object."""
    boxes: NDArray[np.float32]
    """(N, 4) box of the object, xyxy, pixels of the EXIF-oriented original; NaN where the label shows none."""
    known: NDArray[np.bool_]
    """(M,) images that have truth."""
    missed_image: NDArray[np.int64]
    """(K,) image of each object that no label shows."""
    missed_class: NDArray[np.int64]
    """(K,) into the run's class_names."""
    missed_boxes: NDArray[np.float32]
    """(K, 4) as `boxes`."""
    left_out: dict[str, int]
    """Why -> labels without an answer."""
    dropped: NDArray[np.bool_]
    """(N,) labels whose image or class has no truth; those on a crowd region are not among them."""
    file: TruthFile
    """What the file holds, and what of it was left out."""

    @property
    def counted(self) -> NDArray[np.bool_]:
        """(N,) labels that are right or wrong."""
        return np.asarray(self.verdict != UNKNOWN)

    @property
    def correct(self) -> NDArray[np.bool_]:
        """(N,) labels that are right."""
        return np.asarray(self.verdict == CORRECT)


def truth_of_campaign(
    campaign: Campaign,
    truth_file: Path,
    progress: Callable[[int], None] | None = None,
    reading: OnBytes | None = None,
) -> tuple[RunLabels, RunTruth]:
    """Read the labels of a campaign's run and a ground-truth file, and hold one against the other.

    progress is called with the images compared so far, reading with the bytes of the file that are read, and all.

    Raises:
        UserError: The run has no labels, the file is no COCO file, or the two share no image or no class.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    truth = read_truth(truth_file, masks=False, progress=reading)
    with Ledger.load(workspace, run) as ledger:
        return truth_of_run(workspace, run, ledger, current, truth, progress)


def truth_of_run(
    workspace: Store,
    run: str,
    ledger: Ledger,
    current: Current,
    truth: Truth,
    progress: Callable[[int], None] | None = None,
) -> tuple[RunLabels, RunTruth]:
    """As `truth_of_campaign`, where the ledger is open and the ground truth read."""
    labels = read_run_labels(workspace, run, ledger, current)
    return labels, truth_of_labels(labels, image_sizes(workspace, run, ledger, current.fingerprint), truth, progress)


def truth_of_labels(
    labels: RunLabels,
    sizes: dict[str, tuple[int, int]],
    truth: Truth,
    progress: Callable[[int], None] | None = None,
) -> RunTruth:
    """Give the right answer about every label.

    Images and classes are paired as `vouch evaluate` pairs them. Labels are matched with objects by the rule of
    `matching.match_labels`, all labels of an image together, best detector score first. So of two labels on one
    object the one with the better score is the right one and the other the duplicate, whatever a policy does with
    either: correctness belongs to the label, not to the policy. (`vouch evaluate` matches the accepted labels among
    themselves as well; a label whose better twin was not accepted is correct there and a duplicate here.) sizes: key ->
    width and height of the image, pixels.

    Raises:
        UserError: They share no image or no class.
    """
    keys = labels.keys.to_pylist()
    classes, pairs = pair_with_run(truth, keys, labels.shown, labels.former)
    check_objects(truth)
    gather = _Gather(labels, truth, classes)
    starts = np.searchsorted(labels.image_index, np.arange(len(keys) + 1))
    done = 0
    for number, (key, (start, end)) in enumerate(zip(keys, pairwise(starts.tolist()), strict=True)):
        place = pairs.places.get(key)
        if place is None:
            gather.leave("no truth for the image", end - start)
            continue
        image, (width, height) = truth.images[place], sizes[key]
        if (image.width or width, image.height or height) != (width, height):
            gather.leave("image of another size in the truth", end - start)
            continue
        gather.add(number, slice(start, end), place, (height, width))
        done += 1
        if progress is not None:
            progress(done)
    if not done:
        raise UserError(f"{truth.path}: fits none of the run's labelled images")
    return gather.result()


class _Gather:
    """What is gathered image by image."""

    def __init__(self, labels: RunLabels, truth: Truth, classes: PairedClasses) -> None:
        self._labels, self._truth, self._classes = labels, truth, classes
        self._run_class = np.array([labels.shown.index(name) for name in classes.common], np.int64)
        self._common_class = np.full(len(labels.class_names), -1)
        self._common_class[self._run_class] = np.arange(len(self._run_class))
        self._verdict = np.full(labels.count, UNKNOWN, np.int8)
        self._class_index = np.full(labels.count, -1)
        self._boxes = np.full((labels.count, 4), np.nan, np.float32)
        self._known = np.zeros(len(labels.keys), np.bool_)
        self._class_of_category = classes.by_place(list(truth.categories))
        self._dropped = np.ones(labels.count, np.bool_)
        self._check = BoxCheck()
        self._missed: list[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]] = []
        self._left: dict[str, int] = {}

    def leave(self, why: str, labels: int) -> None:
        if labels:
            self._left[why] = self._left.get(why, 0) + labels

    def add(self, number: int, rows: slice, image: int, size: tuple[int, int]) -> None:
        """Answer the labels of one image: its number in the run, rows, place in the truth, height and width."""
        classes = self._common_class[self._labels.class_index[rows]]
        mine = np.arange(rows.start, rows.stop)[classes >= 0]
        self.leave("class that the truth does not have", len(classes) - len(mine))
        given = self._truth.rows(image)
        of_class = self._class_of_category[self._truth.category[given]]
        objects = objects_of(self._truth, given[of_class >= 0], of_class[of_class >= 0], size, masks=False)
        self._check.add(objects.xywh, size)
        labels = ImageLabels(
            class_index=classes[classes >= 0],
            xyxy=self._labels.boxes[mine],
            accepted=self._labels.accepted[mine],
            signals={"detector_score": self._labels.signals[mine, _SCORE]},
        )
        answer = answer_image(labels, objects)
        self.leave("on a crowd region", int((answer.verdict == UNKNOWN).sum()))
        self._known[number] = True
        self._verdict[mine] = answer.verdict
        self._dropped[mine] = False
        corners = np.concatenate([objects.xywh[:, :2], objects.xywh[:, :2] + objects.xywh[:, 2:]], axis=1)
        corners = corners.astype(np.float32)
        shown = answer.object != NOT_MATCHED
        self._class_index[mine[shown]] = self._run_class[objects.class_index[answer.object[shown]]]
        self._boxes[mine[shown]] = corners[answer.object[shown]]
        missed = answer.missed
        if len(missed):
            where = np.full(len(missed), number)
            self._missed.append((where, self._run_class[objects.class_index[missed]], corners[missed]))

    def result(self) -> RunTruth:
        images, classes, boxes = zip(*self._missed, strict=True) if self._missed else ((), (), ())
        none = np.zeros(0, np.int64)
        return RunTruth(
            verdict=self._verdict,
            class_index=self._class_index,
            boxes=self._boxes,
            known=self._known,
            missed_image=np.concatenate([none, *images]),
            missed_class=np.concatenate([none, *classes]),
            missed_boxes=np.concatenate([np.zeros((0, 4), np.float32), *boxes]),
            left_out=self._left,
            dropped=self._dropped,
            file=self._truth.file.model_copy(update={"hints": self._check.hints()}),
        )


def check_objects(truth: Truth) -> None:
    """Make sure that there is something to compare with.

    Raises:
        UserError: No annotation is left.
    """
    if not len(truth.xywh):
        file = truth.file
        why = (
            f"all of its {file.annotations:,} annotations have an image_id or a category_id that it does not list"
            if file.annotations
            else "its list of annotations is empty"
        )
        raise UserError(f"{truth.path}: the truth has no objects: {why}")


def pair_with_run(
    truth: Truth, keys: Sequence[str], names: Sequence[str], former: Mapping[str, str]
) -> tuple[PairedClasses, PairedImages]:
    """Pair the classes and images of the truth with those of a run: its keys, names of classes, and former names.

    Raises:
        UserError: They share no image or no class.
    """
    classes = pair_classes(names, truth.categories, former)
    if not classes.common:
        raise UserError(
            f"{truth.path}: shares no class with the run; it has {_some(truth.categories.values())}, the run "
            f"{_some(names)}; classes are paired by name"
        )
    pairs = pair_images(keys, [image.file_name for image in truth.images])
    if pairs.places:
        return classes, pairs
    if not truth.images:
        raise UserError(f"{truth.path}: names no image")
    if not keys:
        raise UserError("the run has no image; use `vouch run` again")
    if pairs.ambiguous:
        raise UserError(
            f"{truth.path}: its file names do not tell the run's images apart: {pairs.ambiguous[0]!r}, say, has no "
            "file_name of its own; write file names as the run's keys are"
        )
    raise UserError(
        f"{truth.path}: shares no image with the run; it names {truth.images[0].file_name!r}, say, and the run "
        f"{keys[0]!r}; images are paired by file_name and key"
    )


def _some(names: Iterable[str]) -> str:
    everything = list(names)
    named = ", ".join(everything[:EXAMPLES]) or "none"
    return f"{named} and {len(everything) - EXAMPLES} more" if len(everything) > EXAMPLES else named


class Answer(NamedTuple):
    """The right answers about the N labels of one image, and the objects that it leaves."""

    verdict: NDArray[np.int8]
    """(N,) place in LABEL_VERDICTS, or UNKNOWN."""
    object: NDArray[np.int64]
    """(N,) the object that the label shows, well or badly, or NOT_MATCHED."""
    missed: NDArray[np.int64]
    """Objects that no label shows."""


def answer_image(labels: ImageLabels, objects: ImageObjects) -> Answer:
    """Give the right answers about the labels of one image.

    A label that is on no free object of its class is, in this order: on a crowd region of its class (UNKNOWN); on a
    free object of another class (wrong_class); a bad box of a free object of its class (bad_box, each object once); or
    a second box, a part or nothing (not_an_object).
    """
    iou = overlaps(labels, objects)
    score = labels.signals["detector_score"]
    order = ranking(score, score)
    matches = match_labels(iou, labels.class_index, objects.class_index, objects.crowd, order)
    shown = match_the_rest(matches, iou, objects.crowd, order)
    verdict = np.where(matches.object != NOT_MATCHED, CORRECT, NOT_AN_OBJECT).astype(np.int8)
    verdict[(shown != NOT_MATCHED) & (verdict != CORRECT)] = WRONG_CLASS
    rest = np.array([place for place in order if shown[place] == NOT_MATCHED and not matches.ignored[place]], np.int64)
    free = ~objects.crowd
    free[shown[shown != NOT_MATCHED]] = False
    badly = match_labels(iou[:, free], labels.class_index, objects.class_index[free], ~free[free], rest, LEAST_OVERLAP)
    found = badly.object != NOT_MATCHED
    shown[found], verdict[found] = np.flatnonzero(free)[badly.object[found]], BAD_BOX
    verdict[matches.ignored] = UNKNOWN
    missed = ~objects.crowd
    missed[shown[shown != NOT_MATCHED]] = False
    return Answer(verdict, shown, np.flatnonzero(missed))
