"""What every backend guarantees; which store a URI opens; whose files are private."""

import logging
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.processes import HANG_S, folder_of_an_ordinary_user
from vouch_labels.flows.console import output
from vouch_labels.review_ui.server.mongod import locked
from vouch_labels.schemas.campaign import Location, S3Options
from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, UserError
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.reviews.read_file import write_table
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import check_readable, check_writable, open_store
from vouch_labels.tasks.store.private import PrivateLog
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.store import AHEAD, Store, map_ordered

KEYS = [
    "a",
    "a.txt",
    "a0",
    "b/1.jpg",
    "b-c",
    "b/1/2.jpg",
    "b.d/x",
    "z é/ü ß.png",
    "z/😀.jpg",
    "z/\uffee.jpg",
    "with space+%2F&?#.jpg",
]
ROOT = Path(__file__).parents[3]


def test_what_is_put_is_read_back_with_the_tag_that_the_listing_shows(store: Store) -> None:
    assert store.put("parts/x.parquet", b"one")
    info = store.stat("parts/x.parquet")
    blob = store.get("parts/x.parquet")
    assert blob.data == b"one"
    assert info == ("parts/x.parquet", blob.etag, 3)
    assert list(store.list()) == [info]


def test_replacing_an_object_changes_its_tag(store: Store) -> None:
    store.put("x", b"one")
    before = store.get("x").etag
    store.put("x", b"other")
    assert store.get("x").data == b"other"
    assert store.get("x").etag != before


def test_listing_is_in_byte_order_of_the_keys(store: Store) -> None:
    for key in KEYS:
        store.put(key, key.encode())
    listed = [info.key for info in store.list()]
    assert listed == sorted(KEYS, key=str.encode)
    assert all(store.get(key).data == key.encode() for key in listed)


@pytest.mark.parametrize("prefix", ["", "b", "b/", "b/1", "b/2", "z/", "nowhere/at/all", "b//"])
def test_listing_takes_any_prefix(store: Store, prefix: str) -> None:
    keys = ["a", "b-c", "b.d/x", "b/1.jpg", "b/12/x", "b/2", "z/x"]
    for key in keys:
        store.put(key, b"")
    assert [info.key for info in store.list(prefix)] == [key for key in keys if key.startswith(prefix)]


def test_nothing_is_listed_before_the_first_write(store: Store) -> None:
    assert list(store.list()) == []
    assert list(store.list("runs/x/")) == []


def test_an_empty_object_is_an_object(store: Store) -> None:
    store.put("empty", b"")
    assert store.get("empty").data == b""
    assert store.stat("empty") is not None


def test_a_missing_object_is_named(store: Store) -> None:
    assert store.stat("no/such") is None
    with pytest.raises(ObjectMissingError, match="no/such"):
        store.get("no/such")
    store.delete("no/such")


def test_delete_removes(store: Store) -> None:
    store.put("x/y", b"1")
    store.delete("x/y")
    assert store.stat("x/y") is None
    assert list(store.list()) == []


def test_if_absent_writes_once(store: Store) -> None:
    assert store.put("lock", b"first", if_absent=True)
    assert not store.put("lock", b"second", if_absent=True)
    assert store.get("lock").data == b"first"
    store.delete("lock")
    assert store.put("lock", b"third", if_absent=True)


def test_of_many_conditional_writers_one_wins(store: Store) -> None:
    for attempt in range(5):
        start = threading.Barrier(6)

        def claim(name: int, key: str = f"claim-{attempt}", start: threading.Barrier = start) -> bool:
            start.wait()
            return store.put(key, str(name).encode(), if_absent=True)

        with ThreadPoolExecutor(6) as pool:
            won = list(pool.map(claim, range(6)))
        assert won.count(True) == 1
        assert store.get(f"claim-{attempt}").data == str(won.index(True)).encode()


def test_a_streamed_object_appears_whole(store: Store) -> None:
    with store.open_writer("exports/big.json") as file:
        for _ in range(300):
            file.write(b"x" * 65536)
        assert store.stat("exports/big.json") is None
    assert store.get("exports/big.json").data == b"x" * 65536 * 300
    with store.open_reader("exports/big.json") as file:
        file.seek(-3, 2)
        assert file.read() == b"xxx"


def test_a_missing_object_cannot_be_opened(store: Store) -> None:
    with pytest.raises(ObjectMissingError, match="nowhere"), store.open_reader("nowhere"):
        pass


def test_a_stream_that_fails_leaves_what_was_there(store: Store) -> None:
    store.put("x", b"old")
    for error in (ZeroDivisionError(), FileNotFoundError(2, "gone", "/elsewhere"), ConnectionResetError()):
        with pytest.raises(type(error)) as raised, store.open_writer("x") as file:
            _write_and_raise(file, error)
        assert raised.value is error
    assert store.get("x").data == b"old"
    assert [info.key for info in store.list()] == ["x"]


