"""Manifests, and the format of a workspace."""

import fnmatch
import json
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import IMAGE_GLOBS, S3Options, Workspace
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.run import CampaignRun, export_campaign
from vouch_labels.tasks.status import read_status
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.manifest import BATCH_ROWS, compile_filter, read_manifest
from vouch_labels.tasks.store.open import FORMAT, FORMAT_FILE, check_format, open_workspace, write_format
from vouch_labels.tasks.store.s3 import S3Store

S3 = S3Options()


def read(path: Path, content: bytes, **more: Any) -> list[ImageRef]:
    path.write_bytes(content)
    return list(read_manifest(str(path), S3, **more))


def test_text_has_a_key_a_line(tmp_path: Path) -> None:
    refs = read(tmp_path / "m.txt", "\ufeffb.jpg\r\n\na/ü b.jpg\nb.jpg".encode())
    assert refs == [("b.jpg", "", -1), ("a/ü b.jpg", "", -1), ("b.jpg", "", -1)]


def test_csv_takes_its_named_columns(tmp_path: Path) -> None:
    content = b'split,Key,size,etag\ntrain,"a,1.jpg",12,"""x"""\n\ntest,b.jpg,,\ntest,c.jpg\n'
    refs = read(tmp_path / "m.csv", content)
    assert refs == [("a,1.jpg", "x", 12), ("b.jpg", "", -1), ("c.jpg", "", -1)]


def test_jsonl_takes_objects_and_strings(tmp_path: Path) -> None:
    refs = read(tmp_path / "m.jsonl", b'{"key": "a.jpg", "size": 3, "etag": "x", "more": 1}\n"b.jpg"\n\n{"key":"c"}')
    assert refs == [("a.jpg", "x", 3), ("b.jpg", "", -1), ("c", "", -1)]


def test_parquet_is_read_in_batches(tmp_path: Path) -> None:
    keys = [f"{i}.jpg" for i in range(BATCH_ROWS + 10)]
    sizes = [None, *range(1, len(keys))]
    pq.write_table(pa.table({"size": sizes, "other": keys, "key": keys}), tmp_path / "m.parquet")
    refs = list(read_manifest("m.parquet", S3, base=tmp_path))
    assert refs == [ImageRef(key, "", -1 if size is None else size) for key, size in zip(keys, sizes, strict=True)]


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("m.txt", b"a.jpg\n/etc/passwd\n", r"row 2 .*'/etc/passwd'.* not relative"),
        ("m.txt", b"a/../../b.jpg\n", "row 1 .* not relative"),
        ("m.txt", b"s3://other/a.jpg\n", "row 1 .* not relative"),
        ("m.txt", b"a.jpg\n\xff\xfe\n", "row .* is not UTF-8"),
        ("m.csv", b"name,size\na,1\n", r"no column 'key' \(it has: name, size\)"),
        ("m.csv", b"", r"no column 'key' \(it has: none\)"),
        ("m.csv", b"key,size\na,1\nb,many\n", "row 3 has the size 'many'"),
        ("m.csv", b"key,size\na,-5\n", "row 2 has the size '-5'"),
        ("m.csv", b"key,size\na,99999999999999999999\n", "row 2 has the size '99999999999999999999'"),
        ("m.csv", b"key,size\n,5\n", "row 2 has no key"),
        ("m.csv", b"key\n" + b"x" * 200_000, "row 2 is not CSV"),
        ("m.jsonl", b'"a"\n{"key": \n', "row 2 is not JSON"),
        ("m.jsonl", b'{"name": "a"}\n', "row 1 has no key"),
        ("m.jsonl", b'{"key": 7}\n', "row 1 has no key"),
        ("m.jsonl", b'"\\ud800"\n', "row 1 .* not valid Unicode"),
        ("m.parquet", b"nothing", "not a readable Parquet file"),
        ("m.xlsx", b"", "a manifest is a .txt, .csv, .jsonl, .parquet file"),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, name: str, content: bytes, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as raised:
        read(tmp_path / name, content)
    assert "\n" not in str(raised.value)


def test_a_missing_manifest_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"manifest .*/none\.txt does not exist"):
        list(read_manifest("none.txt", S3, base=tmp_path))


