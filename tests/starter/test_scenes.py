"""Scenes, the sheets of sprites that they are made of, and the samples."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image
from pycocotools.coco import COCO

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter.scenes import sheet
from vouch_labels.starter.scenes.scene import TRUTH, draw_scene, generate_scenes
from vouch_labels.starter.scenes.sheet import SHEETS, Sheet
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, DISTRACTORS, EXTENDED, HELD_OUT, SPLITS

GLYPHS = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)
SAMPLES = Path(__file__).parents[2] / "starter" / "samples"


def test_same_arguments_draw_same_pixels_and_truth() -> None:
    first, second = (draw_scene(3, 5, "core", 160, 200) for _ in range(2))
    assert (first.image == second.image).all()
    assert first.image.shape == (160, 200, 3)
    assert [item.xyxy for item in first.objects] == [item.xyxy for item in second.objects]
    assert any((draw_scene(3, index, "core", 160, 200).image != first.image).any() for index in (6, 7))


def test_boxes_bound_masks_tightly_and_masks_do_not_overlap() -> None:
    count = 0
    for index in range(30):
        scene = draw_scene(21, index, "full", 144, 192)
        total = np.zeros((144, 192), int)
        for item in scene.objects:
            x0, y0, x1, y1 = (int(value) for value in item.xyxy)
            assert item.mask[y0:y1, x0:x1].sum() == item.mask.sum() > 0
            assert item.mask[y0].any()
            assert item.mask[y1 - 1].any()
            assert item.mask[:, x0].any()
            assert item.mask[:, x1 - 1].any()
            assert 0 <= item.occlusion <= 0.5
            total += item.mask
            count += 1
        assert total.max(initial=0) <= 1
    assert count > 60


def test_mask_is_where_the_object_was_drawn() -> None:
    """Pixels inside the masks of red hearts are redder than those outside of every mask."""
    inside, outside = [], []
    for index in range(120):
        scene = draw_scene(4, index, "core", 128, 128)
        empty = ~np.any([item.mask for item in scene.objects], axis=0) if scene.objects else np.ones((128, 128), bool)
        for item in scene.objects:
            if item.phrase == "red heart":
                red = scene.image[..., 0].astype(int) - scene.image[..., 2]
                inside.append(red[item.mask].mean())
                outside.append(red[empty].mean())
    assert len(inside) >= 3
    assert min(inside) > 80 > np.mean(outside) + 40


def test_training_splits_never_show_held_out_pairs_and_held_out_splits_do() -> None:
    def pairs(split: str) -> set[tuple[str | None, str]]:
        scenes = [draw_scene(9, index, split, 96, 96) for index in range(150)]
        return {(item.colour, item.noun) for scene in scenes for item in scene.objects}

    for split in ("core", "full"):
        assert not pairs(split) & HELD_OUT
        assert len(pairs(f"{split}-heldout") & HELD_OUT) >= 5


def test_some_scenes_are_empty_and_none_has_more_objects_than_asked() -> None:
    counts = [len(draw_scene(2, index, "core", 96, 96, most=4).objects) for index in range(120)]
    assert 0 < counts.count(0) < 30
    assert max(counts) <= 4


def test_vocabulary_is_large_enough_and_unambiguous() -> None:
    nouns = CORE + EXTENDED
    assert len(CORE) >= 24
    assert len(nouns) >= 60
    names = [name for noun in nouns for name in (noun.name, *noun.synonyms)]
    assert len(names) == len(set(names))
    glyphs = [noun.glyph for noun in nouns] + list(DISTRACTORS)
    assert len(glyphs) == len(set(glyphs))
    tinted = {noun.name for noun in nouns if noun.tinted}
    assert all(colour in COLOURS and noun in tinted for colour, noun in HELD_OUT)
    for name in tinted:
        # A colour that is held out for every noun could not be learned.
        assert any((colour, name) not in HELD_OUT for colour in COLOURS)


def test_another_style_shows_the_same_things_on_the_same_ground() -> None:
    first, second = (draw_scene(3, 5, "core", 160, 200, style=style) for style in ("noto", "twitter"))
    assert first.objects
    assert (first.objects[0].noun, first.objects[0].colour) == (second.objects[0].noun, second.objects[0].colour)
    assert (first.image != second.image).any()
    again = draw_scene(3, 5, "core", 160, 200, style="twitter")
    assert (second.image == again.image).all()


def test_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match="unknown style 'oil'"):
        draw_scene(0, 0, "core", style="oil")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown split 'everything': choose one of core"):
        draw_scene(0, 0, "everything")
    assert set(SPLITS) == {"core", "core-heldout", "full", "full-heldout"}


# The bundled sheets hold the vocabulary, can be made again, and say in one line when they cannot be used.
#
# Sprites of both styles are cut out of them; no font need be installed.


@pytest.fixture
def elsewhere(tmp_path: Path) -> Sheet:
    """The sheet of style twitter, but in a file that is not there yet."""
    return dataclasses.replace(SHEETS["twitter"], file=tmp_path / "sheet.png")


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A package of the real one's shape whose glyphs are plain squares, each of another grey."""
    folder = tmp_path / "package"
    (folder / "img" / "twitter" / "64").mkdir(parents=True)
    entries = []
    for number, glyph in enumerate(GLYPHS):
        code = f"{ord(glyph):04X}"
        Image.new("RGBA", (64, 64), (number, number, number, 255)).save(
            folder / "img" / "twitter" / "64" / f"{code}.png"
        )
        # Some emoji are listed with a variation selector and without.
        forms = {"unified": f"{code}-FE0F", "non_qualified": code} if number % 2 else {"unified": code}
        entries.append({"non_qualified": None, "image": f"{code}.png"} | forms)
    (folder / "emoji.json").write_text(json.dumps(entries))
    return folder


