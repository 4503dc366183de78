"""Images of the queue, and no other file."""

import io

import boto3
import numpy as np
import pytest
from PIL import Image

from tests.conftest import draw
from tests.containers import tar_of
from vouch_labels.schemas.campaign import S3Options, Source
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.source import SourceStore


def ask(client, filepath, **headers):
    return client.get("/media", params={"filepath": filepath}, headers=headers)


@pytest.mark.parametrize("key", ["one.png", "folder/two words.png"])
def test_an_image_of_the_queue(guarded, client, key):
    answer = ask(client, f"/vouch/q/{key}")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "image/png"
    assert answer.content == (guarded.folder / key).read_bytes()
    assert client.head("/media", params={"filepath": f"/vouch/q/{key}"}).status_code == 200
    assert guarded.reached() == []


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", "etc/passwd", "/vouch/q/../../../etc/passwd", "/vouch/q//etc/passwd", "/vouch/q/other.png",
        "/vouch/other/one.png", "/vouch/q", "/vouch/q/", "", "/vouch/q/one.png\0", "/vouch/q/./one.png", "s3://b/one.png",
        "http://127.0.0.1/x", "/vouch/q/ONE.PNG", "/vouch/q/one.png/", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_nothing_else(guarded, client, path):
    assert ask(client, path).status_code == 403
    assert guarded.reached() == []


def test_a_key_that_leads_outside_is_no_way_out(client):
    answer = ask(client, "/vouch/q/../secret.png")
    assert answer.status_code == 502
    assert "secret" not in answer.text


def test_the_path_is_named_once_and_at_all(guarded, client):
    assert client.get("/media").status_code == 403
    assert client.get("/media?filepath=/vouch/q/one.png&filepath=/etc/passwd").status_code == 403


def test_a_part_of_an_image(guarded, client):
    answer = ask(client, "/vouch/q/one.png", range="bytes=2-5")
    assert answer.status_code == 206
    assert answer.content == (guarded.folder / "one.png").read_bytes()[2:6]


def test_an_image_that_has_gone_is_reported_and_logged(client, caplog):
    answer = ask(client, "/vouch/q/gone.png")
    assert answer.status_code == 404
    assert "deleted since" in answer.text
    assert "gone.png" in caplog.text


def test_what_browsers_do_not_show_is_converted(guarded, client):
    draw(2).save(guarded.folder / "slow.tif")
    answer = ask(client, "/vouch/q/slow.tif")
    assert answer.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(answer.content)).size == (96, 64)
    (guarded.folder / "slow.tif").write_bytes(b"II*\0 no more")
    assert ask(client, "/vouch/q/slow.tif").status_code == 404


@pytest.mark.parametrize("kind", ["WEBP", "PNG", "GIF", "AVIF"])
def test_of_a_film_the_first_frame_is_shown(guarded, client, kind):
    frames = [draw(number) for number in (2, 3)]
    frames[0].save(guarded.folder / "slow.tif", kind, save_all=True, append_images=frames[1:], duration=100)
    answer = ask(client, "/vouch/q/slow.tif")
    assert answer.headers["content-type"] == "image/jpeg"
    shown = np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)
    assert np.abs(shown - np.asarray(frames[0].convert("RGB"))).mean() < 16


def test_an_image_that_exif_turns_is_turned(guarded, client):
    exif = Image.Exif()
    exif[0x0112] = 6
    draw(2).save(guarded.folder / "turned.jpg", exif=exif)
    shown = Image.open(io.BytesIO(ask(client, "/vouch/q/turned.jpg").content))
    assert shown.size == (64, 96)
    assert shown.getexif().get(0x0112, 1) == 1


@pytest.fixture
def read(monkeypatch):
    """What was read of a file, as often as it was."""
    found = []
    for name in ("get", "open_reader"):
        kept = getattr(LocalStore, name)
        monkeypatch.setattr(LocalStore, name, lambda self, key, kept=kept: found.append(key) or kept(self, key))
    return found


