"""Detects the objects of the declared classes: scores of phrases become one class an object.

Candidate boxes that are one object are merged; the class of each is chosen from the scores of all texts, hard negatives
included.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig, Tiles
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import DETECTIONS
from vouch_labels.tasks.boxes_masks import box_area, box_iou, clip_boxes
from vouch_labels.tasks.fingerprint import Json, fingerprint
from vouch_labels.tasks.models.registry import Detector, Floats, Phrase, Pixels, RawDetections
from vouch_labels.tasks.models.tokens import check_apart
from vouch_labels.tasks.tiles import TiledDetector

_VERSION = 1
_BORDER = 1.0

ID_LENGTH = 24
_UNITS = 100

SEEN: Final = 0.5
"""IoU from which on the detector's candidate is the object of a label that is given."""


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """N labels of one image, best score first; arrays are (N,) unless stated otherwise."""

    boxes: Floats
    """(N, 4) xyxy in pixels of the image."""
    class_indices: NDArray[np.int64]
    """Index into the campaign's classes."""
    prompts: list[str]
    """Text that gave the score."""
    scores: Floats
    """Score of the class, [0, 1]."""
    margins: Floats
    """Score less that of the runner-up, [-1, 1]."""
    runners_up: list[str | None]
    """Class, or negative text, with the second score; None when only one text was asked for."""
    relative_areas: Floats
    """Area of the box over that of the image, [0, 1]."""
    border_sides: NDArray[np.int8]
    """Sides of the image that the box comes within a pixel of, 0..4."""
    crowding: Floats
    """Largest IoU with another label of the image, [0, 1]."""


@dataclass(frozen=True, slots=True, eq=False)
class Given:
    """N labels of one image that were made elsewhere; arrays are (N,) unless stated otherwise."""

    boxes: Floats
    """(N, 4) xyxy in pixels of the image."""
    class_indices: NDArray[np.int64]
    """Index into the campaign's classes."""
    scores: Floats
    """Score in [0, 1]; NaN where there is none."""
    names: list[str]
    """What each is called where it comes from, such as "annotation 17"."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Texts that are asked for together: what the detector finds for them depends on all of them, and on no other."""

    phrases: list[Phrase]
    columns: list[int]
    """Their places among all phrases."""
    least: float
    """Candidates without a score at or above it are left out."""
    key: str
    """Key of what is found, beside the images; names of classes are no part of it."""


