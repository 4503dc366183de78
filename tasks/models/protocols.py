"""What a detector, a segmenter and a scorer must do, whichever package they come from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
"""(H, W, 3) RGB, EXIF-oriented, C-contiguous."""

Floats = NDArray[np.float32]


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


class Detector(Protocol):
    """Finds boxes for phrases."""

    fingerprint: str
    """Hex that changes whenever the same image could come out differently (weights, resizing, precision ...)."""

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise UserError when a phrase cannot be asked for (too long for the text window, say)."""

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each image with at least one phrase at or above min_score."""


class Segmenter(Protocol):
    """Turns boxes into masks."""

    fingerprint: str

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Masks for the (N, 4) xyxy pixel boxes of each image; N may be 0."""


class Scorer(Protocol):
    """Embeds texts and crops in one space, as CLIP does."""

    fingerprint: str
    logit_scale: float
    """Factor on cosine similarities before the softmax, as trained."""

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(T, D) of unit length."""

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """(N, D) of unit length, for crops of any size."""
