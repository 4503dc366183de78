"""What dies is started again; what keeps dying is given up, and the others go on."""

import pytest

from review_ui.server.database_use import DatabaseUse
from review_ui.server.serving import Served
from review_ui.server.watching import MOST_RESTARTS, keep_alive
from schemas.errors import VouchError


class EnoughError(Exception):
    """Ends a watch that has no end."""


class Server:
    """Dies as often as it is told to, and may refuse to start."""

    log = "the.log"

    def __init__(self, reviewer, deaths, starts=True):
        self.reviewer, self.deaths, self.starts = reviewer, deaths, starts
        self.runs, self.stopped = True, 0

    def has_died(self):
        if self.deaths and self.runs:
            self.deaths -= 1
            self.runs = False
        return not self.runs

    def stop(self):
        self.stopped += 1

    def start(self):
        self.runs = self.starts

    def tell(self):
        pass

    def wait(self):
        if not self.starts:
            raise VouchError(f"the review server of {self.reviewer} ended at its start")


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    monkeypatch.setattr("review_ui.server.watching.LOOK_S", 0)


def watch(*servers, looks=50):
    """What was said in so many looks."""
    said, left = [], iter(range(looks))

    def revive():
        if next(left, None) is None:
            raise EnoughError
        return False

    with pytest.raises(EnoughError):
        keep_alive([Served(one, 0) for one in servers], DatabaseUse("", revive), said.append)
    return said


def test_what_died_runs_again():
    ann, ben = Server("ann", 2), Server("ben", 0)
    said = watch(ann, ben)
    assert [words.partition(" had ended")[0] for words in said] == ["the server of ann"] * 2
    assert ann.runs
    assert ben.stopped == 0


@pytest.mark.parametrize(("deaths", "starts"), [(1, False), (100, True)])
def test_what_keeps_dying_does_not_end_the_review_of_others(deaths, starts):
    ann, ben = Server("ann", MOST_RESTARTS), Server("ben", deaths, starts)
    said = watch(ann, ben)
    assert ann.runs
    [given_up] = [words for words in said if "the others go on" in words]
    assert "of ben" in given_up
    assert ben.stopped


def test_when_none_is_left_the_review_ends():
    ann, ben = Server("ann", 100), Server("ben", 1, starts=False)
    said = []
    with pytest.raises(VouchError, match=r"server of ann keeps ending; the.log says why"):
        keep_alive([Served(ann, 0), Served(ben, 0)], DatabaseUse("", lambda: False), said.append)
    assert sum("runs again" in words for words in said) == MOST_RESTARTS


def test_a_database_that_died_is_told():
    said = []

    def stop(words):
        said.append(words)
        raise EnoughError

    with pytest.raises(EnoughError):
        keep_alive([Served(Server("ann", 0), 0)], DatabaseUse("", lambda: True), stop)
    assert "nothing that was submitted is lost" in said[0]
