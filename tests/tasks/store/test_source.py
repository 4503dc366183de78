"""Images inside tar and Parquet files as objects of the source: listing, reading, damage, what is kept."""

import io
import os
import tarfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.containers import Counting, hugging, parquet_of, tar_of
from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import ContainerError, ObjectChangedError, ObjectMissingError
from vouch_labels.tasks.plan.plan import list_source
from vouch_labels.tasks.store import source as module
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.members import TWICE
from vouch_labels.tasks.store.parquet import NO_IMAGES
from vouch_labels.tasks.store.source import COMPRESSED, FOLDER, SourceStore, _Known
from vouch_labels.tasks.store.store import ObjectInfo, Store
from vouch_labels.tasks.store.tar import SPECIAL, UNSAFE


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process remembers is not what is tested here."""
    monkeypatch.setattr(module, "_known", _Known())


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Any:
    return lambda: monkeypatch.setattr(module, "_known", _Known())


def opened(store: Store, workspace: Store | None = None, **settings: Any) -> SourceStore:
    return SourceStore(store, Source(uri="images", **settings), workspace)


def listed(view: SourceStore, skipped: Counter[str] | None = None, **settings: Any) -> list[tuple[str, str, int]]:
    return [tuple(ref) for ref in list_source(Source(uri="images", **settings), view, skipped=skipped)]


def keys(view: SourceStore, skipped: Counter[str] | None = None, **settings: Any) -> list[str]:
    return [key for key, *_ in listed(view, skipped, **settings)]


def test_a_range_is_of_one_version(store: Store) -> None:
    store.put("x", b"0123456789")
    etag = store.get("x").etag
    assert store.get_range("x", 0, 10, etag) == b"0123456789"
    assert store.get_range("x", 3, 4, etag) == b"3456"
    assert store.get_range("x", 9, 1, etag) == b"9"
    assert store.get_range("x", 4, 0, etag) == b""
    store.put("x", b"abcdefghijkl")
    with pytest.raises(ObjectChangedError):
        store.get_range("x", 3, 4, etag)
    with pytest.raises(ObjectMissingError):
        store.get_range("nothing", 3, 4, etag)


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_listed_in_order_and_read_by_their_ranges(store: Store, format: int) -> None:
    long_name = f"deep/{'x' * 90}/{'y' * 50}.jpg"
    content = {"b.jpg": b"bb", "a.png": b"aaa", "a.json": b"{}", long_name: b"long", "./dir/ü.JPG": b"u"}
    store.put("shards/0.tar", tar_of(content, format))
    store.put("shards/0.tar-1.jpg", b"plain")
    store.put("shards/1.jpg", b"plain too")
    counting = Counting(store)
    view = opened(counting)
    skipped = Counter[str]()
    found = listed(view, skipped)
    expected = ["a.png", "b.jpg", long_name, "dir/ü.JPG"]
    assert [key for key, *_ in found] == [
        "shards/0.tar-1.jpg",
        *(f"shards/0.tar/{name}" for name in sorted(expected, key=str.encode)),
        "shards/1.jpg",
    ]
    assert skipped == {"JSON": 1}
    counting.ranges.clear()
    contents = {f"shards/0.tar/{name.removeprefix('./')}": data for name, data in content.items()}
    contents |= {"shards/0.tar-1.jpg": b"plain", "shards/1.jpg": b"plain too"}
    for key, etag, size in found:
        assert view.get(key) == (contents[key], etag)
        assert view.stat(key) == (key, etag, size)
        assert len(contents[key]) == size
    # One image, one request of its bytes alone.
    assert sorted(size for *_, size in counting.ranges) == sorted(
        len(content[key]) for key in content if ".js" not in key
    )
    assert view.get_range(found[1][0], 1, 2, found[1][1]) == contents[found[1][0]][1:3]
    with view.open_reader(found[1][0]) as file:
        assert file.read() == contents[found[1][0]]
    with pytest.raises(ObjectMissingError):
        view.get("shards/0.tar/nothing.jpg")
    assert view.stat("shards/0.tar/nothing.jpg") is None


def test_a_large_tar_is_listed_by_its_headers_and_in_no_memory(tmp_path: Path) -> None:
    """Of images larger than what is read ahead, the headers alone are read."""
    folder = LocalStore(tmp_path)
    count, size = 200, 40_000
    folder.put("a.tar", tar_of({f"{number:04}.jpg": bytes(size) for number in range(count)}))
    counting = Counting(folder)
    view = opened(counting)
    assert len(keys(view)) == count
    assert counting.bytes < count * size / 5
    assert max(size for *_, size in counting.ranges) <= 64 << 10


def test_small_members_are_listed_in_few_requests(moto_store: Store) -> None:
    moto_store.put("a.tar", tar_of({f"{number:04}.jpg": bytes(3000) for number in range(1000)}))
    counting = Counting(moto_store)
    assert len(keys(opened(counting))) == 1000
    assert len(counting.ranges) < 15
    assert counting.bytes <= 1.1 * len(moto_store.get("a.tar").data)


def test_what_is_inside_is_kept_in_the_workspace_for_as_long_as_the_tar_is_the_same(
    store: Store, tmp_path: Path, forget: Any
) -> None:
    workspace = LocalStore(tmp_path / "workspace")
    store.put("a.tar", tar_of({"1.jpg": b"1", "2.jpg": b"22"}))
    first = listed(opened(store, workspace))
    assert next(info.key for info in workspace.list()).startswith(FOLDER)
    forget()
    counting = Counting(store)
    assert listed(opened(counting, workspace)) == first
    assert not counting.ranges
    forget()
    store.put("a.tar", tar_of({"1.jpg": b"1", "3.jpg": b"333"}))
    view = opened(counting, workspace)
    assert [key for key, *_ in listed(view)] == ["a.tar/1.jpg", "a.tar/3.jpg"]
    assert counting.ranges
    assert {etag for _, etag, _ in listed(view)}.isdisjoint(etag for _, etag, _ in first)
    # What is damaged there is read again.
    for info in list(workspace.list()):
        workspace.put(info.key, b"PAR1 no more")
    forget()
    assert [key for key, *_ in listed(opened(store, workspace))] == ["a.tar/1.jpg", "a.tar/3.jpg"]


def test_a_tar_that_changes_between_listing_and_reading_shows_in_the_tag(store: Store) -> None:
    store.put("a.tar", tar_of({"1.jpg": b"1", "2.jpg": b"22"}))
    view = opened(store)
    before = {key: etag for key, etag, _ in listed(view)}
    assert view.get("a.tar/1.jpg").data == b"1"
    store.put("a.tar", tar_of({"0.jpg": b"", "1.jpg": b"one"}))
    blob = view.get("a.tar/1.jpg")
    assert blob.data == b"one"
    assert blob.etag != before["a.tar/1.jpg"]
    with pytest.raises(ObjectMissingError):
        view.get("a.tar/2.jpg")
    store.delete("a.tar")
    with pytest.raises(ObjectMissingError):
        view.get("a.tar/1.jpg")


def test_names_in_a_tar_lead_nowhere_else(store: Store) -> None:
    def special(tar: tarfile.TarFile) -> None:
        for name, kind, target in (
            ("link.jpg", tarfile.SYMTYPE, "/etc/passwd"),
            ("hard.jpg", tarfile.LNKTYPE, "good.jpg"),
            ("device.jpg", tarfile.CHRTYPE, ""),
            ("fifo.jpg", tarfile.FIFOTYPE, ""),
            ("folder.jpg", tarfile.DIRTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, target
            tar.addfile(info)

    members = {"../up.jpg": b"1", "/abs/olute.jpg": b"2", "a/../../b.jpg": b"3", "good.jpg": b"4", "a//b.jpg": b"5"}
    store.put("a.tar", tar_of(members, more=special))
    skipped = Counter[str]()
    assert keys(opened(store), skipped) == ["a.tar/a/b.jpg", "a.tar/abs/olute.jpg", "a.tar/good.jpg"]
    assert skipped == {UNSAFE: 2, SPECIAL: 4}


def test_of_two_members_of_one_name_the_last_one_stands(store: Store) -> None:
    def again(tar: tarfile.TarFile) -> None:
        info = tarfile.TarInfo("1.jpg")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"new"))

    store.put("a.tar", tar_of({"1.jpg": b"old", "2.jpg": b"2"}, more=again))
    skipped = Counter[str]()
    view = opened(store)
    assert keys(view, skipped) == ["a.tar/1.jpg", "a.tar/2.jpg"]
    assert view.get("a.tar/1.jpg").data == b"new"
    assert skipped == {TWICE: 1}


WHOLE = tar_of({"1.jpg": bytes(600), "2.jpg": bytes(600)})


@pytest.mark.parametrize(
    ("data", "whole", "words"),
    [
        (WHOLE[:2300], 1, "ends within a file, behind 1 whole"),
        (WHOLE[: 512 + 1024 + 300], 1, "no header at byte 1,536"),
        (WHOLE[: 512 + 1024] + b"x" * 512 + WHOLE[512 + 1024 :], 1, "no header at byte 1,536, behind 1 whole"),
        (WHOLE + WHOLE, 2, "something follows the end"),
        (b"", 0, "damaged tar"),
        (b"no tar at all, whatever its name says" * 30, 0, "damaged tar"),
        (b"\x1f\x8b\x08\0" + bytes(600), 0, "compressed by gzip"),
    ],
)
def test_a_damaged_tar_says_so_and_the_rest_goes_on(store: Store, data: bytes, whole: int, words: str) -> None:
    store.put("a.tar", data)
    store.put("b.jpg", b"b")
    view = opened(store)
    names = [f"a.tar/{number}.jpg" for number in range(1, whole + 1)]
    assert sorted(keys(view)) == ["a.tar", *names, "b.jpg"]
    with pytest.raises(ContainerError, match=words):
        view.get("a.tar")
    assert all(view.get(name).data == bytes(600) for name in names)


def test_a_header_that_claims_more_than_there_is_takes_no_memory(store: Store) -> None:
    """A pax header of a gigabyte would be read at once."""
    info = tarfile.TarInfo("x")
    info.type, info.size = tarfile.XHDTYPE, 1 << 30
    store.put("a.tar", info.tobuf(tarfile.USTAR_FORMAT) + bytes(9 << 20))
    with pytest.raises(ContainerError, match="damaged tar"):
        opened(store).get("a.tar")


def test_compressed_tars_are_counted(store: Store) -> None:
    for name in ("a.tar.gz", "b.TGZ", "c.tar.zst"):
        store.put(name, b"x")
    store.put("d.jpg", b"d")
    skipped = Counter[str]()
    assert keys(opened(store), skipped) == ["d.jpg"]
    assert skipped == {COMPRESSED: 3}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, ["a/x.tar/1.jpg", "a/x.tar/no_suffix", "b/y.tar/2.png"]),
        ({"exclude": ["b/*.tar"]}, ["a/x.tar/1.jpg", "a/x.tar/no_suffix"]),
        ({"exclude": ["**/1.*"]}, ["a/x.tar/no_suffix", "b/y.tar/2.png"]),
        ({"include": ["**/*.jpg"]}, ["a/x.tar/1.jpg"]),
        ({"include": ["b/*.tar"]}, ["b/y.tar/2.png"]),
        ({"include": ["**/*.txt"]}, ["a/x.tar/2.txt"]),
    ],
)
def test_globs_name_containers_or_what_is_inside(store: Store, settings: dict[str, Any], expected: list[str]) -> None:
    store.put("a/x.tar", tar_of({"1.jpg": b"1", "no_suffix": b"2", "2.txt": b"3", ".hidden/4.jpg": b"4"}))
    store.put("b/y.tar", tar_of({"2.png": b"2"}))
    store.put(".c/z.tar", tar_of({"2.png": b"2"}))
    assert keys(opened(store), **settings) == expected


def test_a_folder_that_is_called_as_a_tar_is_a_folder(store: Store) -> None:
    store.put("x.tar/1.jpg", b"1")
    view = opened(store)
    assert keys(view) == ["x.tar/1.jpg"]
    assert view.get("x.tar/1.jpg") == store.get("x.tar/1.jpg")
    assert view.local_path("x.tar/1.jpg") == store.local_path("x.tar/1.jpg")


def test_a_manifest_names_members(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path / "images")
    folder.put("a.tar", tar_of({"1.jpg": b"1", "2.jpg": b"22"}))
    (tmp_path / "list.txt").write_text("a.tar/2.jpg\na.tar/9.jpg\n")
    view = opened(folder)
    source = Source(uri="images", manifest=str(tmp_path / "list.txt"))
    (two, nine) = list_source(source, view)
    assert two == tuple(view.stat("a.tar/2.jpg"))
    assert (nine.etag, nine.size) == ("", -1)


def test_many_containers_among_many_objects_keep_their_order(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    plain = [ObjectInfo(f"{number:05}.jpg", "x", 1) for number in range(30_000)]
    tars = []
    for number in range(0, 30_000, 150):
        folder.put(f"{number:05}.tar", tar_of({"1.jpg": b"1"}))
        tars.append(folder.stat(f"{number:05}.tar"))
    given = sorted([*plain, *tars])
    found = [info.key for info in opened(folder).expand(given, Counter())]
    assert found == sorted(found)
    assert len(found) == len(given)


def test_rows_of_a_parquet_file_are_images(store: Store) -> None:
    rows = hugging(30)
    rows[3]["path"] = "b.PNG"
    rows[4]["path"] = None
    rows[5]["path"] = "no suffix"
    rows[6]["path"] = "../../etc/x.a/b"
    store.put("d/train.parquet", parquet_of({"label": list(range(30)), "image": rows}, row_group_size=8))
    view = opened(store)
    found = listed(view)
    names = [f"{number:06}.jpg" for number in range(30)]
    names[3], names[4], names[5], names[6] = "000003.PNG", "000004", "000005", "000006"
    assert [key for key, *_ in found] == [f"d/train.parquet/{name}" for name in names]
    assert len({etag for _, etag, _ in found}) == 30
    for (key, etag, size), row in reversed(list(zip(found, rows, strict=True))):
        assert size == -1
        assert view.get(key) == (row["bytes"], etag)


@pytest.mark.parametrize("how", [{}, {"row_group_size": 100}, {"data_page_size": 1 << 14, "write_batch_size": 4}])
def test_rows_in_order_are_read_once_by_many_threads(moto_store: Store, how: dict[str, Any]) -> None:
    """Whatever a page or row group holds, it is read once and not for each image."""
    rows = [{"bytes": os.urandom(20_000), "path": None} for _ in range(500)]
    data = parquet_of({"image": rows}, **how)
    moto_store.put("train.parquet", data)
    counting = Counting(moto_store)
    view = opened(counting)
    found = keys(view)
    assert counting.bytes < len(data) / 4
    counting.ranges.clear()
    with ThreadPoolExecutor(16) as pool:
        contents = list(pool.map(lambda key: view.get(key).data, found))
    assert contents == [row["bytes"] for row in rows]
    assert counting.bytes < 1.3 * len(data)
    assert len(counting.ranges) < 40


@pytest.mark.parametrize(
    ("columns", "metadata", "settings", "expected"),
    [
        ({"image": [b"1"]}, None, {}, b"1"),
        ({"embedding": [b"0"], "jpg": [b"2"]}, None, {}, b"2"),
        ({"embedding": [b"0"]}, None, {}, None),
        ({"embedding": [b"0"]}, None, {"image_column": "embedding"}, b"0"),
        ({"image": [b"1"], "mask": [b"3"]}, None, {"image_column": "mask"}, b"3"),
        ({"image": [b"1"]}, None, {"image_column": "nothing"}, None),
        ({"image": ["text"], "n": [3]}, None, {}, None),
        ({"image": [[b"1", b"2"]]}, None, {}, None),
        ({"a": [{"bytes": b"4", "path": None}], "image": [b"1"]}, None, {}, b"4"),
        (
            {"a": [{"bytes": b"4", "path": None}], "b": [{"bytes": b"5", "path": None}]},
            {"huggingface": '{"info": {"features": {"a": {"_type": "Audio"}, "b": {"_type": "Image"}}}}'},
            {},
            b"5",
        ),
        ({"a": [{"bytes": b"4"}]}, {"huggingface": "{]"}, {}, b"4"),
        ({"a": [{"bytes": b"4"}]}, {"huggingface": '{"info": 3}'}, {}, b"4"),
    ],
)
def test_which_column_holds_the_images(
    tmp_path: Path,
    columns: dict[str, Any],
    metadata: dict[str, str] | None,
    settings: dict[str, Any],
    expected: bytes | None,
) -> None:
    folder = LocalStore(tmp_path)
    folder.put("a.parquet", parquet_of(columns, metadata))
    view = opened(folder, **settings)
    skipped = Counter[str]()
    found = keys(view, skipped, **settings)
    assert found == ([] if expected is None else ["a.parquet/000000"])
    assert skipped == ({NO_IMAGES: 1} if expected is None else {})
    assert expected is None or view.get(found[0]).data == expected


def test_another_column_of_the_same_rows_is_other_images(tmp_path: Path) -> None:
    folder = LocalStore(tmp_path)
    folder.put("a.parquet", parquet_of({"image": [b"1"], "mask": [b"2"]}))
    (one,), (other,) = listed(opened(folder)), listed(opened(folder, image_column="mask"), image_column="mask")
    assert one[0] == other[0]
    assert one[1] != other[1]


def test_damaged_parquet_files_and_rows_without_an_image_say_so(store: Store) -> None:
    rows = hugging(300, 4000)
    rows[7] = None
    rows[8] = {"bytes": None, "path": "x.jpg"}
    data = parquet_of({"image": rows}, row_group_size=100, compression="none")
    store.put("a.parquet", data)
    store.put("b.parquet", data[:-100])
    store.put("c.parquet", b"no Parquet")
    middle = len(data) // 2
    store.put("d.parquet", data[:middle] + bytes(40_000) + data[middle + 40_000 :])
    view = opened(store)
    found = keys(view)
    assert [key for key in found if key.count("/") == 0] == ["b.parquet", "c.parquet"]
    assert len(found) == 602
    for key in ("a.parquet/000007", "a.parquet/000008.jpg"):
        with pytest.raises(ContainerError, match="the row holds no image"):
            view.get(key)
    assert view.get("a.parquet/000009.jpg").data == rows[9]["bytes"]
    for key in ("b.parquet", "c.parquet"):
        with pytest.raises(ContainerError, match="damaged Parquet file"):
            view.get(key)
    assert view.get("d.parquet/000001.jpg").data == rows[1]["bytes"]
    damaged = 0
    for number in range(300):
        try:
            view.get(f"d.parquet/{number:06}.jpg")
        except (ContainerError, ObjectMissingError):
            damaged += 1
    assert 0 < damaged < 110
