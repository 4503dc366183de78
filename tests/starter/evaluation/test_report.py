"""The report says honestly what is met."""

from starter.evaluation.report import ROWS, report


def test_verdicts_follow_target_and_floor() -> None:
    figures = {
        "detector.map50": 0.91,
        "detector.map": 0.60,
        "detector.held_out_map50": 0.10,
        "detector.false_boxes": 0.10,
        "segmenter.boundary_iou": 0.5,
    }
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in report(figures, 10, "a desk").splitlines()}
    words = {row.key: row.words for row in ROWS}
    assert lines[words["detector.map50"]].endswith("| 0.910 | ≥ 0.90 | ≥ 0.80 | target met |")
    assert lines[words["detector.map"]].endswith("| floor met |")
    assert lines[words["detector.held_out_map50"]].endswith("| not met |")
    assert lines[words["detector.false_boxes"]].endswith("| 0.100 | ≤ 0.15 | ≤ 0.40 | target met |")
    assert lines[words["segmenter.boundary_iou"]].endswith("| 0.500 |  |  |  |")
    assert words["scorer.top1"] not in lines


def test_more_false_boxes_than_the_floor_are_not_met() -> None:
    assert "| 0.500 | ≤ 0.15 | ≤ 0.40 | not met |" in report({"detector.false_boxes": 0.5}, 10, "a desk")
    assert "| 0.300 | ≤ 0.15 | ≤ 0.40 | floor met |" in report({"detector.false_boxes": 0.3}, 10, "a desk")


def test_the_other_style_has_a_table_of_its_own_beside_the_seen_one() -> None:
    figures = {"detector.map50": 0.9, "detector.other_map50": 0.25, "detector.map": 0.6}
    text = report(figures, 10, "a desk")
    first, second = text.split("## Another emoji style, never trained on")
    assert "0.250" not in first
    assert "| detector, seen classes, mAP50 | 0.900 | 0.250 |" in second
    assert "mAP |" not in second
    assert "Another emoji style" not in report({"detector.map50": 0.9}, 10, "a desk")
