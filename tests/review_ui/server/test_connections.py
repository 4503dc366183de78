"""Connections on which no request comes are closed; those that ask are answered meanwhile."""

import asyncio
import socket
import threading
from contextlib import ExitStack, contextmanager, suppress

import pytest
import uvicorn

from tests.waiting import HANG_S, until
from vouch_labels.review_ui.server.connections import protocol

HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


async def application(scope, receive, send):
    if scope["type"] != "http":
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@contextmanager
def serving(**limits):
    """A server with these limits; gives its address."""
    bound = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(application, http=protocol(**limits), log_config=None, lifespan="off", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[bound])))
    thread.start()
    try:
        until(lambda: server.started)
        yield bound.getsockname()
    finally:
        server.should_exit = True
        thread.join()
        bound.close()


@contextmanager
def connected(address, sent=b""):
    with socket.create_connection(address, timeout=HANG_S) as one:
        one.sendall(sent)
        yield one


def is_closed(one):
    """Wait until the other side closes the connection; it has sent nothing before."""
    try:
        return one.recv(1) == b""
    except ConnectionResetError:
        return True


@pytest.mark.parametrize("sent", [b"", b"G", HALF])
def test_a_head_that_does_not_come_ends_its_connection(sent):
    with serving(head_s=0.2) as address, connected(address, sent) as one:
        assert is_closed(one)


def test_a_head_that_trickles_is_given_no_more_time():
    with serving(head_s=0.5) as address, connected(address, HALF) as one:
        one.settimeout(0.05)
        while True:
            try:
                one.sendall(b"x")
                assert one.recv(1) == b""
                break
            except TimeoutError:
                continue
            except (ConnectionResetError, BrokenPipeError):
                break


def test_a_second_request_that_is_half_sent_ends_its_connection():
    with serving(head_s=HANG_S, most=1) as address, connected(address, WHOLE) as one:
        answer = b""
        while not answer.endswith(b"ok"):
            answer += one.recv(1000)
        # uvicorn closes a connection on which nothing more comes; what comes stops its clock.
        one.sendall(HALF)
        one.settimeout(0.05)

        def is_crowded_out():
            with connected(address), suppress(TimeoutError):
                return is_closed(one)

        until(is_crowded_out)


def test_the_oldest_of_too_many_are_closed_and_others_are_answered():
    with ExitStack() as stack:
        address = stack.enter_context(serving(head_s=HANG_S, most=2))
        first, *_ = [stack.enter_context(connected(address, HALF)) for _ in range(3)]
        assert is_closed(first)
        whole = stack.enter_context(connected(address, WHOLE))
        assert whole.recv(1) == b"H"
