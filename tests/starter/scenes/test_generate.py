"""Written scenes are a COCO data set that repeats for the same seed."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes.generate import TRUTH, generate_scenes
from vouch_labels.starter.scenes.scene import draw_scene

SAMPLES = Path(__file__).parents[3] / "starter" / "samples"


def test_same_seed_writes_the_same_bytes(tmp_path: Path) -> None:
    for name in ("first", "second"):
        generate_scenes(tmp_path / name, 4, seed=17, smallest=96, largest=128)
    generate_scenes(tmp_path / "other", 4, seed=18, smallest=96, largest=128)
    files = sorted(path.name for path in (tmp_path / "first").iterdir())
    assert files == [TRUTH, *(f"scene-{index:05d}.jpg" for index in range(4))]
    for name in files:
        first = (tmp_path / "first" / name).read_bytes()
        assert first == (tmp_path / "second" / name).read_bytes()
        assert first != (tmp_path / "other" / name).read_bytes()


def test_truth_loads_as_coco_and_is_exact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = COCO(str(generate_scenes(tmp_path / "out", 6, seed=5, split="full", smallest=96, largest=160)))
    capsys.readouterr()
    seen = 0
    for entry in coco.dataset["images"]:
        with Image.open(tmp_path / "out" / entry["file_name"]) as image:
            assert image.size == (entry["width"], entry["height"])
        scene = draw_scene(5, entry["id"] - 1, "full", entry["height"], entry["width"])
        rows = coco.loadAnns(coco.getAnnIds(imgIds=[entry["id"]]))
        for item, row in zip(scene.objects, rows, strict=True):
            assert (coco.annToMask(row).astype(bool) == item.mask).all()
            assert row["area"] == item.mask.sum()
            assert coco.cats[row["category_id"]]["name"] == item.noun
            x, y, width, height = row["bbox"]
            assert (x, y, x + width, y + height) == item.xyxy
            assert row["attributes"]["colour"] == item.colour
            seen += 1
    assert seen == len(coco.anns) > 5


def test_another_style_is_named_with_its_licence(tmp_path: Path) -> None:
    noto, twitter = (
        json.loads(generate_scenes(tmp_path / style, 1, smallest=64, largest=64, style=style).read_text())
        for style in ("noto", "twitter")
    )
    assert (noto["info"]["style"], twitter["info"]["style"]) == ("noto", "twitter")
    assert "Noto Color Emoji" in noto["licenses"][0]["name"]
    assert "Twemoji" in twitter["licenses"][0]["name"]
    assert "creativecommons.org/licenses/by/4.0" in twitter["licenses"][0]["url"]
    pictures = [(tmp_path / style / "scene-00000.jpg").read_bytes() for style in ("noto", "twitter")]
    assert pictures[0] != pictures[1]


def test_progress_is_told(tmp_path: Path) -> None:
    counts: list[int] = []
    generate_scenes(tmp_path / "out", 3, smallest=64, largest=64, on_scene=counts.append)
    assert counts == [1, 2, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "train"}, "unknown split 'train'"),
        ({"style": "oil"}, "unknown style 'oil'"),
        ({"count": 0}, "cannot draw 0 scenes"),
        ({"seed": -1}, "seed from 0 on"),
        ({"smallest": 300, "largest": 200}, "300 to 200 pixels"),
        ({"smallest": 8}, "between 64 and 4096"),
    ],
)
def test_senseless_arguments_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate_scenes(tmp_path / "out", **({"count": 2} | changes))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_scenes_is_left_alone(tmp_path: Path) -> None:
    generate_scenes(tmp_path, 1, smallest=64, largest=64)
    before = (tmp_path / TRUTH).read_bytes()
    with pytest.raises(UserError, match="already holds scenes"):
        generate_scenes(tmp_path, 2, smallest=64, largest=64)
    assert (tmp_path / TRUTH).read_bytes() == before


def test_a_file_in_the_way_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("no folder")
    with pytest.raises(UserError, match="cannot write scenes to"):
        generate_scenes(tmp_path / "out", 1)


def test_bundled_samples_are_what_the_generator_draws(tmp_path: Path) -> None:
    truth = json.loads((SAMPLES / TRUTH).read_text())
    assert len(truth["images"]) == 48
    assert sum(path.stat().st_size for path in SAMPLES.iterdir()) < 6_000_000
    generate_scenes(tmp_path / "again", 3, seed=truth["info"]["seed"], split=truth["info"]["split"])
    for index in range(3):
        name = f"scene-{index:05d}.jpg"
        bundled, again = (np.asarray(Image.open(folder / name), int) for folder in (SAMPLES, tmp_path / "again"))
        # Other versions of OpenCV may round a little differently.
        assert bundled.shape == again.shape
        assert np.abs(bundled - again).mean() < 4
