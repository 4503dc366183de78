"""Answers out of the queue: into the workspace exactly once, and into files."""

import pytest

from review_ui.queue.connect import connect
from review_ui.queue.fill import queue_id
from review_ui.queue.pull import export_queue, pull_queue
from review_ui.queue.queue import Queue
from schemas.errors import LeaseLostError, UserError
from tasks.reviews.import_file import import_files
from tasks.reviews.resolve import resolve
from tasks.reviews.verdicts import read_verdicts


@pytest.fixture
def database(uri):
    found = connect(uri)
    yield found
    found.close()


def pull(planned):
    return pull_queue(planned.uri, queue_id(planned.campaign), planned.workspace)


def answer(queue, rows, count, reviewer="ann", verdict=None):
    items = queue.take(reviewer, count)
    for item in items:
        queue.submit(reviewer, item.id, item.epoch, rows(item, verdict), 1.5)
    return items


def test_answers_get_into_the_workspace_once(planned, rows):
    with planned.open() as queue:
        items = answer(queue, rows, 5)
        first = pull(planned)
        assert (first.verdicts, first.answers, first.known, first.earlier) == (5, 5, 0, 0)
        table = read_verdicts(planned.workspace)
        assert table["label_id"].to_pylist() == [item.id for item in items]
        assert set(table["reviewer"].to_pylist()) == {"ann"}
        assert set(table["seconds"].to_pylist()) == {1.5}
        assert set(table["simulated"].to_pylist()) == {False}
        assert None not in table["reviewed_at"].to_pylist()
        again = pull(planned)
        assert (again.verdicts, again.answers, again.earlier, again.file) == (0, 0, 5, "")
        answer(queue, rows, 2)
        assert pull(planned).verdicts == 2
    assert read_verdicts(planned.workspace).num_rows == 7


def test_a_pull_that_was_killed_before_its_mark_adds_nothing_twice(planned, rows, database):
    with planned.open() as queue:
        answer(queue, rows, 4)
        pull(planned)
        database.events.update_many({"what": "submitted"}, {"$unset": {"pulled": ""}})
        answer(queue, rows, 1)
    again = pull(planned)
    assert (again.verdicts, again.known) == (1, 4)
    assert read_verdicts(planned.workspace).num_rows == 5
    assert database.events.count_documents({"what": "submitted", "pulled": None}) == 0


def test_what_was_undone_before_is_left_out(planned, rows):
    with planned.open() as queue:
        kept, _ = answer(queue, rows, 2)
        queue.undo("ann")
    outcome = pull(planned)
    assert (outcome.verdicts, outcome.undone, outcome.undone_late) == (1, 1, 0)
    assert read_verdicts(planned.workspace)["label_id"].to_pylist() == [kept.id]


def test_what_is_undone_after_is_asked_again_and_the_new_answer_counts(planned, rows):
    with planned.open() as queue:
        (item,) = answer(queue, rows, 1)
        pull(planned)
        again = queue.undo("ann")
        outcome = pull(planned)
        assert (outcome.verdicts, outcome.undone, outcome.undone_late) == (0, 0, 1)
        queue.give_back("ann")
        assert planned.fill().removed == 0  # the workspace has an answer, which was taken back
        again = queue.take("ann", 1)[0]
        assert again.id == item.id
        queue.submit("ann", again.id, again.epoch, rows(again, "not_an_object"), 1.0)
    assert pull(planned).verdicts == 1
    answers = resolve(read_verdicts(planned.workspace))
    assert (answers.label_ids, answers.verdict) == ((item.id,), ["not_an_object"])


def test_late_answers_are_named_and_left_out(planned, rows):
    with planned.open() as queue:
        item = queue.take("ann", 1)[0]
        with pytest.raises(LeaseLostError):
            queue.submit("bob", item.id, item.epoch, rows(item), 1.0)
    outcome = pull(planned)
    assert (outcome.verdicts, outcome.late, outcome.late_items) == (0, 1, (item.id,))


def test_missed_objects_and_masks_come_along_and_time_counts_once(planned, rows):
    with planned.open() as queue:
        item = next(item for item in queue.take("ann", 100) if item.rle)
        drawn = {"key": item.key, "verdict": "missed", "class_name": "cat", "x0": 1, "y0": 2, "x1": 30, "y1": 40}
        moved = {"x0": 0.5, "y0": 1, "x1": 20, "y1": 30, "rle_counts": item.rle}
        answered = [*rows(item, "bad_box", **moved), drawn | {"rle_counts": item.rle}]
        queue.submit("ann", item.id, item.epoch, answered, 9.0)
    assert pull(planned).verdicts == 2
    table = read_verdicts(planned.workspace).to_pylist()
    by_verdict = {row["verdict"]: row for row in table}
    assert by_verdict["bad_box"]["rle_counts"] == by_verdict["missed"]["rle_counts"] == item.rle
    assert (by_verdict["bad_box"]["seconds"], by_verdict["missed"]["seconds"]) == (9.0, None)
    assert by_verdict["missed"]["key"] == item.key


def test_simulated_answers_say_so(planned, rows):
    with planned.open() as queue:
        item = queue.take("robot", 1)[0]
        queue.submit("robot", item.id, item.epoch, rows(item), None, simulated=True)
    pull(planned)
    assert read_verdicts(planned.workspace)["simulated"].to_pylist() == [True]


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_an_export_is_a_verdict_file(planned, rows, tmp_path, suffix):
    with planned.open() as queue:
        answer(queue, rows, 3)
        pull(planned)
        answer(queue, rows, 2)
        queue.undo("ann")
    path = tmp_path / f"answers{suffix}"
    assert export_queue(planned.uri, queue_id(planned.campaign), path) == 4
    (outcome,) = import_files(planned.campaign, [path], "somebody")
    assert (outcome.rows, outcome.imported, outcome.known) == (4, 1, 3)
    assert pull(planned).verdicts == 0  # the one not pulled came with the file


def test_a_queue_that_is_not_there_is_told(planned):
    with pytest.raises(UserError, match="there is no review queue 'feedfeedfeed'"):
        pull_queue(planned.uri, "feedfeedfeed", planned.workspace)
    with pytest.raises(UserError, match="there is no review queue 'feedfeedfeed'"):
        Queue.open(planned.uri, "feedfeedfeed")
