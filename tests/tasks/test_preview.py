import tempfile

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.preview import CAPTION, GAP, PAPER, draw_grid, draw_refs, preview, write_preview


@pytest.fixture
def labelled(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    return campaign


def test_it_draws_some_images(labelled, tmp_path):
    path = tmp_path / "preview.png"
    assert write_preview(labelled, path, count=4, columns=2) == 4
    picture = np.asarray(Image.open(path))
    assert picture.shape[0] > picture.shape[1] * 0.9
    assert np.ptp(picture.astype(int), axis=-1).max() > 50


def test_images_that_have_gone_are_left_out(labelled, tmp_path):
    (tmp_path / "images" / "000.png").unlink()
    assert write_preview(labelled, tmp_path / "preview.png") == 5


def test_nothing_to_show_writes_nothing(labelled, tmp_path):
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    assert write_preview(labelled, tmp_path / "preview.png") == 0
    assert not (tmp_path / "preview.png").exists()


def test_mistakes(make_campaign, labelled, tmp_path):
    with pytest.raises(UserError, match="cannot be written"):
        write_preview(labelled, tmp_path / "missing" / "preview.png")
    with pytest.raises(UserError, match="no labels yet"):
        write_preview(make_campaign(run={"name": "other"}), tmp_path / "preview.png")


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


def test_an_interrupted_preview_leaves_nothing_behind(tmp_path, make_images, make_campaign, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    make_images(tmp_path / "images", 3)

    def interrupted(*rest):
        assert list(scratch.iterdir())
        raise KeyboardInterrupt

    monkeypatch.setattr("vouch_labels.tasks.preview.process_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        preview(make_campaign(), tmp_path / "picture.png", 3)
    assert list(scratch.iterdir()) == []
    assert not (tmp_path / "picture.png").exists()
    assert not (tmp_path / "workspace").exists()


def test_images_are_drawn_by_seed_whatever_their_order():
    refs = [ImageRef(f"{number}.png", "", 1) for number in range(200)]
    drawn = draw_refs(refs, 20, seed=3)
    assert drawn == draw_refs(reversed(refs), 20, seed=3) == sorted(drawn)
    assert drawn != draw_refs(refs, 20, seed=4)
    assert draw_refs(refs[:5], 20, seed=3) == sorted(refs[:5])


def test_waiting_labels_show_mask_and_score_where_all_details_are_wanted():
    pixels = np.full((100, 100, 3), 255, np.uint8)
    mask = np.zeros((100, 100), bool)
    mask[40:80, 40:80] = True
    image = (pixels, ExportImage("b.png", 100, 100, [label((40, 40, 80, 80), "review", mask=mask)]))
    plain, detailed = (draw_grid([image], ["cat"], side=200, detailed=detail) for detail in (False, True))
    inside = (slice(110, 150), slice(110, 150))
    assert (tile(plain, 200)[inside] == 255).all()
    assert tile(detailed, 200)[inside].max() < 255
    legend = draw_grid([image], ["cat"], side=200, legend="grey: waits")
    assert legend.height == plain.height + CAPTION
