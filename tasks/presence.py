"""Asks CLIP whether a class without a box is in an image all the same (image-level zero-shot check)."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import ClassConfig
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import PRESENCE
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Floats, Pixels
from vouch_labels.tasks.score import Score

FLOOR: Final = 0.1
"""Presence below which no row is written. On drawn scenes with 28 classes it leaves two to three rows an image, where a
missed object is half as frequent again as among all pairs of image and class; further down rows say no more."""
TILE: Final = 0.625
"""Side of a tile, of the image's shorter side: an object up to a quarter of that side is whole in one of the tiles."""
SHORT_SIDE: Final = 512
"""Pixels. Images of twice that are reduced first: the crops of one of 1920 x 1080 take half as long to resize then."""
VIEWS: Final = 5
"""Crops an image."""
_VERSION: Final = 1


@dataclass(frozen=True, slots=True, eq=False)
class Present:
    """The n classes that CLIP sees in one image and no label shows, in the order of the classes."""

    classes: NDArray[np.int64]
    """(n,) class indices."""
    probability: Floats
    """(n,) in [FLOOR, 1]."""


class Presence:
    """Class presence by CLIP, whole images and tiles of them.

    The probability of a class in a view is that of tasks.score, over the same texts; an image's is the greatest of
    its views. Classes that have labels still compete: what a box shows already must not count for what looks like it.
    """

    def __init__(self, score: Score, classes: Sequence[ClassConfig], enabled: bool) -> None:
        """Share a scorer's model and texts, for the same classes; unless enabled nothing is computed, nor found."""
        self._score = score
        self._names = [entry.key for entry in classes]
        self._enabled = enabled
        self.key = fingerprint("presence", _VERSION, [FLOOR, TILE, SHORT_SIDE, score.key] if enabled else None)

    def __call__(
        self, images: Sequence[Pixels], class_indices: Sequence[NDArray[np.int64]]
    ) -> Sequence[Present | Failed]:
        """Look for the classes that images have no label of; all views go through the model together.

        Images are (H, W, 3) uint8 each, with the (N,) classes of their labels. Where CLIP gave something that is not
        finite, an image fails.

        Raises:
            UserError: As Score.prepare.
        """
        if not self._enabled or not images:
            return [Present(np.zeros(0, np.int64), np.zeros(0, np.float32)) for _ in images]
        probabilities = self._score.class_probabilities([view for image in images for view in views(image)])
        greatest = probabilities.reshape(len(images), VIEWS, -1).max(axis=1).astype(np.float32)
        found: list[Present | Failed] = []
        for probability, labelled in zip(greatest, class_indices, strict=True):
            if np.isfinite(probability).all():
                kept = np.setdiff1d(np.flatnonzero(probability >= np.float32(FLOOR)), labelled)
                found.append(Present(kept, probability[kept]))
            else:
                found.append(Failed(step="presence", reason="CLIP gave no finite score for the whole image"))
        return found

    def table(self, rows: Iterable[tuple[str, Present]]) -> pa.Table:
        """Lay out what was found in each image that did not fail, by its key, as a table of schema PRESENCE."""
        found = list(rows)
        columns = {
            "key": [key for key, present in found for _ in present.classes],
            "class_name": [self._names[index] for _, present in found for index in present.classes],
            "clip_presence": np.concatenate([np.zeros(0, np.float32), *(present.probability for _, present in found)]),
        }
        return pa.table([pa.array(columns[field.name], field.type) for field in PRESENCE], schema=PRESENCE)


def views(image: Pixels) -> list[Pixels]:
    """Cut an (H, W, 3) uint8 image into what CLIP is shown: the whole, and a square at each corner.

    CLIP's preprocessing keeps the central square of the whole; the side of the squares is TILE of the shorter side, or
    as much more as it takes that they and the central square leave no gap between them.

    Returns:
        VIEWS arrays (h, w, 3) uint8, reduced so that the shorter side of the whole is below twice SHORT_SIDE.
    """
    from PIL import Image

    small, factor = image, min(image.shape[:2]) // SHORT_SIDE
    if factor > 1:
        small = np.asarray(Image.fromarray(image).reduce(factor), np.uint8)
    height, width = small.shape[:2]
    shorter, longer = min(height, width), max(height, width)
    side = max(1, min(shorter, max(round(TILE * shorter), -(-(longer - shorter) // 2))))
    corners = [(top, left) for top in (0, height - side) for left in (0, width - side)]
    return [small, *(small[top : top + side, left : left + side] for top, left in corners)]
