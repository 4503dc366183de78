"""One shard: what is written, what is kept, what fails alone."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vouch_labels.schemas.errors import ObjectRefusedError, StoreError, VouchError
from vouch_labels.schemas.records import Failed, ImageRef, Marker
from vouch_labels.schemas.tables import STAGES
from vouch_labels.tasks import decode
from vouch_labels.tasks.acquire import DENIED
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.boxes_masks import is_rle, rle_area
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.presence import Presence
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.shard import shard
from vouch_labels.tasks.shard.events import Planned, Progress
from vouch_labels.tasks.shard.files import markers_of, read_part
from vouch_labels.tasks.shard.pipeline import _load, load_pipeline
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.shard.steps import Work
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store


@pytest.fixture(autouse=True)
def _fresh_models():
    """Models that a test has spoilt must not serve another."""
    _load.cache_clear()
    yield
    _load.cache_clear()


@pytest.fixture
def counted(monkeypatch):
    """How many images each step has seen."""
    steps = {"detect": (Detect, "look"), "segment": (Segment, "__call__"), "score": (Score, "__call__")}
    steps["presence"] = Presence, "__call__"
    seen = dict.fromkeys(steps, 0)
    for name, (step, method) in steps.items():
        original = getattr(step, method)

        def call(self, images, *rest, name=name, original=original):
            seen[name] += len(images)
            return original(self, images, *rest)

        monkeypatch.setattr(step, method, call)
    return seen


def test_every_stage_has_its_table_and_rows_agree(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    summary, markers = label(campaign)
    assert summary.images == summary.done == 6
    assert summary.labels > 0
    assert summary.labels == summary.accepted + summary.review
    workspace = open_store(campaign.workspace)
    for marker in markers:
        tables = {stage: read_part(workspace, part, stage) for stage, part in marker.parts.items()}
        assert set(tables) == set(STAGES)
        ids = tables["detect"]["label_id"].to_pylist()
        assert len(set(ids)) == len(ids)
        for stage in ("segment", "score", "route"):
            assert tables[stage]["label_id"].to_pylist() == ids
        assert sum(tables["images"]["labels"].to_pylist()) == len(ids)
        pairs = tables["presence"].select(["key", "class_name"]).to_pylist()
        assert pairs
        labelled = {(row["key"], row["class_name"]) for row in tables["detect"].to_pylist()}
        assert not labelled & {(row["key"], row["class_name"]) for row in pairs}


def test_tiles_are_looked_at_and_labels_are_of_the_whole_image(tmp_path, make_campaign, label, counted):
    (tmp_path / "images").mkdir()
    pixels = np.zeros((208, 304, 3), np.uint8)  # which the fake detector's cells of 16 pixels fit
    pixels[176:192, 272:288] = pixels[16:32, 16:32] = 255
    Image.fromarray(pixels).save(tmp_path / "images/large.png")
    for tiles in ({"size": 64}, {"size": 64, "whole": False}, None):
        campaign = make_campaign(run={"tiles": tiles}, classes=[{"name": "cat", "min_score": 0}])
        summary, [marker] = label(campaign)
        assert summary.done == 1
        boxes = boxes_of(read_part(open_store(campaign.workspace), marker.parts["detect"], "detect"))
        assert {tuple(box) for box in boxes.astype(int).tolist()} >= {(16, 16, 32, 32), (272, 176, 288, 192)}
        masks = read_part(open_store(campaign.workspace), marker.parts["segment"], "segment")
        assert [rle_area(counts) for counts in masks["rle_counts"].to_pylist()] == masks["mask_area"].to_pylist()
        assert all(is_rle(counts, 208, 304) for counts in masks["rle_counts"].to_pylist())
    assert counted["detect"] == 3


def test_a_second_run_does_nothing(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign()
    first, _ = label(campaign)
    before = dict(counted)
    second, markers = label(campaign)
    assert markers == []
    assert counted == before
    assert second.labels == first.labels
    assert second.new_images == 0


def test_new_and_changed_images_alone_are_done(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign()
    label(campaign)
    counted.update(detect=0)
    make_images(tmp_path / "images", 2, start=5)
    make_images(tmp_path, 1, start=7)
    (tmp_path / "images" / "000.png").write_bytes((tmp_path / "007.png").read_bytes())
    (tmp_path / "images" / "001.png").unlink()
    summary, _ = label(campaign)
    assert counted["detect"] == 3
    assert summary.images == summary.done == 6
    assert summary.new_images == 3
    assert summary.removed_images == 1
    exported = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    names = sorted(image["file_name"] for image in exported["images"])
    assert names == ["000.png", "002.png", "003.png", "004.png", "005.png", "006.png"]


def test_a_changed_threshold_only_routes_again(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 5)
    first, _ = label(make_campaign(routing={"accept": {"detector_score": 0.0}}))
    before = dict(counted)
    second, markers = label(make_campaign(routing={}))
    assert counted == before
    assert len(markers) == 2
    assert first.accepted == first.labels == second.review
    assert second.accepted == 0
    assert not second.accepts


def test_a_changed_scorer_keeps_boxes_and_masks(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 5)
    _, before = label(make_campaign())
    seen = dict(counted)
    fake = {"backend": "fake"}
    models = {"device": "cpu", "detector": fake, "segmenter": fake, "scorer": fake | {"temperature": 0.5}}
    _, after = label(make_campaign(models=models))
    assert counted == {**seen, "score": seen["score"] + 5, "presence": seen["presence"] + 5}
    for old, new in zip(before, after, strict=True):
        assert old.parts["detect"] == new.parts["detect"]
        assert old.parts["segment"] == new.parts["segment"]
        assert old.parts["score"] != new.parts["score"]


def test_presence_switched_off_and_on_changes_presence_alone(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 5)
    _, before = label(make_campaign())
    seen = dict(counted)
    fake = {"backend": "fake"}
    models = {"device": "cpu", "detector": fake, "segmenter": fake, "scorer": fake | {"presence": False}}
    summary, without = label(make_campaign(models=models))
    assert counted == {**seen, "presence": seen["presence"] + 5}
    assert summary.done == 5
    for old, new in zip(before, without, strict=True):
        assert {stage for stage in STAGES if old.stages[stage] != new.stages[stage]} == {"images", "presence"}
        assert {stage for stage in STAGES if old.parts[stage] != new.parts[stage]} == {"presence"}
        assert new.parts["presence"].rows == 0
    _, again = label(make_campaign())
    assert again == []


def aged(folder: Path, marker: Marker, **stages: str | None) -> None:
    """Make a shard's only marker one of other settings: keys of stages as given, without those that are None."""
    gone = {stage for stage, key in stages.items() if key is None}
    content = json.loads((folder / f"{marker.fingerprint}.json").read_text())
    content["stages"] = {k: v for k, v in (content["stages"] | stages).items() if k not in gone}
    content["parts"] = {k: v for k, v in content["parts"].items() if k not in gone}
    content["masks"] = "0" if "segment" in stages else content["masks"]
    content["fingerprint"] = "0" * len(marker.fingerprint)
    (folder / f"{marker.fingerprint}.json").unlink()
    (folder / f"{content['fingerprint']}.json").write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("stages", "redone"),
    [({"presence": None}, "presence"), ({"presence": "0"}, "presence"), ({"segment": "0"}, "segment")],
)
def test_an_older_marker_lends_all_stages_that_it_has(
    tmp_path, make_images, make_campaign, label, counted, stages, redone
):
    make_images(tmp_path / "images", 3)
    _, (marker,) = label(make_campaign())
    aged(tmp_path / "workspace/runs/main/done" / marker.shard, marker, images="0", **stages)
    seen = dict(counted)
    _, (again,) = label(make_campaign())
    assert counted == {**seen, redone: seen[redone] + 3}
    assert again == marker


