"""The evaluation of the starter models, and its picture of scenes and predictions."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter import evaluate, grid
from vouch_labels.starter.command import exit_code
from vouch_labels.starter.evaluate import (
    OTHER_STYLE,
    ROWS,
    _boundary,
    _mask_iou,
    count_hits,
    fresh_scene,
    measure_detector,
    measure_scorer,
    measure_segmenter,
    report,
)
from vouch_labels.starter.scenes.scene import Scene, SceneObject
from vouch_labels.starter.scenes.sheet import SHEETS
from vouch_labels.tasks.preview import CAPTION, GAP


def with_other(names: set[str]) -> set[str]:
    return names | {f"other_{name}" for name in names}


def test_boundary_is_a_ring_of_two_percent_of_the_diagonal() -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 40:60] = True
    # 2 % of 141 px is 3 px: 20 x 20 less 14 x 14.
    assert _boundary(mask).sum() == 400 - 196
    assert _boundary(np.ones((100, 100), bool)).sum() == 10_000 - 94 * 94
    assert _mask_iou(mask, np.roll(mask, 10, axis=0)) == pytest.approx(200 / 600)
    assert _mask_iou(np.zeros((4, 4), bool), np.zeros((4, 4), bool)) == 1


def test_segmenter_and_scorer_are_measured_on_fresh_scenes() -> None:
    masks = measure_segmenter(6)
    assert masks.keys() == with_other({"mean_iou", "boundary_iou", "iou_error"})
    assert 0.6 < masks["mean_iou"] <= 1
    assert masks["boundary_iou"] < masks["mean_iou"]
    names = measure_scorer(12)
    assert names.keys() == with_other({"top1", "probability"}) | {"phrase_top1", "held_out_top1", "background_top1"}
    assert all(0 <= value <= 1 for value in names.values())
    assert names["top1"] > 0.6
    assert names["top1"] > names["other_top1"]


def test_detector_is_measured_on_fresh_scenes_of_both_styles() -> None:
    found = measure_detector(6)
    styled = {"map50", "map", "precision", "recall", "mean_score"}
    assert found.keys() == with_other(styled) | {"held_out_map50", "false_boxes"}
    assert found["map50"] > 0.4
    assert found["map50"] > found["other_map50"]
    assert found["mean_score"] >= DetectorConfig().min_score


def test_hits_are_boxes_of_the_right_name_and_place_each_object_once() -> None:
    objects = [("cat", (0, 0, 10, 10)), ("dog", (20, 20, 40, 40))]
    boxes = np.asarray([[0, 0, 10, 10], [0, 0, 9, 10], [20, 20, 40, 30.1], [20, 20, 40, 40]], np.float32)
    scores = np.asarray([0.9, 0.8, 0.7, 0.2], np.float32)

    def hits(labels: list[int], least: float) -> int:
        return count_hits(objects, (boxes, scores, np.asarray(labels)), ["cat", "dog"], least)

    assert hits([0, 0, 1, 1], 0.3) == 2
    assert hits([0, 0, 0, 1], 0.3) == 1
    assert hits([0, 0, 0, 1], 0.1) == 2
    assert hits([1, 1, 0, 0], 0.1) == 0
    assert hits([0, 0, 1, 1], 0.95) == 0
    twins: list[Any] = [("cat", np.asarray([0, 0, 10, 10])), ("cat", np.asarray([0, 0, 10, 10]))]
    assert count_hits(twins, (boxes, scores, np.zeros(4, int)), ["cat", "dog"], 0.3) == 2


def test_one_part_is_measured_and_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "segmenter.md").write_text("# Card\n\n<!-- figures -->\n<!-- /figures -->\n\nEnd.\n")
    out = tmp_path / "table.md"
    arguments = ["--only", "segmenter", "--scenes", "4", "--out", str(out), "--cards", str(tmp_path)]
    assert evaluate.main(arguments) == 0
    assert "segmenter from true boxes, mean IoU: 0." in capsys.readouterr().out
    assert "segmenter from true boxes, mean IoU | 0." in out.read_text()
    assert "## Another emoji style, never trained on" in out.read_text()
    assert "detector" not in out.read_text().split("|", 1)[1]
    card = (tmp_path / "segmenter.md").read_text()
    assert "| scenes a figure | 4 |" in card
    assert "| another emoji style: segmenter from true boxes, mean IoU | 0." in card
    assert card.endswith("End.\n")


def test_an_unwritable_table_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "absent" / "table.md"
    assert evaluate.main(["--only", "segmenter", "--scenes", "1", "--out", str(out)]) == 2
    assert f"cannot write {out}" in capsys.readouterr().err


def test_verdicts_follow_target_and_floor() -> None:
    figures = {
        "detector.map50": 0.91,
        "detector.map": 0.60,
        "detector.held_out_map50": 0.10,
        "detector.false_boxes": 0.10,
        "segmenter.boundary_iou": 0.5,
    }
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in report(figures, 10, "a machine").splitlines()}
    texts = {row.key: row.text for row in ROWS}
    assert lines[texts["detector.map50"]].endswith("| 0.910 | ≥ 0.90 | ≥ 0.80 | target met |")
    assert lines[texts["detector.map"]].endswith("| floor met |")
    assert lines[texts["detector.held_out_map50"]].endswith("| not met |")
    assert lines[texts["detector.false_boxes"]].endswith("| 0.100 | ≤ 0.15 | ≤ 0.40 | target met |")
    assert lines[texts["segmenter.boundary_iou"]].endswith("| 0.500 |  |  |  |")
    assert texts["scorer.top1"] not in lines


def test_more_false_boxes_than_the_floor_are_not_met() -> None:
    assert "| 0.500 | ≤ 0.15 | ≤ 0.40 | not met |" in report({"detector.false_boxes": 0.5}, 10, "a machine")
    assert "| 0.300 | ≤ 0.15 | ≤ 0.40 | floor met |" in report({"detector.false_boxes": 0.3}, 10, "a machine")


def test_the_other_style_has_a_table_of_its_own_beside_the_seen_one() -> None:
    figures = {"detector.map50": 0.9, "detector.other_map50": 0.25, "detector.map": 0.6}
    text = report(figures, 10, "a machine")
    first, second = text.split("## Another emoji style, never trained on")
    assert "0.250" not in first
    assert "| detector, seen classes, mAP50 | 0.900 | 0.250 |" in second
    assert "mAP |" not in second
    assert "Another emoji style" not in report({"detector.map50": 0.9}, 10, "a machine")


def test_size_depends_on_seed_and_index_alone() -> None:
    assert OTHER_STYLE in SHEETS
    shapes = []
    for index in range(4):
        scenes = [fresh_scene(5, index, "core"), fresh_scene(5, index, "core-heldout", OTHER_STYLE)]
        assert scenes[0].image.shape == scenes[1].image.shape
        assert all(256 <= side <= 384 for side in scenes[0].image.shape[:2])
        assert (scenes[0].image != scenes[1].image).any()
        shapes.append(scenes[0].image.shape)
    assert len(set(shapes)) > 1


# The picture of scenes and predictions is drawn from the real models, and says honestly what was found.


def test_a_row_of_scenes_each_is_drawn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "grid.jpg"
    assert grid.main([str(path), "--columns", "1"]) == 0
    assert str(path) in capsys.readouterr().out
    with Image.open(path) as picture:
        tile = grid._SIDE
        assert picture.size == (tile + 2 * GAP, 3 * (tile + CAPTION + GAP) + GAP)
        assert np.ptp(np.asarray(picture, int), axis=-1).max() > 50


def test_a_place_that_cannot_be_written_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "absent" / "grid.jpg"
    assert grid.main([str(path), "--columns", "1"]) == 2
    error = capsys.readouterr().err
    assert f"{path}: cannot be written" in error
    assert error.count("\n") == 1


def test_no_columns_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid.main([str(tmp_path / "grid.jpg"), "--columns", "0"]) == 2
    assert capsys.readouterr().err == "cannot draw 0 columns: at least one\n"


def test_rows_show_the_first_scenes_with_enough_of_what_is_asked_for() -> None:
    seen, held_out, other = grid._ROWS
    for row in (seen, held_out, other):
        scene = next(grid._scenes(row))
        names = [name for name, _ in grid._truth(row, scene)]
        assert len(names) >= row.least
        assert set(names) <= set(row.asked)
    assert "blue car" in held_out.asked
    assert not set(held_out.asked) & set(seen.asked)
    assert seen.style != other.style


def test_captions_count_what_was_asked_for_alone() -> None:
    def item(noun: str, colour: str | None, left: float) -> SceneObject:
        return SceneObject(noun, colour, (left, 0.0, left + 10, 10.0), np.zeros((1, 1), bool), 0.0)

    objects = (item("car", "blue", 0), item("car", "red", 20), item("book", "purple", 40))
    scene = Scene(np.zeros((1, 1, 3), np.uint8), objects)
    row = grid._ROWS[1]
    boxes = np.asarray([[0, 0, 10, 10], [20, 0, 30, 10], [70, 70, 80, 80]], np.float32)
    labels = np.full(3, row.asked.index("blue car"))
    found = (boxes, np.asarray([0.9, 0.6, 0.31], np.float32), labels)
    assert grid._caption(row, scene, found) == "held-out pairs: 1 of 2 found, 2 wrong"
    assert len(grid._at_least(found, 0.5)[0]) == 2


def test_the_page_shows_a_picture_of_moderate_size() -> None:
    docs = Path(__file__).parents[2] / "docs"
    assert "(starter.jpg)" in (docs / "starter.md").read_text()
    assert (docs / "starter.jpg").stat().st_size < 350_000
    with Image.open(docs / "starter.jpg") as picture:
        assert picture.width >= 1000


def test_words_go_to_standard_output(capsys):
    assert exit_code(lambda: "3 glyphs") == 0
    assert capsys.readouterr() == ("3 glyphs\n", "")


def test_an_error_is_one_line_and_its_code(capsys):
    for kind, code in ((UserError, 2), (VouchError, 1)):

        def fail(kind=kind):
            raise kind("fix it")

        assert exit_code(fail) == code
        assert capsys.readouterr() == ("", "fix it\n")
