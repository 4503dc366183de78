"""Figures of the queue, for those who review and for who runs it.

Whatever reviewers and pulls do in whatever order: nobody shares an item, and every answer is there once.
"""

import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vouch_labels.review_ui.queue import answers, state
from vouch_labels.review_ui.queue.database import QueueStore, connect
from vouch_labels.review_ui.queue.status import left_for, progress, queue_status
from vouch_labels.schemas.errors import VouchError
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.local import LocalStore


@pytest.fixture
def status(uri):
    database = connect(uri)
    yield lambda name="0123456789ab": queue_status(QueueStore.read(database, name))
    database.close()


def test_everything_is_counted_from_the_reviewers_place(make_queue, rows):
    queue = make_queue(10)
    items = queue.take("ann", 4)
    queue.take("bob", 3)
    for item in items[:2]:
        queue.submit("ann", item.id, item.epoch, rows(item), 3.0)
    mine, theirs = progress(queue, "ann"), progress(queue, "bob")
    assert (mine.open, mine.leased, mine.answered, mine.mine, mine.answered_by_me) == (3, 5, 2, 2, 2)
    assert (theirs.open, theirs.leased, theirs.answered, theirs.mine, theirs.answered_by_me) == (3, 5, 2, 3, 0)
    assert mine.by_class == {"cat": 1, "dog": 2}
    assert mine.by_kind == {"label": 3}
    assert (mine.seconds_each, theirs.seconds_each) == (3.0, None)


def test_the_plans_seconds_count_until_the_own_speed_is_known(make_queue, rows):
    queue = make_queue(20)
    items = queue.take("ann", 12)
    for number, item in enumerate(items, 1):
        queue.submit("ann", item.id, item.epoch, rows(item), 6.0)
        left = 20 - number
        expected = left * (6.0 if number >= 10 else 1.6) / 60
        if number in (1, 9, 10, 12):
            assert progress(queue, "ann").minutes_left == pytest.approx(expected, rel=1e-3)


def test_agreement_is_that_of_the_items_that_two_have_answered(make_queue, rows, status):
    queue = make_queue(4, wanted=2)
    assert (status().twice, status().agreement) == (0, None)
    for name, verdicts in (("ann", ["correct"] * 4), ("bob", ["correct", "correct", "not_an_object"])):
        for item, verdict in zip(queue.take(name, len(verdicts)), verdicts, strict=True):
            queue.submit(name, item.id, item.epoch, rows(item, verdict), 1.0)
    assert (status().twice, status().agreement) == (3, pytest.approx(2 / 3))
    assert progress(queue, "ann").open == 0  # the fourth waits for somebody else
    assert progress(queue, "cem").open == 1
    queue.undo("bob")
    assert (status().twice, status().agreement) == (2, 1.0)


def test_a_reviewers_progress_counts_alike_whether_others_have_read_an_item(make_queue, rows):
    def answer_three(queue, name):
        """How the counts go from one answer to the next."""
        queue.take(name, 3)
        for item in queue.held(name):
            queue.submit(name, item.id, item.epoch, rows(item), 1.0)
            found = progress(queue, name)
            yield found.open, found.leased, found.answered, found.mine, found.answered_by_me

    alone = list(answer_three(make_queue(4, name="a" * 12), "ann"))
    read_twice = make_queue(4, wanted=2, name="b" * 12)
    assert list(answer_three(read_twice, "ann")) == list(answer_three(read_twice, "bob")) == alone


def test_who_runs_it_sees_purposes_and_reviewers(make_queue, rows, status):
    queue = make_queue(5)
    items = queue.take("ann", 3)
    queue.submit("ann", items[0].id, items[0].epoch, rows(items[0]), 2.0)
    queue.submit("ann", items[1].id, items[1].epoch, rows(items[1]), None)
    queue.undo("ann")
    found = status()
    doubtful = found.purposes["doubtful"]
    assert (doubtful.open, doubtful.leased, doubtful.answered, doubtful.gone) == (2, 2, 1, 0)
    assert (found.reviewers["ann"].answered, found.reviewers["ann"].mine, found.reviewers["ann"].seconds) == (1, 2, 2.0)
    assert (found.unpulled, found.late, found.run) == (1, 0, "main")
    assert found.minutes_left == pytest.approx(4 * 1.6 / 60)


