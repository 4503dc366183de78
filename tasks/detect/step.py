"""Finds the objects of the declared classes, one class an object."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.campaign import ClassConfig, DetectorConfig
from schemas.errors import UserError
from schemas.records import Failed
from tasks.boxes_masks import box_area, box_iou
from tasks.detect.classify import Texts
from tasks.detect.detections import Detections, detection_table
from tasks.detect.merge import merge_duplicates
from tasks.fingerprint import fingerprint
from tasks.models.registry import Detector, Floats, Phrase, Pixels, RawDetections

_VERSION = 1
_BORDER = 1.0


class Detect:
    """The detect step.

    Its rules, in their order:

    1. Score of a class is the greatest of its prompts'; likewise of a negative text, each on its own.
    2. Candidates that overlap by more than `nms_iou` are one object, whatever their classes: the one with the greatest
       score of any text stays and takes over the greatest scores of those it covers.
    3. It belongs to its best class. Where a negative text of that class scores higher, it is a look-alike and is left
       out; other classes' negatives do not count. Equal scores: the class declared first; class before negative.
    4. Below the class's `min_score`, or with an empty box, it is no label. Of the rest the best `max_boxes` stay.

    The runner-up is the best of the other classes and the class's own negatives.
    """

    def __init__(self, detector: Detector, classes: Sequence[ClassConfig], config: DetectorConfig) -> None:
        """Take the model and what to look for.

        Raises:
            UserError: A prompt cannot be asked for, or stands for two classes, or for a class and what it is not.
        """
        _refuse_shared(classes)
        self._detector = detector
        self._class_names = [entry.name for entry in classes]
        self._phrases = _phrases(classes)
        self._texts = Texts(self._phrases, self._class_names)
        least = [config.min_score if entry.min_score is None else entry.min_score for entry in classes]
        self._least = np.array(least, np.float32)
        self._nms_iou, self._max_boxes = config.nms_iou, config.max_boxes
        self._check()
        self.key = fingerprint(
            "detect",
            _VERSION,
            detector.fingerprint,
            [[phrase.text, phrase.class_index, phrase.negative] for phrase in self._phrases],
            self._class_names,
            least,
            config.nms_iou,
            config.max_boxes,
        )
        """What the step's rows depend on, beside the images."""
        self.inputs = {
            "detector weights": detector.fingerprint,
            "prompts": fingerprint(
                [[phrase.text, phrase.class_index, phrase.negative] for phrase in self._phrases], self._class_names
            ),
            "detector settings": fingerprint(_VERSION, least, config.nms_iou, config.max_boxes),
        }
        """The same by what a user can change: name -> its fingerprint."""

    def __call__(self, images: Sequence[Pixels]) -> list[Detections | Failed]:
        """Find the labels of each (H, W, 3) uint8 image.

        Returns:
            One item an image; Failed when the detector's answer for it is not finite.

        Raises:
            torch.OutOfMemoryError: A single image does not fit the device.
        """
        found = self._detector.detect(images, self._phrases, float(self._least.min()))
        return [self._labels(raw, image) for raw, image in zip(found, images, strict=True)]

    def table(self, rows: Iterable[tuple[str, str, Detections]]) -> pa.Table:
        """Lay out labels as a table of schema DETECTIONS; see `detection_table`."""
        return detection_table(rows, self._class_names)

    def _check(self) -> None:
        """Try the prompts class by class, so that an error names the class."""
        for index, name in enumerate(self._class_names):
            try:
                self._detector.check([phrase for phrase in self._phrases if phrase.class_index == index])
            except UserError as error:
                raise UserError(f"class {name!r}: {error}") from error

    def _labels(self, raw: RawDetections, image: Pixels) -> Detections | Failed:
        if not (np.isfinite(raw.boxes).all() and np.isfinite(raw.scores).all()):
            return Failed(step="detect", reason="the detector's answer is not finite")
        kept, joint = merge_duplicates(raw.boxes, raw.scores.max(axis=1, initial=0), raw.scores, self._nms_iou)
        boxes, chosen = raw.boxes[kept], self._texts.choose(joint)
        is_label = ~chosen.look_alike & (chosen.scores >= self._least[chosen.classes]) & (box_area(boxes) > 0)
        order = np.flatnonzero(is_label)
        order = order[np.argsort(-chosen.scores[order], kind="stable")][: self._max_boxes]
        boxes = np.ascontiguousarray(boxes[order])
        height, width = image.shape[:2]
        return Detections(
            boxes=boxes,
            class_indices=chosen.classes[order],
            prompts=[self._phrases[index].text for index in chosen.prompts[order]],
            scores=chosen.scores[order],
            margins=chosen.margins[order],
            runners_up=[chosen.runners_up[index] for index in order],
            relative_areas=(box_area(boxes) / (height * width)).astype(np.float32),
            border_sides=_border_sides(boxes, width, height),
            crowding=_crowding(boxes),
        )


def _phrases(classes: Sequence[ClassConfig]) -> list[Phrase]:
    phrases = [Phrase(text, index) for index, entry in enumerate(classes) for text in entry.texts]
    return phrases + [Phrase(text, index, True) for index, entry in enumerate(classes) for text in entry.negatives]


def _refuse_shared(classes: Sequence[ClassConfig]) -> None:
    owners: dict[str, str] = {}
    for entry in classes:
        for text in entry.texts:
            other = owners.setdefault(_plain(text), entry.name)
            if other != entry.name:
                raise UserError(
                    f"classes {other!r} and {entry.name!r} share the prompt {text!r}; give it to one of them, "
                    "since an object gets one class"
                )
        own = {_plain(text) for text in entry.texts}
        for text in entry.negatives:
            if _plain(text) in own:
                raise UserError(f"class {entry.name!r} has {text!r} as prompt and as negative; remove one")


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())


def _border_sides(boxes: Floats, width: int, height: int) -> NDArray[np.int8]:
    low = (boxes[:, :2] <= _BORDER).sum(axis=1)
    high = (boxes[:, 2:] >= np.array([width, height]) - _BORDER).sum(axis=1)
    return np.asarray(low + high, np.int8)


def _crowding(boxes: Floats) -> Floats:
    if len(boxes) < 2:
        return np.zeros(len(boxes), np.float32)
    overlaps = box_iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0)
    return np.asarray(overlaps.max(axis=1), np.float32)
