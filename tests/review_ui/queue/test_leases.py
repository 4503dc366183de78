"""Leases on a real server: nobody shares an item, nothing is lost."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.waiting import until
from vouch_labels.review_ui.queue.database import connect
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress


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
