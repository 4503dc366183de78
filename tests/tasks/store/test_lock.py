import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.processes import HANG_S, until
from vouch_labels.schemas.errors import StoreError, WorkspaceBusyError
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.lock import LockRecord, WorkspaceLock, this_process
from vouch_labels.tasks.store.store import Store

KEY = "runs/r/lock.json"

HOLDER = """
import sys, time
from pathlib import Path
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.lock import WorkspaceLock

with WorkspaceLock(LocalStore(Path(sys.argv[1])), "r"):
    print("held", flush=True)
    sys.stdin.read()
"""


def record(store: Store) -> LockRecord:
    return LockRecord.model_validate_json(store.get(KEY).data)


def foreign(age_s: float) -> bytes:
    now = time.time()
    lock = LockRecord(
        token="t", host="elsewhere", place="p", pid=7, started="1", since=now - 1000, heartbeat=now - age_s
    )
    return lock.model_dump_json().encode()


def hold(folder: Path) -> "subprocess.Popen[str]":
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout.readline() == "held\n"
    return child


def test_a_lock_is_held_and_given_back(store: Store) -> None:
    with WorkspaceLock(store, "r") as lock:
        assert record(store).pid == os.getpid()
        assert not lock.lost
    assert store.stat(KEY) is None
    with lock:
        assert store.stat(KEY) is not None


def test_a_second_run_is_told_who_is_at_work(store: Store) -> None:
    with WorkspaceLock(store, "r"), WorkspaceLock(store, "another"):
        with pytest.raises(WorkspaceBusyError, match=rf"'r' in .* process {os.getpid()} on .* since 2\d+-.* stop it"):
            WorkspaceLock(store, "r").__enter__()
        assert store.stat(KEY) is not None


def test_the_lock_is_given_back_after_an_error(store: Store) -> None:
    with pytest.raises(ZeroDivisionError), WorkspaceLock(store, "r"):
        raise ZeroDivisionError
    assert store.stat(KEY) is None


