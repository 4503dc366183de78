import numpy as np
import pytest
from pycocotools import mask as coco

from tasks.labels.records import ExportImage, ExportLabel
from tasks.preview.grid import CAPTION, GAP, PAPER, draw_grid


def label(xyxy, decision="accept", class_name="cat", mask=None):
    counts = None if mask is None else coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]
    area = 0 if mask is None else int(mask.sum())
    return ExportLabel("id", class_name, xyxy, counts, area, 0.9, None, decision, "user")


def tile(sheet, side, place=0):
    left = GAP + place * (side + GAP)
    return np.asarray(sheet)[GAP : GAP + side, left : left + side].astype(int)


@pytest.mark.parametrize(
    ("count", "columns", "shape"), [(1, 4, (1, 1)), (4, 4, (1, 4)), (5, 4, (2, 4)), (3, 1, (3, 1))]
)
def test_size(count, columns, shape):
    pixels = np.zeros((30, 60, 3), np.uint8)
    sheet = draw_grid([(pixels, ExportImage("a.png", 60, 30, []))] * count, ["cat"], columns, side=64)
    assert sheet.size == (shape[1] * (64 + GAP) + GAP, shape[0] * (64 + CAPTION + GAP) + GAP)


def test_image_keeps_its_proportions_and_colours():
    pixels = np.full((50, 100, 3), (200, 10, 30), np.uint8)
    drawn = tile(draw_grid([(pixels, ExportImage("a.png", 100, 50, []))], ["cat"], side=128), 128)
    assert np.abs(drawn[64, 64] - (200, 10, 30)).max() <= 1
    assert (drawn[10, 64] == PAPER).all()


def test_accepted_labels_are_coloured_where_their_mask_is_and_waiting_ones_only_framed():
    pixels = np.full((100, 100, 3), 255, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[40:80, 40:80] = True
    accepted = ExportImage("a.png", 100, 100, [label((40, 40, 80, 80), mask=mask)])
    waiting = ExportImage("b.png", 100, 100, [label((40, 40, 80, 80), "review", mask=mask)])
    sheet = draw_grid([(pixels, accepted), (pixels, waiting)], ["cat"], side=200)
    inside = (slice(110, 150), slice(110, 150))
    assert np.ptp(tile(sheet, 200, 0)[inside], axis=-1).min() > 20
    assert (tile(sheet, 200, 1)[inside] == 255).all()
    edge = tile(sheet, 200, 1)[120, 76:86]
    assert edge.min() < 200


def test_label_without_a_mask_and_of_another_class():
    pixels = np.full((100, 100, 3), 255, np.uint8)
    images = [(pixels, ExportImage("a.png", 100, 100, [label((10, 50, 90, 95), class_name=name)])) for name in "ab"]
    first, second = (tile(draw_grid([image], ["a", "b"], side=200), 200)[140, 15:25] for image in images)
    assert (first != second).any()


def test_long_keys_are_cut():
    pixels = np.zeros((8, 8, 3), np.uint8)
    sheet = draw_grid([(pixels, ExportImage("folder/" * 50 + "a.png", 8, 8, []))], ["cat"], side=200)
    assert (np.asarray(sheet)[:, -GAP + 1 :] == PAPER).all()


def test_captions_of_ones_own_stand_under_the_images():
    image = (np.zeros((8, 8, 3), np.uint8), ExportImage("a.png", 8, 8, []))
    own, blank = (np.asarray(draw_grid([image], ["cat"], side=200, captions=[words])) for words in ("found", ""))
    assert (blank[GAP + 200 :] == PAPER).all()
    assert (own[GAP + 200 :] != PAPER).any()
    assert (own[: GAP + 200] == blank[: GAP + 200]).all()
