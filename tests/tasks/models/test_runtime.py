"""Devices and number formats."""

from contextlib import contextmanager
from types import SimpleNamespace

import pytest
import torch

from schemas.campaign import DetectorConfig, ModelsConfig
from schemas.errors import UserError
from tasks.models.registry import DETECTORS, SCORERS, SEGMENTERS, load_detector, load_scorer, load_segmenter
from tasks.models.runtime import Runtime, choose_runtime


def test_auto_is_what_the_machine_has():
    runtime = choose_runtime(ModelsConfig())
    if torch.cuda.is_available():
        assert runtime.device == "cuda:0"
    else:
        assert runtime == Runtime("cpu", "fp32")
        assert runtime.dtype is torch.float32


def test_bf16_can_be_asked_for():
    assert choose_runtime(ModelsConfig(device="cpu", precision="bf16")).dtype is torch.bfloat16


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
    from schemas.campaign import ScorerConfig, SegmenterConfig

    runtime = Runtime("cpu", "fp32")
    loaded = [
        load_detector(DetectorConfig(backend="fake"), runtime),
        load_segmenter(SegmenterConfig(backend="fake"), runtime),
        load_scorer(ScorerConfig(backend="fake"), runtime),
    ]
    assert len({model.fingerprint for model in loaded}) == 3
