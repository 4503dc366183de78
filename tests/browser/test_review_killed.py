"""A browser that is killed in the middle of a batch: what was submitted is there, and the rest comes back."""

import os
import signal
from datetime import UTC, datetime, timedelta

import pytest
from pymongo import MongoClient

from tests.browser.conftest import ARGUMENTS
from tests.browser.reviewing import REVIEWER, Reviewer
from tests.requirements import CHROMIUM

pytestmark = pytest.mark.browser

DRAWN = (200, 190, 260, 230)


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
