"""Leases of items, and what of an item a second person sees."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from tests.processes import until
from vouch_labels.review_ui.queue.answers import pull_queue
from vouch_labels.review_ui.queue.database import QueueStore, connect
from vouch_labels.review_ui.queue.items import visible_verdicts
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.local import LocalStore

QUEUE = "0123456789ab"
DRAWN = {"verdict": "missed", "class_name": "dog", "x0": 1.3, "y0": 2, "x1": 9, "y1": 11}


@pytest.fixture
def events(uri):
    database = connect(uri)
    yield lambda **which: list(database.events.find(which).sort("seq"))
    database.close()


def ids(items):
    return [item.id for item in items]


def test_items_come_in_order_and_are_held(make_queue):
    queue = make_queue(10)
    taken = queue.take("ann", 4)
    assert [item.place for item in taken] == [0, 1, 2, 3]
    assert queue.held("ann") == taken
    assert all(queue.holds("ann", item.id) for item in taken)
    assert not queue.holds("bob", taken[0].id)
    assert [item.place for item in queue.take("bob", 3)] == [4, 5, 6]


def test_taking_again_fills_the_session_up(make_queue):
    queue = make_queue(10)
    first = queue.take("ann", 3)
    assert ids(queue.take("ann", 3)) == ids(first)
    assert ids(queue.take("ann", 5))[:3] == ids(first)
    assert len(queue.held("ann")) == 5


def test_only_one_kind_or_class_is_taken_where_asked_for(make_queue):
    queue = make_queue(6)
    queue.take("ann", 1)
    dogs = queue.take("ann", 2, class_name="dog")
    assert [item.class_name for item in dogs] == ["dog", "dog"]
    assert queue.take("ann", 5, kind="image") == []
    assert queue.take("ann", 5, class_name="") == []
    assert len(queue.held("ann")) == 3


def test_a_batch_has_no_more_than_there_is(make_queue):
    queue = make_queue(3)
    assert len(queue.take("ann", 10)) == 3
    assert queue.take("bob", 10) == []


def test_eight_threads_lease_two_thousand_items_each_once(make_queue, uri):
    queue = make_queue(2000)

    def work(number):
        database = connect(uri)
        queue = Queue.read(database, "0123456789ab")
        found = []
        while True:
            batch = [item.id for item in queue.take(f"reviewer {number}", len(found) + 100)]
            if len(batch) == len(found):
                database.close()
                return batch
            found = batch

    with ThreadPoolExecutor(8) as pool:
        taken = [item for items in pool.map(work, range(8)) for item in items]
    assert len(taken) == len(set(taken)) == 2000
    assert progress(queue, "somebody else").open == 0


def test_two_reviewers_empty_the_queue_and_none_is_lost(make_queue, rows, uri, events):
    make_queue(60)

    def work(name):
        with Queue.open(uri, "0123456789ab") as queue:
            submitted = []
            while items := queue.take(name, 7):
                for item in items:
                    queue.submit(name, item.id, item.epoch, rows(item), 1.0)
                    submitted.append(item.id)
            return submitted

    with ThreadPoolExecutor(2) as pool:
        submitted = [item for items in pool.map(work, ("ann", "bob")) for item in items]
    assert len(submitted) == len(set(submitted)) == 60
    assert sorted(event["item"] for event in events(what="submitted")) == sorted(submitted)


def test_what_ran_out_goes_to_the_next(make_queue, events, let_leases_run_out):
    queue = make_queue(4)
    first = queue.take("ann", 2)
    let_leases_run_out()
    assert queue.holds("ann", first[0].id)  # nobody else has asked for it
    second = queue.take("bob", 2)
    assert ids(second) == ids(first)
    assert [item.epoch for item in second] == [item.epoch + 1 for item in first]
    assert not queue.holds("ann", first[0].id)
    assert queue.held("ann") == []
    assert Counter(event["item"] for event in events(what="expired", reviewer="ann")) == Counter(ids(first))


def test_a_lease_that_is_renewed_stays(make_queue, let_leases_run_out):
    queue = make_queue(2)
    mine = queue.take("ann", 1)
    end = queue.renew("ann")
    until(lambda: queue.renew("ann") > end)
    let_leases_run_out()
    assert queue.renew("ann") > end
    assert ids(queue.take("bob", 2)) != ids(mine)
    assert queue.holds("ann", mine[0].id)


def test_a_lease_that_ran_out_can_be_renewed_while_nobody_else_has_the_item(make_queue, let_leases_run_out):
    queue = make_queue(2)
    mine = queue.take("ann", 1)
    let_leases_run_out()
    assert [(item.id, item.epoch) for item in queue.take("ann", 1)] == [(mine[0].id, mine[0].epoch)]


def test_items_given_back_are_open_to_all(make_queue, events):
    queue = make_queue(5)
    mine = queue.take("ann", 4)
    assert queue.give_back("ann", [mine[1].id, "no such item"]) == 1
    assert ids(queue.take("bob", 1)) == [mine[1].id]
    assert queue.give_back("ann") == 3
    assert queue.held("ann") == []
    assert queue.give_back("ann") == 0
    assert len(events(what="returned")) == 4
    assert ids(queue.take("ann", 1)) == [mine[0].id]


def test_skipped_items_come_back_only_when_nothing_else_is_left(make_queue):
    queue = make_queue(3)
    first = queue.take("ann", 1)[0]
    queue.skip("ann", first.id, first.epoch)
    assert [item.place for item in queue.take("ann", 2)] == [1, 2]
    queue.give_back("ann")
    assert [item.place for item in queue.take("ann", 3)] == [0, 1, 2]
    assert progress(queue, "ann").open == 0


def test_a_skipped_item_is_anybody_elses_at_once(make_queue):
    queue = make_queue(2)
    first = queue.take("ann", 1)[0]
    queue.skip("ann", first.id, first.epoch)
    assert ids(queue.take("bob", 1)) == [first.id]
    queue.skip("ann", first.id, first.epoch)  # held no more: nothing happens
    assert queue.holds("bob", first.id)


def test_names_of_reviewers_are_no_expressions(make_queue, rows):
    queue = make_queue(2)
    item = queue.take("$item", 1)[0]
    queue.submit("$item", item.id, item.epoch, rows(item), 1.0)
    assert progress(queue, "$item").answered_by_me == 1
    assert [one.place for one in queue.take("$item", 5)] == [1]


def test_an_item_that_two_shall_answer_is_leased_to_two(make_queue, rows):
    queue = make_queue(1, wanted=2)
    ann, bob = queue.take("ann", 1), queue.take("bob", 1)
    assert ids(ann) == ids(bob)
    assert queue.take("cem", 1) == []
    queue.submit("ann", ann[0].id, ann[0].epoch, rows(ann[0]), 1.0)
    assert queue.take("cem", 1) == []
    queue.give_back("bob")
    assert queue.take("ann", 1) == []
    assert ids(queue.take("cem", 1)) == ids(ann)


# What a second person is not to see, and what everybody sees though it is by the first.


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
