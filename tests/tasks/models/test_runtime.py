"""Devices and number formats.

What the host does for a device.

Which speed-ups a campaign gets.

What of the engine a fingerprint knows.

What a batch takes of a device's memory.

Threads share a device, or one has it alone.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from tests.processes import HANG_S, until
from vouch_labels.schemas.campaign import SWITCHES, DetectorConfig, ModelsConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.registry import (
    DETECTORS,
    SCORERS,
    SEGMENTERS,
    load_detector,
    load_scorer,
    load_segmenter,
)
from vouch_labels.tasks.models.runtime import (
    COMPILE_AFTER,
    PIPELINE_STAGES,
    REFERENCE,
    SPARE,
    CudaGauge,
    Engine,
    Runtime,
    SharedLock,
    choose_engine,
    choose_runtime,
    device_lock,
    gauge_of,
    in_threads,
    numbers_of,
    on_own_stream,
    to_device,
)


def test_auto_is_what_the_machine_has():
    runtime = choose_runtime(ModelsConfig())
    if torch.cuda.is_available():
        assert runtime.device == "cuda:0"
    else:
        assert runtime == Runtime("cpu", "fp32")


def test_bf16_can_be_asked_for():
    assert choose_runtime(ModelsConfig(device="cpu", precision="bf16")).precision == "bf16"


@pytest.mark.parametrize("device", ["gpu", "cuda:x", "cuda:-1", "tpu:0", ""])
def test_what_is_no_device_is_refused(device):
    with pytest.raises(UserError, match="is no device; use auto, cpu, cuda"):
        choose_runtime(ModelsConfig(device=device))


def test_a_device_that_is_absent_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="cuda was asked for and this machine has no CUDA device; use cpu or auto"):
        choose_runtime(ModelsConfig(device="cuda"))


@pytest.fixture
def gpus(monkeypatch):
    """A machine with a T4 and an A100, of which the first is the current device."""
    current = [0]

    @contextmanager
    def device(name):
        before, current[0] = current[0], int(name.removeprefix("cuda:"))
        yield
        current[0] = before

    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "device", device)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: current[0])
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: SimpleNamespace(major=(7, 8)[number]))
    monkeypatch.setattr(torch.cuda, "_check_bf16_tensor_supported", lambda number: True)


@pytest.fixture
def tf32():
    """Both settings on, and as they were afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = True
    yield lambda: (matmul.allow_tf32, cudnn.allow_tf32)
    matmul.allow_tf32, cudnn.allow_tf32 = before


def test_a_gpu_that_only_emulates_bf16_computes_in_fp32(gpus, tf32):
    assert choose_runtime(ModelsConfig(device="cuda:0")).precision == "fp32"
    assert choose_runtime(ModelsConfig(device="cuda:1")).precision == "bf16"
    with pytest.raises(UserError, match="this GPU does not compute in bf16; use fp32 or auto"):
        choose_runtime(ModelsConfig(device="cuda:0", precision="bf16"))


def test_fp32_on_a_gpu_is_not_tf32(gpus, tf32):
    for config in (ModelsConfig(device="cpu"), ModelsConfig(device="cuda:1")):
        choose_runtime(config)
        assert tf32() == (True, True)
    choose_runtime(ModelsConfig(device="cuda:1", precision="fp32"))
    assert tf32() == (False, False)


def test_unknown_backends_name_the_known_ones():
    with pytest.raises(UserError, match=r"models\.detector\.backend: unknown backend 'yolo'; use one of fake, "):
        load_detector(DetectorConfig(backend="yolo"), Runtime("cpu", "fp32"))


def test_every_registered_backend_exists():
    from importlib import import_module

    for table in (DETECTORS, SEGMENTERS, SCORERS):
        for place in table.values():
            module, attribute = place.split(":")
            assert callable(getattr(import_module(module), attribute))


def test_fakes_are_loaded_by_name():
    from vouch_labels.schemas.campaign import ScorerConfig, SegmenterConfig

    runtime = Runtime("cpu", "fp32")
    loaded: list[Any] = [
        load_detector(DetectorConfig(backend="fake"), runtime),
        load_segmenter(SegmenterConfig(backend="fake"), runtime),
        load_scorer(ScorerConfig(backend="fake"), runtime),
    ]
    assert len({model.fingerprint for model in loaded}) == 3


