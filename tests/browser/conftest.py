"""A real browser: Debian's chromium, driven by playwright, which fetches none of its own; and a served review."""

import shutil
import uuid

import pytest
from pymongo import MongoClient

from tests.browser.reviewing import Reviewer, reviewing
from tests.fake_campaign import draw_images, label, write_campaign
from tests.requirements import CHROMIUM
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews

CLASSES = ["cat", "dog", "ox"]
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


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