def test_a_usable_store_passes_the_checks_and_nothing_stays(store: Store) -> None:
    check_writable(store)
    check_readable(store)
    assert list(store.list()) == []
    store.put("x", b"1")
    check_readable(store)


def _write_and_raise(file: BinaryIO, error: Exception) -> None:
    file.write(b"new")
    raise error


@given(st.lists(st.integers(), max_size=60), st.integers(1, 4))
def test_results_come_in_order(items: list[int], threads: int) -> None:
    assert list(map_ordered(lambda item: item * 2, items, threads)) == [item * 2 for item in items]


def test_only_a_few_items_are_drawn_ahead() -> None:
    drawn: list[int] = []
    results: Any = map_ordered(lambda item: item, (drawn.append(i) or i for i in range(1000)), 2)
    for expected in range(100):
        assert next(results) == expected
        assert len(drawn) <= expected + 1 + AHEAD * 2
    results.close()
    assert len(drawn) < 120


def test_calls_run_at_once() -> None:
    meet = threading.Barrier(3)
    # Each call waits for two others: one at a time would never end.
    assert len(list(map_ordered(lambda _: meet.wait(HANG_S), range(9), 3))) == 9


def test_an_error_comes_in_its_turn_and_ends_the_rest() -> None:
    seen: list[int] = []

    def fail_at_five(item: int) -> int:
        seen.append(item)
        if item == 5:
            raise ValueError(item)
        return item

    results = map_ordered(fail_at_five, range(1000), 2)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="5"):
        next(results)
    assert len(seen) < 30


def location(uri: str) -> Location:
    return Location.model_validate(uri)


def test_a_relative_folder_starts_from_the_campaign_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert open_store(location("images"), tmp_path).uri == str(tmp_path / "images")
    assert open_store(location("/images/"), tmp_path).uri == "/images"
    assert open_store(location(f"file://{tmp_path}/x")).uri == str(tmp_path / "x")
    monkeypatch.chdir(tmp_path)
    assert open_store(location("images")).uri == str(tmp_path / "images")
    assert open_store(location("images"), Path("sub")).uri == str(tmp_path / "sub/images")
    monkeypatch.setenv("HOME", "/home/someone")
    assert open_store(location("~/images"), tmp_path).uri == "/home/someone/images"


@pytest.mark.parametrize(
    ("uri", "bucket", "prefix", "shown"),
    [
        ("s3://b", "b", "", "s3://b"),
        ("s3://b/", "b", "", "s3://b"),
        ("s3://b/x/y", "b", "x/y/", "s3://b/x/y"),
        ("S3://b//x/y/", "b", "x/y/", "s3://b/x/y"),
        ("s3://b/x?y#z%20", "b", "x?y#z%20/", "s3://b/x?y#z%20"),
    ],
)
def test_an_s3_uri_is_a_bucket_and_a_folder_in_it(uri: str, bucket: str, prefix: str, shown: str) -> None:
    store = open_store(location(uri))
    assert isinstance(store, S3Store)
    assert (store.bucket, store.prefix, store.uri) == (bucket, prefix, shown)
    assert store.local_path("x") is None


