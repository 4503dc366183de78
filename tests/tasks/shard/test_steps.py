"""What a shard gives does not depend on whether its steps work side by side.

Stages that work side by side.
"""

import threading
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processes import HANG_S
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models import runtime
from vouch_labels.tasks.models.registry import RawDetections
from vouch_labels.tasks.models.runtime import Engine, Runtime
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.shard import pipeline, shard, steps
from vouch_labels.tasks.shard.files import read_part
from vouch_labels.tasks.shard.pipeline import _load
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.shard.steps import staged
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def _small_batches(monkeypatch):
    monkeypatch.setattr(shard, "BATCH_IMAGES", 3)
    monkeypatch.setattr(shard, "BATCH_IMAGES_ON_GPU", 3)
    # The same batches both ways: products of other numbers of crops may be summed in another order.
    monkeypatch.setattr(shard, "FIRST_IMAGES_ON_GPU", 3)
    _load.cache_clear()
    yield
    _load.cache_clear()


@pytest.fixture(params=[False, True], ids=["in turn", "side by side"])
def stages_on(request, monkeypatch):
    """Threads as on a GPU, without its streams."""
    if not request.param:
        return None
    monkeypatch.setattr(steps, "on_own_stream", lambda function, device, stage: function)
    monkeypatch.setattr(pipeline, "stages_for", lambda runtime: "cuda:0")
    return "cuda:0"


def tables_of(campaign, marker):
    store = open_store(campaign.workspace)
    return {stage: read_part(store, part, stage).to_pylist() for stage, part in marker.parts.items()}


@pytest.mark.usefixtures("_small_batches")
def test_rows_and_their_order_are_the_same(tmp_path, make_images, make_campaign, label, stages_on):
    make_images(tmp_path / "images", 10)
    (tmp_path / "images" / "004.png").write_bytes(b"no image")
    one = make_campaign(run={"shard_size": 100})
    _, (marker,) = label(one)
    found = tables_of(one, marker)
    assert [row["key"] for row in found["images"]] == [f"{number:03d}.png" for number in range(10)]
    assert [row["outcome"] for row in found["images"]].count("failed") == 1
    assert len(found["detect"]) == len(found["segment"]) == len(found["score"]) == len(found["route"]) > 10
    keys = [row["key"] for row in found["detect"]]
    assert keys == sorted(keys)


@pytest.mark.usefixtures("_small_batches")
def test_both_ways_write_the_same_bytes(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 8)
    _, (in_turn,) = label(make_campaign(run={"shard_size": 100}))
    monkeypatch.setattr(steps, "on_own_stream", lambda function, device, stage: function)
    monkeypatch.setattr(pipeline, "stages_for", lambda runtime: "cuda:0")
    _, (side_by_side,) = label(make_campaign(run={"shard_size": 100}, workspace=str(tmp_path / "other")))
    assert {stage: part.sha256 for stage, part in in_turn.parts.items()} == {
        stage: part.sha256 for stage, part in side_by_side.parts.items()
    }


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.usefixtures("stages_on")
@pytest.mark.parametrize(("step", "method"), [(Detect, "look"), (Segment, "__call__"), (Score, "__call__")])
def test_one_bad_image_is_one_failed_row(tmp_path, make_images, make_campaign, label, monkeypatch, step, method):
    make_images(tmp_path / "images", 8)
    poison = np.asarray(Image.open(tmp_path / "images" / "005.png"))
    original = getattr(step, method)

    def fragile(self, images, *rest):
        if any(np.array_equal(image, poison) for image in images):
            raise RuntimeError("cannot take this one")
        return original(self, images, *rest)

    monkeypatch.setattr(step, method, fragile)
    summary, _ = label(make_campaign(run={"shard_size": 100}))
    assert (summary.done, summary.failed) == (7, 1)
    assert "unforeseen RuntimeError: cannot take this one" in next(iter(summary.reasons))


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.usefixtures("stages_on")
@pytest.mark.parametrize("error", [UserError, KeyboardInterrupt])
def test_what_is_wrong_beyond_an_image_ends_the_shard(tmp_path, make_images, make_campaign, monkeypatch, error):
    make_images(tmp_path / "images", 9)

    def broken(self, images, boxes):
        raise error("stop")

    events = []
    with CampaignRun(make_campaign(run={"shard_size": 100})) as run:
        run.plan()
        (due,) = run.pending()
        monkeypatch.setattr(Segment, "__call__", broken)
        with pytest.raises(error, match="stop"):
            process_shard(due.id, run.settings, events.append)
        assert list(run.pending()) == [due]


