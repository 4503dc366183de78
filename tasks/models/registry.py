"""Loads model backends by name, only when asked for, and defines the protocols of detector, segmenter and scorer.

Detector backends share how several passes of a model are put together into the candidate boxes of one image.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.checkpoints import check_there
from vouch_labels.tasks.models.runtime import Runtime

DETECTORS: Final = {
    "groundingdino": "vouch_labels.tasks.models.groundingdino.backend:load",
    "transformers": "vouch_labels.tasks.models.transformers:load",
    "trained": "vouch_labels.tasks.models.trained:load",
    "none": "vouch_labels.tasks.models.fake:NoDetector",
    "fake": "vouch_labels.tasks.models.fake:FakeDetector",
}
SEGMENTERS: Final = {
    "sam": "vouch_labels.tasks.models.sam.backend:load",
    "fake": "vouch_labels.tasks.models.fake:FakeSegmenter",
}
SCORERS: Final = {
    "open_clip": "vouch_labels.tasks.models.open_clip.backend:load",
    "fake": "vouch_labels.tasks.models.fake:FakeScorer",
}

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB, EXIF-oriented, C-contiguous."""

Floats = NDArray[np.float32]

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class Phrase:
    """A text that the detector looks for."""

    text: str
    class_index: int
    """Index into the campaign's classes; for a negative, the class that it must not be taken for."""
    negative: bool = False


@dataclass(frozen=True, slots=True)
class RawDetections:
    """Candidate boxes of one image, before classes are decided and duplicates merged."""

    boxes: Floats
    """(N, 4) xyxy in pixels of the image given, clipped to it."""
    scores: Floats
    """(N, P) score of each phrase in [0, 1]; 0 where the phrase was not in the pass that found the box."""


class Detector(Protocol):
    """Finds boxes for phrases."""

    fingerprint: str
    """Hex that changes whenever the same image could come out differently (weights, resizing, precision ...)."""

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise UserError when a phrase cannot be asked for (too long for the text window, say)."""

    def tokens(self, text: str) -> tuple[str, ...]:
        """What a text is to the model, which cannot tell texts of equal tokens apart."""

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each image with at least one phrase at or above min_score."""


def load_detector(config: DetectorConfig, runtime: Runtime) -> Detector:
    """Load the detector backend named by the config.

    Raises:
        UserError: The backend is unknown, or its checkpoint cannot be used (CheckpointError).
    """
    loaded: Detector = _factory("detector", DETECTORS, config.backend)(config, runtime)
    return loaded


@dataclass(frozen=True, slots=True)
class Masks:
    """Masks of the boxes of one image, in the order of the boxes."""

    rle_counts: list[bytes]
    """N compressed COCO RLE counts; their size is the image's (H, W)."""
    areas: NDArray[np.int64]
    """(N,) pixels."""
    boxes: Floats
    """(N, 4) xyxy around the mask in pixels, right and bottom exclusive; zeros for an empty mask."""
    predicted_iou: Floats
    """(N,) the model's own estimate, clipped to [0, 1]."""
    stability: Floats
    """(N,) IoU of the mask cut at logit threshold + offset and - offset, in [0, 1]."""


def no_masks() -> Masks:
    """The masks of an image without boxes."""
    none = np.zeros(0, dtype=np.float32)
    return Masks([], np.zeros(0, dtype=np.int64), np.zeros((0, 4), dtype=np.float32), none, none)


def join_masks(parts: Sequence[Masks]) -> Masks:
    """The masks of all parts as one, in order."""
    if not parts:
        return no_masks()
    arrays = zip(*((part.areas, part.boxes, part.predicted_iou, part.stability) for part in parts), strict=True)
    return Masks([counts for part in parts for counts in part.rle_counts], *map(np.concatenate, arrays))