@pytest.mark.parametrize(
    ("uri", "complaint"),
    [
        ("s3:bucket/x", "written s3://bucket/prefix"),
        ("s3:/bucket/x", "written s3://bucket/prefix"),
        ("s3:///x", "names no bucket"),
        ("s3://KEY:SECRET@bucket/x", "carries no credentials"),
        ("s3://host:9000/bucket", "no port"),
        ("gs://bucket/x", "gs:// is not supported"),
        ("https://KEY:SECRET@host/bucket?token=SECRET", "https:// is not supported"),
    ],
)
def test_a_wrong_uri_is_explained_without_its_secrets(uri: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        open_store(location(uri))
    assert "SECRET" not in str(raised.value)


def test_a_folder_that_cannot_be_read_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(StoreAccessError, match="does not exist; check the uri"):
        check_readable(LocalStore(tmp_path / "none"))
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAccessError, match="is a file, not a folder"):
        check_readable(LocalStore(tmp_path / "file"))
    check_readable(LocalStore(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(StoreAccessError, match="permission denied; check the owner"):
        check_readable(LocalStore(tmp_path))


def test_a_folder_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        check_writable(LocalStore(tmp_path / "file"))
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        check_writable(LocalStore(tmp_path / "file" / "below"))
    # Even root may not create folders here.
    with pytest.raises(StoreAccessError, match=r"cannot write /proc/vouch/.*: the folder cannot be created; check"):
        check_writable(LocalStore(Path("/proc/vouch")))
    with pytest.raises(
        StoreAccessError, match=r"cannot write /proc/vouch/below/.*: the folder cannot be created; check"
    ):
        check_writable(LocalStore(Path("/proc/vouch/below")))


def test_a_user_without_rights_is_told_so() -> None:
    with folder_of_an_ordinary_user() as folder:
        store = LocalStore(folder / "private")
        store.put("x", b"1")
        store.root.chmod(0)
        actions: list[Callable[[], object]] = [
            lambda: check_readable(store),
            lambda: check_writable(store),
            lambda: next(store.list()),
            lambda: store.get("x"),
            lambda: store.stat("x"),
            lambda: store.delete("x"),
            lambda: store.put("y", b"", if_absent=True),
            lambda: store.put("y", b""),
            lambda: store.open_reader("x").__enter__(),
        ]
        for action in actions:
            with pytest.raises(StoreAccessError, match="permission denied; check the owner and mode"):
                action()
        store.root.chmod(0o700)


def test_a_bucket_that_cannot_be_used_is_explained(s3_store: S3Store) -> None:
    missing = S3Store("vouch-no-such-bucket", "x", s3_store.options)
    for check in (check_readable, check_writable):
        with pytest.raises(StoreAccessError, match=r"vouch-no-such-bucket.* bucket does not exist; check the name"):
            check(missing)


def test_options_are_part_of_the_location() -> None:
    options = {"endpoint_url": "http://127.0.0.1:1", "threads": 3}
    store = open_store(Location.model_validate({"uri": "s3://b", "s3": options}))
    assert isinstance(store, S3Store)
    assert store.options == S3Options.model_validate(options)


# Files that hold people's work are their owner's alone, whatever the umask, also where an earlier version wrote.


@pytest.fixture
def open_to_all():
    """A umask that takes nothing away."""
    before = os.umask(0)
    yield
    os.umask(before)


def mode(path):
    return path.stat().st_mode & 0o777


def verdicts():
    row = dict.fromkeys(VERDICTS.names) | {"key": "a.png", "verdict": "checked", "reviewer": "ann", "simulated": False}
    return pa.Table.from_pylist([row], schema=VERDICTS)


@pytest.mark.usefixtures("open_to_all")
def test_the_workspaces_answers(tmp_path):
    store = LocalStore(tmp_path / "workspace")
    (store.root / "reviews").mkdir(parents=True)
    store.put("labels/a", b"")
    assert write_verdicts(store, verdicts())
    assert mode(store.root / "reviews") == 0o700
    files = [one for one in (store.root / "reviews").rglob("*") if one.is_file()]
    assert [mode(one) for one in files] == [0o600, 0o600], "the answers, and their entry in the log"
    # Labels are made of images that others may read as well.
    assert (mode(store.root), mode(store.root / "labels"), mode(store.root / "labels" / "a")) == (0o777, 0o777, 0o666)


@pytest.mark.usefixtures("open_to_all")
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".json", ".jsonl"])
def test_files_of_answers(tmp_path, suffix):
    path = tmp_path / f"answers{suffix}"
    path.write_text("from before")
    write_table(path, verdicts())
    assert mode(path) == 0o600


@pytest.mark.usefixtures("open_to_all")
def test_the_data_of_a_queue(tmp_path):
    with locked(tmp_path / "queue" / "start.lock"):
        pass
    assert mode(tmp_path / "queue") == 0o700
    assert mode(tmp_path / "queue" / "start.lock") == 0o600


@pytest.mark.usefixtures("open_to_all")
def test_the_log_of_commands(tmp_path, monkeypatch):
    monkeypatch.setenv("VOUCH_LOG", str(tmp_path / "state" / "vouch.log"))
    root = logging.getLogger()
    level = root.level
    try:
        assert output.start_log() == tmp_path / "state" / "vouch.log"
    finally:
        for handler in [one for one in root.handlers if getattr(one, "of_vouch", False)]:
            root.removeHandler(handler)
            handler.close()
        root.setLevel(level)
        logging.captureWarnings(False)
    assert mode(tmp_path / "state") == 0o700
    assert mode(tmp_path / "state" / "vouch.log") == 0o600


@pytest.mark.usefixtures("open_to_all")
def test_a_log_is_rotated_while_it_is_written_to(tmp_path):
    path = tmp_path / "one.log"
    path.write_text("from an earlier version\n")
    handler = PrivateLog(path, maxBytes=200, backupCount=1, encoding="utf-8")
    for number in range(20):
        handler.emit(logging.makeLogRecord({"msg": f"line {number} ü"}))
    handler.close()
    assert sorted(one.name for one in tmp_path.iterdir()) == ["one.log", "one.log.1"]
    assert "line 19 ü" in path.read_text("utf-8")
    assert path.stat().st_size <= 200
    assert {mode(one) for one in tmp_path.iterdir()} == {0o600}


@pytest.mark.usefixtures("open_to_all")
def test_standard_error_of_a_review_server_follows_its_log(tmp_path):
    path = tmp_path / "review.log"
    code = f"""
import logging, os
from vouch_labels.review_ui.server.__main__ import _Log
handler = _Log({str(path)!r}, maxBytes=200, backupCount=1)
for number in range(20):
    handler.emit(logging.makeLogRecord({{"msg": "a line of the log"}}))
os.write(2, b"a crash\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert path.read_text().endswith("a crash\n")
    assert path.with_name("review.log.1").exists()
