"""Both sides get the same boxes, ways run in turn, and the table says what was measured."""

import numpy as np
import pytest

from benchmarks.engine.contest import ALL_ON, ALONE, NONE_ON, WITHOUT, Block, Contest
from benchmarks.engine.fixed_boxes import BOXES, FixedBoxes, fixed_boxes
from benchmarks.engine.limits import flops_of, matmul_peak
from benchmarks.engine.race import Taken, race
from benchmarks.engine.table import table_of
from schemas.campaign.models import DetectorConfig
from tasks.geometry import box_iou
from tasks.models.fake.detector import FakeDetector
from tasks.models.protocols import Phrase


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
    from tasks.models.registry import load_detector
    from tasks.models.runtime import Runtime

    detector = FixedBoxes(load_detector(DetectorConfig(backend="fake"), Runtime("cpu", "fp32")))
    found = detector.detect([np.zeros((40, 60, 3), np.uint8)] * 2, [Phrase("cat", 0), Phrase("dog", 1)], 0.3)
    assert looked == [2]
    assert all(np.array_equal(each.boxes, fixed_boxes(60, 40)) for each in found)
    assert (found[0].scores.argmax(axis=1) == np.arange(BOXES) % 2).all()


def test_ways_run_in_turn_after_a_warm_up():
    calls = []
    taken = race({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, 3, "cpu")
    assert calls == ["a", "b"] * 4
    assert set(taken) == {"a", "b"}
    assert taken["a"].device_bytes == 0


def test_operations_are_counted_as_two_a_product():
    import torch

    a, b = torch.ones(3, 4), torch.ones(4, 5)
    assert flops_of(lambda: a @ b) == 2 * 3 * 4 * 5


def test_a_peak_is_some_operations_a_second(monkeypatch):
    from benchmarks.engine import limits

    monkeypatch.setitem(limits.SIDES, "cpu", 64)
    assert matmul_peak("cpu", "fp32") > 0


def test_the_table_has_ratios_to_the_loop_and_of_each_switch():
    def block(**seconds):
        taken = {
            name.replace("_", " "): Taken(seconds=value, cpu_seconds=value, device_bytes=0)
            for name, value in seconds.items()
        }
        return Block(images=4, taken=taken)

    loop, fast = "loop, fp32", "Vouch fast, fp32"
    contest = Contest(
        device="CPU",
        flops=1e9,
        peaks={"fp32": 1e11},
        in_memory=block(**{loop: 4.0, fast: 1.0}),
        steps={"detect": block(**{"Vouch reference, fp32": 3.0, fast: 1.0})},
        files=block(**{loop: 4.0, "Vouch fast, from a folder": 2.0}),
        switches={"late_heads": block(**{ALL_ON: 1.0, WITHOUT: 2.0, ALONE: 3.0, NONE_ON: 6.0})},
    )
    table = table_of({"starter": contest}, {"starter": 4}, with_s3=False, load=0.0)
    ratios = {row[0]: row[4] for row in table.rows}
    assert ratios == {
        "starter, in memory: loop, fp32": "1.00",
        "starter, in memory: Vouch fast, fp32": "4.00",
        "starter, files: loop, fp32": "1.00",
        "starter, files: Vouch fast, from a folder": "2.00",
        "starter, detect: Vouch reference, fp32": "1.00",
        "starter, detect: Vouch fast, fp32": "3.00",
        "starter, late_heads: all on but this": "0.50",
        "starter, late_heads: this alone": "2.00",
    }
    shares = {row[0]: row[6] for row in table.rows}
    # 4 images a second, 1 GFLOP each, of 100 GFLOP/s.
    assert shares["starter, in memory: Vouch fast, fp32"] == "4.0%"
    assert not any("Other processes" in note for note in table.notes)
    busy = table_of({"starter": contest}, {"starter": 4}, with_s3=True, load=1000.0)
    assert any("Other processes used the machine: 1000.0" in note for note in busy.notes)