def test_a_live_process_keeps_its_lock_and_a_killed_one_loses_it_at_once(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    child = hold(tmp_path)
    try:
        with pytest.raises(WorkspaceBusyError, match=f"process {child.pid}"):
            WorkspaceLock(store, "r").__enter__()
        child.send_signal(signal.SIGKILL)
        # Not waited for: a dead child that nobody has collected is dead all the same.
        until(lambda: Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "Z")
        with WorkspaceLock(store, "r", settle_s=0):
            assert record(store).pid == os.getpid()
    finally:
        child.kill()
        child.communicate()
    store.put(KEY, record_of(child.pid))
    with WorkspaceLock(store, "r", settle_s=0):
        assert record(store).pid == os.getpid()


def record_of(pid: int, started: str = "5") -> bytes:
    now = time.time()
    place = this_process().place
    lock = LockRecord(token="t", host="here", place=place, pid=pid, started=started, since=now, heartbeat=now)
    return lock.model_dump_json().encode()


def test_another_process_with_the_number_of_a_dead_one_does_not_hold_its_lock(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(KEY, record_of(os.getpid(), started="5"))
    with WorkspaceLock(store, "r", settle_s=0):
        assert record(store).started == this_process().started


def test_a_lock_of_another_machine_is_kept_while_its_heart_beats(store: Store) -> None:
    store.put(KEY, foreign(60))
    stop = threading.Event()

    def beat() -> None:
        while not stop.is_set():
            store.put(KEY, foreign(60))

    with ThreadPoolExecutor(1) as pool:
        beating = pool.submit(beat)
        try:
            with pytest.raises(WorkspaceBusyError, match="process 7 on elsewhere"):
                WorkspaceLock(store, "r", silent_s=HANG_S).__enter__()
        finally:
            stop.set()
            beating.result()


@pytest.mark.parametrize("age_s", [-1000, 60])  # whatever its clock says
def test_a_lock_of_a_replaced_container_is_taken_over_when_its_heart_does_not_beat(
    store: Store, caplog: pytest.LogCaptureFixture, age_s: float
) -> None:
    store.put(KEY, foreign(age_s))
    with WorkspaceLock(store, "r", silent_s=0.01, settle_s=0):
        assert record(store).pid == os.getpid()
    assert "looking for up to 0 s whether it still runs" in caplog.text
    assert "taking over run 'r' from process 7 on elsewhere" in caplog.text


def test_a_lock_that_is_given_back_while_it_is_watched_is_taken(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, foreign(60))
    monkeypatch.setattr(
        "vouch_labels.tasks.store.lock.time",
        SimpleNamespace(time=time.time, monotonic=time.monotonic, sleep=lambda _: store.delete(KEY)),
    )
    with WorkspaceLock(store, "r", silent_s=HANG_S) as lock:
        assert not lock.lost


def test_a_lock_that_has_been_silent_for_long_is_taken_over_at_once(store: Store) -> None:
    store.put(KEY, foreign(121))
    with WorkspaceLock(store, "r", silent_s=HANG_S, settle_s=0):
        assert record(store).pid == os.getpid()


def test_something_else_in_its_place_is_replaced(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    store.put(KEY, b"{}")
    with WorkspaceLock(store, "r", settle_s=0):
        assert record(store).pid == os.getpid()
    assert "no lock record" in caplog.text


def test_the_heart_beats(store: Store) -> None:
    with WorkspaceLock(store, "r", renew_s=0.02):
        first = record(store)
        until(lambda: record(store).heartbeat > first.heartbeat)
        assert record(store).token == first.token
        # A lock that somebody deleted comes back.
        store.delete(KEY)
        until(lambda: store.stat(KEY) is not None)


def test_a_lost_lock_is_logged_and_not_deleted(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.ERROR), WorkspaceLock(store, "r", renew_s=0.02) as lock:
        # A heartbeat that is under way may still cover it: repeat until it is noticed.
        until(lambda: lock.lost or not store.put(KEY, foreign(0)))
    assert "was taken over" in caplog.text
    assert json.loads(store.get(KEY).data)["host"] == "elsewhere"


def test_of_many_that_start_at_once_one_gets_the_lock(store: Store) -> None:
    got = race(store)
    assert got.count(True) == 1


def test_of_many_that_take_over_at_once_one_gets_the_lock(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put(KEY, foreign(1000))
    # The worst case, whatever the machine's speed: all find the dead one, all write, then all look who was the last.
    found, written = threading.Barrier(5), threading.Barrier(5)
    has_ended = LockRecord.has_ended

    def all_find_it(holder: LockRecord, stale_s: float) -> bool | None:
        found.wait()
        return has_ended(holder, stale_s)

    monkeypatch.setattr(LockRecord, "has_ended", all_find_it)
    monkeypatch.setattr(
        "vouch_labels.tasks.store.lock.time", SimpleNamespace(time=time.time, sleep=lambda _: written.wait())
    )
    got = race(store)
    assert got.count(True) == 1


def race(store: Store) -> list[bool]:
    start = threading.Barrier(5)
    done = threading.Barrier(5)

    def take(_: int) -> bool:
        start.wait()
        try:
            with WorkspaceLock(store, "r"):
                done.wait()
                return True
        except WorkspaceBusyError:
            done.wait()
            return False

    with ThreadPoolExecutor(5) as pool:
        return list(pool.map(take, range(5)))


class Faulty(LocalStore):
    """A folder that stops taking writes and deletions."""

    broken = False

    def put(self, key: str, data: bytes, *, if_absent: bool = False) -> bool:
        if self.broken:
            raise StoreError("the disk has gone")
        return super().put(key, data, if_absent=if_absent)

    def delete(self, key: str) -> None:
        if self.broken:
            raise StoreError("the disk has gone")
        super().delete(key)


def test_trouble_with_the_store_does_not_end_the_run(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = Faulty(tmp_path)
    with WorkspaceLock(store, "r", renew_s=0.02):
        store.broken = True
        until(lambda: "could not renew" in caplog.text)
    assert "stays behind" in caplog.text