class Detect:
    """The detect step: `look` asks the detector, `decide` makes labels of what it found, `detect` is both.

    Its rules, in their order:

    1. Score of a class is the greatest of its prompts'; likewise of a negative text, each on its own.
    2. Candidates that overlap by more than `nms_iou` are one object, whatever their classes: the one with the greatest
       score of any text stays and takes over the greatest scores of those it covers.
    3. It belongs to its best class. Where a negative text of that class scores higher, it is a hard negative and is
       left out; other classes' negatives do not count. Equal scores: the class declared first; class before negative.
    4. Below the class's `min_score`, or with an empty box, it is no label. Of the rest the best `max_boxes` stay.

    Labels that are given go before what the detector finds: they stay as they are, box and class, however low they
    score and however they overlap, and no candidate that overlaps one by more than `nms_iou` makes a label. One without
    a score of its own gets the detector's: the greatest for its class of the candidates that overlap it by `SEEN` or
    more, 0 where there is none; its name stands for the prompt.

    The runner-up is the best of the other classes and the class's own negatives.
    """

    def __init__(
        self,
        detector: Detector,
        classes: Sequence[ClassConfig],
        config: DetectorConfig,
        tiles: Tiles | None = None,
    ) -> None:
        """Take the model and what to look for, in tiles or in whole images.

        Raises:
            UserError: A prompt cannot be asked for, or stands for two classes, or for a class and what it is not.
        """
        _refuse_shared(classes)
        self._detector = TiledDetector(detector, tiles) if tiles else detector
        self._class_names = [entry.key for entry in classes]
        self._phrases = _phrases(classes)
        self._texts = Texts(self._phrases, self._class_names)
        least = [config.min_score if entry.min_score is None else entry.min_score for entry in classes]
        self._least = np.array(least, np.float32)
        self.asks = self._asks([entry.caption for entry in classes])
        """What is asked for together, in the order of the numbers of captions."""
        self._nms_iou, self._max_boxes = config.nms_iou, config.max_boxes
        self._check(classes)
        self.key = fingerprint(
            "detect",
            _VERSION,
            self._detector.fingerprint,
            *_prompts(classes),
            least,
            config.nms_iou,
            config.max_boxes,
        )
        """What the step's rows depend on, beside the images."""
        self.inputs = {"detector weights": detector.fingerprint, **declared_inputs(classes, config, tiles)}
        """The same by what a user can change: name -> its fingerprint."""

    def __call__(self, images: Sequence[Pixels]) -> list[Detections | Failed]:
        """Find the labels of each (H, W, 3) uint8 image.

        Returns:
            One item an image; Failed when the detector's answer for it is not finite.

        Raises:
            torch.OutOfMemoryError: A single image does not fit the device.
        """
        found = [self.look(images, ask) for ask in self.asks]
        return [self.decide(raws, image) for image, *raws in zip(images, *found, strict=True)]

    def look(self, images: Sequence[Pixels], ask: Ask) -> list[RawDetections]:
        """Find candidates for the texts of one of `asks` in each (H, W, 3) uint8 image.

        Raises:
            torch.OutOfMemoryError: A single image does not fit the device.
        """
        return self._detector.detect(images, ask.phrases, ask.least)

    def decide(self, found: Sequence[RawDetections], image: Pixels, given: Given | None = None) -> Detections | Failed:
        """Make labels of the candidates of an image, those of each of `asks`, and of labels that are given for it."""
        return self._labels(self._joined(found), image, given)

    def _asks(self, captions: Sequence[int]) -> list[Ask]:
        asks = []
        for number in sorted(set(captions)):
            columns = [place for place, one in enumerate(self._phrases) if captions[one.class_index] == number]
            phrases = [self._phrases[place] for place in columns]
            least = float(self._least[[caption == number for caption in captions]].min())
            key = fingerprint("found", _VERSION, self._detector.fingerprint, [one.text for one in phrases], least)
            asks.append(Ask(phrases, columns, least, key))
        return asks

    def _joined(self, found: Sequence[RawDetections]) -> RawDetections:
        if len(found) == 1:
            return found[0]
        scores = []
        for raw, ask in zip(found, self.asks, strict=True):
            # As in the passes of one question: 0 for what was not asked for.
            spread = np.zeros((len(raw.boxes), len(self._phrases)), np.float32)
            spread[:, ask.columns] = raw.scores
            scores.append(spread)
        return RawDetections(np.concatenate([raw.boxes for raw in found]), np.concatenate(scores))

    def table(self, rows: Iterable[tuple[str, str, Detections]]) -> pa.Table:
        """Lay out the labels of images as a table of schema DETECTIONS, a row a label, in the order given.

        Of each image there are its key, the SHA-256 of its content, and its labels. A label's id is a hash of the key,
        the content, the class and the box in hundredths of a pixel; of two labels of one image that agree in all of
        these the later one's place is hashed too.
        """
        batches = [_batch(key, sha256, found, self._class_names) for key, sha256, found in rows if len(found.boxes)]
        return pa.Table.from_batches(batches, schema=DETECTIONS)

    def _check(self, classes: Sequence[ClassConfig]) -> None:
        """Try the prompts class by class, so that an error names the class; then hold the classes together."""
        for index, name in enumerate(self._class_names):
            try:
                self._detector.check([phrase for phrase in self._phrases if phrase.class_index == index])
            except UserError as error:
                raise UserError(f"class {name!r}: {error}") from error
        check_apart(classes, self._detector.tokens)

    def _labels(self, raw: RawDetections, image: Pixels, given: Given | None) -> Detections | Failed:
        if not (np.isfinite(raw.boxes).all() and np.isfinite(raw.scores).all()):
            return Failed(step="detect", reason="the detector's answer is not finite")
        height, width = image.shape[:2]
        first = None
        if given is not None:
            boxes = clip_boxes(given.boxes, width, height)
            inside = box_area(boxes) > 0
            boxes = boxes[inside]
            overlaps = box_iou(boxes, raw.boxes)
            first = self._given(given, inside, boxes, _greatest(raw.scores, overlaps >= SEEN))
            new = ~(overlaps > self._nms_iou).any(axis=0)
            raw = RawDetections(raw.boxes[new], raw.scores[new])
        kept, joint = merge_duplicates(raw.boxes, raw.scores.max(axis=1, initial=0), raw.scores, self._nms_iou)
        boxes, chosen = raw.boxes[kept], self._texts.choose(joint)
        is_label = ~chosen.hard_negative & (chosen.scores >= self._least[chosen.classes]) & (box_area(boxes) > 0)
        order = np.flatnonzero(is_label)
        order = order[np.argsort(-chosen.scores[order], kind="stable")][: self._max_boxes]
        found = _Labels(
            boxes=boxes[order],
            class_indices=chosen.classes[order],
            prompts=[self._phrases[index].text for index in chosen.prompts[order]],
            scores=chosen.scores[order],
            margins=chosen.margins[order],
            runners_up=[chosen.runners_up[index] for index in order],
        )
        return _described(found if first is None else _sorted(first, found), width, height)

    def _given(self, given: Given, inside: NDArray[np.bool_], boxes: Floats, seen: Floats) -> "_Labels":
        """Labels of those given that have an extent inside the image; `seen` (N, P) is what the detector says there."""
        classes, scores = given.class_indices[inside], given.scores[inside]
        said = self._texts.describe(seen, classes)
        scores = np.where(np.isnan(scores), said.scores, scores).astype(np.float32)
        return _Labels(
            boxes=boxes,
            class_indices=classes,
            prompts=[name for name, kept in zip(given.names, inside, strict=True) if kept],
            scores=scores,
            margins=(scores - (said.scores - said.margins)).astype(np.float32),
            runners_up=said.runners_up,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Labels:
    """What `Detections` says of labels before they are looked at together."""

    boxes: Floats
    class_indices: NDArray[np.int64]
    prompts: list[str]
    scores: Floats
    margins: Floats
    runners_up: list[str | None]


def _sorted(first: _Labels, then: _Labels) -> _Labels:
    scores = np.concatenate([first.scores, then.scores])
    order = np.argsort(-scores, kind="stable")
    prompts, runners_up = first.prompts + then.prompts, first.runners_up + then.runners_up
    return _Labels(
        boxes=np.concatenate([first.boxes, then.boxes])[order],
        class_indices=np.concatenate([first.class_indices, then.class_indices])[order],
        prompts=[prompts[place] for place in order],
        scores=scores[order],
        margins=np.concatenate([first.margins, then.margins])[order],
        runners_up=[runners_up[place] for place in order],
    )


def _described(labels: _Labels, width: int, height: int) -> Detections:
    boxes = np.ascontiguousarray(labels.boxes)
    low, high = boxes[:, :2] <= _BORDER, boxes[:, 2:] >= np.array([width, height]) - _BORDER
    overlaps = box_iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0)
    return Detections(
        boxes=boxes,
        class_indices=labels.class_indices,
        prompts=labels.prompts,
        scores=labels.scores,
        margins=labels.margins,
        runners_up=labels.runners_up,
        relative_areas=(box_area(boxes) / (height * width)).astype(np.float32),
        border_sides=np.asarray(low.sum(axis=1) + high.sum(axis=1), np.int8),
        crowding=overlaps.max(axis=1, initial=0).astype(np.float32),
    )


