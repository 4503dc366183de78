"""Answers on a real server: each once, late ones kept apart, undone ones asked again.

Undos that were killed half-way, completed while others work in the queue.

Which answers of a reviewer count: their own, and not those that were taken back.

Rows of answers: what is no answer to the item is refused before anything is written.

The log of change requests.
"""

from datetime import UTC, datetime, timedelta

import pytest

from vouch_labels.review_ui.queue import answers, state
from vouch_labels.review_ui.queue.answers import UNDONE
from vouch_labels.review_ui.queue.database import QueueStore, connect
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.errors import LeaseLostError, VouchError


@pytest.fixture
def database(uri):
    found = connect(uri)
    yield found
    found.close()


@pytest.fixture
def events(database):
    return lambda **which: list(database.events.find(which).sort("seq"))


def test_an_answer_is_kept_with_all_that_was_answered(make_queue, rows, events):
    queue = make_queue(2)
    item = queue.take("ann", 1)[0]
    drawn = {"key": item.key, "verdict": "missed", "class_name": "dog", "x0": 1, "y0": 2, "x1": 3, "y1": 4}
    queue.submit("ann", item.id, item.epoch, [*rows(item, "wrong_class", class_name="dog"), drawn], 2.5)
    (event,) = events(what="submitted")
    assert (event["item"], event["reviewer"], event["epoch"], event["seconds"]) == (item.id, "ann", item.epoch, 2.5)
    assert [(row["verdict"], row["class_name"]) for row in event["verdicts"]] == [
        ("wrong_class", "dog"),
        ("missed", "dog"),
    ]
    assert not queue.holds("ann", item.id)
    assert progress(queue, "ann").answered == 1


def test_an_answer_sent_twice_counts_once(make_queue, rows, events):
    queue = make_queue(2)
    item = queue.take("ann", 1)[0]
    for seconds in (1.0, 2.0):
        queue.submit("ann", item.id, item.epoch, rows(item), seconds)
    (event,) = events(what="submitted")
    assert event["seconds"] == 1.0
    assert events(what="late") == []


def test_another_answer_to_what_was_answered_is_reported_and_kept(make_queue, rows, events):
    queue = make_queue(2)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    with pytest.raises(LeaseLostError, match="take it back"):
        queue.submit("ann", item.id, item.epoch, rows(item, "not_an_object"), 1.0)
    (event,), (late,) = events(what="submitted"), events(what="late")
    assert (event["verdict"], late["verdict"]) == ("correct", "not_an_object")


def test_an_answer_is_later_than_the_one_before_though_the_clock_was_put_back(make_queue, rows, database, events):
    queue = make_queue(2)
    first, second = queue.take("ann", 2)
    queue.submit("ann", first.id, first.epoch, rows(first), 1.0)
    ahead = datetime.now(UTC) + timedelta(hours=1)
    database.queues.update_one({}, {"$set": {"now": ahead}})
    queue.submit("ann", second.id, second.epoch, rows(second), 1.0)
    assert events(what="submitted")[1]["at"] > ahead - timedelta(milliseconds=1)


def test_an_answer_after_the_lease_counts_while_nobody_else_has_the_item(make_queue, rows, events, let_leases_run_out):
    queue = make_queue(2)
    first, second = queue.take("ann", 2)
    let_leases_run_out()
    queue.submit("ann", first.id, first.epoch, rows(first), 1.0)
    # Somebody else asks for one, and gives it back.
    assert [item.id for item in queue.take("bob", 1)] == [second.id]
    queue.give_back("bob")
    queue.submit("ann", second.id, second.epoch, rows(second), 1.0)
    assert [event["item"] for event in events(what="submitted")] == [first.id, second.id]
    assert progress(queue, "ann").answered == 2


def test_an_answer_to_what_is_anothers_is_kept_and_does_not_count(make_queue, rows, events, let_leases_run_out):
    queue = make_queue(1)
    mine = queue.take("ann", 1)[0]
    let_leases_run_out()
    theirs = queue.take("bob", 1)[0]
    for _ in range(2):
        with pytest.raises(LeaseLostError, match="another's by now: your answer is kept in the log"):
            queue.submit("ann", mine.id, mine.epoch, rows(mine, "not_an_object"), 1.0)
    (late,) = events(what="late")
    assert late["verdicts"][0]["verdict"] == "not_an_object"
    queue.submit("bob", theirs.id, theirs.epoch, rows(theirs), 1.0)
    assert [event["reviewer"] for event in events(what="submitted")] == ["bob"]
    with pytest.raises(LeaseLostError):
        queue.submit("ann", mine.id, mine.epoch, rows(mine), 1.0)


def test_an_answer_without_a_lease_is_late(make_queue, rows):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    with pytest.raises(LeaseLostError):
        queue.submit("bob", item.id, item.epoch, rows(item), 1.0)
    assert queue.holds("ann", item.id)