def write_font(path: Path, glyphs: list[str]) -> Path:
    """A font whose glyphs are bars, each of another width."""
    names = [f"u{ord(glyph):X}" for glyph in glyphs]
    shapes, widths = {}, {}
    for number, name in enumerate([".notdef", *names]):
        pen = TTGlyphPen(None)
        right = 100 + 8 * number
        for place in ((50, 0), (50, 900), (right, 900), (right, 0)):
            (pen.moveTo if place == (50, 0) else pen.lineTo)(place)
        pen.closePath()
        shapes[name], widths[name] = pen.glyph(), (1000, 50)
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder([".notdef", *names])
    builder.setupCharacterMap({ord(glyph): name for glyph, name in zip(glyphs, names, strict=True)})
    builder.setupGlyf(shapes)
    builder.setupHorizontalMetrics(widths)
    builder.setupHorizontalHeader(ascent=1000, descent=0)
    builder.setupPost()
    builder.save(path)
    return path


@pytest.mark.parametrize(
    ("style", "licence", "words"),
    [("noto", "Open Font License", ("OPEN FONT LICENSE", "2022 Google")),
     ("twitter", "CC BY 4.0", ("creativecommons.org/licenses/by/4.0", "MIT"))],
)  # fmt: skip
def test_the_bundled_sheet_holds_every_glyph_and_names_its_authors(
    style: str, licence: str, words: tuple[str, ...]
) -> None:
    bundled = SHEETS[style]
    assert bundled.file.stat().st_size < 700_000
    for glyph in GLYPHS:
        image = bundled.glyph(glyph)
        assert image.size == (bundled.side, bundled.side)
        assert np.asarray(image)[..., 3].max() == 255
    with Image.open(bundled.file) as opened:
        assert licence in opened.info["Copyright"]
    note = bundled.file.with_suffix(".md").read_text()
    assert all(word in note for word in words)


