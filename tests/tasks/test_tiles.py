"""Tiles show small objects larger, and what comes out of them is as if one look had seen the image at that size."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest
import supervision as sv
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import DetectorConfig, Tiles
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.detect import Detect, Detections
from vouch_labels.tasks.models.fake import FakeDetector, FakeSegmenter
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.tiles import TiledDetector, TiledSegmenter, views

PHRASES = [Phrase("cat", 0), Phrase("dog", 1)]


class Blobs(FakeDetector):
    """Boxes are the bright blobs of what it sees, but for those smaller than 1/20 of it: a model with a small input.

    Red blobs are cats, blue ones dogs.
    """

    def __init__(self, least: float = 0.05) -> None:
        super().__init__()
        self.least = least
        self.seen: list[tuple[int, ...]] = []

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        self.seen += [image.shape for image in images]
        return [self._find(image) for image in images]

    def _find(self, image: Pixels) -> RawDetections:
        boxes, scores = [], []
        for channel, score in ((0, [0.9, 0.2]), (2, [0.2, 0.8])):
            _, _, stats, _ = cv2.connectedComponentsWithStats((image[..., channel] > 128).astype(np.uint8))
            for x, y, width, height, _ in stats[1:].tolist():
                if max(width, height) >= self.least * max(image.shape[:2]):
                    boxes.append([x, y, x + width, y + height])
                    scores.append(score)
        return RawDetections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, 2))


def drawn(boxes, size=(600, 900), channel=0):
    image = np.zeros((*size, 3), np.uint8)
    for x0, y0, x1, y1 in boxes:
        image[y0:y1, x0:x1, channel] = 255
    return image


def found(image, tiles, least=0.05):
    """Boxes without what two tiles show of the same, which the detect step merges."""
    [raw] = TiledDetector(Blobs(least), tiles).detect([image], PHRASES, 0.3)
    return np.unique(raw.boxes.astype(int), axis=0).tolist()


@given(st.integers(1, 700), st.integers(1, 700), st.integers(64, 200), st.floats(0, 0.5), st.booleans())
def test_tiles_cover_the_image_and_hold_every_object_of_the_overlap(height, width, size, overlap, whole):
    tiles = Tiles(size=size, overlap=overlap, whole=whole)
    seen, has_whole = views(height, width, tiles)
    assert has_whole == (whole or max(height, width) <= size)
    cut = seen[1:] if has_whole and len(seen) > 1 else seen
    for length, ends in ((width, {(v.x0, v.x1) for v in cut}), (height, {(v.y0, v.y1) for v in cut})):
        assert min(low for low, _ in ends) == 0
        assert max(high for _, high in ends) == length
        assert all(0 < high - low <= size for low, high in ends)
        object_size = min(int(size * overlap), length)
        for start in range(length - object_size + 1):
            assert any(low <= start and start + object_size <= high for low, high in ends)


def test_small_objects_are_found_that_the_whole_image_does_not_show():
    boxes = [[10, 10, 25, 30], [190, 190, 210, 214], [880, 580, 900, 600], [400, 20, 420, 41]]
    image = drawn(boxes)
    assert Blobs().detect([image], PHRASES, 0.3)[0].boxes.size == 0
    assert found(image, Tiles(size=256)) == sorted(boxes)


@pytest.mark.parametrize("overlap", [0, 0.2, 0.5])
@pytest.mark.parametrize("box", [[100, 200, 700, 260], [300, 10, 330, 590], [150, 140, 800, 520], [0, 0, 900, 600]])
def test_objects_across_seams_come_out_whole_from_tiles_alone(box, overlap):
    assert found(drawn([box]), Tiles(size=256, overlap=overlap, whole=False), 0.01) == [box]


def test_objects_larger_than_the_overlap_come_from_the_whole_image_and_their_pieces_go():
    large = [150, 140, 800, 520]
    image = drawn([large])
    image[300:320, 400:420] = (0, 0, 255)  # a dog before it, which makes a hole in no tile's outline
    [raw] = TiledDetector(Blobs(0.01), Tiles(size=256)).detect([image], PHRASES, 0.3)
    [labels] = Detect(Blobs(0.01), classes(), DetectorConfig(), Tiles(size=256))([image])
    assert isinstance(labels, Detections)
    assert {tuple(box) for box in raw.boxes.astype(int).tolist()} >= {tuple(large), (400, 300, 420, 320)}
    by_class = {
        (int(index), *box) for index, box in zip(labels.class_indices, labels.boxes.astype(int).tolist(), strict=True)
    }
    assert by_class == {(0, *large), (1, 400, 300, 420, 320)}


def classes():
    from vouch_labels.schemas.campaign import ClassConfig

    return tuple(ClassConfig(name=name) for name in ("cat", "dog"))


def test_neighbours_of_two_classes_at_a_seam_are_not_joined():
    image = drawn([[200, 100, 256, 140]], (300, 512)) + drawn([[256, 100, 320, 140]], (300, 512), channel=2)
    tiles = Tiles(size=256, overlap=0, whole=False)
    assert found(image, tiles, 0.01) == [[200, 100, 256, 140], [256, 100, 320, 140]]


def test_images_not_larger_than_a_tile_are_seen_once_and_as_they_are():
    detector, image = FakeDetector(), np.random.default_rng(0).integers(0, 255, (200, 256, 3)).astype(np.uint8)
    [plain], [tiled] = (
        each.detect([image], PHRASES, 0.3) for each in (detector, TiledDetector(detector, Tiles(size=256)))
    )
    assert np.array_equal(plain.boxes, tiled.boxes)
    assert np.array_equal(plain.scores, tiled.scores)


def test_the_same_objects_as_supervisions_slicer():
    """supervision's slicer leaves pieces; of objects that lie whole in a tile both give the same boxes."""
    rng = np.random.default_rng(3)
    starts = rng.choice(60 * 90, 40, replace=False)
    boxes = sorted(
        {(x * 10, y * 10, x * 10 + 8, y * 10 + 7) for y, x in (divmod(start, 90) for start in starts.tolist())}
    )
    image = drawn(boxes)
    blobs = Blobs(0.01)

    def callback(tile):
        raw = blobs.detect([np.ascontiguousarray(tile)], PHRASES, 0.3)[0]
        return sv.Detections(
            xyxy=raw.boxes.reshape(-1, 4), confidence=raw.scores.max(axis=1), class_id=np.zeros(len(raw.boxes), int)
        )

    theirs = sv.InferenceSlicer(callback=callback, slice_wh=(256, 256), overlap_wh=(52, 52), iou_threshold=0.99)(image)
    ours = np.array(found(image, Tiles(size=256, overlap=0.2, whole=False), 0.01))
    assert list(map(tuple, ours.tolist())) == boxes
    assert (box_iou(ours.astype(np.float32), theirs.xyxy.astype(np.float32)).max(axis=1) == 1).all()