def test_keys_may_carry_the_uri_of_the_source(tmp_path: Path) -> None:
    source = LocalStore(tmp_path / "images")
    assert read(tmp_path / "m.txt", f"{source.uri}/a/b.jpg\n".encode(), source=source) == [("a/b.jpg", "", -1)]


def test_what_is_left_out_can_be_looked_up(tmp_path: Path) -> None:
    source = LocalStore(tmp_path / "images")
    for number in range(200):
        source.put(f"{number}.jpg", b"x" * number)
    etag = source.get("1.jpg").etag
    keys = b"".join(b"%d.jpg,\n" % number for number in range(200))
    refs = read(tmp_path / "m.csv", b"key,etag\n1.jpg,known\n" + keys + b"gone.jpg,\n", source=source, look_up=True)
    # A manifest made from a bucket knows the bucket's tags, which no file of a folder ever has.
    assert refs[0] == ("1.jpg", etag, 1)
    assert refs[2] == ("1.jpg", etag, 1)
    assert [ref.size for ref in refs[1:]] == [*range(200), -1]
    assert refs[-1] == ("gone.jpg", "", -1)


def test_a_manifest_may_lie_in_a_bucket(s3_store: S3Store) -> None:
    s3_store.put("lists/m.csv", b"key,size\na.jpg,1\n")
    uri = f"{s3_store.uri}/lists/m.csv"
    assert list(read_manifest(uri, s3_store.options)) == [("a.jpg", "", 1)]
    with pytest.raises(UserError, match="does not exist"):
        list(read_manifest(f"{s3_store.uri}/lists/other.csv", s3_store.options))
    with pytest.raises(UserError, match="no-such-bucket-here"):
        list(read_manifest("s3://no-such-bucket-here/m.csv", s3_store.options))


@pytest.mark.parametrize(
    ("glob", "taken", "left"),
    [
        ("**/*.jpg", ["a.jpg", "x/a.JPG", "x/y/.jpg"], ["a.jpg/x", "a.png", "ajpg"]),
        ("*.jpg", ["a.jpg"], ["x/a.jpg"]),
        ("train/**", ["train/a", "TRAIN/x/y"], ["train", "trainx/a"]),
        ("train/**/*.png", ["train/a.png", "train/x/y/a.png"], ["test/a.png", "train.png"]),
        ("**/train/*", ["train/a", "x/y/train/a"], ["xtrain/a", "train/a/b"]),
        ("**", ["a", "a/b"], []),
        ("a?c", ["abc", "a.c"], ["ac", "a/c", "abbc"]),
        ("img[0-9].png", ["img7.png"], ["imgx.png", "img10.png"]),
        ("img[!0-9].png", ["imgx.png"], ["img7.png", "img/.png"]),
        ("a[]]b", ["a]b"], ["ab"]),
        ("a[b", ["a[b"], ["ab"]),
        ("a[!]b", ["a[!]b"], ["axb"]),
        ("a[]b", ["a[]b"], ["ab"]),
        ("a[z-a]b", [], ["a-b", "azb", "ab"]),
        ("a[!z-a]b", ["azb"], ["a/b"]),
        ("a[.\\-^]b", ["a.b", "a^b"], ["axb"]),
        ("./x/*", ["x/a"], ["./x/a"]),
        ("/x/*", ["x/a"], []),
        ("a+(b).jpg", ["a+(b).jpg"], ["aab.jpg"]),
        ("x**y", ["xy", "x/a/y"], ["x"]),
        ("**/*é.jpg", ["É.jpg", "x/é.JPG"], ["e.jpg"]),
    ],
)
def test_a_glob_takes_what_it_says(glob: str, taken: list[str], left: list[str]) -> None:
    takes = compile_filter([glob])
    assert [key for key in taken if not takes(key)] == []
    assert [key for key in left if takes(key)] == []


def test_exclude_comes_after_include() -> None:
    takes = compile_filter(IMAGE_GLOBS, ["**/thumbs/**", "**/*_mask.png"])
    keys = ["a.jpg", "x/b.PNG", "x/b_mask.png", "thumbs/a.jpg", "x/thumbs/y/a.jpg", "notes.txt"]
    assert [key for key in keys if takes(key)] == ["a.jpg", "x/b.PNG"]


