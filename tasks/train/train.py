"""Trains a detector on a campaign's labels, tests it on images that people searched, and writes it with a card."""

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign, DetectorConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.schemas.training import FORMAT, HeldOut, TrainedClass, TrainSettings, TrainSummary
from vouch_labels.tasks.acquire import acquire
from vouch_labels.tasks.evaluate.average_precision import MOST_LABELS, AveragePrecisionMeter
from vouch_labels.tasks.matching import ImageLabels, ImageObjects, xywh_of
from vouch_labels.tasks.models.registry import Detector, Phrase, Pixels, load_detector
from vouch_labels.tasks.models.runtime import Runtime, choose_runtime
from vouch_labels.tasks.shard.events import Loading, OnEvent, Training, ignore
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.train.labels import TrainingImage, TrainingSet, read_training_set
from vouch_labels.tasks.train.loop import STATE, Read, Trained, finish, train, write_model

logger = logging.getLogger(__name__)

_MOST_NAMED: Final = 5
_TESTED_AT_ONCE: Final = 16
_PACKAGES: Final = ("torch", "torchvision", "transformers")


def train_campaign(
    campaign: Campaign, settings: TrainSettings, folder: Path, on_event: OnEvent = ignore
) -> TrainSummary:
    """Train a detector on the labels of a campaign's run, and write it into a folder.

    An interrupted training goes on when it is called again with the same arguments; a finished one is not repeated.

    Raises:
        UserError: There is nothing to train on, the folder holds another model, or the device is unknown or too small.
        CheckpointError: `settings.start` cannot be used.
        StoreError: Workspace or folder cannot be read or written.
        VouchError: No image can be read, or the loss is not finite.
    """
    runtime = choose_runtime(campaign.models)
    on_event(Loading("labels"))
    data = read_training_set(campaign)
    if (earlier := _already_trained(folder, data, settings)) is not None:
        return earlier
    read = Reader(campaign)
    on_event(Loading("the model"))
    trained = train(
        data, settings, read, folder, runtime.device, lambda done, steps, loss: on_event(Training(done, steps, loss))
    )
    summary = _summary(data, settings, folder, trained, read)
    write_model(trained, folder)
    if data.held_out:
        on_event(Loading("the held-out images"))
        config = DetectorConfig(backend="trained", checkpoint=str(folder))
        detector = load_detector(config, Runtime(runtime.device, "fp32", runtime.engine))
        summary = summary.model_copy(update=evaluate_held_out(detector, data, read, summary.classes))
    finish(folder, {"README.md": _card(summary), FORMAT: summary.model_dump_json(indent=1) + "\n"})
    return summary


class Reader:
    """Reads images of a campaign's source, decoded as a run decodes them; what cannot be read is named once."""

    def __init__(self, campaign: Campaign) -> None:
        """Take the campaign; nothing is read yet."""
        self._source, self._memory = campaign.source, campaign.run.decode_memory_mb
        self._store = open_source(campaign.source, campaign.workspace)
        self.unreadable: dict[str, str] = {}

    def __call__(self, images: Sequence[TrainingImage]) -> Iterator[Pixels | None]:
        """Yield the pixels of each, in order; None where it cannot be read or is another by now."""
        refs = [ImageRef(image.key, "", -1) for image in images]
        for image, found in zip(images, acquire(refs, self._store, self._source, None, self._memory), strict=True):
            trouble = "" if found.failed is None else found.failed.reason
            if found.image is not None and image.sha256 not in (None, found.image.sha256):
                trouble = "changed since it was labelled"
            if trouble and image.key not in self.unreadable:
                self.unreadable[image.key] = trouble
                logger.info("not trained on %s: %s", image.key, trouble)
            yield None if trouble or found.image is None else found.image.pixels


def evaluate_held_out(
    detector: Detector, data: TrainingSet, read: Read, classes: dict[str, TrainedClass]
) -> dict[str, object]:
    """Compute AP on the held-out images by pycocotools: the fields `held_out` and `classes` of a summary."""
    names = list(data.classes)
    phrases = [Phrase(name, place) for place, name in enumerate(names)]
    meter = AveragePrecisionMeter("bbox", len(names))
    images = objects = 0
    waiting: list[tuple[TrainingImage, Pixels]] = []
    for place, (image, pixels) in enumerate(zip(data.held_out, read(data.held_out), strict=True), 1):
        if pixels is not None:
            waiting.append((image, pixels))
        if len(waiting) == _TESTED_AT_ONCE or (waiting and place == len(data.held_out)):
            answers = detector.detect([pixels for _, pixels in waiting], phrases, 0.0)
            for (one, _), found in zip(waiting, answers, strict=True):
                order = np.argsort(-found.scores, axis=None, kind="stable")[:MOST_LABELS]
                rows, columns = np.unravel_index(order, found.scores.shape)
                scores = found.scores[rows, columns]
                labels = ImageLabels(
                    columns, found.boxes[rows], np.ones(len(rows), np.bool_), {"detector_score": scores}
                )
                crowd = np.zeros(len(one.boxes), np.bool_)
                meter.add(images, labels, ImageObjects(one.classes, xywh_of(one.boxes), crowd))
                images, objects = images + 1, objects + len(one.boxes)
            waiting = []
    if not images:
        return {}
    result = meter.result(names)
    known = {
        name: one.model_copy(update={"ap": result.classes[name].ap, "objects": result.classes[name].objects})
        for name, one in classes.items()
    }
    held_out = HeldOut(images=images, objects=objects, ap=result.map, ap50=result.ap50, simulated=data.simulated)
    return {"held_out": held_out, "classes": known}


