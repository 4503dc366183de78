"""Whatever reviewers and pulls do in whatever order: nobody shares an item, and every answer is there once."""

import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from review_ui.queue import pull, state
from review_ui.queue.connect import connect
from schemas.errors import VouchError
from tasks.reviews.verdicts import read_verdicts
from tasks.store.local import LocalStore

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
    """The item was not asked anew since."""


class World:
    """The queue, the workspace, and what should be in them."""

    def __init__(self, uri, name, queue, rows, workspace):
        self.uri, self.name, self.queue, self.rows, self.workspace = uri, name, queue, rows, workspace
        self.database = connect(uri)
        self.said = {reviewer: [] for reviewer in REVIEWERS}

    def items(self):
        return list(self.database.items.find({"queue": self.name}).sort("place"))

    def answers(self):
        return [answer for answers in self.said.values() for answer in answers]

    def act(self, step, name, number):
        if step in KILLED_IN:
            with mock.patch.object(pull, KILLED_IN[step], side_effect=Killed), pytest.raises(Killed):
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
            self.said[name].append(Answer(item.id))

    def pull(self):
        return pull.pull_queue(self.uri, self.name, self.workspace)

    def take_answers(self):
        for answer in self.answers():
            answer.taken = True

    def ask_again(self, item):
        if item["state"] == "answered":
            self.database.items.update_one({"_id": item["_id"]}, state.ask_again())
            for answer in self.answers():
                answer.counts &= answer.item != item["item"]

    def undo(self, name):
        if not self.said[name]:
            assert self.queue.undo(name) is None
        elif self.said[name][-1].taken:
            with pytest.raises(VouchError, match="gone to the workspace"):
                self.queue.undo(name)
        else:
            last = self.said[name].pop()
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
                one for one in self.said if any(said.counts and said.item == item["item"] for said in self.said[one])
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
        assert brought == Counter((name, one.item) for name, answers in self.said.items() for one in answers)
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