def test_who_runs_it_sees_the_time_left_at_the_pace_of_all_reviewers(make_queue, rows, status):
    queue = make_queue(20)
    for name, seconds, count in (("ann", 4.0, 5), ("bob", 8.0, 4)):
        for item in queue.take(name, count):
            queue.submit(name, item.id, item.epoch, rows(item), seconds)
    assert not status().own_pace
    assert status().minutes_left == pytest.approx(11 * 1.6 / 60)
    for item in queue.take("bob", 1):
        queue.submit("bob", item.id, item.epoch, rows(item), 8.0)
    assert status().own_pace
    assert status().minutes_left == pytest.approx(10 * 6.0 / 60)


def test_questions_about_images_are_counted_by_their_kind(planned):
    with planned.open() as queue:
        seen = progress(queue, "ann")
        assert seen.by_kind["image"] == 3
        assert seen.by_class[""] == 3
        assert sum(seen.by_kind.values()) == sum(seen.by_class.values()) == seen.open
        queue.take("ann", 2, kind="image")
        assert progress(queue, "ann").by_kind["image"] == 1


def test_what_waits_for_somebody_else_is_not_left_for_those_who_have_answered(make_queue, rows):
    queue = make_queue(4, wanted=2)
    assert left_for(queue, ["ann"]).model_dump() == {"items": 4, "second": 0}
    for item in queue.take("ann", 3):
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    assert left_for(queue, ["ann"]).model_dump() == {"items": 1, "second": 3}
    assert left_for(queue, ["ann", "bob"]).model_dump() == {"items": 4, "second": 0}
    for item in queue.take("ann", 1) + queue.take("bob", 1):
        name = "ann" if queue.holds("ann", item.id) else "bob"
        queue.submit(name, item.id, item.epoch, rows(item), 1.0)
    assert left_for(queue, ["ann"]).model_dump() == {"items": 0, "second": 3}
    assert left_for(queue, ["ann", "bob"]).model_dump() == {"items": 3, "second": 0}


def test_who_name_another_class_do_not_agree(make_queue, rows, status):
    queue = make_queue(3, wanted=2)
    for name, classes in (("ann", ("dog", "cat", None)), ("bob", ("dog", None, None))):
        for item, class_name in zip(queue.take(name, 3), classes, strict=True):
            queue.submit(name, item.id, item.epoch, rows(item, "wrong_class", class_name=class_name), 1.0)
    assert (status().twice, status().agreement) == (3, pytest.approx(2 / 3))


def test_who_runs_it_sees_how_far_boxes_were_corrected(make_queue, rows, status):
    queue = make_queue(3)
    assert (status().edited, status().edit_iou) == (0, None)
    kept, half, withdrawn = queue.take("ann", 3)
    queue.submit("ann", kept.id, kept.epoch, rows(kept), 1.0)
    for item in (half, withdrawn):
        x0, y0, x1, y1 = item.box
        box = {"x0": x0, "y0": y0, "x1": (x0 + x1) / 2, "y1": y1}
        queue.submit("ann", item.id, item.epoch, rows(item, "bad_box", **box), 1.0)
    queue.undo("ann")
    assert (status().edited, status().edit_iou) == (1, pytest.approx(0.5))


REVIEWERS = ("ann", "bob", "cem")
OF_PEOPLE = ["take", "submit", "submit again", "skip", "undo", "give back", "renew"]
OF_THE_SYSTEM = ["ask again", "pull", "pull killed before it wrote", "pull killed before its mark"]
STEPS = st.tuples(st.sampled_from(OF_PEOPLE + OF_THE_SYSTEM), st.sampled_from(REVIEWERS), st.integers(0, 4))
KILLED_IN = {"pull killed before it wrote": "write_verdicts", "pull killed before its mark": "_mark"}


class Killed(BaseException):
    """In the middle of something."""


@dataclass
class Answer:
    """An answer that was not taken back."""

    item: str
    taken: bool = False
    """A pull has it."""
    counts: bool = True
    """The item was not asked again since."""


