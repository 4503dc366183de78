from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.campaign import S3Options
from schemas.errors import UserError
from schemas.records import ImageRef
from tasks.store.local import LocalStore
from tasks.store.manifest import BATCH_ROWS, read_manifest
from tasks.store.s3 import S3Store

S3 = S3Options()


def read(path: Path, content: bytes, **more: object) -> list[ImageRef]:
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