def test_an_answer_with_an_epoch_that_never_was_is_late(make_queue, rows):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.give_back("ann")
    with pytest.raises(LeaseLostError):
        queue.submit("ann", item.id, item.epoch + 1, rows(item), 1.0)


def test_an_answer_whose_event_alone_was_written_is_completed(make_queue, rows, database, events):
    queue = make_queue(2)
    item = queue.take("ann", 2)[0]
    before = database.items.find_one({"item": item.id})
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    # As after a kill between the two writes.
    database.items.replace_one({"_id": before["_id"]}, before)
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    assert progress(queue, "ann").answered == 1
    assert len(events(what="submitted")) == 1


def test_such_an_answer_is_completed_by_another_one_which_is_reported(make_queue, rows, database, events):
    queue = make_queue(2)
    item = queue.take("ann", 2)[0]
    before = database.items.find_one({"item": item.id})
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    database.items.replace_one({"_id": before["_id"]}, before)
    with pytest.raises(LeaseLostError, match="take it back"):
        queue.submit("ann", item.id, item.epoch, rows(item, "not_an_object"), 1.0)
    assert [event["verdict"] for event in events(what="submitted")] == ["correct"]
    assert not queue.holds("ann", item.id)
    assert queue.undo("ann").id == item.id


def test_opening_a_queue_completes_such_an_answer_and_so_does_the_end_of_the_lease(
    make_queue, rows, database, uri, let_leases_run_out
):
    queue = make_queue(2)
    items = queue.take("ann", 2)
    before = list(database.items.find())
    for item in items:
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    database.items.replace_one({"_id": before[0]["_id"]}, before[0])
    with type(queue).open(uri, "0123456789ab") as other:
        assert progress(other, "ann").answered == 2
    database.items.replace_one({"_id": before[1]["_id"]}, before[1])
    let_leases_run_out()
    assert queue.take("bob", 1) == []
    assert progress(queue, "ann").answered == 2


def test_undo_takes_back_the_last_answer_and_leases_the_item_again(make_queue, rows, events):
    queue = make_queue(3)
    first, second = queue.take("ann", 2)
    for item in (first, second):
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    again = queue.undo("ann")
    assert (again.id, again.epoch) == (second.id, second.epoch + 1)
    assert queue.holds("ann", second.id)
    assert progress(queue, "ann").answered_by_me == 1
    queue.submit("ann", again.id, again.epoch, rows(again, "not_an_object"), 1.0)
    assert queue.undo("ann").id == second.id
    assert queue.undo("ann").id == first.id
    assert queue.undo("ann") is None
    assert [event["item"] for event in events(what="undone")] == [second.id, second.id, first.id]
    assert progress(queue, "ann").answered_by_me == 0


def test_what_one_takes_back_leaves_the_answer_of_the_other(make_queue, rows):
    queue = make_queue(1, wanted=2)
    for name in ("ann", "bob"):
        item = queue.take(name, 1)[0]
        queue.submit(name, item.id, item.epoch, rows(item), 1.0)
    assert queue.undo("ann").id == item.id
    assert progress(queue, "ann").answered == 0
    assert progress(queue, "bob").answered_by_me == 1
    assert queue.take("bob", 1) == []


def test_an_old_answer_sent_again_after_undo_is_passed_over(make_queue, rows, events):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    queue.undo("ann")
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    assert len(events(what="submitted")) == 1
    assert queue.holds("ann", item.id)


def test_an_undo_that_was_cut_short_is_done_again(make_queue, rows, database, events):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    queue.undo("ann")
    # As after a kill between the two writes.
    database.events.delete_one({"what": "undone"})
    assert queue.undo("ann").id == item.id
    assert len(events(what="undone")) == 1
    assert len(database.items.find_one()["leases"]) == 1


def test_what_is_anothers_by_now_is_taken_back_and_stays_theirs(make_queue, rows, database, events):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    database.items.update_one({"item": item.id}, state.ask_again())
    queue.take("bob", 1)
    with pytest.raises(VouchError, match="another's by now"):
        queue.undo("ann")
    assert [event["item"] for event in events(what="undone")] == [item.id]
    assert not queue.holds("ann", item.id)
    assert queue.holds("bob", item.id)
    assert queue.undo("ann") is None


def test_what_was_drawn_and_rejected_is_in_the_other_items_of_the_image(make_queue, rows):
    queue = make_queue(2)
    first, second = queue.take("ann", 2)
    assert [label.label_id for label in second.others] == [first.id]
    drawn = {"key": first.key, "verdict": "missed", "class_name": "dog", "x0": 30, "y0": 30, "x1": 40, "y1": 40}
    queue.submit("ann", first.id, first.epoch, [*rows(first, "not_an_object"), drawn], 1.0)
    (only,) = queue.held("ann")[0].others
    assert (only.class_name, only.box) == ("dog", (30, 30, 40, 40))
    assert only.label_id.startswith("missed-")
    queue.undo("ann")
    assert [label.label_id for label in queue.held("ann")[1].others] == [first.id]


