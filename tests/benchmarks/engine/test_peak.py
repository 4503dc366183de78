"""The memory of a candidate is that of a process in which nothing else is loaded."""

from pathlib import Path

import pytest
import torch

from benchmarks.engine import comparison
from benchmarks.engine.comparison import FILES, IN_MEMORY, peak_of, run_alone
from benchmarks.engine.setting import Candidate, Setting, prepare
from vouch_labels.schemas.campaign import ModelsConfig


class Recorded:
    """Workloads that say who ran."""

    on_gpu = False
    device = "cuda:0"
    last: "Recorded"

    def __init__(self, setting):
        self.ran = []
        Recorded.last = self

    def in_memory(self):
        return {name: Candidate(1, "fp32", lambda name=name: self.ran.append(name)) for name in ("a", "b")}

    def on_files(self, folder):
        assert folder.is_dir()
        return {"from files": Candidate(1, "fp32", lambda: self.ran.append("from files"))}


@pytest.fixture
def setting(monkeypatch):
    monkeypatch.setattr(comparison, "Workloads", Recorded)
    for name in ("register", "prepare_environment"):
        monkeypatch.setattr(comparison, name, lambda: None)
    return Setting(name="starter", config=ModelsConfig(), folder=Path(), images=1, classes=["cat"])


@pytest.mark.parametrize(("block", "name"), [(IN_MEMORY, "b"), (FILES, "from files")])
def test_one_candidate_alone_is_warmed_up_and_run(setting, block, name):
    assert run_alone(setting, block, name) == 0
    assert Recorded.last.ran == [name] * 2


def test_on_a_gpu_the_peak_is_that_of_the_warm_run(setting, monkeypatch):
    monkeypatch.setattr(Recorded, "on_gpu", True)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: Recorded.last.ran.append("reset"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 7)
    assert run_alone(setting, IN_MEMORY, "a") == 7
    assert Recorded.last.ran == ["a", "a", "reset", "a"]


@pytest.mark.slow
def test_the_figure_is_of_a_process_of_its_own(tmp_path):
    made = prepare("starter", tmp_path, 1, 1)
    found = peak_of(made, IN_MEMORY, "loop, fp32")
    assert found.host_bytes > 100 << 20
    assert found.device_bytes == 0
