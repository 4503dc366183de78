"""The picture of scenes and predictions is drawn from the real models, and says honestly what was found."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter import grid
from vouch_labels.starter.command import exit_code
from vouch_labels.starter.scenes.scene import Scene, SceneObject
from vouch_labels.tasks.preview import CAPTION, GAP


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
