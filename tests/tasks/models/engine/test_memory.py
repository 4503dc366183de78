"""What a batch takes of a device's memory."""

import pytest
import torch

from tasks.batching import Batcher
from tasks.models.engine.memory import LANES, SPARE, CudaGauge, gauge_of
from tasks.models.engine.streams import on_own_stream

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
    assert gauge.stop() == (600, int(SPARE * (200 + 800) / LANES))


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
    for lane in (0, 1):
        on_own_stream(lambda _: seen.append(torch.cuda.current_stream().cuda_stream), "cuda:0", lane)(None)
    assert len({*seen, torch.cuda.default_stream().cuda_stream}) == 3
