"""Answers out of the queue: into the workspace exactly once, and into files."""

from concurrent.futures import ThreadPoolExecutor
from unittest.mock import Mock

import pytest

from tests import fake_campaign
from vouch_labels.review_ui.queue import answers as pull_module
from vouch_labels.review_ui.queue.answers import UNDONE, export_queue, pull_queue
from vouch_labels.review_ui.queue.database import connect
from vouch_labels.review_ui.queue.fill import queue_id
from vouch_labels.review_ui.queue.queue import Queue
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.errors import LeaseLostError, UserError, VouchError
from vouch_labels.tasks.reviews.import_verdicts import import_files
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.resolve import resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts


@pytest.fixture
def database(uri):
    found = connect(uri)
    yield found
    found.close()


@pytest.fixture
def events(database):
    return lambda **which: list(database.events.find(which).sort("seq"))


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
    assert (outcome.verdicts, outcome.undone) == (1, 1)
    assert read_verdicts(planned.workspace)["label_id"].to_pylist() == [kept.id]


def test_what_the_workspace_has_cannot_be_taken_back(planned, rows, events):
    """It would count for ever, beside whatever is answered then."""
    with planned.open() as queue:
        (item,) = answer(queue, rows, 1)
        pull(planned)
        with pytest.raises(VouchError, match=r"cannot be taken back here; .* vouch verdicts CAMPAIGN FILE"):
            queue.undo("ann")
        assert queue.held("ann") == []
        assert progress(queue, "ann").answered_by_me == 1
        (later,) = answer(queue, rows, 1)
        assert queue.undo("ann").id == later.id
        queue.skip("ann", later.id, queue.held("ann")[0].epoch)
        with pytest.raises(VouchError, match="cannot be taken back"):
            queue.undo("ann")
    assert [event["item"] for event in events(what="undone")] == [later.id]
    assert pull(planned).verdicts == 0
    assert resolve(read_verdicts(planned.workspace)).label_ids == (item.id,)


def test_of_what_was_drawn_in_an_image_the_refusal_names_that_it_stays(planned, rows):
    with planned.open() as queue:
        item = queue.take("ann", 1, kind="image")[0]
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
        pull(planned)
        with pytest.raises(VouchError, match="what was checked and drawn stays"):
            queue.undo("ann")


@pytest.mark.parametrize(
    ("step", "wins"), [("_claim", True), ("read_verdicts", False), ("write_verdicts", False), ("_mark", False)]
)
def test_of_an_undo_and_a_pull_that_race_one_wins(planned, rows, monkeypatch, step, wins):
    """Up to the claim the undo does, and from then on the pull, though nothing is written yet."""
    errors = []
    with planned.open() as queue:
        answer(queue, rows, 2)
        original = getattr(pull_module, step)

        def racing(*given):
            try:
                queue.undo("ann")
            except VouchError as error:
                errors.append(str(error))
            return original(*given)

        monkeypatch.setattr(pull_module, step, racing)
        assert pull(planned).verdicts == (1 if wins else 2)
        assert len(queue.held("ann")) == (1 if wins else 0)
    assert bool(errors) is not wins


def test_undos_and_pulls_at_once_leave_in_the_workspace_what_counts(planned, rows):
    with planned.open() as queue:
        items = answer(queue, rows, 30)

        def take_back():
            try:
                while queue.undo("ann") is not None:
                    pass
            except VouchError:
                return

        with ThreadPoolExecutor(2) as pool:
            undone = pool.submit(take_back)
            pool.submit(pull, planned).result()
            undone.result()
        counting = {item.id for item in items} - {item.id for item in queue.held("ann")}
        pull(planned)
    assert sorted(read_verdicts(planned.workspace)["label_id"].to_pylist()) == sorted(counting)


@pytest.mark.parametrize("step", ["read_verdicts", "write_verdicts", "_mark"])
def test_a_pull_that_was_killed_loses_and_doubles_nothing(planned, rows, monkeypatch, step):
    with planned.open() as queue:
        answer(queue, rows, 3)
        with monkeypatch.context() as patch:
            patch.setattr(pull_module, step, Mock(side_effect=KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                pull(planned)
        with pytest.raises(VouchError, match="cannot be taken back"):
            queue.undo("ann")
        assert planned.fill().again == 0  # though the workspace may not have them yet
        again = pull(planned)
    assert (again.answers, again.verdicts + again.known) == (3, 3)
    assert read_verdicts(planned.workspace).num_rows == 3


def test_an_answer_whose_undo_was_killed_is_asked_again_when_the_queue_is_opened(planned, rows, database, events):
    with planned.open() as queue:
        (item,) = answer(queue, rows, 1)
    database.events.update_one({"what": "submitted"}, {"$set": {"pulled": UNDONE}})  # as after a kill right then
    for _ in range(2):
        with planned.open() as queue:
            assert progress(queue, "ann").answered_by_me == 0
            assert pull(planned).verdicts == 0
            assert len(events(what="undone")) == 1
    with planned.open() as queue:
        assert queue.take("ann", 1)[0].id == item.id


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


def test_simulated_answers_are_marked(planned, rows):
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


def test_a_queue_that_is_not_there_is_reported(planned):
    with pytest.raises(UserError, match="there is no review queue 'feedfeedfeed'"):
        pull_queue(planned.uri, "feedfeedfeed", planned.workspace)
    with pytest.raises(UserError, match="there is no review queue 'feedfeedfeed'"):
        Queue.open(planned.uri, "feedfeedfeed")


def test_people_see_the_new_name_of_a_class_and_the_workspace_keeps_the_former(planned):
    former = {row["label_id"]: row["class_name"] for _, tasks in read_plans(planned.workspace, "main")
              for row in tasks.to_pylist() if row["label_id"]}  # fmt: skip
    dog = {"prompts": ["dog", "puppy"], "negatives": ["wolf"]}
    planned.change(classes=["cat", dog | {"name": "hound", "was": "dog"}])
    fake_campaign.label(planned.campaign)
    with planned.open() as queue:
        assert queue.shown == ("cat", "hound")
        assert set(progress(queue, "ann").by_class) <= {"", "cat", "hound"}
        (hound,) = queue.take("ann", 1, kind="label", class_name="hound")
        assert (hound.class_name, former[hound.label_id]) == ("hound", "dog")
        assert "dog" not in {one.class_name for one in hound.others}
        queue.submit("ann", hound.id, hound.epoch, [{"label_id": hound.label_id, "verdict": "correct"}], 1.0)
        cat = next(one for one in queue.take("ann", 9, kind="label", class_name="cat") if one.class_name == "cat")
        rows = [{"label_id": cat.label_id, "verdict": "wrong_class", "class_name": "hound"}]
        queue.submit("ann", cat.id, cat.epoch, rows, 1.0)
        assert queue.answered("ann", [cat.id])[cat.id][0]["class_name"] == "hound"
        pull_queue(planned.uri, queue.id, planned.workspace)
    verdicts = read_verdicts(planned.workspace)
    assert dict(zip(verdicts["verdict"].to_pylist(), verdicts["class_name"].to_pylist(), strict=True)) == {
        "correct": None,
        "wrong_class": "dog",
    }
