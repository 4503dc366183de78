"""An item about a cat with a mask, and the document of its sample as FiftyOne keeps it."""

import io
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bson import ObjectId

from review_ui.desk.ids import object_id
from schemas.queue import Item
from tasks.rle import rle_of_crop

CLASSES = ("cat", "dog", "ox")
WIDTH, HEIGHT = 640, 480
BOX = (100.25, 50.5, 200.75, 150.0)
LABEL = "92544228c2b4388929b21b3f"


def packed(mask: np.ndarray) -> bytes:
    """As fiftyone.core.utils.serialize_numpy_array does; importing that starts a database."""
    file = io.BytesIO()
    np.save(file, mask, allow_pickle=False)
    return zlib.compress(file.getvalue())


@pytest.fixture
def item() -> Item:
    crop = np.zeros((90, 80), np.bool_)
    crop[10:80, 10:70] = True
    return Item(
        id=LABEL,
        place=0,
        kind="label",
        key="street/7.jpg",
        width=WIDTH,
        height=HEIGHT,
        class_name="cat",
        label_id=LABEL,
        box=BOX,
        rle=rle_of_crop(crop, 110, 55, HEIGHT, WIDTH),
        words="",
        seconds=2.0,
        epoch=1,
        others=(),
    )


@pytest.fixture
def bare(item: Item) -> Item:
    """The item without a mask."""
    return item.model_copy(update={"rle": None})


@pytest.fixture
def about_image(item: Item) -> Item:
    return item.model_copy(
        update={
            "id": "street/7.jpg\tdog",
            "kind": "image",
            "class_name": "dog",
            "label_id": None,
            "box": None,
            "rle": None,
        }
    )


@pytest.fixture
def label() -> Callable[..., dict[str, Any]]:
    """A detection as it lies in MongoDB; box in pixels."""

    def make(box=BOX, name="cat", label_id=None, mask=None, **parts):
        x0, y0, x1, y1 = box
        return {
            "_id": object_id(label_id) if label_id else ObjectId(),
            "_cls": "Detection",
            "label": name,
            "bounding_box": [x0 / WIDTH, y0 / HEIGHT, (x1 - x0) / WIDTH, (y1 - y0) / HEIGHT],
            **({} if mask is None else {"mask": packed(mask)}),
            **parts,
        }

    return make


@pytest.fixture
def sample() -> Callable[..., dict[str, Any]]:
    def make(*labels):
        return {"question": {"_cls": "Detections", "detections": list(labels)}}

    return make
