"""Connections without a request are closed; two reviewers at once answer all that a queue holds."""

import asyncio
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress

import httpx
import pytest
import uvicorn

from tests.fake_campaign import write_campaign
from tests.processes import HANG_S, until
from tests.review_ui.server.conftest import TOKENS
from vouch_labels.review_ui.queue.answers import pull_queue
from vouch_labels.review_ui.server.__main__ import protocol
from vouch_labels.review_ui.server.mongod import DatabaseUse
from vouch_labels.review_ui.server.serve import ServeOptions, served
from vouch_labels.tasks.reviews.resolve import IN_DISPUTE, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store

HALF = b"GET / HTTP/1.1\r\nHost: x\r\nX: "
WHOLE = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
ITEMS = 400
QUEUE = "0123456789ab"


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


# Two reviewers at once, each on a guarded server of their own, answer all that a queue holds.


def answer_all(name: str, address: str) -> list[str]:
    """Take batches and answer them as the App does, until nothing is left; gives the items."""
    answered: list[str] = []
    with httpx.Client(base_url=address, headers={"origin": address}, timeout=HANG_S) as client:
        assert client.get("/", params={"token": TOKENS[name]}).status_code == 303

        def run(operator, **params):
            body = {"operator_uri": f"@vouch/review/{operator}", "params": params}
            response = client.post("/operators/execute", json=body)
            assert response.status_code == 200, response.text
            result = response.json()["result"]
            assert result.get("error") is None, result
            return result

        while items := run("take_batch")["items"]:
            for one in items:
                result = run(("submit", "reject")[len(answered) % 2], item=one["item"], seconds=1.0)
                assert one["item"] not in {one["item"] for one in result["items"]}
                answered.append(one["item"])
            if len(answered) == ITEMS // 2:
                break
    return answered


@pytest.mark.slow
def test_two_at_once_answer_every_item_once(make_queue, uri, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    (tmp_path / "images").mkdir()
    campaign = write_campaign(tmp_path, review={"batch": 20})
    queue = make_queue(ITEMS, name=QUEUE)
    options = ServeOptions(reviewers=tuple(TOKENS))
    with served(campaign, QUEUE, DatabaseUse(uri, lambda: False), options, TOKENS, tmp_path / "logs") as sessions:
        with ThreadPoolExecutor(2) as pool:
            working = [pool.submit(answer_all, one.reviewer, f"http://127.0.0.1:{one.port}") for one in sessions]
        ann, ben = (one.result() for one in working)
        assert queue.take("cem", ITEMS) == []
    assert (len(ann), len(ben)) == (ITEMS // 2, ITEMS // 2)
    assert len({*ann, *ben}) == ITEMS

    workspace = open_store(campaign.workspace)
    pulled = pull_queue(uri, QUEUE, workspace)
    assert (pulled.verdicts, pulled.late, pulled.known) == (ITEMS, 0, 0)
    assert pull_queue(uri, QUEUE, workspace).verdicts == 0
    rows = read_verdicts(workspace).to_pylist()
    assert len(rows) == ITEMS
    given = {row["label_id"]: (row["reviewer"], row["verdict"]) for row in rows}
    verdicts = ("correct", "not_an_object")
    expected = {
        item: (name, verdicts[number % 2])
        for name, items in (("ann", ann), ("ben", ben))
        for number, item in enumerate(items)
    }
    assert given == expected
    times = {name: [row["reviewed_at"] for row in rows if row["reviewer"] == name] for name in TOKENS}
    assert max(min(found) for found in times.values()) < min(max(found) for found in times.values())


def test_a_label_that_another_has_read_looks_as_it_did_to_the_first_and_both_answers_are_kept(review):
    items = review.ann.database["vouch_items"]
    assert set(items.distinct("purpose", {"wanted": 2})) == {"fit"}, "two serve, so some are read twice"
    read = items.find_one_and_update({"wanted": 2}, {"$set": {"place": -1}})["item"]

    def seen_and_answered(reviewer, operator):
        with reviewer.client() as client:
            taken = reviewer.run(client, "take_batch").json()["result"]["items"]
            summary = next(one for one in taken if one["item"] == read)
            sample = next(one for one in reviewer.samples() if one["item"] == read)
            assert "error" not in reviewer.run(client, operator, item=read, seconds=1.0).json()["result"]
        own = ("_id", "_rand", "_dataset_id", "created_at", "last_modified_at")
        return summary | {"sample": ""}, {name: value for name, value in sample.items() if name not in own}

    assert seen_and_answered(review.ann, "submit") == seen_and_answered(review.ben, "reject")
    workspace = open_store(review.campaign.workspace)
    pull_queue(review.uri, review.ann.queue, workspace)
    rows = [row for row in read_verdicts(workspace).to_pylist() if row["label_id"] == read]
    assert {row["reviewer"]: row["verdict"] for row in rows} == {"ann": "correct", "ben": "not_an_object"}
    assert resolve(read_verdicts(workspace)).wrong_of([read]).tolist() == [IN_DISPUTE]