class Segmenter(Protocol):
    """Turns boxes into masks."""

    fingerprint: str

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Masks for the (N, 4) xyxy pixel boxes of each image; N may be 0."""


def load_segmenter(config: SegmenterConfig, runtime: Runtime) -> Segmenter:
    """Load the segmenter backend named by the config; raises as `load_detector`."""
    loaded: Segmenter = _factory("segmenter", SEGMENTERS, config.backend)(config, runtime)
    return loaded


class Scorer(Protocol):
    """Embeds texts and crops in one space, as CLIP does."""

    fingerprint: str
    logit_scale: float
    """Factor on cosine similarities before the softmax, as trained."""

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(T, D) of unit length."""

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """(N, D) of unit length, for crops of any size."""


def load_scorer(config: ScorerConfig, runtime: Runtime) -> Scorer:
    """Load the scorer backend named by the config; raises as `load_detector`."""
    loaded: Scorer = _factory("scorer", SCORERS, config.backend)(config, runtime)
    return loaded


def check_models_there(models: ModelsConfig) -> None:
    """Refuse unknown backends and missing files at once, before anything heavy is imported or read.

    Raises:
        UserError: There is no such backend.
        CheckpointError: A checkpoint's file is not there.
    """
    _check_backend("detector", DETECTORS, models.detector.backend)
    _check_backend("segmenter", SEGMENTERS, models.segmenter.backend)
    _check_backend("scorer", SCORERS, models.scorer.backend)
    if models.detector.backend == "groundingdino":
        check_there(models.detector, "detector")
    if models.segmenter.backend == "sam":
        check_there(models.segmenter, "segmenter")
    if models.scorer.backend == "open_clip":
        check_there(models.scorer, "scorer")


def _check_backend(kind: str, table: dict[str, str], name: str) -> None:
    if name not in table:
        raise UserError(f"models.{kind}.backend: unknown backend {name!r}; use one of {', '.join(sorted(table))}")


def _factory(kind: str, table: dict[str, str], name: str) -> Any:  # noqa: ANN401 - one type a kind
    _check_backend(kind, table, name)
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)


class Pass(NamedTuple):
    """What one forward pass gave for one image."""

    found: Floats
    """(Q, 4 + P) centre x, y, width and height as shares of what the model saw, then scores of its phrases."""
    phrases: Sequence[int]
    """(P,) indices of its phrases into those asked for."""


def assemble(
    passes: Sequence[Pass], phrases: int, seen: tuple[float, float], size: tuple[int, int], min_score: float
) -> RawDetections:
    """Put the passes of one image together, in the order asked; `phrases` is how many were asked for in all.

    `size` is width and height of the image, `seen` those of what the model saw, in pixels of the image: more where it
    was padded. Boxes without a phrase at or above `min_score` are left out.

    Returns:
        Boxes in pixels clipped to the image, with a score of every phrase, 0 for those of other passes. If a number is
        not finite: one empty box with scores of NaN.
    """
    boxes, scores = [np.zeros((0, 4), np.float32)], [np.zeros((0, phrases), np.float32)]
    for found, columns in passes:
        if not np.isfinite(found).all():
            return RawDetections(np.zeros((1, 4), np.float32), np.full((1, phrases), np.nan, np.float32))
        kept = found[found[:, 4:].max(axis=1, initial=0) >= min_score]
        half = kept[:, 2:4] / 2
        corners = np.concatenate([kept[:, :2] - half, kept[:, :2] + half], axis=1) * np.array(
            [*seen, *seen], np.float32
        )
        spread = np.zeros((len(kept), phrases), np.float32)
        spread[:, list(columns)] = kept[:, 4:]
        boxes.append(np.clip(corners, 0, np.array([*size, *size], np.float32)))
        scores.append(spread)
    return RawDetections(np.concatenate(boxes), np.concatenate(scores))


def each_its_own(forward: Callable[[Sequence[Item]], list[list[Floats]]], items: Sequence[Item]) -> list[list[Floats]]:
    """Run a batch, and again one by one when a number is not finite, so that one image does not spoil the others.

    Some models couple the images of a batch (a maximum over all is subtracted before a softmax), which changes nothing
    as long as all numbers are finite.
    """
    found = forward(items)
    if len(items) == 1 or all(np.isfinite(block).all() for blocks in found for block in blocks):
        return found
    return [forward([item])[0] for item in items]
