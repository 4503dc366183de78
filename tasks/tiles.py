"""Looks at large images in overlapping tiles, so that small objects reach the models at their full size.

A model shrinks what it sees to its own input size, and with it the objects: one of 30 pixels in an image of 4,000 is
hardly a pixel wide then. Tiles are seen one by one; boxes and masks come out in pixels of the whole image.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import ceil
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Tiles
from vouch_labels.tasks.boxes_masks import box_area, rle_of_crop
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import (
    Detector,
    Floats,
    Masks,
    Phrase,
    Pixels,
    RawDetections,
    Segmenter,
    join_masks,
)

_VERSION: Final = 1
_AT_ONCE: Final = 32
"""Tiles that are copied out of their images and given to a model together; what bounds the memory."""
_EDGE: Final = 2.0
"""A box that comes so many pixels near the edge of a tile, within the image, is cut there."""
_ONE_OBJECT: Final = 0.5
"""Two boxes cut by the two sides of a seam are one object if they share so much of it: IoU of what they cover of it."""
_INSIDE: Final = 0.7
"""A cut box with so much of its area inside one that is not cut is a piece of that object."""


@dataclass(frozen=True, slots=True)
class View:
    """What a model sees of an image: a rectangle in pixels, right and bottom exclusive."""

    x0: int
    y0: int
    x1: int
    y1: int

    def of(self, image: Pixels) -> Pixels:
        """The view's own pixels."""
        return np.ascontiguousarray(image[self.y0 : self.y1, self.x0 : self.x1])


def views(height: int, width: int, tiles: Tiles) -> tuple[list[View], bool]:
    """Cut an image into tiles.

    They have equal distances, at most `size` less the overlap, and those at the edges end with the image; so every
    object not larger than the overlap lies whole in a tile.

    Returns:
        The views, row by row, and whether the first of them is the whole image: where it is asked for beside the
        tiles, and where the image is not larger than one.
    """
    rows, columns = _starts(height, tiles), _starts(width, tiles)
    whole = View(0, 0, width, height)
    cut = [View(x, y, min(x + tiles.size, width), min(y + tiles.size, height)) for y in rows for x in columns]
    if len(cut) == 1:
        return [whole], True
    return ([whole, *cut], True) if tiles.whole else (cut, False)


def _starts(length: int, tiles: Tiles) -> list[int]:
    if length <= tiles.size:
        return [0]
    step = tiles.size - _overlap(tiles)
    count = 1 + ceil((length - tiles.size) / step)
    return [round(place * (length - tiles.size) / (count - 1)) for place in range(count)]


def _overlap(tiles: Tiles) -> int:
    return ceil(tiles.size * tiles.overlap)


class TiledDetector:
    """A detector that sees an image tile by tile, and as a whole.

    1. From the whole image come the boxes with a side longer than the overlap; all smaller objects lie whole in a tile,
       which shows them larger.
    2. Boxes that two sides of a seam cut are joined if they are one object; they get the greatest scores of any.
    3. A box that is still cut and lies inside another that is not is a piece of that object, and is left out.

    What more than one tile shows is merged as all duplicates are, by the detect step.
    """

    def __init__(self, detector: Detector, tiles: Tiles) -> None:
        """Take the detector that sees a tile."""
        self._detector, self._tiles = detector, tiles
        self.fingerprint = fingerprint("tiles", _VERSION, tiles.model_dump(), detector.fingerprint)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """As the detector itself."""
        self._detector.check(phrases)

    def tokens(self, text: str) -> tuple[str, ...]:
        """As the detector itself."""
        return self._detector.tokens(text)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each (H, W, 3) uint8 image, in its pixels, with at least one phrase at or above min_score."""
        cut = [views(image.shape[0], image.shape[1], self._tiles) for image in images]
        seen = [(image, view) for image, (of_image, _) in zip(images, cut, strict=True) for view in of_image]
        answers: list[RawDetections] = []
        for some in _chunks(seen):
            answers += self._detector.detect([view.of(image) for image, view in some], phrases, min_score)
        rest = iter(answers)
        return [
            _merge(image, of_image, list(islice(rest, len(of_image))), whole, _overlap(self._tiles), len(phrases))
            for image, (of_image, whole) in zip(images, cut, strict=True)
        ]


def _chunks(items: Iterable[tuple[Pixels, View]]) -> Iterator[list[tuple[Pixels, View]]]:
    rest = iter(items)
    while some := list(islice(rest, _AT_ONCE)):
        yield some


def _merge(
    image: Pixels, seen: Sequence[View], answers: Sequence[RawDetections], whole: bool, overlap: int, phrases: int
) -> RawDetections:
    """Put what the views of one image show together, in the image's pixels."""
    if len(seen) == 1:
        return answers[0]
    for answer in answers:
        if not (np.isfinite(answer.boxes).all() and np.isfinite(answer.scores).all()):
            return RawDetections(np.zeros((1, 4), np.float32), np.full((1, phrases), np.nan, np.float32))
    boxes, scores, sources = [], [], []
    for number, (view, answer) in enumerate(zip(seen, answers, strict=True)):
        kept = np.ones(len(answer.boxes), np.bool_)
        if whole and number == 0:
            kept = (answer.boxes[:, 2:] - answer.boxes[:, :2]).max(axis=1, initial=0) > overlap
        boxes.append(answer.boxes[kept] + np.array([view.x0, view.y0, view.x0, view.y0], np.float32))
        scores.append(answer.scores[kept])
        sources.append(np.full(int(kept.sum()), number))
    return _joined(
        np.concatenate(boxes),
        np.concatenate(scores).reshape(-1, phrases),
        np.array([[v.x0, v.y0, v.x1, v.y1] for v in seen])[np.concatenate(sources)],
        image.shape[1],
        image.shape[0],
    )