@pytest.mark.parametrize("cores", [1, 3, None])
def test_results_are_in_order_whatever_the_number_of_cores(monkeypatch, cores):
    monkeypatch.setattr(os, "cpu_count", lambda: cores)
    assert in_threads(lambda number: number**2, range(50)) == [number**2 for number in range(50)]
    assert in_threads(lambda number: number, []) == []


def test_items_are_worked_on_side_by_side(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    both = threading.Barrier(2)
    in_threads(lambda _: both.wait(HANG_S), range(2))


def test_an_error_is_the_caller_s():
    with pytest.raises(ZeroDivisionError):
        in_threads(lambda number: 1 // number, [1, 0, 2])


def test_an_array_keeps_its_values_and_type():
    array = np.arange(6, dtype=np.int64).reshape(2, 3)
    assert to_device(array, "cpu").tolist() == array.tolist()


def test_all_is_on_by_default_and_a_cpu_does_not_compile():
    assert choose_engine(ModelsConfig(), "cpu") == Engine()
    assert all(Engine().has(name) for name in SWITCHES)


def test_reference_has_nothing_on_whatever_else_is_asked():
    assert choose_engine(ModelsConfig(engine="reference", compile="on"), "cuda:0") == REFERENCE
    assert not any(REFERENCE.has(name) for name in SWITCHES)


def test_one_switch_alone_goes_off():
    engine = choose_engine(ModelsConfig(switched_off=("folded_fusion",)), "cpu")
    assert [name for name in SWITCHES if not engine.has(name)] == ["folded_fusion"]


@pytest.mark.parametrize(
    ("asked", "device", "compiles", "after"),
    [
        ("auto", "cuda:0", True, COMPILE_AFTER),
        ("auto", "cpu", False, 0),
        ("auto", "mps", False, 0),
        ("on", "cpu", True, 0),
        ("off", "cuda:0", False, 0),
    ],
)
def test_compile(asked, device, compiles, after):
    engine = choose_engine(ModelsConfig(compile=asked), device)
    assert (engine.compile, engine.compile_after) == (compiles, after)


def test_yaml_reads_on_and_off_as_truth_values():
    assert ModelsConfig.model_validate({"compile": False}).compile == "off"
    assert ModelsConfig.model_validate({"compile": True}).compile == "on"


def test_an_unknown_switch_names_the_nearest():
    with pytest.raises(ValidationError, match="'folded_fuson' is no switch; did you mean folded_fusion"):
        ModelsConfig(switched_off=("folded_fuson",))
    with pytest.raises(ValueError, match="'zzz' is no switch; use some of static_shapes, "):
        Engine().has("zzz")


def test_the_runtime_carries_the_engine():
    runtime = choose_runtime(ModelsConfig(device="cpu", switched_off=("overlap",)))
    assert not runtime.engine.has("overlap")


def test_every_switch_switches_something():
    from pathlib import Path

    sources = [path.read_text() for path in (Path(__file__).parents[3] / "tasks").rglob("*.py")]
    assert [name for name in SWITCHES if not any(f'"{name}"' in source for source in sources)] == []


def test_in_fp32_no_switch_matters():
    assert numbers_of("fp32", Engine(), ["fused_relpos"]) == numbers_of("fp32", REFERENCE, ["fused_relpos"]) == "fp32"


def test_in_bf16_those_that_are_on_do():
    only = Engine(frozenset(["channels_last"]))
    assert numbers_of("bf16", only, ["fused_relpos", "channels_last"]) == "bf16+channels_last"
    assert numbers_of("bf16", REFERENCE, ["fused_relpos", "channels_last"]) == "bf16"


NEEDS_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def test_only_cuda_is_read():
    assert gauge_of("cpu") is None
    assert gauge_of("mps") is None
    assert isinstance(gauge_of("cuda:1"), CudaGauge)


def test_a_model_may_take_its_share_of_what_is_free_or_reserved_and_idle(monkeypatch):
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 700)
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 900)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (200, 5000))
    gauge = CudaGauge("cuda:0")
    gauge.start()
    assert gauge.stop() == (600, int(SPARE * (200 + 800) / PIPELINE_STAGES))


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_real_device_tells_what_a_batch_takes():
    gauge = CudaGauge("cuda:0")
    gauge.start()
    block = torch.empty(64 << 20, dtype=torch.uint8, device="cuda:0")
    del block
    taken, free = gauge.stop()
    assert 64 << 20 <= taken <= 80 << 20
    assert free > 64 << 20