def test_the_second_of_two_does_not_see_what_the_first_answered_and_drew(make_queue, rows):
    queue = make_queue(2, wanted=2)
    mine = queue.take("ann", 1)[0]
    drawn = {"key": mine.key, "verdict": "missed", "class_name": "dog", "x0": 30, "y0": 30, "x1": 40, "y1": 40}
    queue.submit("ann", mine.id, mine.epoch, [*rows(mine, "not_an_object"), drawn], 1.0)
    same, other = queue.take("bob", 2)
    assert same.model_copy(update={"epoch": mine.epoch}) == mine
    assert [label.label_id for label in other.others] == [mine.id]  # nor beside the other label of the image
    assert [label.box for label in queue.take("ann", 1)[0].others] == [(30, 30, 40, 40)]
    queue.submit("bob", same.id, same.epoch, rows(same), 1.0)
    assert (30, 30, 40, 40) in [label.box for label in queue.held("bob")[0].others]


def test_an_image_that_is_none_of_the_queue_is_unknown(make_queue):
    queue = make_queue(1)
    assert queue.has_image("00000.jpg")
    assert not queue.has_image("../etc/passwd")
    assert queue.classes == ("cat", "dog")


@pytest.fixture
def undoing(make_queue, rows, uri):
    """A queue of one item for two, whose answer by ann is marked as taken back, and no more."""
    queue = make_queue(1, wanted=2)
    (item,) = queue.take("ann", 1)
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    database = connect(uri)
    database.events.update_one({"what": "submitted"}, {"$set": {"pulled": UNDONE}})
    yield Queue.read(database, "0123456789ab")
    database.close()


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something happen each time between reading the item and its change."""
    happened = QueueStore.happened

    def patch(act):
        def found(self, what, keys):
            if what == "undone":
                act()
            return happened(self, what, keys)

        monkeypatch.setattr(QueueStore, "happened", found)

    return patch


def answered_by(queue):
    return queue.database.items.find_one()["answered_by"]


def undone(queue):
    return queue.database.events.count_documents({"what": "undone"})


def test_an_undo_is_completed_though_another_takes_the_item_meanwhile(undoing, meanwhile):
    meanwhile(lambda: undoing.take("bob", 1))
    undoing.complete()
    assert (answered_by(undoing), undone(undoing)) == ([], 1)
    assert [one["reviewer"] for one in undoing.database.items.find_one()["leases"]] == ["bob"]


def test_an_undo_that_finds_no_moment_is_not_recorded_and_done_the_next_time(undoing, meanwhile):
    attempts = []

    def take_again():
        attempts.append(undoing.give_back("bob"))
        assert undoing.take("bob", 1)

    meanwhile(take_again)
    undoing.complete()
    assert (answered_by(undoing), undone(undoing)) == (["ann"], 0)
    assert len(attempts) > 1
    meanwhile(lambda: None)
    undoing.complete()
    assert (answered_by(undoing), undone(undoing)) == ([], 1)


def test_of_an_answer_that_its_item_has_lost_the_undo_is_recorded(undoing):
    undoing.database.items.update_one({}, {"$set": {"answered_by": []}})
    undoing.complete()
    assert (answered_by(undoing), undone(undoing)) == ([], 1)


def test_the_answers_of_a_reviewer_that_count(make_queue, rows):
    queue = make_queue(4)
    first, second, third, fourth = queue.take("ann", 4)
    queue.give_back("ann", [fourth.id])
    [other] = queue.take("bob", 1)
    for reviewer, item in (("ann", first), ("ann", second), ("ann", third), ("bob", other)):
        queue.submit(reviewer, item.id, item.epoch, rows(item), 1.0)
    assert queue.undo("ann").id == third.id
    asked = [first.id, third.id, other.id, "unknown"]
    assert {name: rows[0]["verdict"] for name, rows in queue.answered("ann", asked).items()} == {first.id: "correct"}
    [again] = [item for item in queue.held("ann") if item.id == third.id]
    queue.submit("ann", again.id, again.epoch, rows(again, "not_an_object"), 1.0)
    assert queue.answered("ann", asked)[third.id][0]["verdict"] == "not_an_object"
    assert queue.answered("ann", []) == {}


BOX = {"x0": 1, "y0": 2, "x1": 3, "y1": 4}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"verdict": "fine"}, "is answered by one of correct, wrong_class"),
        ({"verdict": "checked"}, "is answered by one of correct, wrong_class"),
        ({"verdict": "missed", "class_name": "dog", **BOX}, "a missed object has no label"),
        ({"verdict": "missed", "label_id": None, "class_name": "dog", **BOX}, "one verdict about its item"),
        ({"label_id": "another"}, "about another label or image"),
        ({"key": "another.jpg"}, "about another label or image"),
        ({"label_id": None}, "is answered by one of correct, wrong_class"),
        ({"verdict": "wrong_class", "class_name": "cat"}, "the label is 'cat' already"),
        ({"verdict": "wrong_class", "class_name": "horse"}, "'horse' is no class of the campaign"),
        ({"verdict": "bad_box", **BOX, "x1": 0}, "a box is not x0 < x1"),
        ({"reviewer": "eve"}, "has no column 'reviewer'"),
        ({"verdict": "bad_box", **BOX, "rle_counts": b"P13700000l0"}, "pixels"),
        ({"verdict": "bad_box", **BOX, "rle_counts": b"\xff"}, "no compressed COCO RLE"),
    ],
)
def test_what_is_no_verdict_is_refused(make_queue, rows, change, message):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    (row,) = rows(item)
    with pytest.raises(ValueError, match=message):
        queue.submit("ann", item.id, item.epoch, [row | change], 1.0)
    assert queue.holds("ann", item.id)


def test_an_answer_needs_a_row_and_a_time_that_is_one(make_queue, rows):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    with pytest.raises(ValueError, match="one verdict"):
        queue.submit("ann", item.id, item.epoch, [], 1.0)
    for seconds in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="no time"):
            queue.submit("ann", item.id, item.epoch, rows(item), seconds)
    with pytest.raises(ValueError, match="no item of the queue"):
        queue.submit("ann", "another", 1, rows(item), 1.0)


def test_a_question_about_an_image_is_answered_by_checked_of_what_was_looked_for(planned, rows):
    with planned.open() as queue:
        item = queue.take("ann", 1, kind="possible_miss")[0]
        for verdict in (rows(item, class_name=None), rows(item, "missed", **BOX), rows(item, label_id="x")):
            with pytest.raises(ValueError, match=r"`checked`|one verdict|another label"):
                queue.submit("ann", item.id, item.epoch, verdict, 1.0)
        queue.submit("ann", item.id, item.epoch, [*rows(item, "missed", **BOX), *rows(item)], 1.0)


@pytest.mark.parametrize(("verdict", "kept"), [("correct", True), ("not_an_object", False)])
def test_a_mask_is_fixed_though_class_and_box_are_right(make_queue, rows, verdict, kept):
    queue = make_queue(1)
    item = queue.take("ann", 1)[0]
    queue.submit("ann", item.id, item.epoch, rows(item, verdict, class_name="dog", **BOX, rle_counts=item.rle), 1.0)
    row = queue.database.events.find_one({"what": "submitted"})["verdicts"][0]
    assert [row["class_name"], row["x0"]] == [None, None]
    assert (row["rle_counts"] == item.rle) is kept


def test_an_answer_keeps_how_far_the_box_was_corrected(make_queue, rows):
    queue = make_queue(2)
    kept, moved = queue.take("ann", 2)
    x0, y0, x1, y1 = moved.box
    half = {"x0": x0, "y0": y0, "x1": (x0 + x1) / 2, "y1": y1}
    queue.submit("ann", kept.id, kept.epoch, rows(kept), 1.0)
    queue.submit("ann", moved.id, moved.epoch, rows(moved, "bad_box", **half), 1.0)
    events = queue.database.events.find({"what": "submitted"}, sort=[("seq", 1)])
    assert [one["box_iou"] for one in events] == [None, pytest.approx(0.5)]


def test_what_was_sent_is_kept_as_it_came(make_queue, database):
    queue = make_queue(1)
    for body in (b'[{"op": "replace"}]', b"\xff\x00", b""):
        queue.log("ann", "PATCH", "/dataset/1/sample/2?x=1", body, 423)
    first, second, third = database.requests.find().sort("_id")
    assert (first["reviewer"], first["method"], first["path"], first["status"]) == (
        "ann", "PATCH", "/dataset/1/sample/2?x=1", 423,
    )  # fmt: skip
    assert (first["body"], second["body"], third["body"]) == ('[{"op": "replace"}]', b"\xff\x00", "")
    assert not first["cut"]
    assert abs(first["at"] - database.now()) < timedelta(minutes=1)


def test_a_body_beyond_what_a_document_takes_is_cut(make_queue, database, monkeypatch):
    monkeypatch.setattr(answers, "MOST_BYTES", 10)
    make_queue(1).log("ann", "PATCH", "/", b"0123456789abc", 200)
    (entry,) = database.requests.find()
    assert (entry["body"], entry["cut"]) == ("0123456789", True)