def _joined(boxes: Floats, scores: Floats, of: NDArray[np.int64], width: int, height: int) -> RawDetections:
    """Join and leave out pieces; `of` are the (N, 4) views that the boxes come from."""
    cut = _cut(boxes, of, width, height)
    group = np.arange(len(boxes))
    pieces = np.flatnonzero(cut.any(axis=1))
    best = scores.argmax(axis=1) if len(boxes) else group
    for first in pieces:
        others = pieces[best[pieces] == best[first]]
        for second in others[_continued(first, others, boxes, of, cut)]:
            group[group == group[second]] = group[first]
    joined = [np.flatnonzero(group == number) for number in dict.fromkeys(group.tolist())]
    whole_boxes = np.array(
        [[*boxes[some, :2].min(axis=0), *boxes[some, 2:].max(axis=0)] for some in joined], np.float32
    ).reshape(-1, 4)
    whole_scores = np.array([scores[some].max(axis=0) for some in joined], np.float32).reshape(-1, scores.shape[1])
    outermost = [np.append(boxes[some, :2].argmin(axis=0), boxes[some, 2:].argmax(axis=0)) for some in joined]
    still_cut = np.array(
        [cut[some[ends], range(4)].any() for some, ends in zip(joined, outermost, strict=True)], np.bool_
    )
    kept = np.ones(len(joined), np.bool_)
    uncut = whole_boxes[~still_cut]
    for place in np.flatnonzero(still_cut):
        box = whole_boxes[place]
        low, high = np.maximum(uncut[:, :2], box[:2]), np.minimum(uncut[:, 2:], box[2:])
        common = np.maximum(high - low, 0).prod(axis=1)
        kept[place] = not (common >= _INSIDE * box_area(box[None])[0]).any()
    return RawDetections(whole_boxes[kept], whole_scores[kept])


def _cut(boxes: Floats, of: NDArray[np.int64], width: int, height: int) -> NDArray[np.bool_]:
    """(N, 4) whether the left, upper, right and lower side of a box is the edge of its view within the image."""
    low = (boxes[:, :2] <= of[:, :2] + _EDGE) & (of[:, :2] > 0)
    high = (boxes[:, 2:] >= of[:, 2:] - _EDGE) & (of[:, 2:] < np.array([width, height]))
    return np.concatenate([low, high], axis=1)


