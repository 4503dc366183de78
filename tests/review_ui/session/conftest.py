"""An item about a cat with a mask, and the document of its sample as FiftyOne keeps it; sessions on a real server."""

import io
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bson import ObjectId

from tests.review_ui.fiftyone_here import database_of_fiftyone
from vouch_labels.review_ui.queue.database import connect
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.session.samples import object_id
from vouch_labels.review_ui.session.session import ReviewSession
from vouch_labels.schemas.queue import Item
from vouch_labels.tasks.boxes_masks import rle_of_crop

CLASSES = ("cat", "dog", "ox")
WIDTH, HEIGHT = 640, 480
BOX = (100.25, 50.5, 200.75, 150.0)
LABEL = "92544228c2b4388929b21b3f"
QUEUE = "0123456789ab"


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
        reason="",
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
    """A detection as MongoDB has it; box in pixels."""

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


@pytest.fixture
def uri(mongo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address, with FiftyOne's own database set in the environment; it is empty afterwards."""
    name = database_of_fiftyone(mongo, tmp_path)
    monkeypatch.setenv("FIFTYONE_DATABASE_NAME", name)
    yield mongo
    import fiftyone as fo

    for dataset in fo.list_datasets():
        fo.delete_dataset(dataset)
    database = connect(mongo)
    for collection in database.client[name].list_collection_names(filter={"name": {"$regex": "^vouch_"}}):
        database.client[name].drop_collection(collection)
    database.close()


@pytest.fixture
def make_session(make_queue: Callable[..., Queue]) -> Callable[..., ReviewSession]:
    """Make up a queue as make_queue does, and open ann's session."""

    def make(count: int, **options: Any) -> ReviewSession:
        return ReviewSession(make_queue(count, **options), "ann")

    return make


@pytest.fixture
def restarted(uri: str) -> Iterator[Callable[[], ReviewSession]]:
    """Open ann's session as a server does that was started again."""
    opened = []

    def restart() -> ReviewSession:
        opened.append(Queue.open(uri, QUEUE))
        return ReviewSession(opened[-1], "ann")

    yield restart
    for queue in opened:
        queue.close()


@pytest.fixture
def draw() -> Callable[..., None]:
    """Change the question of an item in a session as the App does: its label by keywords, and boxes beside it."""

    def change(session: ReviewSession, item: str, *new: dict[str, Any], **parts: Any) -> None:
        import fiftyone as fo

        sample = fo.load_dataset(session.name).match({"item": item}).first()
        for name, value in parts.items():
            sample.question.detections[0][name] = value
        sample.question.detections.extend(fo.Detection(**one) for one in new)
        sample.save()

    return change


@pytest.fixture
def documents(uri: str) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """All documents of a collection of the queue."""
    database = connect(uri)
    yield lambda name: list(getattr(database, name).find())
    database.close()
