"""The log of change requests."""

from datetime import timedelta

import pytest

from review_ui.queue import requests
from review_ui.queue.connect import connect


@pytest.fixture
def database(uri):
    found = connect(uri)
    yield found
    found.close()


def test_what_was_sent_is_kept_as_it_came(make_queue, database):
    queue = make_queue(1)
    for body in (b'[{"op": "replace"}]', b"\xff\x00", b""):
        queue.log("ann", "PATCH", "/dataset/1/sample/2?x=1", body, 423)
    first, second, third = database.requests.find().sort("_id")
    assert (first["reviewer"], first["method"], first["path"], first["status"]) == (
        "ann", "PATCH", "/dataset/1/sample/2?x=1", 423,
    )  # fmt: skip
    assert (first["body"], second["body"], third["body"]) == ('[{"op": "replace"}]', b"\xff\x00", "")
    assert not first["cut"]
    assert abs(first["at"] - database.now()) < timedelta(minutes=1)


def test_a_body_beyond_what_a_document_takes_is_cut(make_queue, database, monkeypatch):
    monkeypatch.setattr(requests, "MOST_BYTES", 10)
    make_queue(1).log("ann", "PATCH", "/", b"0123456789abc", 200)
    (entry,) = database.requests.find()
    assert (entry["body"], entry["cut"]) == ("0123456789", True)
