"""The queue asked from outside: two who pull at once bring every verdict once."""

import threading

import pytest

from vouch_labels.review_ui.queue import sync
from vouch_labels.review_ui.server.answers import pull_once
from vouch_labels.tasks.reviews.verdicts import read_verdicts


@pytest.fixture(autouse=True)
def _own_data_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


def answer(queue, rows, count):
    for item in queue.take("ann", count):
        queue.submit("ann", item.id, item.epoch, rows(item), 1.0)


def test_who_pulls_beside_another_waits_and_writes_nothing_twice(planned, rows, monkeypatch):
    found, others = [], []

    def read(workspace):
        verdicts = read_verdicts(workspace)
        if not others:
            others.append(threading.Thread(target=lambda: found.append(pull_once(planned.uri, planned.campaign))))
            answer(queue, rows, 2)
            others[0].start()
            # Long enough for one that does not wait.
            others[0].join(1.0)
        return verdicts

    monkeypatch.setattr(sync, "read_verdicts", read)
    with planned.open() as queue:
        answer(queue, rows, 5)
        assert pull_once(planned.uri, planned.campaign).verdicts == 5
    others[0].join()
    assert found[0].verdicts == 2
    assert read_verdicts(planned.workspace).num_rows == 7


def test_answers_are_pulled_where_no_file_can_be_locked(planned, rows, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "file"))
    with planned.open() as queue:
        answer(queue, rows, 1)
    assert pull_once(planned.uri, planned.campaign).verdicts == 1
