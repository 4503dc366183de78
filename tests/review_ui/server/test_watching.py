"""What dies is started again; what keeps dying is given up, and the others go on."""

import pytest

from review_ui.server.database_use import DatabaseUse
from review_ui.server.serving import Served
from review_ui.server.watching import MOST_RESTARTS, keep_alive
from schemas.errors import VouchError


class EnoughError(Exception):
    """Ends a watch that has no end."""


class Server:
    """Dies as often as it is told to, and then fails to start so many times: it ends, or hangs."""

    log = "the.log"

    def __init__(self, reviewer, deaths, fails=0, hangs=False):
        self.reviewer, self.deaths, self.fails, self.hangs = reviewer, deaths, fails, hangs
        self.runs, self.answers, self.stopped, self.starts = True, True, 0, 0

    def has_died(self):
        if self.deaths and self.answers:
            self.deaths -= 1
            self.runs = self.answers = False
        return not self.runs

    def stop(self):
        self.stopped += 1
        self.runs = self.answers = False

    def start(self):
        assert not self.runs
        self.starts += 1
        self.answers = not self.fails
        self.runs = self.answers or self.hangs
        self.fails -= not self.answers

    def tell(self):
        pass

    def wait(self):
        if not self.answers:
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
    assert ann.answers
    assert ben.stopped == 0


@pytest.mark.parametrize(("deaths", "fails"), [(1, 100), (100, 0), (100, 2)])
def test_what_keeps_dying_does_not_end_the_review_of_others(deaths, fails):
    ann, ben = Server("ann", MOST_RESTARTS), Server("ben", deaths, fails)
    said = watch(ann, ben)
    assert ann.answers
    [given_up] = [words for words in said if "the others go on" in words]
    assert "of ben" in given_up
    assert not ben.runs
    assert ben.starts == MOST_RESTARTS


@pytest.mark.parametrize("hangs", [False, True])
def test_what_does_not_start_is_tried_again(hangs):
    ann, ben = Server("ann", 0), Server("ben", 1, MOST_RESTARTS - 1, hangs)
    said = watch(ann, ben)
    assert ["it is tried again" in words for words in said] == [True] * (MOST_RESTARTS - 1) + [False]
    assert "the server of ben had ended; it runs again" in said[-1]
    assert ben.answers


def test_what_fails_slowly_is_not_tried_for_ever(monkeypatch):
    monkeypatch.setattr("review_ui.server.watching.RESTARTS_WITHIN_S", 0)
    ben = Server("ben", 1, 100, hangs=True)
    watch(Server("ann", 0), ben)
    assert (ben.starts, ben.runs) == (MOST_RESTARTS, False)


def test_failures_with_a_success_in_between_are_not_in_a_row(monkeypatch):
    monkeypatch.setattr("review_ui.server.watching.RESTARTS_WITHIN_S", 0)
    ben = Server("ben", 2, MOST_RESTARTS - 1)
    start = ben.start

    def start_or_fail_later():
        start()
        if ben.answers and ben.deaths:
            ben.fails = MOST_RESTARTS - 1

    ben.start = start_or_fail_later
    watch(Server("ann", 0), ben)
    assert (ben.starts, ben.answers) == (2 * MOST_RESTARTS, True)


def test_a_database_that_died_with_a_server_is_revived_before_the_next_try():
    """Without it no start can succeed."""
    ben, said = Server("ben", 1, 100), []

    def revive():
        if not ben.starts:
            return False
        if ben.answers:
            raise EnoughError
        ben.fails = 0
        return True

    with pytest.raises(EnoughError):
        keep_alive([Served(ben, 0)], DatabaseUse("", revive), said.append)
    failed, revived, started = said
    assert "it is tried again" in failed
    assert "database had ended" in revived
    assert "runs again" in started
    assert ben.starts == 2


def test_when_none_is_left_the_review_ends():
    ann, ben = Server("ann", 100), Server("ben", 1, 100)
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