def _greatest(scores: Floats, among: NDArray[np.bool_]) -> Floats:
    """(N, P) for each of N rows of `among` (N, M) the greatest of the scores (M, P) there; 0 where there are none."""
    rows = [scores[some].max(axis=0, initial=0) for some in among]
    return np.array(rows, np.float32).reshape(len(among), scores.shape[1])


def _phrases(classes: Sequence[ClassConfig]) -> list[Phrase]:
    phrases = [Phrase(text, index) for index, entry in enumerate(classes) for text in entry.texts]
    return phrases + [Phrase(text, index, True) for index, entry in enumerate(classes) for text in entry.negatives]


def _prompts(classes: Sequence[ClassConfig]) -> list[Json]:
    """What is asked for and whose it is; captions are part of it where there are several."""
    texts: list[Json] = [[phrase.text, phrase.class_index, phrase.negative] for phrase in _phrases(classes)]
    captions = [entry.caption for entry in classes]
    order = sorted(set(captions))
    several = [[order.index(number) for number in captions]] if len(order) > 1 else []
    return [texts, [entry.key for entry in classes], *several]


def declared_inputs(classes: Sequence[ClassConfig], config: DetectorConfig, tiles: Tiles | None) -> dict[str, str]:
    """What labels depend on of what a campaign says about detecting: name -> its fingerprint; no model is needed."""
    least = [config.min_score if entry.min_score is None else entry.min_score for entry in classes]
    return {
        "prompts": fingerprint(*_prompts(classes)),
        "detector settings": fingerprint(
            _VERSION, least, config.nms_iou, config.max_boxes, *([tiles.model_dump()] if tiles else [])
        ),
    }


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


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """What was chosen for N objects; arrays are (N,)."""

    classes: NDArray[np.int64]
    """Index of the best class."""
    prompts: NDArray[np.int64]
    """Index of the phrase that gave its score."""
    scores: Floats
    margins: Floats
    runners_up: list[str | None]
    hard_negative: NDArray[np.bool_]
    """Whether a negative text of the class scores higher than the class."""


