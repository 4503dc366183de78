"""Ports that are asked for, and ports that are found."""

import socket

import pytest

from review_ui.server import ports
from review_ui.server.ports import bind, port_of
from schemas.errors import UserError


@pytest.fixture
def taken():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        one.listen()
        yield one.getsockname()[1]


def test_a_port_that_is_taken_is_said_in_one_line(taken):
    with pytest.raises(UserError, match=f"port {taken} is taken; choose another with --port"):
        bind("127.0.0.1", taken, 1)


def test_nothing_stays_bound_when_one_of_several_is_taken(taken):
    with pytest.raises(UserError, match="is taken"):
        bind("127.0.0.1", taken - 1, 2)
    for one in bind("127.0.0.1", taken - 1, 1):
        one.close()


def test_free_ports_are_found_beside_taken_ones(taken, monkeypatch):
    monkeypatch.setattr(ports, "FIRST", taken)
    found = bind("127.0.0.1", None, 2)
    numbers = [port_of(one) for one in found]
    for one in found:
        one.close()
    assert taken not in numbers
    assert numbers[0] != numbers[1]


def test_none_is_left(taken, monkeypatch):
    monkeypatch.setattr(ports, "FIRST", taken)
    monkeypatch.setattr(ports, "TRIED", 1)
    with pytest.raises(UserError, match="name a free one with --port"):
        bind("127.0.0.1", None, 1)


@pytest.mark.parametrize(
    ("host", "port", "words"),
    [
        ("127.0.0.1", 70_000, "is no port"),
        ("no.such.host.invalid", 5151, "cannot find the host"),
        ("192.0.2.1", 5151, "--host"),
    ],
)
def test_what_cannot_be_bound_to(host, port, words):
    with pytest.raises(UserError, match=words):
        bind(host, port, 1)
