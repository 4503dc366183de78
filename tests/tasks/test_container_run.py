"""Whole runs over images inside tar and Parquet files: labels, increments, export, pictures, what is damaged."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.conftest import draw
from tests.containers import HEIGHT, WIDTH, tar_of, video_of
from vouch_labels.api import Campaign as Api
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.tasks.labels.totals import campaign_failures
from vouch_labels.tasks.memory import memory_of
from vouch_labels.tasks.preview import preview, write_preview
from vouch_labels.tasks.report.render import make_report
from vouch_labels.tasks.run import CampaignRun, RunOptions
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store import source as module
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.s3 import S3Store
from vouch_labels.tasks.store.source import FOLDER, SourceStore, open_source
from vouch_labels.tasks.store.store import Store

COUNT = 10


def png(number: int) -> bytes:
    file = io.BytesIO()
    draw(number).save(file, "PNG")
    return file.getvalue()


def as_files(store: Store, name: str, images: dict[str, bytes]) -> None:
    for key, data in images.items():
        store.put(key, data)


def as_tar(store: Store, name: str, images: dict[str, bytes]) -> None:
    members = {}
    for key, data in images.items():
        members |= {key: data, key.replace(".png", ".cls"): b"3"}
    store.put(f"{name}.tar", tar_of(members))


def as_parquet(store: Store, name: str, images: dict[str, bytes]) -> None:
    rows = [{"bytes": data, "path": key} for key, data in images.items()]
    file = io.BytesIO()
    pq.write_table(pa.table({"image": rows}), file, row_group_size=4)
    store.put(f"{name}.parquet", file.getvalue())


Put = Callable[[Store, str, dict[str, bytes]], None]
CONTAINERS: tuple[Put, ...] = (as_tar, as_parquet)


def images(start: int, count: int = COUNT) -> dict[str, bytes]:
    return {f"{number:03}.png": png(number) for number in range(start, start + count)}


@pytest.fixture(params=["folder", "bucket"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, Any]:
    """Where the images go, and the campaign's source."""
    if request.param == "folder":
        folder = tmp_path / "images"
        folder.mkdir()
        return LocalStore(folder), str(folder)
    request.getfixturevalue("credentials")
    store = S3Store(f"containers-{tmp_path.name.replace('_', '-').lower()[-40:]}", "", _options(request))
    store.client.create_bucket(Bucket=store.bucket)
    return store, {"uri": store.uri, "s3": store.options.model_dump()}


def _options(request: pytest.FixtureRequest) -> Any:
    from vouch_labels.schemas.campaign import S3Options

    endpoint = request.getfixturevalue("moto_endpoint")
    return S3Options(endpoint_url=endpoint, path_style=True, checksums="when_required", max_attempts=2)


def annotations(tmp_path: Path) -> dict[str, list[Any]]:
    """Image -> its boxes, in the order of the images."""
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    boxes: dict[int, list[Any]] = {image["id"]: [] for image in document["images"]}
    for entry in document["annotations"]:
        boxes[entry["image_id"]].append((entry["category_id"], *entry["bbox"]))
    return {image["file_name"]: boxes[image["id"]] for image in document["images"]}


@pytest.mark.parametrize("put", CONTAINERS)
def test_images_in_containers_are_labelled_as_files_are(
    place: tuple[Store, Any], put: Put, tmp_path: Path, make_campaign: Any, label: Any, forget: Any
) -> None:
    store, source = place
    put(store, "a", images(0))
    put(store, "deep/b", images(COUNT))
    campaign = make_campaign(source=source)
    summary, markers = label(campaign)
    assert (summary.images, summary.done, summary.failed) == (2 * COUNT, 2 * COUNT, 0)
    assert len(markers) == 2 * COUNT / 4
    assert summary.skipped == ({"CLS": 2 * COUNT} if put is as_tar else {})
    found = annotations(tmp_path)
    # The same images as files have the same labels.
    files = tmp_path / "files"
    as_files(LocalStore(files), "", images(0, 2 * COUNT))
    plain = make_campaign(source=str(files), run={"name": "plain"}, export={"name": "plain"})
    label(plain)
    document = json.loads((tmp_path / "workspace/exports/plain/annotations.json").read_text())
    assert len(document["annotations"]) == sum(map(len, found.values()))
    assert len(found) == len(document["images"])
    # Later: nothing to do, and no container is read again.
    forget()
    again, markers = label(campaign)
    assert (again.new_images, markers) == (0, [])
    # One that comes later is labelled alone.
    put(store, "c", images(2 * COUNT, 3))
    forget()
    added, markers = label(campaign)
    assert (added.new_images, added.images, added.removed_images) == (3, 2 * COUNT + 3, 0)
    assert len(markers) == 1
    assert {name: boxes for name, boxes in annotations(tmp_path).items() if name in found} == found