class Texts:
    """Which phrases stand for which class."""

    def __init__(self, phrases: Sequence[Phrase], class_names: Sequence[str]) -> None:
        """Take the phrases in the order of the score columns."""
        self._names = [*class_names, *(phrase.text for phrase in phrases if phrase.negative)]
        self._prompts = [
            np.array([i for i, phrase in enumerate(phrases) if phrase.class_index == k and not phrase.negative], int)
            for k in range(len(class_names))
        ]
        self._negatives = np.array([i for i, phrase in enumerate(phrases) if phrase.negative], int)
        self._of_class = np.array([phrase.class_index for phrase in phrases if phrase.negative], int)

    def choose(self, scores: Floats) -> Choice:
        """Choose for objects with (N, P) scores of the phrases; the rules are those of the detect step."""
        return self.describe(scores, self._by_class(scores).argmax(axis=1).astype(np.int64))

    def _by_class(self, scores: Floats) -> Floats:
        return np.stack([scores[:, prompts].max(axis=1) for prompts in self._prompts], axis=1)

    def describe(self, scores: Floats, classes: NDArray[np.int64]) -> Choice:
        """Say what the (N, P) scores of the phrases mean for objects whose classes (N,) are chosen."""
        rows = np.arange(len(scores))
        by_class = self._by_class(scores)
        best = by_class[rows, classes]
        negatives = scores[:, self._negatives]
        own = self._of_class[None, :] == classes[:, None]
        negatives = np.where(own, negatives, -np.inf)
        others = by_class.copy()
        others[rows, classes] = -np.inf
        rivals = np.concatenate([others, negatives], axis=1)
        second = rivals.argmax(axis=1)
        rival = rivals[rows, second]
        alone = np.isneginf(rival)
        return Choice(
            classes=classes,
            prompts=np.array(
                [self._prompts[k][scores[row, self._prompts[k]].argmax()] for row, k in enumerate(classes)], np.int64
            ),
            scores=best.astype(np.float32),
            margins=np.where(alone, best, best - np.where(alone, 0, rival)).astype(np.float32),
            runners_up=[None if lonely else self._names[text] for text, lonely in zip(second, alone, strict=True)],
            hard_negative=negatives.max(axis=1, initial=-np.inf) > best,
        )


def merge_duplicates(boxes: Floats, strengths: Floats, scores: Floats, iou: float) -> tuple[NDArray[np.int64], Floats]:
    """Greedy non-maximum suppression over all classes together, of (N, 4) xyxy boxes.

    Candidates are taken by strength (N,), the greatest first, equal ones in the order given; each takes in every later
    one that overlaps it by more than `iou`, of whatever class. The one that stays gets, text by text, the greatest of
    the scores (N, P) of all that it took in, so that a class that only another pass asked for still counts as its
    runner-up.

    Returns:
        Indices (M,) of those that stay, strongest first, and their (M, P) joint scores.
    """
    free = np.ones(len(boxes), np.bool_)
    kept, joint = [], []
    for index in np.argsort(-strengths, kind="stable"):
        if not free[index]:
            continue
        rest = np.flatnonzero(free)  # row by row, since all pairs of thousands of candidates would fill the memory
        taken = rest[(box_iou(boxes[index][None], boxes[rest])[0] > iou) | (rest == index)]
        free[taken] = False
        kept.append(index)
        joint.append(scores[taken].max(axis=0))
    if not kept:
        return np.zeros(0, np.int64), np.zeros((0, scores.shape[1]), np.float32)
    return np.array(kept, np.int64), np.stack(joint)


def _batch(key: str, sha256: str, found: Detections, class_names: Sequence[str]) -> pa.RecordBatch:
    names = [class_names[index] for index in found.class_indices]
    labels = [label_ids(key, sha256, names, found.boxes), [key] * len(names), names, *found.boxes.T, found.prompts]
    signals = [found.scores, found.margins, found.runners_up, found.relative_areas, found.border_sides, found.crowding]
    columns = [pa.array(column, field.type) for column, field in zip([*labels, *signals], DETECTIONS, strict=True)]
    return pa.RecordBatch.from_arrays(columns, schema=DETECTIONS)


def label_ids(key: str, sha256: str, names: Sequence[str], boxes: Floats) -> list[str]:
    """Name the labels of one image: by its key and content, their classes, and their (N, 4) boxes."""
    seen: dict[str, int] = {}
    ids = []
    for name, box in zip(names, np.rint(boxes.astype(np.float64) * _UNITS).astype(np.int64).tolist(), strict=True):
        text = "\0".join([key, sha256, name, *map(str, box)])
        repeat = seen[text] = seen.get(text, -1) + 1
        digest = hashlib.sha256(f"{text}\0{repeat}".encode() if repeat else text.encode())
        ids.append(digest.hexdigest()[:ID_LENGTH])
    return ids
