"""The memory of a side is that of a process in which nothing else is loaded."""

from pathlib import Path

import pytest
import torch

from benchmarks.engine import contest
from benchmarks.engine.contest import FILES, IN_MEMORY, hold_alone, peak_of
from benchmarks.engine.setting import Setting, Way, prepare
from vouch_labels.schemas.campaign import ModelsConfig


class Recorded:
    """Sides that say who ran."""

    on_gpu = False
    device = "cuda:0"
    last: "Recorded"

    def __init__(self, setting):
        self.ran = []
        Recorded.last = self

    def in_memory(self):
        return {name: Way(1, "fp32", lambda name=name: self.ran.append(name)) for name in ("a", "b")}

    def on_files(self, folder):
        assert folder.is_dir()
        return {"from files": Way(1, "fp32", lambda: self.ran.append("from files"))}


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.setattr(contest, "Sides", Recorded)
    for name in ("register", "prepare_environment"):
        monkeypatch.setattr(contest, name, lambda: None)
    return Setting(name="starter", config=ModelsConfig(), folder=Path(), images=1, classes=["cat"])


@pytest.mark.parametrize(("block", "side"), [(IN_MEMORY, "b"), (FILES, "from files")])
def test_one_side_alone_is_warmed_up_and_run(setting, block, side):
    assert hold_alone(setting, block, side) == 0
    assert Recorded.last.ran == [side] * 2


def test_on_a_gpu_the_peak_is_that_of_the_warm_run(setting, monkeypatch):
    monkeypatch.setattr(Recorded, "on_gpu", True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: Recorded.last.ran.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert hold_alone(setting, IN_MEMORY, "a") == 7
    assert Recorded.last.ran == ["a", "a", "reset", "a"]


@pytest.mark.slow
def test_the_figure_is_of_a_process_of_its_own(tmp_path):
    made = prepare("starter", tmp_path, 1, 1)
    found = peak_of(made, IN_MEMORY, "loop, fp32")
    assert found.host_bytes > 100 << 20
    assert found.device_bytes == 0
