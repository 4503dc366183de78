"""What goes wrong while somebody reviews: answers that do not arrive, pages that break, servers that end."""

import os
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pymongo import MongoClient

from tests.browser.conftest import ARGUMENTS, REVIEWER, Reviewer
from tests.requirements import CHROMIUM

pytestmark = pytest.mark.browser
DRAWN = (200, 190, 260, 230)


@pytest.fixture
def gone(reviewer):
    """The item that comes first, whose image was deleted while it waited for review."""
    item, *_ = reviewer.review.held()
    (Path(reviewer.review.campaign.source.uri) / item.key).unlink()
    return item


def test_an_item_whose_image_is_gone_can_only_be_skipped(reviewer, gone):
    reviewer.open_again()
    reviewer.open(gone)
    reviewer.page.locator("#vouch-line").get_by_text("cannot be shown").wait_for()
    for keys in ("Alt+Enter", "Alt+n", "Alt+b", "Alt+1"):
        reviewer.press(keys)
        assert reviewer.item() == gone.id
        assert "cannot be shown: skip it (Alt+S)" in reviewer.message()
    reviewer.press("Alt+s")
    reviewer.gone(gone)
    assert reviewer.review.verdicts() == []
    assert gone.id not in {item.id for item in reviewer.review.held()}


FAIL_ONCE = """
const src = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...src,
  set(address) {
    const fails = this.dataset.cy === "lighter-sample-image" && !sessionStorage.getItem("failed");
    if (fails) sessionStorage.setItem("failed", "true");
    src.set.call(this, fails ? `${address}&lost` : address);
  },
});
"""


KEEP_SUBMITTING = """() => setInterval(
  () => window.dispatchEvent(new KeyboardEvent("keydown", { code: "Enter", altKey: true, cancelable: true })), 500)"""


def test_an_image_that_came_for_all_but_the_app_is_loaded_again(reviewer):
    page = reviewer.page
    page.route("**/media?*&lost", lambda route: route.abort())
    # A request of the App's own: the browser makes one of all those for the same address.
    page.add_init_script(FAIL_ONCE)
    [item, *_] = reviewer.review.held()
    page.reload()
    reviewer.open(item)
    page.wait_for_selector("#vouch-cover", state="detached")
    # The App says nothing when it has given up: a key that comes before that is answered with a message.
    with page.expect_navigation():
        page.evaluate(KEEP_SUBMITTING)
    reviewer.answer(item, "Alt+Enter")
    assert [row["label_id"] for row in reviewer.review.verdicts()] == [item.id]


def test_crops_whose_image_is_gone_are_left_out_of_the_grid(reviewer, gone):
    # A page that has shown an image keeps it.
    reviewer.open_again()
    reviewer.press("Alt+g")
    broken = reviewer.page.locator(f"#vouch-grid .tile.broken[data-item='{gone.id}']")
    broken.wait_for()
    assert broken.get_attribute("aria-label") == "cannot be shown"
    reviewer.page.wait_for_selector("#vouch-grid[data-ready]")
    tiles = reviewer.page.locator("#vouch-grid .tile")
    shown = [tiles.nth(place).get_attribute("data-item") for place in range(tiles.count())]
    key_of = {item.id: item.key for item in reviewer.review.held()}
    reviewer.press("Alt+Enter")
    verdicts = {row["label_id"]: row["verdict"] for row in reviewer.review.verdicts()}
    assert verdicts == {name: "correct" for name in shown if key_of[name] != gone.key}
    assert verdicts
    assert "skipped: they cannot be shown" in reviewer.message()


# A browser that is killed in the middle of a batch: what was submitted is there, and the rest comes back.


@pytest.fixture
def doomed(browser):
    """A browser of this test's own, to be killed."""
    found = browser.browser_type.launch(executable_path=str(CHROMIUM), headless=True, args=ARGUMENTS)
    yield found
    found.close()


@pytest.fixture
def left(doomed, review):
    """A session whose reviewer answered two of six items and drew a box into the next, and whose browser died."""
    reviewer = Reviewer(doomed, review)
    first, second, third, fourth, *rest = review.held()
    reviewer.answer(first, "Alt+Enter")
    reviewer.answer(second, "Alt+n")
    reviewer.see(third)
    reviewer.press("Alt+d")
    reviewer.drag(third, DRAWN)
    reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
    # Going on waits until the drawing is saved.
    reviewer.press("ArrowRight")
    reviewer.see(fourth)
    with reviewer.page.expect_event("close"):
        kill(doomed)
    assert answers(review) == [(first.key, "correct"), (second.key, "not_an_object")]
    return [third, fourth, *rest]


def kill(browser):
    """Kill -9 a browser's main process, with which those of its pages end."""
    processes = browser.new_browser_cdp_session().send("SystemInfo.getProcessInfo")["processInfo"]
    [pid] = [one["id"] for one in processes if one["type"] == "browser"]
    os.kill(pid, signal.SIGKILL)


def answers(review):
    return [(row["key"], row["verdict"]) for row in review.verdicts()]


def let_leases_run_out(review):
    """Move the end of all leases into the past, as if there had been no sign of life for so long."""
    past = datetime.now(UTC) - timedelta(minutes=1)
    with MongoClient(review.uri) as client:
        items = client[os.environ["FIFTYONE_DATABASE_NAME"]].vouch_items
        items.update_many({"leases.0": {"$exists": True}}, {"$set": {"leases.$[].until": past}})


def test_a_new_browser_finds_the_session_as_it_was_left(left, reviewer):
    review = reviewer.review
    assert [item.id for item in review.held()] == [item.id for item in left]
    reviewer.press("Alt+t")
    for item in left:
        reviewer.answer(item, "Alt+Enter")
    # The session was filled up to a batch again.
    reviewer.see(review.held()[0])
    third, *rest = left
    rows = review.verdicts()[2:]
    assert [(row["key"], row["verdict"]) for row in rows] == [
        (third.key, "correct"),
        (third.key, "missed"),
        *((item.key, "correct") for item in rest),
    ]
    assert [rows[1][side] for side in ("x0", "y0", "x1", "y1")] == pytest.approx(DRAWN, abs=1.5)


def test_another_gets_the_rest_when_the_leases_ran_out(left, review, browser):
    ids = {item.id for item in left}
    with review.queue() as queue:
        assert not ids & {item.id for item in queue.take("ben", 6)}
        let_leases_run_out(review)
        assert ids <= {item.id for item in queue.take("ben", 600)}
        assert queue.held(REVIEWER) == []
    back = Reviewer(browser, review)
    assert back.page.locator("#vouch-sheet h1").inner_text().startswith("Nothing is left to ask you")
    assert "other reviewers still have" in back.page.locator("#vouch-sheet p").first.inner_text()
    back.close()
    assert len(answers(review)) == 2