@pytest.fixture
def forget(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have the process forget what it knows of containers, as another one would not know it."""
    return lambda: monkeypatch.setattr(module, "_known", module._Known())


@pytest.mark.parametrize("put", CONTAINERS)
def test_a_rewritten_container_is_known_by_its_content(
    put: Put, tmp_path: Path, make_campaign: Any, label: Any
) -> None:
    folder = LocalStore(tmp_path / "images")
    put(folder, "a", images(0))
    campaign = make_campaign()
    label(campaign)
    put(folder, "a", images(0, COUNT + 2))
    summary, _ = label(campaign)
    assert (summary.new_images, summary.known_images, summary.images) == (COUNT + 2, COUNT, COUNT + 2)


@pytest.mark.parametrize("put", CONTAINERS)
def test_a_run_goes_on_after_a_kill(put: Put, tmp_path: Path, make_campaign: Any, label: Any, forget: Any) -> None:
    folder = LocalStore(tmp_path / "images")
    put(folder, "a", images(0))
    campaign = make_campaign()
    with CampaignRun(campaign) as session:
        session.plan()
        process_shard(next(iter(session.pending())).id, session.settings)
    forget()
    summary, markers = label(campaign)
    assert (summary.done, len(markers)) == (COUNT, 2)
    resumed = (tmp_path / "workspace/exports/coco/annotations.json").read_bytes()
    at_once = make_campaign(workspace=str(tmp_path / "other"))
    label(at_once)
    whole = json.loads((tmp_path / "other/exports/coco/annotations.json").read_text())
    assert whole["annotations"] == json.loads(resumed)["annotations"]


@pytest.mark.parametrize("how", ["copy", "link"])
@pytest.mark.parametrize("put", CONTAINERS)
def test_images_are_put_beside_the_annotations(
    put: Put, how: str, tmp_path: Path, make_campaign: Any, label: Any
) -> None:
    folder = LocalStore(tmp_path / "images")
    put(folder, "a", images(0, 3))
    folder.put("plain.png", png(9))
    summary, _ = label(make_campaign(export={"images": how}))
    assert not summary.export.missed
    root = tmp_path / "workspace/exports/coco"
    names = [image["file_name"] for image in json.loads((root / "annotations.json").read_text())["images"]]
    assert len(names) == 4
    contents = [(root / name).read_bytes() for name in names]
    assert contents == [png(0), png(1), png(2), png(9)]
    assert (root / "images/plain.png").samefile(tmp_path / "images/plain.png") == (how == "link")


def test_damaged_containers_fail_with_the_reason_and_the_rest_goes_on(
    tmp_path: Path, make_campaign: Any, label: Any
) -> None:
    folder = LocalStore(tmp_path / "images")
    as_tar(folder, "whole", images(0, 2))
    as_tar(folder, "cut", images(2, 4))
    data = folder.get("cut.tar").data
    folder.put("cut.tar", data[: len(data) // 2])
    folder.put("no.parquet", b"nothing of that kind")
    as_parquet(folder, "rows", {"x.png": png(7), "y.png": b"no image", "z.png": b""})
    folder.put("table.parquet", _table())
    campaign = make_campaign()
    summary, _ = label(campaign)
    failed = {one.key: one.reason for one in campaign_failures(campaign)}
    assert set(failed) == {"cut.tar", "no.parquet", "rows.parquet/000001.png", "rows.parquet/000002.png"}
    assert "damaged tar" in failed["cut.tar"]
    assert "damaged Parquet" in failed["no.parquet"]
    assert "no supported image" in failed["rows.parquet/000001.png"]
    assert summary.done >= 4
    assert summary.skipped["Parquet without a column of images (source.image_column names one)"] == 1


def _table() -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"label": [1, 2]}), file)
    return file.getvalue()


def test_images_in_containers_have_the_limits_of_files(tmp_path: Path, make_campaign: Any, label: Any) -> None:
    folder = LocalStore(tmp_path / "images")
    big = png(1) + bytes(20_000)
    for put in CONTAINERS:
        put(folder, "a", {"small.png": png(0), "big.png": big})
    campaign = make_campaign(source={"uri": str(tmp_path / "images"), "max_image_mb": 0.015})
    summary, _ = label(campaign)
    failed = {key: reason for key, *_, reason in summary.failed_images}
    assert set(failed) == {"a.parquet/000001.png", "a.tar/big.png"}
    assert all("source.max_image_mb" in reason for reason in failed.values())


def test_pictures_and_reports_show_them(tmp_path: Path, make_campaign: Any, label: Any, forget: Any) -> None:
    folder = LocalStore(tmp_path / "images")
    as_tar(folder, "a", images(0, 3))
    as_parquet(folder, "b", images(3, 3))
    campaign = make_campaign()
    found = preview(campaign, tmp_path / "before.png", 6)
    assert (found.images, found.failed) == (6, [])
    assert not (tmp_path / "workspace" / FOLDER).exists()
    label(campaign)
    forget()
    assert write_preview(campaign, tmp_path / "after.png") == 6
    make_report(campaign, tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert "data:image/jpeg;base64," in page
    assert "cannot be read" not in page
    assert "has left the source" not in page
    picture = Api(tmp_path / "campaign.yaml").show("b.parquet/000001.png")
    assert picture.size == draw(4).size


def test_a_source_in_a_bucket_is_read_by_another_machine_without_the_index(tmp_path: Path, make_campaign: Any) -> None:
    """A workspace that cannot be written to, or lacks the list of members, costs time and nothing else."""
    folder = LocalStore(tmp_path / "images")
    as_tar(folder, "a", images(0, 3))
    campaign: Campaign = make_campaign()
    view: SourceStore = open_source(campaign.source)
    assert view.get("a.tar/001.png").data == png(1)
    with pytest.raises(ObjectMissingError):
        view.get("a.tar/009.png")
    assert Image.open(io.BytesIO(view.get("a.tar/002.png").data)).size == draw(2).size


def test_the_first_images_alone(tmp_path: Path, make_campaign: Any, label: Any) -> None:
    folder = LocalStore(tmp_path / "images")
    as_tar(folder, "a", images(0, 6))
    campaign = make_campaign()
    with CampaignRun(campaign, options=RunOptions(limit=4)) as session:
        planned = session.plan()
        assert planned is not None
        assert planned.listed == 4


def drawn(number: int) -> np.ndarray:
    """One picture for each second of a video."""
    return np.asarray(draw(number // 5, (WIDTH, HEIGHT)))


@pytest.mark.parametrize("place", ["folder", "bucket"], indirect=True)
def test_frames_of_videos_are_labelled_with_their_times(
    place: tuple[Store, Any], tmp_path: Path, make_campaign: Any, label: Any, forget: Any
) -> None:
    store, source = place
    where = source if isinstance(source, dict) else {"uri": source}
    store.put("a.mp4", video_of(30, picture=drawn))
    store.put("b.mkv", video_of(20, "matroska", picture=drawn))
    store.put("plain.png", png(40))
    store.put("no.mp4", b"no video")
    export = {"splits": {"train": 0.5, "val": 0.25, "test": 0.25}, "formats": ["coco", "parquet"], "images": "copy"}
    with pytest.raises(UserError, match=r"no image to label, but videos; set source\.video"):
        preview(make_campaign(source=where | {"exclude": ["*.png"]}), tmp_path / "none.png", 3)
    where["video"] = {"frames_per_second": 1}
    campaign = make_campaign(source=where, export=export)
    summary, markers = label(campaign)
    assert (summary.images, summary.done, summary.failed, len(markers)) == (12, 11, 1, 3)
    assert {key: reason for key, _, reason in summary.failed_images}.keys() == {"no.mp4"}
    root = tmp_path / "workspace/exports/coco"
    document = json.loads((root / "annotations.json").read_text())
    assert [(image.get("video"), image.get("timestamp_s")) for image in document["images"]] == [
        *(("a.mp4", float(second)) for second in range(6)),
        *(("b.mkv", float(second)) for second in range(4)),
        (None, None),
    ]
    assert document["annotations"]
    rows = pq.read_table(root / "images.parquet").to_pylist()
    assert [row["timestamp_s"] for row in rows] == [image.get("timestamp_s") for image in document["images"]]
    for image in document["images"]:
        assert Image.open(root / image["file_name"]).size == (image["width"], image["height"])
    # Frames of one video look alike: they are in one split.
    splits = [
        json.loads((root / f"annotations_{name}.json").read_text())["images"] for name in ("train", "val", "test")
    ]
    for name in ("a.mp4", "b.mkv"):
        assert sum(any(image.get("video") == name for image in images) for images in splits) == 1
    forget()
    again, markers = label(campaign)
    assert (again.new_images, markers) == (0, [])
    # Twice as many: those that were taken before keep their labels.
    more = make_campaign(source=where | {"video": {"frames_per_second": 2}}, export=export)
    summary, _ = label(more)
    assert (summary.images, summary.new_images) == (22, 10)


def test_little_memory_is_shared_with_what_containers_keep(tmp_path: Path, make_campaign: Any, label: Any) -> None:
    folder = LocalStore(tmp_path / "images")
    as_parquet(folder, "a", images(0, 30))
    folder.put("b.mp4", video_of(50, picture=drawn))
    source = {"uri": str(tmp_path / "images"), "video": {}}
    summary, _ = label(make_campaign(source=source, run={"shard_size": 50, "decode_memory_mb": 64}))
    assert (summary.done, summary.failed) == (40, 0)
    assert memory_of(64).held == 0