@pytest.mark.parametrize("name", ["one.png", "slow.tif"])
def test_a_file_that_grew_beyond_what_is_labelled_is_not_read(guarded, read, name, caplog):
    """It may have been replaced by one of gigabytes since."""
    (guarded.folder / name).write_bytes(b"II*\0" + bytes(1_000_000))
    client = guarded.client(max_image_mb=1)
    answer = ask(client, f"/vouch/q/{name}")
    assert answer.status_code == 404
    assert "source.max_image_mb" in answer.text
    assert "1000004 bytes" in caplog.text
    assert read == []
    assert ask(guarded.client(max_image_mb=2), f"/vouch/q/{name}").status_code == 404  # it is no image
    assert read == [name]


def test_an_image_in_a_tar_is_shown(guarded):
    one = (guarded.folder / "one.png").read_bytes()
    (guarded.folder / "a.tar").write_bytes(tar_of({"one.png": one, "other.png": one}))
    guarded.store = SourceStore(guarded.store, Source(uri=str(guarded.folder)))
    client = guarded.client()
    answer = ask(client, "/vouch/q/a.tar/one.png")
    assert (answer.status_code, answer.content, answer.headers["content-type"]) == (200, one, "image/png")
    assert ask(client, "/vouch/q/one.png").content == one
    assert ask(client, "/vouch/q/a.tar/other.png").status_code == 403
    (guarded.folder / "a.tar").write_bytes(tar_of({"other.png": one}))
    assert ask(client, "/vouch/q/a.tar/one.png").status_code == 404
    (guarded.folder / "a.tar").unlink()
    assert ask(client, "/vouch/q/a.tar/one.png").status_code == 404


class TestBucket:
    @pytest.fixture
    def bucket(self, guarded, monkeypatch):
        from moto import mock_aws

        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        with mock_aws():
            client = boto3.client("s3")
            client.create_bucket(Bucket="photos")
            for name in ("one.png", "slow.tif"):
                data = io.BytesIO()
                draw(3).save(data, "PNG" if name.endswith("png") else "TIFF")
                client.put_object(Bucket="photos", Key=f"raw/{name}", Body=data.getvalue())
            guarded.store = S3Store("photos", "raw", S3Options(region="us-east-1"))
            yield client

    def test_the_browser_is_sent_to_the_bucket_for_a_minute(self, guarded, bucket):
        answer = ask(guarded.client(), "/vouch/q/one.png")
        assert answer.status_code == 307
        address = answer.headers["location"]
        assert "photos" in address
        assert "/raw/one.png?" in address
        assert "X-Amz-Expires=60" in address
        assert answer.headers["cache-control"] == "no-store"

    def test_an_image_in_a_tar_of_a_bucket_comes_from_here(self, guarded, bucket):
        one = bucket.get_object(Bucket="photos", Key="raw/one.png")["Body"].read()
        bucket.put_object(Bucket="photos", Key="raw/a.tar", Body=tar_of({"one.png": one}))
        guarded.store = SourceStore(guarded.store, Source(uri="s3://photos/raw"))
        assert ask(guarded.client(), "/vouch/q/a.tar/one.png").content == one
        assert ask(guarded.client(), "/vouch/q/one.png").status_code == 307

    def test_or_gets_it_from_here(self, guarded, bucket):
        answer = ask(guarded.client(media="proxy"), "/vouch/q/one.png")
        assert answer.status_code == 200
        assert Image.open(io.BytesIO(answer.content)).size == (96, 64)

    def test_what_browsers_do_not_show_comes_from_here(self, guarded, bucket):
        assert ask(guarded.client(), "/vouch/q/slow.tif").headers["content-type"] == "image/jpeg"

    def test_an_object_that_grew_is_neither_fetched_nor_shown(self, guarded, bucket):
        for key in ("one.png", "slow.tif"):
            bucket.put_object(Bucket="photos", Key=f"raw/{key}", Body=bytes(2000))
            for media in ("redirect", "proxy"):
                answer = ask(guarded.client(media=media, max_image_mb=0.001), f"/vouch/q/{key}")
                assert answer.status_code == 404
                assert "source.max_image_mb" in answer.text

    def test_an_object_that_has_gone(self, guarded, bucket):
        for media in ("redirect", "proxy"):
            assert ask(guarded.client(media=media), "/vouch/q/gone.png").status_code == 404