def test_masks_of_tiles_are_those_of_the_whole_image():
    image = drawn([])
    boxes = np.array([[10, 10, 25, 30], [190, 190, 211, 214], [100, 200, 700, 260], [880, 580, 900, 600]], np.float32)
    plain = FakeSegmenter().segment([image], [boxes])[0]
    [none, masks] = TiledSegmenter(FakeSegmenter(), Tiles(size=256)).segment([image, image], [boxes[:0], boxes])
    assert len(none.areas) == 0
    assert masks.rle_counts == plain.rle_counts
    assert np.array_equal(masks.areas, plain.areas)
    assert np.array_equal(masks.boxes, plain.boxes)


def test_a_box_is_masked_where_most_is_to_be_seen_around_it():
    seen = []

    class Watching(FakeSegmenter):
        def segment(self, images, boxes):
            seen.extend(
                (image.shape[:2], prompts.astype(int).tolist()) for image, prompts in zip(images, boxes, strict=True)
            )
            return super().segment(images, boxes)

    boxes = np.array([[240, 100, 260, 120], [10, 10, 890, 590]], np.float32)
    Segment(Watching(), Tiles(size=256, overlap=0.5))([drawn([])], [boxes])
    assert seen[0] == ((600, 900), [[10, 10, 890, 590]])
    (shape, [[x0, y0, x1, y1]]) = seen[1]
    assert shape == (256, 256)
    assert min(x0, 256 - x1) >= 50
    assert y0 == 100
    assert (x1 - x0, y1 - y0) == (20, 20)


def test_tiles_are_given_to_the_model_a_bounded_number_at_once():
    class Counting(Blobs):
        most = 0

        def detect(self, images, phrases, min_score):
            self.most = max(self.most, len(images))
            return super().detect(images, phrases, min_score)

    detector = Counting()
    TiledDetector(detector, Tiles(size=64, overlap=0)).detect([drawn([])] * 2, PHRASES, 0.3)
    assert len(detector.seen) == 2 * (1 + 10 * 15)
    assert detector.most == 32


def test_an_answer_that_is_not_finite_fails_its_image_alone():
    class Broken(Blobs):
        def _find(self, image):
            raw = super()._find(image)
            return RawDetections(raw.boxes, raw.scores * np.nan) if image[0, 0, 1] else raw

    good, bad = drawn([[30, 30, 60, 60]]), drawn([[30, 30, 60, 60]])
    bad[0, 0, 1] = 1
    first, second = TiledDetector(Broken(0.01), Tiles(size=256)).detect([good, bad], PHRASES, 0.3)
    assert np.isfinite(first.scores).all()
    assert len(first.boxes) == 1
    assert np.isnan(second.scores).all()
