"""A measurement goes the whole way and leaves nothing behind.

What is slow is named, with what would help.
"""

import tempfile
from collections import Counter
from pathlib import Path

import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.bench.bench import STEPS, bench, bottleneck
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.shard.shard import process_shard


def test_figures_of_a_measurement_fit_each_other(tmp_path, make_images, make_campaign, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    make_images(tmp_path / "images", 12)
    (tmp_path / "images" / "003.png").write_bytes(b"no image")
    report = bench(make_campaign(), most=10)
    assert (report.images, report.distinct, report.failed) == (10, 10, 1)
    assert report.labels > 0
    assert [step.name for step in report.steps] == list(STEPS)
    assert sum(step.share for step in report.steps) == pytest.approx(1)
    assert report.images_per_second == pytest.approx(10 / report.seconds)
    assert report.fetching_ms > 0
    assert report.decoding_ms > 0
    assert report.gpu_busy is None
    assert report.bottleneck
    assert not list(scratch.iterdir())
    assert not (tmp_path / "workspace").exists()


def test_a_source_without_images_is_refused(tmp_path, make_campaign):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="holds no image to measure with"):
        bench(make_campaign(), most=10)


def test_the_steps_are_as_they_were_afterwards(tmp_path, make_images, make_campaign):
    from vouch_labels.tasks.shard import shard

    before = (Detect.look, Detect.decide, vars(shard).copy())
    make_images(tmp_path / "images", 2)
    bench(make_campaign(), most=2)
    assert (Detect.look, Detect.decide, vars(shard)) == before
    assert Path(tmp_path / "images").is_dir()


def test_a_gpu_takes_few_images_again_and_is_measured_warm(tmp_path, make_images, make_campaign, monkeypatch):
    """The way of a GPU, on a CPU: its names, its counters and its profiler are stood in for."""
    import torch

    from vouch_labels.tasks.bench import bench as benching

    make_images(tmp_path / "images", 3)
    passes = []
    monkeypatch.setattr(benching, "process_shard", lambda *given: passes.append(1) or process_shard(*given))
    looked = Counter()

    def look(self, images, ask, before=Detect.look):
        looked[len(passes)] += len(images)
        return before(self, images, ask)

    monkeypatch.setattr(Detect, "look", look)
    monkeypatch.setattr(benching, "choose_runtime", lambda models: Runtime("cuda:0", "bf16"))
    monkeypatch.setattr(benching, "gpu_busy", lambda work: work() and 0.75)
    monkeypatch.setattr(benching, "IMAGES_ON_GPU", 8)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a GPU")
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 1)
    report = bench(make_campaign())
    assert (report.images, report.distinct, report.gpu_busy) == (8, 3, 0.75)
    assert report.source == str(tmp_path / "images")
    assert all(step.seconds > 0 for step in report.steps if step.name in ("detect", "segment", "score"))
    # Two warm it up, one lets all batches grow, then the profile, the speed and the steps.
    assert len(passes) == 6
    # Each time all of them are looked at, those with the same pixels too.
    assert [looked[number] for number in (4, 5, 6)] == [8, 8, 8]


def sentence(gpu_busy=None, fetching=1.0, decoding=2.0, taken=0.1, **shares):
    rest = (1 - sum(shares.values())) / (len(STEPS) - len(shares))
    every = {step: shares.get(step, rest) for step in STEPS}
    return bottleneck(
        every, fetching_ms=fetching, decoding_ms=decoding, gpu_busy=gpu_busy, fetch_threads=8, taken_cores=taken
    )


@pytest.mark.parametrize(
    ("text", "measured"),
    [
        ("detector: 71% of the time; a GPU would help most", {"detect": 0.71}),
        ("segmenter: 60% of the time, and the GPU computes 95% of it all; a sm", {"segment": 0.6, "gpu_busy": 0.95}),
        ("scorer: 60% of the time, and the GPU computes only 30%", {"score": 0.6, "gpu_busy": 0.3}),
        ("decode: 20% of the time is waiting for images to be decoded; add CPU work", {"acquire": 0.2, "detect": 0.7}),
        ("fetch: 20% of the time is waiting for images from the source; raise run.f", {"acquire": 0.2, "fetching": 9}),
        ("write: 60% of the time; the workspace is slow", {"write": 0.6}),
        ("tables: 60% of the time, beside the models; faster CPU", {"tables": 0.6}),
        ("other programs: they wanted 4.0 times the cores", {"detect": 0.71, "taken": 4.0}),
    ],
)
def test_the_words(text, measured):
    assert sentence(**measured).startswith(text)
