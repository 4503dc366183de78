"""A MongoDB server for many tests, a labelled campaign with review plans, and queues filled from it or made up."""

import shutil
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.review_ui.queue.database import SCHEMA, QueueStore, connect, make_indices, mongod
from vouch_labels.review_ui.queue.documents import Writer
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.reasons import QuestionDetails, Task
from vouch_labels.schemas.queue import FillOutcome, Item
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.reviews.overlay import HumanLabel
from vouch_labels.tasks.store.open import open_store

RUN = "main"
CLASSES = ("cat", "dog")


@pytest.fixture(scope="session")
def mongo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server that the tests of this process share; each uses a database of its own, see `uri`."""
    with mongod(tmp_path_factory.mktemp("mongod")) as address:
        yield address


@pytest.fixture
def uri(mongo: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The server's address, with a database of this test's own set in the environment."""
    name = f"test-{uuid.uuid4().hex}"
    monkeypatch.setenv("FIFTYONE_DATABASE_NAME", name)
    yield mongo
    database = connect(mongo)
    database.client.drop_database(name)
    database.close()


@pytest.fixture(scope="session")
def planned_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a campaign of fake models with a review plan, to be copied."""
    folder = tmp_path_factory.mktemp("planned")
    draw_images(folder, 60)
    campaign = write_campaign(folder)
    label(campaign)
    plan_reviews(campaign, ReviewRequest(minutes=5, images=3, misses=5))
    return folder


class Planned:
    """A labelled campaign with a review plan, and the queue that is filled from it."""

    def __init__(self, folder: Path, uri: str) -> None:
        self.folder, self.uri = folder, uri
        self.campaign = write_campaign(folder)

    def change(self, **sections: Any) -> None:
        """Change the campaign."""
        self.campaign = write_campaign(self.folder, **sections)

    @property
    def workspace(self) -> Any:
        return open_store(self.campaign.workspace)

    def fill(self) -> FillOutcome:
        return fill_queue(self.campaign, self.uri)

    def open(self) -> Queue:
        """Fill the queue and open it; to be closed by the test."""
        return Queue.open(self.uri, self.fill().queue)


@pytest.fixture
def planned(planned_once: Path, tmp_path: Path, uri: str) -> Planned:
    """A copy of the labelled campaign of this test's own, with a database."""
    folder = tmp_path / "planned"
    shutil.copytree(planned_once, folder)
    return Planned(folder, uri)


@pytest.fixture
def make_queue(uri: str) -> Iterator[Callable[..., Queue]]:
    """Make up a queue of so many items about labels, two an image; lease_ms and wanted (reviews each) as given."""
    opened = []

    def make(count: int, *, lease_ms: int = 86_400_000, wanted: int = 1, name: str = "0123456789ab") -> Queue:
        database = connect(uri)
        make_indices(database)
        settings = {"_id": name, "schema": SCHEMA, "run": RUN, "classes": list(CLASSES), "lease_ms": lease_ms, "seq": 0}
        database.queues.insert_one(settings)
        images, tasks = [], []
        for number in range(count):
            key, label_id = f"{number // 2:05d}.jpg", f"{number:032x}"
            box = (float(10 * (number % 2)), 5.0, float(10 * (number % 2) + 8), 20.0)
            label = ExportLabel(label_id, CLASSES[number % 2], box, b"b43]100000^e2", 0, 0.5, None, "review", "0")
            if number % 2:
                images[-1].labels.append(label)
            else:
                images.append(ExportImage(key, 64, 48, [label]))
            tasks.append(Task(label_id, number, 1, "doubtful", "label", key, CLASSES[number % 2], label_id, box, 1.6))
        corrections = HumanLabel.of(VERDICTS.empty_table(), CLASSES)
        Writer(QueueStore.read(database, name), corrections, QuestionDetails(), lambda item, purpose: wanted).write(
            images, tasks
        )
        database.close()
        opened.append(Queue.open(uri, name))
        return opened[-1]

    yield make
    for queue in opened:
        queue.close()


@pytest.fixture
def let_leases_run_out(uri: str) -> Iterator[Callable[[], None]]:
    """Moves the end of all leases into the past, as if so much time had gone by."""
    database = connect(uri)

    def run_out() -> None:
        past = database.now() - timedelta(minutes=1)
        database.items.update_many({"leases.0": {"$exists": True}}, {"$set": {"leases.$[].until": past}})

    yield run_out
    database.close()


@pytest.fixture
def rows() -> Callable[..., list[dict[str, Any]]]:
    """Rows that answer an item: correct, or checked, unless given otherwise."""

    def answer(item: Item, verdict: str | None = None, **columns: Any) -> list[dict[str, Any]]:
        if item.label_id is None:
            return [{"key": item.key, "verdict": verdict or "checked", "class_name": item.class_name, **columns}]
        return [{"key": item.key, "label_id": item.label_id, "verdict": verdict or "correct", **columns}]

    return answer