class World:
    """The queue, the workspace, and what should be in them."""

    def __init__(self, uri, name, queue, rows, workspace):
        self.uri, self.name, self.queue, self.rows, self.workspace = uri, name, queue, rows, workspace
        self.database = connect(uri)
        self.given = {reviewer: [] for reviewer in REVIEWERS}

    def items(self):
        return list(self.database.items.find({"queue": self.name}).sort("place"))

    def answers(self):
        return [answer for answers in self.given.values() for answer in answers]

    def act(self, step, name, number):
        if step in KILLED_IN:
            with mock.patch.object(answers, KILLED_IN[step], side_effect=Killed), pytest.raises(Killed):
                self.pull()
            self.take_answers()
        elif step == "pull":
            self.pull()
            self.take_answers()
        elif step == "ask again":
            self.ask_again(self.items()[number % 4])
        else:
            self.act_as(step, name, number)

    def act_as(self, step, name, number):
        held = self.queue.take(name, 1) if step.startswith("submit") else self.queue.held(name)
        item = held[number % len(held)] if held else None
        if step == "take":
            self.queue.take(name, number)
        elif step == "undo":
            self.undo(name)
        elif step == "give back":
            self.queue.give_back(name)
        elif step == "renew":
            self.queue.renew(name)
        elif item and step == "skip":
            self.queue.skip(name, item.id, item.epoch)
        elif item:
            for _ in range(2 if step == "submit again" else 1):
                self.queue.submit(name, item.id, item.epoch, self.rows(item), 1.0)
            self.given[name].append(Answer(item.id))

    def pull(self):
        return answers.pull_queue(self.uri, self.name, self.workspace)

    def take_answers(self):
        for answer in self.answers():
            answer.taken = True

    def ask_again(self, item):
        if item["state"] == "answered":
            self.database.items.update_one({"_id": item["_id"]}, state.ask_again())
            for answer in self.answers():
                answer.counts &= answer.item != item["item"]

    def undo(self, name):
        if not self.given[name]:
            assert self.queue.undo(name) is None
        elif self.given[name][-1].taken:
            with pytest.raises(VouchError, match="gone to the workspace"):
                self.queue.undo(name)
        else:
            last = self.given[name].pop()
            before = next(item for item in self.items() if item["item"] == last.item)
            others = {*before["answered_by"], *(lease["reviewer"] for lease in before["leases"])} - {name}
            if len(others) < before["wanted"]:
                assert self.queue.undo(name).id == last.item
            else:
                with pytest.raises(VouchError, match="another's by now"):
                    self.queue.undo(name)

    def check(self):
        for item in self.items():
            holders = [lease["reviewer"] for lease in item["leases"]]
            busy = holders + item["answered_by"]
            assert len(busy) == len(set(busy)) <= item["wanted"]
            counting = [
                one
                for one in self.given
                if any(answer.counts and answer.item == item["item"] for answer in self.given[one])
            ]
            assert sorted(item["answered_by"]) == counting
            full = len(busy) == item["wanted"]
            assert item["state"] == ("open" if not full else "leased" if holders else "answered")
        counts = self.database.events.count_documents
        submitted, undone = ({"queue": self.name, "what": what} for what in ("submitted", "undone"))
        assert counts(submitted) - counts(undone) == len(self.answers())

    def check_workspace(self):
        self.pull()
        table = read_verdicts(self.workspace)
        brought = Counter(zip(table["reviewer"].to_pylist(), table["label_id"].to_pylist(), strict=True))
        assert brought == Counter((name, one.item) for name, answers in self.given.items() for one in answers)
        assert self.pull().answers == 0


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(wanted=st.integers(1, 2), steps=st.lists(STEPS, min_size=5, max_size=25))
def test_items_and_answers_are_always_consistent(make_queue, rows, uri, wanted, steps):
    name = uuid.uuid4().hex[:12]
    with tempfile.TemporaryDirectory() as folder:
        world = World(uri, name, make_queue(4, wanted=wanted, name=name), rows, LocalStore(Path(folder)))
        for step in steps:
            world.act(*step)
            world.check()
        world.check_workspace()
        world.database.close()
