import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, StoreError, VouchError
from vouch_labels.tasks.store import lock
from vouch_labels.tasks.store.local import FOREIGN_AGE_S, LocalStore, is_temporary, temporary_name
from vouch_labels.tasks.store.lock import ProcessId, is_alive, this_process
from vouch_labels.tasks.store.s3 import S3Store


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def names(store: LocalStore) -> list[str]:
    return sorted(path.name for path in store.root.iterdir())


@pytest.mark.parametrize("key", ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/./b", "a/", "a\0b", ".", ".."])
def test_a_key_that_is_no_name_below_the_folder_is_refused(store: LocalStore, key: str) -> None:
    for action in (store.get, store.stat, store.delete, store.local_path, lambda key: store.put(key, b"")):
        with pytest.raises(StoreError, match="does not name a file below"):
            action(key)
    assert list(store.list(f"{key}/../")) == []


def test_links_are_followed_but_not_in_circles(store: LocalStore, tmp_path: Path) -> None:
    other = LocalStore(tmp_path / "other")
    other.put("y/1.jpg", b"1")
    store.put("x/2.jpg", b"22")
    (store.root / "link.jpg").symlink_to(other.root / "y/1.jpg")
    (store.root / "linked").symlink_to(other.root)
    (store.root / "x/up").symlink_to(store.root)
    (store.root / "broken").symlink_to(tmp_path / "nowhere")
    (store.root / "self").symlink_to(store.root / "self")
    assert [info.key for info in store.list()] == ["link.jpg", "linked/y/1.jpg", "x/2.jpg"]
    assert store.get("linked/y/1.jpg").data == b"1"
    assert store.stat("self") is None


def test_only_files_are_objects(store: LocalStore, caplog: pytest.LogCaptureFixture) -> None:
    store.put("a/b.jpg", b"")
    os.mkfifo(store.root / "pipe")
    (store.root / "empty").mkdir()
    Path(os.fsdecode(os.fsencode(store.root) + b"/\xff.jpg")).write_bytes(b"")
    assert [info.key for info in store.list()] == ["a/b.jpg"]
    assert "not UTF-8" in caplog.text
    assert store.stat("a") is None
    with pytest.raises(ObjectMissingError):
        store.get("a")
    with pytest.raises(ObjectMissingError), store.open_reader("a/b.jpg/c"):
        pass
    store.delete("a/b.jpg/c")


def test_files_deleted_while_listing_are_passed_over(store: LocalStore) -> None:
    for key in ("a/1", "a/2", "b/1"):
        store.put(key, b"")
    listing = store.list()
    assert next(listing).key == "a/1"
    shutil.rmtree(store.root / "b")
    (store.root / "a/2").unlink()
    assert list(listing) == []


def test_a_file_in_the_way_of_a_folder_is_named(store: LocalStore) -> None:
    store.put("a", b"")
    with pytest.raises(StoreAccessError, match="a file stands where a folder is needed"):
        store.put("a/b", b"")
    store.put("c/d", b"")
    with pytest.raises(StoreAccessError, match="a file stands where"):
        store.put("c", b"")


@pytest.mark.parametrize(
    ("number", "kind", "text"),
    [
        (errno.ENOSPC, StoreError, "no space left on device; free some space and run again"),
        (errno.EDQUOT, StoreError, "free some space"),
        (errno.EROFS, StoreAccessError, "read-only file system; check the owner and mode"),
        (errno.EACCES, StoreAccessError, "permission denied; check"),
        (errno.EIO, StoreError, "cannot write .*x: input/output error"),
    ],
)
def test_a_write_that_the_disk_refuses_is_one_line(
    store: LocalStore, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[VouchError], text: str
) -> None:
    store.put("x", b"old")

    def fsync(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(VouchError, match=text) as raised:
        store.put("x", b"new")
    assert type(raised.value) is kind
    assert "\n" not in str(raised.value)
    assert names(store) == ["x"]
    assert store.get("x").data == b"old"


LIMITED = """
import resource, signal, sys
from pathlib import Path
from vouch_labels.schemas.errors import StoreError
from vouch_labels.tasks.store.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
store.put("x", b"old")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for write in (lambda file: file.write(b"x" * 200_000), lambda file: [file.write(b"x" * 10) for _ in range(20_000)]):
    try:
        with store.open_writer("x") as file:
            write(file)
    except StoreError as error:
        print(error)
try:
    store.put("x", b"x" * 200_000)
except StoreError as error:
    print(error)
"""


def test_a_write_that_runs_out_of_room_half_way_leaves_what_was_there(store: LocalStore) -> None:
    run = subprocess.run([sys.executable, "-c", LIMITED, store.uri], capture_output=True, text=True, check=True)
    lines = run.stdout.splitlines()
    assert len(lines) == 3
    assert all("free some space and run again" in line for line in lines)
    assert names(store) == ["x"]
    assert store.get("x").data == b"old"


def test_without_hard_links_a_look_comes_before_the_write(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    assert store.put("x", b"first", if_absent=True)
    assert not store.put("x", b"second", if_absent=True)
    assert store.get("x").data == b"first"


def test_a_link_that_fails_otherwise_is_an_error(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(source: str, target: Path) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(StoreError, match="input/output error"):
        store.put("x", b"", if_absent=True)
    assert list(store.root.iterdir()) == []


def test_a_file_system_that_cannot_sync_folders_will_do(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.open

    def refuse_folders(path: os.PathLike[str], flags: int, *more: int) -> int:
        if Path(path).is_dir():
            raise OSError(errno.EINVAL, "Invalid argument")
        return real(path, flags, *more)

    monkeypatch.setattr(os, "open", refuse_folders)
    assert store.put("x", b"1")
    assert store.get("x").data == b"1"


WRITER = """
import sys
from pathlib import Path
from vouch_labels.tasks.store.local import LocalStore

store = LocalStore(Path(sys.argv[1]))
print("ready", flush=True)
number = 0
while True:
    number += 1
    store.put("part", bytes([number % 256]) * (200_000 + number % 256))
    store.put(f"new/{number % 50}", b"n" * 1000, if_absent=True)
    with store.open_writer("stream") as file:
        for _ in range(20):
            file.write(bytes([number % 256]) * 10_000)
"""


def test_a_killed_writer_leaves_whole_objects(tmp_path: Path) -> None:
    rng = random.Random(3)
    store = LocalStore(tmp_path)
    for _ in range(8):
        child = subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        assert child.stdout.readline() == "ready\n"
        while store.stat("stream") is None:
            time.sleep(0.001)
        time.sleep(rng.random() * 0.05)
        child.send_signal(signal.SIGKILL)
        child.communicate()
        data = store.get("part").data
        assert data == data[:1] * (200_000 + data[0])
        data = store.get("stream").data
        assert data == data[:1] * 200_000
        assert all(info.size == 1000 for info in store.list("new/"))
        assert not any(is_temporary(info.key) for info in store.list())
    LocalStore(tmp_path).put("last", b"")
    LocalStore(tmp_path).put("new/last", b"")
    assert not [path for path in tmp_path.rglob("*") if is_temporary(path.name)]


def test_only_what_dead_writers_left_is_swept(store: LocalStore) -> None:
    mine = temporary_name()
    dead = mine.replace(f"-{os.getpid()}-", "-999999999-")
    foreign, old_foreign = (f".vouch-{'0' * 16}-1-2-{letter}.tmp" for letter in "ab")
    odd = ".vouch-odd.tmp"
    store.root.mkdir()
    for name in (mine, dead, foreign, old_foreign, odd):
        (store.root / name).write_bytes(b"")
    long_ago = time.time() - FOREIGN_AGE_S - 60
    os.utime(store.root / old_foreign, (long_ago, long_ago))
    store.put("x", b"")
    assert names(store) == sorted([mine, foreign, odd, "x"])
    assert [info.key for info in store.list()] == ["x"]


def test_without_proc_a_number_must_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(lock, "PROC", tmp_path)
    lock._place.cache_clear()
    try:
        me = this_process()
        assert me.started == ""
        assert is_alive(me)
        child = subprocess.Popen([sys.executable, "-c", ""])
        child.wait()
        assert is_alive(me._replace(pid=child.pid)) is False
        assert is_alive(me._replace(pid=1))
    finally:
        monkeypatch.undo()
        lock._place.cache_clear()


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = this_process()
    assert is_alive(me)
    assert is_alive(me._replace(started="1")) is False
    assert is_alive(ProcessId("elsewhere", me.pid, me.started)) is None


NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1, max_size=4)
FOLDERS = st.lists(NAMES.filter(lambda name: name not in {".", ".."}), min_size=1, max_size=3)


@settings(deadline=None, max_examples=20)
@given(keys=st.sets(FOLDERS.map("/".join), max_size=15), prefix=FOLDERS.map("/".join))
def test_a_folder_lists_as_a_bucket_does(
    moto_endpoint: str, tmp_path_factory: pytest.TempPathFactory, keys: set[str], prefix: str
) -> None:
    keys = {key for key in keys if not any(other.startswith(f"{key}/") for other in keys)}
    folder = LocalStore(tmp_path_factory.mktemp("folder"))
    for key in keys:
        folder.put(key, key.encode())
    expected = sorted(keys, key=str.encode)
    assert [info.key for info in folder.list()] == expected
    for start in {prefix, *(key[: len(key) // 2 + 1] for key in keys)}:
        assert [info.key for info in folder.list(start)] == [key for key in expected if key.startswith(start)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        assert _listed_by_a_bucket(moto_endpoint, keys) == expected


def _listed_by_a_bucket(endpoint: str, keys: set[str]) -> list[str]:
    from vouch_labels.schemas.campaign import S3Options

    options = S3Options.model_validate({"endpoint_url": endpoint, "path_style": True, "region": "us-east-1"})
    bucket = S3Store(f"property-{os.urandom(6).hex()}", "", options)
    bucket.client.create_bucket(Bucket=bucket.bucket)
    for key in keys:
        bucket.put(key, key.encode())
    listed = [info.key for info in bucket.list()]
    for key in keys:
        bucket.delete(key)
    bucket.client.delete_bucket(Bucket=bucket.bucket)
    return listed


def test_listing_says_when_a_folder_cannot_be_read(store: LocalStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("a/1.jpg", b"")
    real = os.scandir

    def scandir(path: bytes) -> object:
        if path.rstrip(b"/").endswith(b"/a"):
            raise PermissionError(errno.EACCES, "Permission denied", os.fsdecode(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StoreAccessError, match=r"cannot list .*/a: permission denied; check the owner"):
        list(store.list())


def test_a_folder_is_read_when_its_turn_comes(store: LocalStore) -> None:
    for folder in ("b", "a", "a-b"):
        for number in range(30):
            store.put(f"{folder}/{number}", b"")
    listing = store.list()
    assert next(listing).key == "a-b/0"
    shutil.rmtree(store.root / "b")
    assert [info.key for info in listing][-1] == "a/9"