def _continued(
    first: np.intp, others: NDArray[np.intp], boxes: Floats, of: NDArray[np.int64], cut: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """(M,) whether a box goes on, right or below, as one of M others: a seam cuts both, at the same part of it."""
    goes_on = np.zeros(len(others), np.bool_)
    for axis, along in ((0, 1), (1, 0)):
        # The box ends where its tile does, the other begins where its own does, and the tiles meet there.
        start, meets = of[others, axis], of[first, 2 + axis]
        at_seam = cut[first, 2 + axis] & cut[others, axis] & (of[first, axis] < start) & (start <= meets)
        low, high = boxes[others, along], boxes[others, 2 + along]
        common = np.minimum(high, boxes[first, 2 + along]) - np.maximum(low, boxes[first, along])
        either = np.maximum(high, boxes[first, 2 + along]) - np.minimum(low, boxes[first, along])
        goes_on |= at_seam & (common > 0) & (common >= _ONE_OBJECT * either)
    return goes_on


class TiledSegmenter:
    """A segmenter that sees each box in the tile that shows most around it, or in the whole image if none holds it."""

    def __init__(self, segmenter: Segmenter, tiles: Tiles) -> None:
        """Take the segmenter that sees a tile."""
        self._segmenter, self._tiles = segmenter, tiles
        self.fingerprint = fingerprint("tiles", _VERSION, tiles.model_dump(), segmenter.fingerprint)

    def segment(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks]:
        """Masks of the whole image for the (N, 4) xyxy pixel boxes of each image; N may be 0."""
        asked = [
            (index, view, places)
            for index, (image, prompts) in enumerate(zip(images, boxes, strict=True))
            for view, places in self._views_of(image, prompts)
        ]
        found: list[list[tuple[NDArray[np.int64], Masks]]] = [[] for _ in images]
        for start in range(0, len(asked), _AT_ONCE):
            some = asked[start : start + _AT_ONCE]
            shifts = [np.array([view.x0, view.y0, view.x0, view.y0], np.float32) for _, view, _ in some]
            masks = self._segmenter.segment(
                [view.of(images[index]) for index, view, _ in some],
                [boxes[index][places] - shift for (index, _, places), shift in zip(some, shifts, strict=True)],
            )
            for (index, view, places), local in zip(some, masks, strict=True):
                found[index].append((places, _in_whole(local, view, images[index].shape[:2])))
        return [_in_order(parts) for parts in found]

    def _views_of(self, image: Pixels, boxes: Floats) -> list[tuple[View, NDArray[np.int64]]]:
        """The views in which an image's boxes are seen, and the places of these boxes."""
        height, width = image.shape[:2]
        seen, has_whole = views(height, width, self._tiles)
        whole = View(0, 0, width, height)
        if len(seen) == 1:
            return [(whole, np.arange(len(boxes)))] if len(boxes) else []
        seen = seen[1:] if has_whole else seen
        rectangles = np.array([[v.x0, v.y0, v.x1, v.y1] for v in seen], np.float32)
        # What an edge of the image cuts is not more to be seen elsewhere.
        far = np.array([width, height, width, height], np.float32)
        rectangles = np.where(
            rectangles == np.array([0, 0, 0, 0]), -far, np.where(rectangles == far, 2 * far, rectangles)
        )
        around = np.minimum(
            boxes[:, None, :2] - rectangles[None, :, :2], rectangles[None, :, 2:] - boxes[:, None, 2:]
        ).min(axis=2)
        best = np.where(around.max(axis=1) > 0, around.argmax(axis=1), -1) if len(boxes) else np.zeros(0, int)
        return [
            (whole if number < 0 else seen[number], np.flatnonzero(best == number))
            for number in np.unique(best).tolist()
        ]


def _in_whole(masks: Masks, view: View, size: tuple[int, int]) -> Masks:
    """Masks of a view as masks of its image of (height, width)."""
    from pycocotools import mask as mask_utils

    height, width = size
    if (view.x0, view.y0, view.x1, view.y1) == (0, 0, width, height):
        return masks
    counts = []
    for each, (x0, y0, x1, y1) in zip(masks.rle_counts, masks.boxes.astype(int).tolist(), strict=True):
        local: NDArray[np.bool_] = (
            mask_utils.decode({"size": [view.y1 - view.y0, view.x1 - view.x0], "counts": each}) > 0
        )
        counts.append(rle_of_crop(local[y0:y1, x0:x1], view.x0 + x0, view.y0 + y0, height, width))
    shift = np.where(masks.areas[:, None] > 0, np.array([view.x0, view.y0, view.x0, view.y0]), 0)
    return Masks(counts, masks.areas, (masks.boxes + shift).astype(np.float32), masks.predicted_iou, masks.stability)


def _in_order(parts: Sequence[tuple[NDArray[np.int64], Masks]]) -> Masks:
    joined = join_masks([masks for _, masks in parts])
    order = np.argsort(np.concatenate([np.zeros(0, np.int64), *(places for places, _ in parts)]), kind="stable")
    counts = [joined.rle_counts[place] for place in order]
    return Masks(counts, joined.areas[order], joined.boxes[order], joined.predicted_iou[order], joined.stability[order])