def test_no_glob_takes_nothing() -> None:
    assert not compile_filter([])("a.jpg")


@given(
    st.text("ab.[]!-*?", max_size=8).filter(lambda glob: "**" not in glob),
    st.text("ab.[]!-AB", min_size=1, max_size=6),
)
def test_without_slashes_it_agrees_with_the_standard_library(glob: str, key: str) -> None:
    expected = re.match(fnmatch.translate(glob.removeprefix("./")), key, re.IGNORECASE) is not None
    assert compile_filter([glob])(key) == expected


@given(
    st.lists(st.sampled_from(["**", "**/", "*", "a", "/", "b"]), max_size=6).map("".join), st.text("ab/", max_size=8)
)
def test_a_suffix_and_its_pattern_mean_the_same(glob: str, key: str) -> None:
    # A leading "[a]" or so would leave the fast path; a class of one letter at the end does.
    fast, slow = compile_filter([f"{glob}**/*b"]), compile_filter([f"{glob}**/*[b]"])
    assert fast(key) == slow(key)


# The format of a workspace in any store, also where several processes use it first at once.


def test_it_is_written_once(store):
    assert not check_format(store)
    write_format(store)
    first = store.stat(FORMAT_FILE)
    write_format(store)
    assert store.stat(FORMAT_FILE) == first
    assert check_format(store)
    assert json.loads(store.get(FORMAT_FILE).data) == {"format": FORMAT}


def test_keys_that_a_newer_version_adds_do_not_matter(store):
    store.put(FORMAT_FILE, b'{"format": 1, "since": "2030"}')
    assert check_format(store)


def test_who_comes_second_after_a_newer_version_is_told(store):
    assert not check_format(store)
    store.put(FORMAT_FILE, b'{"format": 2}')
    with pytest.raises(UserError, match="has format 2, and this Vouch reads format 1"):
        write_format(store)
    assert store.get(FORMAT_FILE).data == b'{"format": 2}'


def test_threads_that_use_it_first_at_once_all_go_on(store):
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: write_format(store), range(16)))
    assert check_format(store)


def _use(folder, start):
    start.wait()
    write_format(LocalStore(folder))


def test_processes_that_use_it_first_at_once_all_go_on(tmp_path):
    context = multiprocessing.get_context("spawn")
    start = context.Barrier(3)
    processes = [context.Process(target=_use, args=(tmp_path / "new", start)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert [path.name for path in (tmp_path / "new").iterdir()] == [FORMAT_FILE]


def test_a_bucket_of_a_newer_version_is_refused(tmp_path, make_images, make_campaign, label, s3_store):
    make_images(tmp_path / "images", 3)
    place = Workspace.model_validate({"uri": f"{s3_store.uri}/out", "s3": s3_store.options.model_dump()})
    campaign = make_campaign(workspace=place.model_dump())
    label(campaign)
    workspace = open_workspace(campaign.workspace)
    assert json.loads(workspace.get(FORMAT_FILE).data) == {"format": FORMAT}
    workspace.put(FORMAT_FILE, b'{"format": 7}')
    before = sorted(workspace.list())
    words = f"{s3_store.uri}/out/{FORMAT_FILE}: the workspace has format 7"
    for use in (label, read_status, export_campaign, lambda one: CampaignRun(one).__enter__()):
        with pytest.raises(UserError) as caught:
            use(campaign)
        assert str(caught.value).startswith(words)
    assert sorted(workspace.list()) == before


def test_a_run_in_a_bucket_asks_once_however_many_shards_there_are(
    tmp_path, make_images, make_campaign, label, s3_store, monkeypatch
):
    make_images(tmp_path / "images", 9)
    campaign = make_campaign(
        workspace={"uri": f"{s3_store.uri}/out", "s3": s3_store.options.model_dump()},
        run={"shard_size": 2, "retry_delay_s": 0},
    )
    asked = []
    get = type(s3_store).get
    monkeypatch.setattr(type(s3_store), "get", lambda self, key: (asked.append(key), get(self, key))[1])
    _, markers = label(campaign)
    assert len(markers) == 5
    assert asked.count(FORMAT_FILE) == 1
