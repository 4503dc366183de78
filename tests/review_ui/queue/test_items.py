"""What a second person is not to see, and what everybody sees though it is by the first."""

from datetime import UTC, datetime

import pyarrow as pa
import pytest

from vouch_labels.review_ui.queue.database import QueueStore, connect
from vouch_labels.review_ui.queue.items import visible_verdicts
from vouch_labels.review_ui.queue.sync import pull_queue
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.local import LocalStore

QUEUE = "0123456789ab"
DRAWN = {"verdict": "missed", "class_name": "dog", "x0": 1.3, "y0": 2, "x1": 9, "y1": 11}


@pytest.fixture
def workspace(tmp_path):
    return LocalStore(tmp_path / "workspace")


@pytest.fixture
def left(workspace, uri):
    """The verdicts of the workspace, after a pull, that everybody may see."""

    def look():
        pull_queue(uri, QUEUE, workspace)
        database = connect(uri)
        found = visible_verdicts(QueueStore.read(database, QUEUE), read_verdicts(workspace)).to_pylist()
        database.close()
        return [(row["verdict"], row["reviewer"]) for row in found]

    return look


def answer(queue, rows, reviewer, number=0):
    """Answer a question and draw an object beside it."""
    item = next(item for item in queue.take(reviewer, 10) if int(item.id, 16) == number)
    drawn = {"key": item.key, **DRAWN, "rle_counts": item.rle}
    queue.submit(reviewer, item.id, item.epoch, [*rows(item), drawn], 1.5)
    return item


def from_elsewhere(workspace, item, reviewer):
    """Import what a reviewer answered and drew about the same label and image without this queue."""
    about = {"reviewer": reviewer, "reviewed_at": datetime(2026, 1, 1, tzinfo=UTC), "simulated": False}
    answers = [{"key": item.key, **DRAWN}, {"label_id": item.id, "verdict": "bad_box"}]
    rows = [dict.fromkeys(VERDICTS.names) | about | row for row in answers]
    write_verdicts(workspace, pa.Table.from_pylist(rows, schema=VERDICTS))


def test_answers_that_wait_for_a_second_are_left_out_until_it_is_there(make_queue, rows, left):
    queue = make_queue(2, wanted=2)
    answer(queue, rows, "ann")
    assert left() == []
    answer(queue, rows, "bob")
    assert sorted(left()) == [("correct", "ann"), ("correct", "bob"), ("missed", "ann"), ("missed", "bob")]


def test_what_the_same_person_answered_elsewhere_stays(make_queue, rows, left, workspace):
    queue = make_queue(2, wanted=2)
    from_elsewhere(workspace, answer(queue, rows, "ann"), "ann")
    assert sorted(left()) == [("bad_box", "ann"), ("missed", "ann")]


def test_what_was_drawn_with_a_question_that_has_its_answers_stays(make_queue, rows, left):
    queue = make_queue(2, wanted=2)
    for reviewer in ("ann", "bob"):
        answer(queue, rows, reviewer, 0)
    answer(queue, rows, "ann", 1)
    assert sorted(left()) == [("correct", "ann"), ("correct", "bob"), ("missed", "ann"), ("missed", "bob")]


def test_a_queue_that_asks_one_person_each_leaves_nothing_out(make_queue, rows, left):
    answer(make_queue(2), rows, "ann")
    assert sorted(left()) == [("correct", "ann"), ("missed", "ann")]
