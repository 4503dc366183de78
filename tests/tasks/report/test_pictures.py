"""Pictures of labels."""

import base64
import hashlib
import io

import numpy as np
import pytest
from PIL import Image

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import ObjectRefusedError, StoreAccessError, StoreError
from vouch_labels.schemas.report import Picture
from vouch_labels.tasks.report.render import SIDE, thumbnails
from vouch_labels.tasks.store.local import LocalStore


@pytest.fixture
def source(tmp_path):
    return LocalStore(tmp_path)


def save(tmp_path, name="a.png", size=(200, 100), orientation=None):
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    pixels[40:60, 20:40] = (250, 250, 250)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    return hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def picture(key="a.png", box=(20, 40, 40, 60), kind="accepted"):
    return Picture(kind=kind, label_id="1", key=key, class_name="cat", box=box, accepted=True, reason="")


def pixels_of(thumbnail):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail.data)))).astype(int)


def cut(tmp_path, source, *pictures, contents=None, **config):
    return thumbnails(pictures, source, Source(uri=str(tmp_path), **config), contents or {})


def test_a_label_is_shown_with_its_box_and_surroundings(tmp_path, source):
    save(tmp_path)
    [found] = cut(tmp_path, source, picture())
    shown = pixels_of(found)
    assert shown.shape == (SIDE, SIDE, 3)
    assert (shown[SIDE // 2, SIDE // 2] > 200).all()
    green = (shown[..., 1] > shown[..., 0] + 60) & (shown[..., 1] > 120)
    assert green.sum() > SIDE  # the box
    assert (shown[4, 4] < 80).all()  # the surroundings


def test_boxes_lie_on_the_upright_image(tmp_path, source):
    # Turned by 90 degrees: what is at (20..40, 40..60) of 200 x 100 comes to (40..60, 20..40) of 100 x 200.
    save(tmp_path, "turned.jpg", orientation=6)
    [found] = cut(tmp_path, source, picture("turned.jpg", (40, 20, 60, 40)))
    assert (pixels_of(found)[SIDE // 2, SIDE // 2] > 200).all()


@pytest.mark.parametrize("box", [(-10, -10, 5, 5), (190, 90, 400, 300), (50, 50, 50, 50)])
def test_boxes_at_the_border_and_without_area_are_shown(tmp_path, source, box):
    save(tmp_path)
    [found] = cut(tmp_path, source, picture(box=box))
    assert pixels_of(found).shape == (SIDE, SIDE, 3)


def test_a_missing_a_damaged_and_a_changed_image_leave_a_note(tmp_path, source):
    save(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG nothing")
    keys = ("gone.png", "bad.png", "a.png")
    found = cut(tmp_path, source, *map(picture, keys), contents={"a.png": "0" * 64})
    assert [one.data for one in found] == ["", "", ""]
    assert [one.note for one in found] == [
        "the image has left the source", "the image cannot be decoded", "the image has changed since it was labelled",
    ]  # fmt: skip


@pytest.mark.parametrize("refused", [ObjectRefusedError, StoreAccessError, StoreError])
def test_an_image_that_may_not_be_read_leaves_a_note(tmp_path, refused):
    class Source(LocalStore):
        def get(self, key):
            if key == "closed.png":
                raise refused("denied")
            return super().get(key)

    for name in ("a.png", "closed.png"):
        save(tmp_path, name)
    found = cut(tmp_path, Source(tmp_path), picture("closed.png"), picture())
    assert (found[0].data, found[0].note) == ("", "the image cannot be read")
    assert found[1].data


def test_an_image_that_is_too_large_is_not_read(tmp_path, source):
    sha256 = save(tmp_path, "a.bmp")
    [found] = cut(tmp_path, source, picture("a.bmp"), contents={"a.bmp": sha256}, max_image_mb=0.01)
    assert found.note == "the image is too large"


def test_the_order_is_that_of_the_labels(tmp_path, source):
    save(tmp_path, "a.png")
    save(tmp_path, "b.png")
    found = cut(tmp_path, source, picture("b.png"), picture("none.png"), picture("a.png"), picture("b.png"))
    assert [bool(one.data) for one in found] == [True, False, True, True]
