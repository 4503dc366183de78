"""What can be wrong with a database, each told in one line without the password."""

import socket

import pytest
from pymongo.errors import OperationFailure

from review_ui.queue import connect as module
from review_ui.queue.connect import connect, told
from review_ui.queue.fill import fill_queue
from review_ui.queue.queue import Queue
from schemas.errors import UserError, VouchError

SECRET = "correct-horse"


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_a_server_that_is_away_is_told(monkeypatch, free_port):
    monkeypatch.setattr(module, "WAIT_S", 0.3)
    with pytest.raises(UserError, match=rf"127\.0\.0\.1:{free_port} does not answer; start it") as told_so:
        connect(f"mongodb://ann:{SECRET}@127.0.0.1:{free_port}")
    assert SECRET not in str(told_so.value)


@pytest.mark.parametrize(
    "address",
    [
        f"mongodb://ann:{SECRET}@127.0.0.1:port",
        f"mongodb://ann:{SECRET}/x@127.0.0.1:1",
        f"postgres://ann:{SECRET}@127.0.0.1",
        f"mongodb://ann:{SECRET}@",
        "",
    ],
)
def test_an_address_that_is_none_is_told_without_its_password(address):
    with pytest.raises(UserError, match=r"cannot be read; write mongodb://HOST:PORT") as told_so:
        connect(address)
    assert SECRET not in str(told_so.value)


def test_a_password_that_is_refused_is_told(uri):
    with pytest.raises(UserError, match="refuses access; check user and password") as told_so:
        connect(uri.replace("mongodb://", f"mongodb://ann:{SECRET}@"))
    assert SECRET not in str(told_so.value)


def test_a_user_without_rights_is_told():
    with pytest.raises(UserError, match="refuses access"), told("host:1"):
        raise OperationFailure("not authorized on vouch to execute command", 13)


def test_any_other_failure_is_one_line():
    with pytest.raises(VouchError, match=r"the review database at host:1 failed: no space left$"), told("host:1"):
        raise OperationFailure("many\nlines", 14031, {"errmsg": "no space\nleft"})


def test_a_queue_of_a_newer_version_is_refused_and_left_alone(planned, uri):
    outcome = planned.fill()
    database = connect(uri)
    database.queues.update_one({"_id": outcome.queue}, {"$set": {"schema": 99}})
    for attempt in (lambda: Queue.open(uri, outcome.queue), lambda: fill_queue(planned.campaign, uri)):
        with pytest.raises(UserError, match="written by a newer version of Vouch"):
            attempt()
    assert database.queues.find_one()["schema"] == 99
    database.close()


def test_a_server_that_goes_away_is_told_by_every_call(make_queue, monkeypatch):
    queue = make_queue(1)
    queue.close()
    calls = [
        lambda: queue.take("ann", 1), lambda: queue.held("ann"), lambda: queue.renew("ann"), lambda: queue.undo("ann"),
        lambda: queue.progress("ann"), lambda: queue.holds("ann", "x"), lambda: queue.give_back("ann"),
        lambda: queue.log("ann", "PATCH", "/", b"", 200), lambda: queue.has_image("00000.jpg"),
    ]  # fmt: skip
    for call in calls:
        with pytest.raises(VouchError, match="the review database at 127"):
            call()
