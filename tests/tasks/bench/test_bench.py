"""`vouch bench`, and how it measures time and memory."""

import io
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch._C._autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.tasks.bench.bench import STEPS, bench, bottleneck
from vouch_labels.tasks.bench.timing import (
    MOST,
    StageTimer,
    as_another_file,
    compiled_graphs,
    covered,
    kernels,
    repeated,
    settled,
)
from vouch_labels.tasks.decode import decode
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.plan.plan import list_source
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store.open import open_store


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


# Time is counted once, for the innermost step that it was spent in.
#
# What several streams do at the same time counts once.
#
# A measurement in which something was compiled does not count.
#
# A few images of a folder stand for many.


@pytest.fixture
def clock(monkeypatch):
    """A clock that only `spend` moves."""

    class Clock:
        now = 100.0

        def spend(self, seconds):
            self.now += seconds

    clock = Clock()
    monkeypatch.setattr("time.perf_counter", lambda: clock.now)
    return clock


def test_a_step_inside_another_counts_for_itself_alone(clock):
    timer = StageTimer()
    inner = timer.wrap("inner", clock.spend)

    def work():
        clock.spend(1)
        inner(10)
        clock.spend(2)
        inner(20)

    clock.spend(1000)
    timer.wrap("outer", work)()
    clock.spend(1000)
    assert timer.seconds == {"outer": 3, "inner": 30}


def test_a_step_that_raises_still_counts(clock):
    timer = StageTimer()

    def fail():
        clock.spend(5)
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        timer.wrap("step", fail)()
    timer.wrap("other", clock.spend)(7)
    assert timer.seconds == {"step": 5, "other": 7}


def test_of_a_generator_only_the_waiting_counts(clock):
    timer = StageTimer()

    def items():
        for number in range(3):
            clock.spend(4)
            yield number

    for _ in timer.wrap_generator("items", items)():
        clock.spend(100)
    assert timer.seconds == {"items": 12}


def test_threads_are_summed_apart(clock):
    timer = StageTimer()
    for _ in range(3):
        timer.wrap_in_threads("decoding", clock.spend)(2)
    assert timer.in_threads == {"decoding": 6}
    assert not timer.seconds


def test_forward_passes_count_once_however_deep_they_lie(clock):
    timer = StageTimer()
    waits = []

    def wait():
        waits.append(clock.now)

    inner = timer.wrap_forward(clock.spend, wait)

    def model(fails):
        inner(3)
        inner(4)
        if fails:
            raise ValueError("no")

    outer = timer.wrap_forward(model, wait)

    def step(fails=False):
        clock.spend(1)
        outer(fails)

    outer(False)
    timer.wrap("detect", step)()
    with pytest.raises(ValueError, match="no"):
        timer.wrap("detect", step)(True)
    assert timer.forward == {"detect": 14}
    assert timer.seconds == {"detect": 16}
    assert waits == [108, 115, 116, 123]


@pytest.mark.parametrize(
    ("intervals", "length"),
    [
        ([], 0),
        ([(0, 1), (3, 5)], 3),
        ([(3, 5), (0, 1)], 3),
        ([(0, 4), (1, 2), (3, 6)], 6),
        ([(0, 10)] * 3, 10),
        ([(0, 5), (5, 7)], 7),
    ],
)
def test_overlapping_intervals_count_once(intervals, length):
    assert covered(intervals) == length


@given(st.lists(st.tuples(st.integers(0, 60), st.integers(0, 20)).map(lambda pair: (pair[0], pair[0] + pair[1]))))
def test_the_union_is_that_of_the_moments(intervals):
    moments = {moment for begin, end in intervals for moment in range(begin, end)}
    assert covered(intervals) == len(moments)


def test_three_streams_on_a_half_idle_device_are_half_busy():
    streams = [[(second, second + 500) for second in range(0, 10_000, 1000)]] * 3
    assert covered(interval for stream in streams for interval in stream) / 10_000 == 0.5


def test_kernels_alone_count():
    def event(name, device, begin, end, **more):
        return FunctionEvent(0, name, 0, begin, end, device_type=device, **more)

    events = [
        event("aten::mm", DeviceType.CPU, 0, 10),
        event("gemm", DeviceType.CUDA, 2, 5),
        event("Memcpy HtoD (Pageable -> Device)", DeviceType.CUDA, 5, 9),
        event("Memset (Device)", DeviceType.CUDA, 5, 9),
        event("a range", DeviceType.CUDA, 0, 10, is_user_annotation=True),
    ]
    assert kernels(events) == [(2, 5)]


def test_work_is_done_again_until_nothing_is_compiled():
    graphs = iter([0, 2, 2, 3, 3, 3])
    done = []
    assert settled(lambda: done.append(1) or len(done), lambda: next(graphs)) == 3
    assert len(done) == 3


def test_what_never_settles_ends():
    done = []
    settled(lambda: done.append(1), lambda: len(done))
    assert len(done) == MOST


@pytest.mark.slow
def test_each_new_shape_is_one_more_graph():
    add = torch.compile(lambda value: value + 1, backend="eager", dynamic=False)
    before = compiled_graphs()
    calls = []

    def work():
        calls.append(1)
        return add(torch.ones(min(len(calls), 2)))

    assert settled(work).shape == (2,)
    assert len(calls) == 3
    assert compiled_graphs() == before + 2


def test_images_of_a_folder_are_taken_again_in_their_order(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images" / "a", 3)
    source = {"uri": str(tmp_path / "images"), "include": ["a/*.png"], "max_pixels": 1000}
    campaign = make_campaign(source=source)
    refs = list(list_source(campaign.source, open_store(campaign.source)))
    many, copies = repeated(campaign, refs, 7, tmp_path / "many")
    store, original = open_store(many.source), open_store(campaign.source)
    contents = [store.get(copy.key).data for copy in copies]
    # No two are one file, which would be labelled once.
    assert len(set(contents)) == 7
    for number, content in enumerate(contents):
        assert content.startswith(original.get(refs[number % 3].key).data)
    assert many.source.max_pixels == 1000
    assert many.classes == campaign.classes


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "HEIF", "AVIF", "JPEG2000"])
def test_another_file_has_the_same_pixels(kind):
    pillow_heif.register_heif_opener()
    image = Image.fromarray(np.random.default_rng(0).integers(0, 255, (24, 32, 3), np.uint8))
    written = io.BytesIO()
    image.save(written, kind)
    found = [decode("a", data, 10_000) for data in (written.getvalue(), as_another_file(written.getvalue(), 3))]
    np.testing.assert_array_equal(found[0].pixels, found[1].pixels)
    assert found[0].sha256 != found[1].sha256


def test_enough_images_and_those_of_a_bucket_stay_as_they_are(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    refs = list(list_source(campaign.source, open_store(campaign.source)))
    assert repeated(campaign, refs, 3, tmp_path / "many") == (campaign, refs)
    in_bucket = campaign.model_copy(update={"source": Source(uri="s3://bucket/images")})
    few = [ImageRef("a.png", "", 1)]
    assert repeated(in_bucket, few, 3, tmp_path / "many") == (in_bucket, few)
    assert not (tmp_path / "many").exists()