def test_a_sheet_is_made_of_a_package(package: Path, elsewhere: Sheet, capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet.main(["twitter", str(package), "--out", str(elsewhere.file)]) == 0
    assert f"{len(GLYPHS)} glyphs" in capsys.readouterr().out
    for number in (0, 1, 9, 10, len(GLYPHS) - 1):
        assert (np.asarray(elsewhere.glyph(GLYPHS[number])) == (number, number, number, 255)).all()


def test_a_sheet_is_made_of_a_font(tmp_path: Path) -> None:
    font = write_font(tmp_path / "font.ttf", GLYPHS)
    assert sheet.main(["noto", str(font), "--out", str(tmp_path / "noto.png")]) == 0
    made = dataclasses.replace(SHEETS["noto"], file=tmp_path / "noto.png")
    boxes = [made.glyph(glyph).getbbox() for glyph in GLYPHS]
    widths = [right - left for left, _, right, _ in boxes]
    assert widths == sorted(widths)
    assert widths[0] < 20
    assert widths[-1] > 80
    assert all(abs(left + right - 128) <= 1 and abs(top + bottom - 128) <= 1 for left, top, right, bottom in boxes)


@pytest.mark.parametrize("lost", ["emoji.json", f"img/twitter/64/{ord(GLYPHS[3]):04X}.png"])
def test_another_folder_is_one_clear_line(
    package: Path, elsewhere: Sheet, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    (package / lost).unlink()
    assert sheet.main(["twitter", str(package), "--out", str(elsewhere.file)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "name the folder of the unpacked npm package emoji-datasource-twitter" in error
    assert not elsewhere.file.exists()


def test_no_font_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "font.ttf").write_text("no font")
    assert sheet.main(["noto", str(tmp_path / "font.ttf"), "--out", str(tmp_path / "noto.png")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "name the file NotoColorEmoji.ttf" in error


def test_a_source_without_a_glyph_is_one_clear_line(package: Path, tmp_path: Path, elsewhere: Sheet) -> None:
    (package / "emoji.json").write_text("[]")
    with pytest.raises(UserError, match="has no glyph '🐶': take another version"):
        sheet.make_sheet(elsewhere, package, elsewhere.file)
    font = write_font(tmp_path / "font.ttf", GLYPHS[:5] + GLYPHS[6:])
    with pytest.raises(UserError, match=f"has no glyph '{GLYPHS[5]}': take a newer version"):
        sheet.make_sheet(SHEETS["noto"], font, tmp_path / "noto.png")


def test_a_missing_sheet_is_one_clear_line(elsewhere: Sheet) -> None:
    with pytest.raises(VouchError, match=r"sheet\.png is missing: install Vouch again"):
        elsewhere.glyph("🐶")


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_sheet_is_one_clear_line(elsewhere: Sheet, damage: str) -> None:
    whole = SHEETS["twitter"].file.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    elsewhere.file.write_bytes({"cut": whole[:-500], "flipped": bytes(flipped), "other": b"no picture"}[damage])
    with pytest.raises(VouchError, match=r"sheet\.png is damaged: install Vouch again"):
        elsewhere.glyph("🐶")


def test_a_picture_that_is_no_sheet_is_damaged_too(elsewhere: Sheet) -> None:
    Image.new("RGBA", (640, 640)).save(elsewhere.file)
    with pytest.raises(VouchError, match="is damaged"):
        elsewhere.glyph("🐶")


@pytest.mark.parametrize("style", SHEETS)
def test_a_glyph_that_the_sheet_lacks_says_how_to_get_it(style: str) -> None:
    with pytest.raises(VouchError, match=r"has no glyph '🦖': make it again, see `python -m \S+\.scenes\.sheet"):
        SHEETS[style].glyph("🦖")


@pytest.mark.parametrize("style", SHEETS)
def test_every_glyph_is_in_the_style_and_differs_from_all_others(style: str) -> None:
    glyphs = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)
    drawn = [sheet.sprite(glyph, style=style) for glyph in glyphs]
    assert all(image.shape == (128, 128, 4) and image[..., 3].max() > 0.9 for image in drawn)
    small = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) for image in drawn])
    apart = np.abs(small[:, None] - small[None]).mean(axis=(2, 3, 4)) + np.eye(len(small))
    assert apart.min() > 0.01


def test_styles_draw_the_same_thing_differently() -> None:
    assert set(SHEETS) == {"noto", "twitter"}
    for noun in CORE:
        first, second = (sheet.sprite(noun.glyph, style=style) for style in ("noto", "twitter"))
        assert np.abs(first - second).mean() > 0.02, noun.name
        # Both fill the canvas about alike, so that scenes of both have objects of one size.
        for side in (0, 1):
            spans = [np.ptp(np.flatnonzero((image[..., 3] > 0.5).any(axis=side))) for image in (first, second)]
            assert max(spans) - min(spans) < 64, noun.name


def test_unknown_style_of_a_sprite_is_refused() -> None:
    with pytest.raises(UserError, match="unknown style 'oil': choose one of noto, twitter"):
        sheet.sprite("🍎", style="oil")


@pytest.mark.parametrize("style", SHEETS)
@pytest.mark.parametrize("glyph", ["🚗", "🍎", "👕"])
def test_tint_moves_the_hue(glyph: str, style: str) -> None:
    for hue in (0.0, 120.0, 220.0):
        image = sheet.sprite(glyph, hue, style)
        solid = image[..., 3] > 0.9
        hsv = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2HSV)
        strong = solid & (hsv[..., 1] > 0.4)
        away = np.abs((hsv[..., 0][strong] - hue + 180) % 360 - 180)
        assert np.median(away) < 25


# Written scenes are a COCO data set that repeats for the same seed.


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