@pytest.mark.usefixtures("_small_batches")
@pytest.mark.usefixtures("stages_on")
@pytest.mark.parametrize(
    ("part", "reason"),
    [
        ("detector", "detect: the detector's answer is not finite"),
        ("segmenter", "segment: the segmenter's answer is not finite"),
        ("scorer", "score: CLIP gave no finite score for"),
    ],
)
def test_numbers_that_are_none_fail_their_image_and_are_never_labels(
    tmp_path, make_images, make_campaign, label, monkeypatch, part, reason
):
    make_images(tmp_path / "images", 7)
    poison = np.asarray(Image.open(tmp_path / "images" / "003.png"))
    _spoil(monkeypatch, part, poison)
    campaign = make_campaign(run={"shard_size": 100})
    summary, (marker,) = label(campaign)
    assert (summary.done, summary.failed) == (6, 1)
    (row,) = [row for row in tables_of(campaign, marker)["images"] if row["outcome"] == "failed"]
    assert row["key"] == "003.png"
    assert f"{row['step']}: {row['reason']}".startswith(reason)
    assert not [row for row in tables_of(campaign, marker)["detect"] if row["key"] == "003.png"]


def _spoil(monkeypatch, part, poison):
    """Let one model give NaN for one image."""
    from vouch_labels.tasks.models.fake import FakeDetector, FakeScorer, FakeSegmenter

    if part == "detector":
        detect = FakeDetector.detect

        def spoilt_detect(self, images, phrases, min_score):
            found = detect(self, images, phrases, min_score)
            return [
                RawDetections(raw.boxes, np.full_like(raw.scores, np.nan)) if np.array_equal(image, poison) else raw
                for image, raw in zip(images, found, strict=True)
            ]

        monkeypatch.setattr(FakeDetector, "detect", spoilt_detect)
    elif part == "segmenter":
        segment = FakeSegmenter.segment

        def spoilt_segment(self, images, boxes):
            found = segment(self, images, boxes)
            return [
                replace(masks, predicted_iou=np.full_like(masks.predicted_iou, np.nan))
                if np.array_equal(image, poison)
                else masks
                for image, masks in zip(images, found, strict=True)
            ]

        monkeypatch.setattr(FakeSegmenter, "segment", spoilt_segment)
    else:
        embed = FakeScorer.embed_crops

        def spoilt_embed(self, crops):
            found = embed(self, crops)
            for index, crop in enumerate(crops):
                if _cut_from(crop, poison):
                    found[index] = np.nan
            return found

        monkeypatch.setattr(FakeScorer, "embed_crops", spoilt_embed)


def _cut_from(crop, image):
    base = crop
    while base.base is not None:
        base = base.base
    return np.array_equal(base, image)


@pytest.mark.usefixtures("_small_batches")
def test_lanes_are_for_cuda_and_can_be_switched_off(make_campaign):
    assert pipeline.load_pipeline(make_campaign()).stages_on is None
    without = Engine(Engine().switches - {"overlap"})
    assert [
        pipeline.stages_for(Runtime(*chosen))
        for chosen in (("cuda:1", "bf16"), ("cuda:1", "bf16", without), ("mps", "fp32"))
    ] == ["cuda:1", None, None]


@pytest.mark.usefixtures("_small_batches")
def test_a_stream_is_a_lanes_own_for_good(monkeypatch):
    import torch

    made = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: made.append(device) or object())
    runtime._stream.cache_clear()
    assert runtime._stream("cuda:0", 1) is runtime._stream("cuda:0", 1)
    assert runtime._stream("cuda:0", 1) is not runtime._stream("cuda:0", 2)
    assert made == ["cuda:0"] * 2
    runtime._stream.cache_clear()


def boxes(count):
    return ([number] for number in range(count))


def append(value):
    return lambda item: item.append(value)


@pytest.mark.parametrize("stages", [0, 1, 3])
def test_every_item_goes_through_every_stage_in_order(stages):
    found = list(staged(boxes(10), [append(f"s{index}") for index in range(stages)], "t"))
    assert found == [[number, *(f"s{index}" for index in range(stages))] for number in range(10)]


def test_stages_work_at_the_same_time():
    meeting = threading.Barrier(2)

    # Each waits for the other, which works on the item before or behind; the first and last item meet nobody.
    def first(item):
        if item[0] > 0:
            meeting.wait(HANG_S)

    def second(item):
        if item[0] < 3:
            meeting.wait(HANG_S)

    assert len(list(staged(boxes(4), [first, second], "t"))) == 4


def test_no_more_is_taken_than_there_is_room_for():
    taken = []

    def source():
        for number in range(20):
            taken.append(number)
            yield [number]

    items: Any = staged(source(), [append(0), append(1)], "t")
    next(items)
    assert len(taken) == 3
    items.close()
    assert len(taken) == 3


def test_an_error_comes_when_its_items_turn_does_and_ends_the_threads():
    def fragile(item):
        if item[0] == 2:
            raise ValueError("no")

    items: Any = staged(boxes(9), [fragile, append("done")], "error")
    assert [next(items)[0] for _ in range(2)] == [0, 1]
    with pytest.raises(ValueError, match="no"):
        next(items)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("error")]


def test_an_error_of_the_source_ends_the_threads():
    def source():
        yield [0]
        raise OSError("gone")

    with pytest.raises(OSError, match="gone"):
        list(staged(source(), [append(1)], "source"))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("source")]


def test_who_stops_early_waits_only_for_what_has_begun():
    started = []

    def slow(item):
        started.append(item[0])
        time.sleep(0.05)

    items: Any = staged(boxes(50), [slow, append(1)], "early")
    next(items)
    items.close()
    assert len(started) <= 3
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("early")]