@pytest.mark.gpu
@NEEDS_CUDA
def test_batches_grow_on_a_real_device_as_far_as_their_share_goes():
    share = torch.cuda.get_device_properties(0).total_memory // 40
    batcher = Batcher("x", "auto", start=2, most=64, device="cuda:0")
    sizes = []

    def forward(batch):
        sizes.append(len(batch))
        torch.empty(share * len(batch), dtype=torch.uint8, device="cuda:0")
        return list(batch)

    assert batcher.run(range(40), forward) == list(range(40))
    # A third of four fifths is room for ten.
    assert 4 <= max(sizes) <= 10


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_batch_too_large_for_a_real_device_is_halved():
    share = torch.cuda.get_device_properties(0).total_memory // 4
    batcher = Batcher("x", 8, device="cuda:0")

    def forward(batch):
        torch.empty(share * len(batch), dtype=torch.uint8, device="cuda:0")
        return list(batch)

    assert batcher.run(range(20), forward) == list(range(20))
    assert batcher.size == 2


@pytest.mark.gpu
@NEEDS_CUDA
def test_a_lane_computes_on_a_stream_of_its_own():
    seen = []
    for stage in (0, 1):
        on_own_stream(lambda _: seen.append(torch.cuda.current_stream().cuda_stream), "cuda:0", stage)(None)
    assert len({*seen, torch.cuda.default_stream().cuda_stream}) == 3


@pytest.fixture
def threads():
    with ThreadPoolExecutor(4) as pool:
        yield pool


def test_together_means_at_the_same_time(threads):
    lock, met = SharedLock(), Barrier(2)

    def stay():
        with lock.shared() as visit:
            met.wait(HANG_S)
            return visit.alone

    assert [one.result(HANG_S) for one in [threads.submit(stay) for _ in range(2)]] == [False, False]
    with lock.shared() as visit:
        assert visit.alone


def test_alone_waits_for_the_others_and_keeps_later_ones_out(threads):
    lock, order = SharedLock(), []
    inside, leave = Event(), Event()

    def stay():
        with lock.shared():
            inside.set()
            leave.wait(HANG_S)
            order.append("first leaves")

    def alone():
        with lock.exclusive():
            order.append("alone")

    def late():
        with lock.shared():
            order.append("late")

    first = threads.submit(stay)
    inside.wait(HANG_S)
    second = threads.submit(alone)
    until(lambda: lock._waiting)
    third = threads.submit(late)
    leave.set()
    for one in (first, second, third):
        one.result(HANG_S)
    assert order == ["first leaves", "alone", "late"]


def test_stays_are_nested():
    lock = SharedLock()
    with lock.exclusive(), lock.exclusive(), lock.shared() as visit:
        assert visit.alone
    with lock.shared() as outer, lock.shared() as inner:
        assert inner is outer
    with lock.exclusive():
        pass


def test_two_that_stay_and_both_want_to_be_alone_both_get_it(threads):
    lock, met = SharedLock(), Barrier(2)
    there = []

    def stay():
        with lock.shared():
            met.wait(HANG_S)
            with lock.exclusive():
                there.append(1)
                assert len(there) == 1
                there.pop()
            with lock.shared() as visit:
                return visit.alone

    assert [one.result(HANG_S) for one in [threads.submit(stay) for _ in range(2)]] == [False, False]
    with lock.exclusive():
        pass


def test_an_error_gives_the_device_back(threads):
    lock = SharedLock()
    for stay in (lock.exclusive, lock.shared):
        with pytest.raises(ValueError, match="stop"), stay():
            raise ValueError("stop")
    with lock.shared(), pytest.raises(ValueError, match="stop"), lock.exclusive():
        raise ValueError("stop")

    def alone():
        with lock.exclusive():
            return True

    assert threads.submit(alone).result(HANG_S)


def test_a_device_has_one_set_of_turns():
    assert device_lock("cuda:0") is device_lock("cuda:0")
    assert device_lock("cuda:0") is not device_lock("cuda:1")
