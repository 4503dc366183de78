"""A real browser (Debian's chromium, driven by playwright), a review as `vouch review` serves it, a reviewer at it."""

import secrets
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Error, Page
from pymongo import MongoClient

from tests.fake_campaign import draw_images, label, write_campaign
from tests.processes import HANG_S
from tests.requirements import CHROMIUM
from vouch_labels.review_ui.queue.answers import pull_queue
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.review_ui.queue.fill import fill_queue
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.serve import ServeOptions, served
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.queue import Box, Item
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store

REVIEWER = "ann"
WAIT_MS = 1000 * HANG_S
RELOADING = "entry is loading"
"""FiftyOne's router throws it where an item is opened while the App still reloads the samples, as a slow machine lets
it; the item opens all the same, which the tests wait for."""
CLASSES = ["cat", "dog", "ox"]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@dataclass
class Review:
    """A queue that is served to one reviewer."""

    campaign: Campaign
    queue_id: str
    uri: str
    address: str
    """Opens the session without a question for the token."""

    def queue(self) -> Queue:
        """The queue, to be closed."""
        return Queue.open(self.uri, self.queue_id)

    def held(self) -> list[Item]:
        """What is in the session, in order."""
        with self.queue() as queue:
            return queue.held(REVIEWER)

    def verdicts(self) -> list[dict[str, Any]]:
        """Bring the answers into the workspace, and give all that it holds; empty columns are left out."""
        workspace = open_store(self.campaign.workspace)
        pull_queue(self.uri, self.queue_id, workspace)
        rows = read_verdicts(workspace).to_pylist()
        return [{name: value for name, value in row.items() if value is not None} for row in rows]


@contextmanager
def reviewing(campaign: Campaign, uri: str, logs: Path) -> Iterator[Review]:
    """Fill the queue of a campaign that has a review plan, and serve it for the length of the block."""
    queue_id = fill_queue(campaign, uri).queue
    token = secrets.token_urlsafe(16)
    options = ServeOptions(reviewers=(REVIEWER,))
    with served(campaign, queue_id, DatabaseUse(uri, lambda: False), options, {REVIEWER: token}, logs) as sessions:
        yield Review(campaign, queue_id, uri, f"http://127.0.0.1:{sessions[0].port}/?token={token}")


class Reviewer:
    """Somebody at the browser."""

    def __init__(self, browser: Browser, review: Review, width: int = 1400, height: int = 860) -> None:
        """Open the session."""
        self.review = review
        self.context = browser.new_context(viewport={"width": width, "height": height})
        self.page: Page = self.context.new_page()
        self.page.set_default_timeout(WAIT_MS)
        self.complaints: list[str] = []
        self.page.on("pageerror", self._note)
        self.page.goto(review.address)
        self.wait_open()

    def wait_open(self) -> None:
        """Wait until the review shows what it opens on, and put the list of keys away where it is shown."""
        self.page.wait_for_selector(
            "#vouch-sheet h1, :root[data-vouch-item]:not([data-vouch-item=''])", state="attached"
        )
        self.page.wait_for_selector("#vouch-cover", state="detached")
        if self.page.locator("#vouch-keys").count():
            self.page.keyboard.press("?")
            self.page.wait_for_selector("#vouch-keys", state="detached")

    def open_again(self) -> None:
        """Open the session's page again, as who comes back does."""
        self.page.goto(self.page.url.partition("?")[0])
        self.wait_open()

    def _note(self, error: Error) -> None:
        if error.message != RELOADING:
            self.complaints.append(error.stack or error.message)

    def press(self, keys: str) -> None:
        """Press keys, and wait until what they ask for is done."""
        self.page.keyboard.press(keys)
        self.settle()

    def settle(self) -> None:
        """Wait until nothing is on its way."""
        self.await_page(":not([data-vouch-busy=true])")

    def await_page(self, state: str) -> None:
        """Wait until the root of the page matches a selector; while a page loads, it has no root yet."""
        self.page.wait_for_selector(f":root{state}", state="attached")

    def see(self, item: Item) -> None:
        """Wait until an item is ready to be answered."""
        self.await_page(f"[data-vouch-ready='{item.id}']")
        self.page.wait_for_selector("[data-cy=annotate-edit-back]" if item.label_id else "[data-cy=detection-mode]")

    def open(self, item: Item) -> None:
        """Wait until an item is on the screen."""
        self.await_page(f"[data-vouch-item='{item.id}']")

    def gone(self, item: Item) -> None:
        """Wait until an item is on the screen no longer."""
        self.await_page(f":not([data-vouch-item='{item.id}'])")

    def answer(self, item: Item, keys: str) -> None:
        """See an item, and answer it by keys."""
        self.see(item)
        self.press(keys)

    def drag(self, item: Item, box: Box) -> None:
        """Press the mouse at a box's first corner, in the image's pixels, and let it go at the other."""
        shown = self.page.locator("[data-cy=lighter-sample-image]").bounding_box()
        assert shown is not None
        across, down = shown["width"] / item.width, shown["height"] / item.height
        (x0, y0), (x1, y1) = ((shown["x"] + x * across, shown["y"] + y * down) for x, y in (box[:2], box[2:]))
        self.page.mouse.move(x0, y0)
        self.page.mouse.down()
        self.page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2, steps=4)
        self.page.mouse.move(x1, y1, steps=4)
        self.page.mouse.up()

    def leave(self) -> None:
        """Go back to the grid: the App takes a few Escapes, to unselect a label first."""
        while self.page.locator("[data-cy=modal]").count():
            self.page.keyboard.press("Escape")
            self.page.wait_for_timeout(300)

    def item(self) -> str:
        """Id of the item on the screen."""
        return str(self.page.evaluate("document.documentElement.dataset.vouchItem"))

    def message(self) -> str:
        """The line of hints."""
        return self.page.locator("#vouch-line").inner_text()

    def close(self) -> None:
        """Leave."""
        self.context.close()


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        found = play.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=ARGUMENTS)
        yield found
        found.close()


@pytest.fixture(scope="session")
def labelled_folder(tmp_path_factory):
    """The folder of a campaign of fake models with a review plan, to be copied."""
    folder = tmp_path_factory.mktemp("labelled")
    draw_images(folder, 40, (320, 240), (1, 3))
    campaign = write_campaign(folder, classes=CLASSES)
    label(campaign)
    plan_reviews(campaign, ReviewRequest(minutes=5, images=2, misses=8))
    return folder


@pytest.fixture(scope="session")
def mongo(tmp_path_factory):
    """Address of a database server for all tests of this process."""
    with mongod(tmp_path_factory.mktemp("mongod")) as address:
        yield address


@pytest.fixture
def review(labelled_folder, mongo, tmp_path, monkeypatch):
    """A served queue of this test's own: a database by a name of its own, a copy of the campaign; six items a batch."""
    name = f"test-{uuid.uuid4().hex}"
    monkeypatch.setenv("FIFTYONE_DATABASE_NAME", name)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    shutil.copytree(labelled_folder, tmp_path / "labelled")
    campaign = write_campaign(tmp_path / "labelled", classes=CLASSES, review={"batch": 6})
    (tmp_path / "logs").mkdir()
    with reviewing(campaign, mongo, tmp_path / "logs") as served:
        yield served
    with MongoClient(mongo) as client:
        client.drop_database(name)


@pytest.fixture
def reviewer(browser, review):
    """A reviewer who has opened the session; afterwards nothing may have gone wrong in the page."""
    found = Reviewer(browser, review)
    yield found
    found.close()
    assert found.complaints == []