def _already_trained(folder: Path, data: TrainingSet, settings: TrainSettings) -> TrainSummary | None:
    """Give what is known of a model of these labels and settings, if it is there; another one is not written over."""
    if not (folder / "config.json").is_file():
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--out: {folder} is no folder; choose another one")
        return None
    if (folder / STATE).is_file():
        return None  # interrupted before it was tested; another training's state is refused when it is read
    try:
        earlier = TrainSummary.model_validate_json((folder / FORMAT).read_bytes())
    except (OSError, ValidationError):
        raise UserError(
            f"--out: {folder} holds a model that vouch train did not write; choose another folder"
        ) from None
    if (earlier.version, earlier.settings) != (data.version, settings):
        raise UserError(
            f"--out: {folder} holds a model of other labels or settings; choose another folder, or delete it"
        )
    return earlier


def _summary(data: TrainingSet, settings: TrainSettings, folder: Path, trained: Trained, read: Reader) -> TrainSummary:
    counts = Counter(int(place) for image in data.images for place in image.classes)
    tenth = max(1, len(trained.losses) // 10)
    return TrainSummary(
        folder=str(folder),
        run=data.run,
        version=data.version,
        policy=data.policy,
        guarantee=data.guarantee,
        model_type=str(trained.model.config.model_type),
        parameters=sum(parameter.numel() for parameter in trained.model.parameters()),
        settings=settings,
        images=len(data.images),
        labels=counts.total(),
        ignored=sum(len(image.ignored) for image in data.images),
        unlabelled=data.unlabelled,
        unreadable={key: read.unreadable[key] for key in sorted(read.unreadable)[:_MOST_NAMED]},
        classes={name: TrainedClass(labels=counts[place]) for place, name in enumerate(data.classes)},
        steps=trained.steps,
        seconds=round(trained.seconds, 1),
        first_loss=float(np.mean(trained.losses[:tenth])),
        last_loss=float(np.mean(trained.losses[-tenth:])),
        licence=_licence(settings),
        package_versions={name: version(name) for name in _PACKAGES},
    )


def _licence(settings: TrainSettings) -> str:
    if settings.start is None:
        return "trained from random weights on the campaign's images and labels, whose licences apply"
    return f"trained from {settings.start}, whose licence applies, on the campaign's images and labels, as theirs do"


def _card(summary: TrainSummary) -> str:
    """README.md of the folder: the model's card."""
    held_out = summary.held_out
    ap = (
        "not known: no image was searched exhaustively" if held_out is None else f"{held_out.ap} (AP50 {held_out.ap50})"
    )
    on = "" if held_out is None else f" on {held_out.images} images with {held_out.objects} objects"
    if held_out is not None and held_out.simulated:
        on += ", searched by a simulated reviewer"
    rows = "\n".join(
        f"| {_cell(name)} | {one.labels} | {one.objects} | {one.ap} |" for name, one in summary.classes.items()
    )
    return f"""---
library_name: transformers
pipeline_tag: object-detection
---

# {summary.model_type} trained by Vouch

| | |
|---|---|
| AP{on} | {ap} |
| run, policy | {summary.run}, {summary.policy} |
| guaranteed of the labels | {summary.guarantee} |
| data set version | {summary.version} |
| images, labels | {summary.images}, {summary.labels} |
| undecided regions, ignored by the loss | {summary.ignored} |
| steps, seconds | {summary.steps}, {summary.seconds} |
| settings | `{json.dumps(summary.settings.model_dump(mode="json"), ensure_ascii=False)}` |
| licence | {summary.licence} |

| class | labels | held-out objects | AP |
|---|---|---|---|
{rows}

`models.detector: {{backend: trained, checkpoint: FOLDER}}` in a campaign file uses it as the detector.
"""


def _cell(text: str) -> str:
    """A text that stays in its cell of a Markdown table."""
    return text.replace("|", "\\|")
