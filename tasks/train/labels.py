"""Collects what a detector is trained on: the labels of a run as its export has them, and images to hold out."""

from collections.abc import Iterable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.text import guarantee_text
from vouch_labels.tasks.certify.active import guarantee_of
from vouch_labels.tasks.export.decide import (
    ExportStatus,
    export_status,
    exported_box,
    not_exhaustive,
    split_of_image,
)
from vouch_labels.tasks.export.export import reviewed_images
from vouch_labels.tasks.fingerprint import Json, fingerprint
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import Plans, read_plans
from vouch_labels.tasks.reviews.resolve import missed_and_checked
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.store.open import open_workspace

_SAMPLES: Final = ("certify", "audit", "plant")
"""Purposes of labels that a guarantee rests on: their images are no test images."""

Boxes = NDArray[np.float32]


class TrainingImage(NamedTuple):
    """One image with what is known of its objects."""

    key: str
    """Relative to the source."""
    sha256: str | None
    """Hex of the file's content when it was labelled."""
    boxes: Boxes
    """(N, 4) xyxy in pixels of the EXIF-oriented original."""
    classes: NDArray[np.int64]
    """(N,) places in the classes."""
    ignored: Boxes
    """(M, 4) regions of undecided labels, as `boxes`: objects or not."""
    width: int
    """Pixels of the EXIF-oriented original."""
    height: int
    """Pixels of the EXIF-oriented original."""


class TrainingSet(NamedTuple):
    """What is trained on and tested on."""

    classes: dict[str, tuple[str, ...]]
    """Class, as the data set names it -> its prompts."""
    images: list[TrainingImage]
    """To train on."""
    held_out: list[TrainingImage]
    """Of which every object is known, and no label certifies anything."""
    run: str = ""
    policy: str = ""
    guarantee: str = ""
    """What is guaranteed of the labels, or why nothing is."""
    unlabelled: int = 0
    """Images left out: an image without a label teaches that it is empty, which is known only of searched ones."""
    simulated: bool = False
    """Whether a simulated reviewer searched held-out images."""

    @property
    def version(self) -> str:
        """Fingerprint of classes, images and labels."""
        return fingerprint(
            {name: list(texts) for name, texts in self.classes.items()}, _content(self.images), _content(self.held_out)
        )


def read_training_set(campaign: Campaign) -> TrainingSet:
    """Read the labels of a campaign's run: those that a data set has as plain labels, and the regions in doubt.

    Held out are images in which every object of every class is known (searched by people, all labels decided) and no
    label belongs to a sample that certifies or audits; with `export.splits`, images of train alone are trained on.

    Raises:
        UserError: The run has no labels yet, or none that a detector could learn from.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    prompts = {entry.name: tuple(dict.fromkeys((entry.name, *entry.texts))) for entry in campaign.classes}
    classes = {name: prompts.get(name, (name,)) for name in current.shown}
    certifying = _keys_of(read_plans(workspace, run), _SAMPLES)
    guarantee = guarantee_of(campaign, workspace, current.policy)
    if not isinstance(guarantee, str):
        guarantee = guarantee_text(guarantee.precision, guarantee.gate, guarantee.confidence, guarantee.missed)
    with Ledger.load(workspace, run) as ledger:
        images = reviewed_images(workspace, run, ledger, current)
        found = _sort(campaign, images, classes, certifying)
    checked = missed_and_checked(present_verdicts(workspace, current)).checked
    played = set(checked.filter(checked["simulated"])["key"].to_pylist())
    simulated = found.simulated or any(image.key in played for image in found.held_out)
    found = found._replace(
        simulated=simulated, run=run, policy=current.policy, guarantee=guarantee or "nothing: no policy was certified"
    )
    if not any(len(image.boxes) for image in found.images):
        waiting = sum(len(image.ignored) for image in found.images)
        raise UserError(
            f"run {run!r} has no label to train on: none is accepted or verified, {waiting:,} wait for review; "
            "use `vouch review`, `vouch certify` and `vouch apply`, or set routing.accept"
        )
    return found


def _keys_of(plans: Plans, purposes: tuple[str, ...]) -> frozenset[str]:
    """Images with a task of one of these purposes."""
    return frozenset(
        key
        for _, tasks in plans
        for key, purpose in zip(tasks["key"].to_pylist(), tasks["purpose"].to_pylist(), strict=True)
        if purpose in purposes
    )


def _sort(
    campaign: Campaign, images: Iterable[ExportImage], classes: dict[str, tuple[str, ...]], certifying: frozenset[str]
) -> TrainingSet:
    place = {name: number for number, name in enumerate(classes)}
    train: list[TrainingImage] = []
    held_out: list[TrainingImage] = []
    unlabelled, simulated = 0, False
    for image in images:
        one, statuses = _training_image(image, place)
        searched = not not_exhaustive(image, statuses, tuple(classes))
        if searched and image.key not in certifying:
            held_out.append(one)
            simulated |= any(label.provenance == "simulated" for label in image.labels)
        elif len(one.boxes) or searched:
            if split_of_image(campaign.export.splits, image) in (None, "train"):
                train.append(one)
        else:
            unlabelled += 1
    return TrainingSet(classes, train, held_out, unlabelled=unlabelled, simulated=simulated)


def _training_image(image: ExportImage, place: dict[str, int]) -> tuple[TrainingImage, list[ExportStatus]]:
    boxes: list[tuple[float, float, float, float]] = []
    ignored: list[tuple[float, float, float, float]] = []
    classes: list[int] = []
    statuses: list[ExportStatus] = []
    for label in image.labels:
        status, crowd = export_status(label, "ignore")
        box = exported_box(label, image)
        if status not in ("rejected", "duplicate"):
            if box is None:
                status = "unusable"
            elif crowd:
                ignored.append(box)
            else:
                boxes.append(box)
                classes.append(place[label.class_name])
        statuses.append(status)
    one = TrainingImage(
        image.key, image.sha256, _boxes(boxes), np.array(classes, np.int64), _boxes(ignored), image.width, image.height
    )
    return one, statuses


def _boxes(rows: list[tuple[float, float, float, float]]) -> Boxes:
    return np.array(rows, np.float32).reshape(-1, 4)


def _content(images: Iterable[TrainingImage]) -> list[Json]:
    return [
        [one.key, one.sha256, one.boxes.tolist(), one.classes.tolist(), one.ignored.tolist(), one.width, one.height]
        for one in images
    ]
