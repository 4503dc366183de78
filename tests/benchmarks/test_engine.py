"""The engine's benchmark: candidates in turn, their figures, the memory of one alone, and transformers' pipeline."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.engine import measure
from benchmarks.engine.measure import (
    ALL_ON,
    ALONE,
    FILES,
    IN_MEMORY,
    NONE_ON,
    WITHOUT,
    Comparison,
    Peak,
    Switched,
    Taken,
    compare,
    flops_of,
    matmul_peak,
    peak_of,
    run_alone,
    switches_table,
    table_of,
)
from benchmarks.engine.workloads import (
    BOXES,
    FOLDER,
    IN_TURN,
    PIPELINE,
    Candidate,
    FixedBoxes,
    Setting,
    Workloads,
    computing,
    detect,
    fixed_boxes,
    pipeline_of,
    prepare,
)
from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.models.checkpoints import STARTER
from vouch_labels.tasks.models.fake import FakeDetector
from vouch_labels.tasks.models.registry import Phrase
from vouch_labels.tasks.models.runtime import Runtime


@pytest.mark.parametrize("size", [(640, 480), (33, 700)])
def test_boxes_lie_in_the_image_apart_from_each_other(size):
    boxes = fixed_boxes(*size)
    assert boxes.shape == (BOXES, 4)
    assert (boxes[:, :2] > 0).all()
    assert (boxes[:, 2:] < np.array(size)).all()
    assert np.count_nonzero(box_iou(boxes, boxes)) == BOXES


def test_the_detector_works_and_its_answer_is_replaced(monkeypatch):
    looked = []
    monkeypatch.setattr(FakeDetector, "detect", lambda self, images, phrases, least: looked.append(len(images)))
    from vouch_labels.tasks.models.registry import load_detector

    detector = FixedBoxes(load_detector(DetectorConfig(backend="fake"), Runtime("cpu", "fp32")))
    found = detector.detect([np.zeros((40, 60, 3), np.uint8)] * 2, [Phrase("cat", 0), Phrase("dog", 1)], 0.3)
    assert looked == [2]
    assert all(np.array_equal(each.boxes, fixed_boxes(60, 40)) for each in found)
    assert (found[0].scores.argmax(axis=1) == np.arange(BOXES) % 2).all()


def test_ways_run_in_turn_after_a_warm_up():
    calls = []
    candidates = {
        name: Candidate(images, "fp32", lambda name=name: calls.append(name)) for name, images in (("a", 1), ("b", 5))
    }
    taken = compare(candidates, 3, "cpu", busy=True)
    assert calls == ["a", "b"] * 4
    assert {name: each.images for name, each in taken.items()} == {"a": 1, "b": 5}
    assert taken["a"].gpu_busy is None


def test_on_a_gpu_ways_run_until_nothing_is_compiled_and_then_under_the_profiler(monkeypatch):
    import torch

    from benchmarks.engine import measure

    calls = []
    monkeypatch.setattr(torch.cuda, "synchronize", lambda device: None)
    monkeypatch.setattr(measure, "settled", lambda work: calls.append("settled") or work())
    monkeypatch.setattr(measure, "gpu_busy", lambda work: work() or 0.9)
    taken = compare({"a": Candidate(1, "bf16", lambda: calls.append("a"))}, 1, "cuda:0", busy=True)
    assert calls == ["a", "settled", "a", "a", "a"]
    assert taken["a"].gpu_busy == 0.9


def workloads_on(monkeypatch, tmp_path, device, name, precision="bf16"):
    """Workloads whose models are never loaded, as on a device."""
    from benchmarks.engine import workloads

    for module in (workloads,):
        monkeypatch.setattr(module, "choose_runtime", lambda config: Runtime(device, precision))
    setting = Setting(name=name, config=ModelsConfig(), folder=tmp_path, images=4, classes=["cat"])
    made = Workloads(setting)
    pictures: list[Any] = [np.zeros((40, 60, 3), np.uint8)] * 4
    made.arrays = made.pictures = pictures
    return made


def test_a_gpu_has_sides_in_every_mode_and_its_default_is_measured(monkeypatch, tmp_path):
    made = workloads_on(monkeypatch, tmp_path, "cuda:0", "starter")
    in_memory = made.in_memory()
    assert {name: candidate.mode for name, candidate in in_memory.items()} == {
        "loop, fp32": "fp32",
        "loop, TF32": "TF32",
        "loop, bf16 autocast": "bf16",
        "Vouch reference, fp32": "fp32",
        "Vouch fast, fp32": "fp32",
        "Vouch reference, bf16": "bf16",
        "Vouch fast, bf16": "bf16",
        "Vouch fast, compiled, bf16": "bf16",
    }
    compiles = {name: steps._config.compile for name, steps in made.steps.items()}
    assert [name for name, value in compiles.items() if value == "on"] == ["Vouch fast, compiled, bf16"]
    assert {FOLDER, IN_TURN} <= set(made.on_files(tmp_path))
    assert made.pipeline() == {}


def test_a_gpu_without_bf16_is_not_asked_for_it(monkeypatch, tmp_path):
    made = workloads_on(monkeypatch, tmp_path, "cuda:0", "starter", precision="fp32")
    assert list(made.by_step("all")) == ["Vouch reference, fp32", "Vouch fast, fp32", "Vouch fast, compiled, fp32"]
    assert made.on_files(tmp_path)[FOLDER].mode == "fp32"


def test_the_pipeline_is_compared_beside_the_steps_of_full_size_models(monkeypatch, tmp_path):
    from benchmarks.engine import workloads

    monkeypatch.setattr(workloads, "pipeline_of", lambda tokenizer, device: None)
    made = workloads_on(monkeypatch, tmp_path, "cuda:0", "Swin-T + ViT-B + B/32")
    assert list(made.pipeline()) == [PIPELINE]


def test_a_cpu_has_one_mode(monkeypatch, tmp_path):
    made = workloads_on(monkeypatch, tmp_path, "cpu", "starter")
    assert list(made.in_memory()) == ["loop, fp32", "Vouch reference, fp32", "Vouch fast, fp32"]
    assert IN_TURN not in made.on_files(tmp_path)


def test_sources_and_workspaces_of_the_files_block_share_the_models(monkeypatch, tmp_path):
    """What runs in turn must not load models meanwhile."""
    from benchmarks.engine import workloads

    asked = []
    monkeypatch.setattr(workloads, "label_files", lambda *given: asked.append(given))
    made = workloads_on(monkeypatch, tmp_path, "cuda:0", "starter")
    made.whole(tmp_path).work()
    made.whole(tmp_path, "s3://bucket", {"path_style": True}).work()
    made.whole(tmp_path, switched_off=("overlap",)).work()
    (folder, *_), (bucket, *_), _ = asked
    assert (folder, bucket) == (str(tmp_path), "s3://bucket")
    assert len({workspace for _, workspace, *_ in asked}) == 3
    assert len({models.model_copy(update={"switched_off": ()}) for _, _, models, *_ in asked}) == 1


def test_operations_are_counted_as_two_a_product():
    import torch

    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert flops_of(lambda: a @ b) == 2 * 3 * 4 * 5


def test_a_peak_is_some_operations_a_second(monkeypatch):
    from benchmarks.engine import measure

    monkeypatch.setitem(measure.MATRIX_SIZES, "cpu", 64)
    assert matmul_peak("cpu", "fp32") > 0


def block(**seconds):
    modes = {name: "TF32" if "TF32" in name else "fp32" for name in seconds}
    return {
        name: Taken(images=4, mode=modes[name], seconds=value, cpu_seconds=value) for name, value in seconds.items()
    }


def test_each_switch_is_compared_with_all_and_with_none():
    late_heads = block(**{ALL_ON: 1.0, WITHOUT: 2.0, ALONE: 3.0, NONE_ON: 6.0})
    table = switches_table({"starter": Switched(device="CPU", blocks={"late_heads": late_heads})}, load=0.0)
    assert {row[0]: row[4] for row in table.rows} == {
        "starter, late_heads: all on but this": "0.50",
        "starter, late_heads: this alone": "2.00",
    }
    assert {len(row) for row in table.rows} == {len(table.columns)}


def test_the_table_has_ratios_to_the_loop():
    loop, fast = "loop, fp32", "Vouch fast, fp32"
    comparison = Comparison(
        device="CPU",
        flops=1e9,
        peaks={"fp32": 1e11, "TF32": 2e11},
        in_memory=block(**{loop: 4.0, "loop, TF32": 1.0, fast: 1.0}),
        steps={"detect": block(**{"Vouch reference, fp32": 3.0, fast: 1.0})},
        files=block(**{loop: 4.0, "Vouch fast, from a folder": 2.0}),
        memory={"in memory": {fast: Peak(host_bytes=3 << 20, device_bytes=0)}},
    )
    comparison.in_memory[fast].gpu_busy = 0.93
    table = table_of({"starter": comparison}, with_s3=False, load=0.0)
    ratios = {row[0]: row[4] for row in table.rows}
    assert ratios == {
        "starter, in memory: loop, fp32": "1.00",
        "starter, in memory: loop, TF32": "4.00",
        "starter, in memory: Vouch fast, fp32": "4.00",
        "starter, files: loop, fp32": "1.00",
        "starter, files: Vouch fast, from a folder": "2.00",
        "starter, detect: Vouch reference, fp32": "1.00",
        "starter, detect: Vouch fast, fp32": "3.00",
    }
    shares = {row[0]: row[6] for row in table.rows}
    # 4 images a second, 1 GFLOP each, of 100 GFLOP/s.
    assert shares["starter, in memory: Vouch fast, fp32"] == "4.0%"
    assert shares["starter, in memory: loop, TF32"] == "2.0%"
    (row,) = [row for row in table.rows if row[0] == "starter, in memory: Vouch fast, fp32"]
    assert row[7:] == ["93%", "3 MiB", ""]
    assert not any("Other processes" in note for note in table.notes)
    busy = table_of({"starter": comparison}, with_s3=True, load=1000.0)
    assert any("Other processes used the machine: 1000.0" in note for note in busy.notes)


@pytest.mark.parametrize(
    ("mode", "products", "convolutions"),
    [("fp32", False, False), ("TF32", True, True), ("bf16", False, True), ("bf16 autocast", False, True)],
)
def test_a_mode_holds_whatever_ran_before(mode, products, convolutions):
    import torch

    torch.backends.cudnn.allow_tf32 = False
    try:
        with computing(mode, "cpu"):
            found = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
            assert torch.is_autocast_enabled("cpu") == (mode == "bf16 autocast")
        assert found == (products, convolutions)
        assert not torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = True


# The memory of a candidate is that of a process in which nothing else is loaded.


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
    monkeypatch.setattr(measure, "Workloads", Recorded)
    for name in ("register", "prepare_environment"):
        monkeypatch.setattr(measure, name, lambda: None)
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


# transformers' pipeline can be had offline, and runs its model once a class.


@pytest.mark.slow
def test_it_detects_with_one_pass_a_class():
    from transformers import BertConfig, SwinConfig

    sizes = {
        "backbone_config": SwinConfig(
            image_size=64, embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_indices=[2, 3, 4]
        ),
        "text_config": BertConfig(
            hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, vocab_size=30522
        ),
        "num_queries": 15,
        "encoder_layers": 1,
        "decoder_layers": 2,
        "encoder_ffn_dim": 64,
        "decoder_ffn_dim": 64,
    }
    pipe = pipeline_of(STARTER / "tokenizer", "cpu", sizes, shortest=64)
    passes = []
    pipe.model.register_forward_hook(lambda *_: passes.append(1))
    images = [Image.fromarray(np.zeros((48, 80, 3), np.uint8))] * 2
    detect(pipe, images, ["cat", "dog", "bird"])()
    assert len(passes) == 6
