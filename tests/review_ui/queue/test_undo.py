"""Undos that were killed half-way, completed while others work in the queue."""

import pytest

from review_ui.queue.connect import connect
from review_ui.queue.lease import give_back, take
from review_ui.queue.marks import UNDONE
from review_ui.queue.session import Session, open_session
from review_ui.queue.undo import complete_undone


@pytest.fixture
def session(make_queue, rows, uri):
    """A queue of one item for two, whose answer by ann is marked as taken back, and no more."""
    queue = make_queue(1, wanted=2)
    (item,) = queue.take("ann", 1)
    queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
    database = connect(uri)
    database.events.update_one({"what": "submitted"}, {"$set": {"pulled": UNDONE}})
    yield open_session(database, "0123456789ab")
    database.close()


@pytest.fixture
def meanwhile(monkeypatch):
    """Have something happen each time between the look at the item and its change."""
    happened = Session.happened

    def patch(act):
        def found(self, what, keys):
            if what == "undone":
                act()
            return happened(self, what, keys)

        monkeypatch.setattr(Session, "happened", found)

    return patch


def answered_by(session):
    return session.database.items.find_one()["answered_by"]


def undone(session):
    return session.database.events.count_documents({"what": "undone"})


def test_an_undo_is_completed_though_another_takes_the_item_meanwhile(session, meanwhile):
    meanwhile(lambda: take(session, "bob", 1))
    complete_undone(session)
    assert (answered_by(session), undone(session)) == ([], 1)
    assert [one["reviewer"] for one in session.database.items.find_one()["leases"]] == ["bob"]


def test_an_undo_that_finds_no_moment_is_not_recorded_and_done_the_next_time(session, meanwhile):
    looks = []

    def take_again():
        looks.append(give_back(session, "bob"))
        assert take(session, "bob", 1)

    meanwhile(take_again)
    complete_undone(session)
    assert (answered_by(session), undone(session)) == (["ann"], 0)
    assert len(looks) > 1
    meanwhile(lambda: None)
    complete_undone(session)
    assert (answered_by(session), undone(session)) == ([], 1)


def test_of_an_answer_that_its_item_has_lost_the_undo_is_recorded(session):
    session.database.items.update_one({}, {"$set": {"answered_by": []}})
    complete_undone(session)
    assert (answered_by(session), undone(session)) == ([], 1)