def test_an_older_marker_lends_tables_without_rows(tmp_path, make_images, make_campaign, label, counted):
    make_images(tmp_path / "images", 3)
    (tmp_path / "images/z.png").write_bytes(b"no image")
    fake = {"backend": "fake"}
    models = {"device": "cpu", "detector": fake, "segmenter": fake, "scorer": fake | {"presence": False}}
    campaign = make_campaign(models=models, run={"shard_size": 3})
    _, (first, failed) = label(campaign)
    assert first.parts["presence"].rows == failed.parts["detect"].rows == 0
    for marker in (first, failed):
        aged(tmp_path / "workspace/runs/main/done" / marker.shard, marker, segment="0")
    seen = dict(counted)
    _, again = label(campaign)
    assert counted == {**seen, "segment": seen["segment"] + 3}
    assert again == [first, failed]


def test_a_changed_prompt_does_all_again_but_masks_of_the_same_boxes(
    tmp_path, make_images, make_campaign, label, counted
):
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    label(make_campaign(classes=["cat", "horse"]), accept_changes=True)
    assert counted.pop("segment") <= 8
    assert counted == {"detect": 8, "score": 8, "presence": 8}


def test_bad_images_fail_with_their_reason_and_the_rest_goes_on(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 3)
    (tmp_path / "images" / "zero.jpg").write_bytes(b"")
    (tmp_path / "images" / "text.png").write_text("<html>not found</html>")
    data = (tmp_path / "images" / "000.png").read_bytes()
    (tmp_path / "images" / "cut.png").write_bytes(data[: len(data) // 2])
    summary, _ = label(make_campaign())
    assert (summary.images, summary.done, summary.failed) == (6, 3, 3)
    assert sum(summary.reasons.values()) == 3
    assert all(reason.startswith("acquire: ") for reason in summary.reasons)


def test_what_could_not_be_fetched_is_tried_again_by_the_next_run(
    tmp_path, make_images, make_campaign, label, monkeypatch
):
    keys = make_images(tmp_path / "images", 5)
    campaign = make_campaign()
    fetch = LocalStore.get

    def lose_one(self, key):
        if key == keys[2]:
            raise StoreError("the connection was cut")
        return fetch(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(LocalStore, "get", lose_one)
        summary, _ = label(campaign)
    assert (summary.done, summary.failed) == (4, 1)
    assert summary.reasons == {"fetch: unforeseen StoreError: the connection was cut": 1}
    again, markers = label(campaign)
    assert sum(marker.counts.images for marker in markers) == 1
    assert (again.done, again.failed, again.images) == (5, 0, 5)


def test_failed_images_are_retried_alone_when_asked(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    original = Segment.__call__
    poison = Image.open(tmp_path / "images" / "003.png").tobytes()

    def fragile(self, images, boxes):
        if any(image.tobytes() == poison for image in images):
            raise ValueError("cannot take this one")
        return original(self, images, boxes)

    with monkeypatch.context() as patch:
        patch.setattr(Segment, "__call__", fragile)
        label(campaign)
    untouched, markers = label(campaign)
    assert markers == []
    assert untouched.failed == 1
    again, markers = label(campaign, retry_failed=True)
    assert sum(marker.counts.images for marker in markers) == 1
    assert (again.done, again.failed, again.images) == (6, 0, 6)


def test_an_error_of_one_image_costs_that_image_alone(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 6)
    original = Segment.__call__
    poison = Image.open(tmp_path / "images" / "003.png").tobytes()

    def fragile(self, images, boxes):
        if any(image.tobytes() == poison for image in images):
            raise ValueError("cannot take this one")
        return original(self, images, boxes)

    monkeypatch.setattr(Segment, "__call__", fragile)
    summary, _ = label(make_campaign())
    assert (summary.done, summary.failed) == (5, 1)
    assert list(summary.reasons) == ["segment: unforeseen ValueError: cannot take this one"]


def test_memory_that_never_suffices_fails_the_image(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 2)

    class OutOfMemoryError(RuntimeError):
        pass

    original = Segment.__call__

    def full(self, images, boxes):
        if len(images) > 1 or len(boxes[0]) > 1:
            raise OutOfMemoryError("CUDA out of memory")
        return original(self, images, boxes)

    monkeypatch.setattr(Segment, "__call__", full)
    summary, _ = label(make_campaign())
    assert summary.done + summary.failed == 2
    assert set(summary.reasons) <= {"segment: does not fit the device's memory, even alone"}


def test_a_shard_of_nothing_but_unforeseen_errors_is_not_done(tmp_path, make_images, make_campaign, monkeypatch):
    make_images(tmp_path / "images", 4)
    campaign = make_campaign()

    def broken(self, images, *_):
        raise RuntimeError("no such kernel")

    events = []
    with CampaignRun(campaign) as run:
        run.plan()
        (shard,) = run.pending()
        monkeypatch.setattr(Detect, "look", broken)
        with pytest.raises(VouchError, match="no such kernel"):
            process_shard(shard.id, run.settings, events.append)
        assert list(run.pending()) == [shard]
    steps = [event for event in events if isinstance(event, Progress)]
    assert steps
    assert sum(event.failed for event in steps) == 0


def test_what_is_told_of_the_work_adds_up(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 8)
    label(make_campaign())
    make_images(tmp_path / "images", 1, start=20)
    (tmp_path / "images" / keys[0]).unlink()
    events = []
    with CampaignRun(make_campaign(routing={"accept": {"detector_score": 0.9}}), events.append) as run:
        run.plan()
        for shard in run.pending():
            process_shard(shard.id, run.settings, events.append)
    (planned,) = [event for event in events if isinstance(event, Planned)]
    through = sum(event.done + event.failed for event in events if isinstance(event, Progress))
    # The image that left is routed with the rest of its shard.
    assert (planned.images, planned.done) == (9, 0)
    assert through == 9


@pytest.mark.parametrize(("denied", "ends"), [(1, False), (3, False), (4, True)])
def test_denied_images_are_failed_ones_unless_all_are(tmp_path, make_images, make_campaign, monkeypatch, denied, ends):
    keys = make_images(tmp_path / "images", denied)

    fetch = LocalStore.get

    def deny(self, key):
        if key in keys:
            raise ObjectRefusedError("not yours")
        return fetch(self, key)

    with CampaignRun(make_campaign()) as run:
        run.plan()
        (shard,) = run.pending()
        monkeypatch.setattr(LocalStore, "get", deny)
        if ends:
            with pytest.raises(VouchError, match=rf"not one of {denied} images .* grant s3:GetObject"):
                process_shard(shard.id, run.settings)
        else:
            counts = process_shard(shard.id, run.settings).counts
            assert (counts.failed, counts.reasons) == (len(keys), {f"fetch: {DENIED}": denied})


def test_two_workers_on_one_shard_agree(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    with CampaignRun(campaign) as run:
        run.plan()
        (shard,) = run.pending()
        first = process_shard(shard.id, run.settings)
        marker = next((tmp_path / "workspace/runs/main/done").rglob("*.json"))
        kept = marker.read_bytes()
        marker.unlink()
        second = process_shard(shard.id, run.settings)
        assert first == second
        assert marker.read_bytes() == kept
        assert markers_of(open_store(campaign.workspace), "main", shard.id) == [first]


def test_a_damaged_part_is_named(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 3)
    _, (marker,) = label(make_campaign())
    numbers, scores = (tmp_path / "workspace" / part.name for part in (marker.numbers, marker.parts["score"]))
    for part in (numbers, scores):
        part.write_bytes(part.read_bytes()[:-8] + b"deadbeef")
        with pytest.raises(VouchError, match="is not the file that was written"):
            label(make_campaign(routing={}))
        # Without the file of numbers the tables are read that it was made of.
        numbers.unlink(missing_ok=True)


def test_nothing_of_this_machine_goes_into_the_results(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    label(make_campaign(workspace=str(tmp_path / "other")))

    def content(folder: Path) -> dict[str, bytes]:
        files = (path for path in (folder / "runs").rglob("*") if path.is_file())
        return {str(path.relative_to(folder)): path.read_bytes() for path in files}

    assert content(tmp_path / "workspace") == content(tmp_path / "other")


def test_a_bad_image_does_not_hold_up_a_small_shard(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 1)

    def broken(self, images, *_):
        raise RuntimeError("cannot take this one")

    monkeypatch.setattr(Detect, "look", broken)
    summary, _ = label(make_campaign())
    assert (summary.failed, summary.pending) == (1, 0)


def test_a_source_that_fails_leaves_its_shards_to_the_next_run(
    tmp_path, make_images, make_campaign, label, monkeypatch
):
    keys = make_images(tmp_path / "images", 2)
    campaign, original = make_campaign(), LocalStore.get

    def away(self, key):
        if key in keys:
            raise StoreError("the store asks to slow down")
        return original(self, key)

    with monkeypatch.context() as patch, CampaignRun(campaign) as run:
        run.plan()
        (shard,) = run.pending()
        patch.setattr(LocalStore, "get", away)
        with pytest.raises(VouchError, match="the store asks to slow down"):
            process_shard(shard.id, run.settings)
    summary, _ = label(campaign)
    assert (summary.done, summary.failed, summary.pending) == (2, 0, 0)


def test_a_missing_part_says_how_to_mend_it(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    first, (marker,) = label(campaign)
    (tmp_path / "workspace" / marker.parts["score"].name).unlink()
    markers = f"runs/main/done/{marker.shard}"
    with pytest.raises(StoreError, match=f"is missing; delete {markers}/, and the shard is processed again"):
        read_part(open_store(campaign.workspace), marker.parts["score"], "score")
    shutil.rmtree(tmp_path / "workspace" / markers)
    again, _ = label(campaign)
    assert again.labels == first.labels


@pytest.mark.parametrize(("stages_on", "sizes"), [(None, [8, 8, 8, 6]), ("cuda:0", [2, 4, 8, 8, 8])])
def test_batches_for_pipeline_stages_begin_small(make_campaign, monkeypatch, stages_on, sizes):
    for name, size in (("BATCH_IMAGES", 8), ("BATCH_IMAGES_ON_GPU", 8), ("FIRST_IMAGES_ON_GPU", 2)):
        monkeypatch.setattr(shard, name, size)
    loaded = replace(load_pipeline(make_campaign()), stages_on=stages_on)
    failed = Failed(step="fetch", reason="gone")
    images = (Work(ImageRef(f"{number}.png", "", 1), failed=failed) for number in range(30))
    assert [len(batch) for batch in shard._batches(images, loaded)] == sizes


def vanish(folder, keys):
    for key in keys:
        (folder / key).unlink()


def test_a_source_that_goes_away_fails_the_shard_and_no_image(tmp_path, make_images, make_campaign):
    """A mount that is dropped leaves an empty folder, or none."""
    keys = make_images(tmp_path / "images", 8)
    campaign = make_campaign()
    with CampaignRun(campaign) as run:
        run.plan()
        first, second = run.pending()
        process_shard(first.id, run.settings)
        vanish(tmp_path / "images", keys)
        with pytest.raises(VouchError, match=r"4 of 4 images of shard .* are gone from .*images since it was listed"):
            process_shard(second.id, run.settings)
        (tmp_path / "images").rmdir()
        with pytest.raises(VouchError, match="are gone from"):
            process_shard(second.id, run.settings)
        assert [shard.id for shard in run.pending()] == [second.id], "not marked"


def test_a_source_that_goes_away_in_the_middle_of_a_shard(tmp_path, make_images, make_campaign, monkeypatch):
    keys = make_images(tmp_path / "images", 8)
    campaign = make_campaign(run={"shard_size": 100, "fetch_threads": 1})
    get, fetched = LocalStore.get, []

    def dropped(self, key):
        if key.endswith(".png"):
            fetched.append(key)
            if len(fetched) == 4:
                vanish(tmp_path / "images", keys)
        return get(self, key)

    with CampaignRun(campaign) as run:
        run.plan()
        (one,) = run.pending()
        monkeypatch.setattr(LocalStore, "get", dropped)
        with pytest.raises(VouchError, match="5 of 8 images of shard"):
            process_shard(one.id, run.settings)
        assert list(run.pending()) == [one]


def test_a_whole_shard_that_is_deleted_fails_and_the_next_listing_lacks_it(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 12)
    campaign = make_campaign()
    with CampaignRun(campaign) as run:
        run.plan()
        first, *others = run.pending()
        vanish(tmp_path / "images", keys[:4])
        with pytest.raises(VouchError, match="4 of 4 images"):
            process_shard(first.id, run.settings)
        for shard in others:
            assert process_shard(shard.id, run.settings).counts.done == 4
    summary, _ = label(campaign)
    assert (summary.images, summary.done, summary.removed_images) == (8, 8, 4)


def test_some_deleted_images_fail_alone(tmp_path, make_images, make_campaign):
    keys = make_images(tmp_path / "images", 9)
    campaign = make_campaign(run={"shard_size": 4})
    with CampaignRun(campaign) as run:
        run.plan()
        vanish(tmp_path / "images", [*keys[:3], keys[8]])
        counts = [process_shard(shard.id, run.settings).counts for shard in run.pending()]
    assert [(count.done, count.failed) for count in counts] == [(1, 3), (4, 0), (0, 1)]
    assert counts[0].reasons == {"fetch: deleted since it was listed": 3}


@pytest.mark.parametrize("images", [1, 9])
def test_an_image_without_memory_is_tried_by_every_run(
    tmp_path, make_images, make_campaign, label, monkeypatch, images
):
    """One alone does not end the run; where a whole shard has no memory, something else is wrong."""
    make_images(tmp_path / "images", images)
    campaign = make_campaign(run={"shard_size": 9})
    with monkeypatch.context() as patched:

        def short(*arguments):
            raise MemoryError

        patched.setattr(decode, "read_upright", short)
        if images > 1:
            with pytest.raises(VouchError, match="unforeseen MemoryError"):
                label(campaign)
        else:
            summary, _ = label(campaign)
            (reason,) = summary.reasons
            assert reason.startswith("fetch: unforeseen MemoryError: decoding it may need 12 MiB; the next run")
    summary, _ = label(campaign)
    assert (summary.done, summary.failed) == (images, 0)
