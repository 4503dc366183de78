"""The bundled sheets hold the vocabulary, can be made again, and say in one line when they cannot be used.

Sprites of both styles are cut out of them; no font need be installed.
"""

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from PIL import Image

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter.scenes import sheet, sprites
from vouch_labels.starter.scenes.sheet import SHEETS, Sheet
from vouch_labels.starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED

GLYPHS = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)


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
    drawn = [sprites.sprite(glyph, style=style) for glyph in glyphs]
    assert all(image.shape == (128, 128, 4) and image[..., 3].max() > 0.9 for image in drawn)
    small = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) for image in drawn])
    apart = np.abs(small[:, None] - small[None]).mean(axis=(2, 3, 4)) + np.eye(len(small))
    assert apart.min() > 0.01


def test_styles_draw_the_same_thing_differently() -> None:
    assert set(SHEETS) == {"noto", "twitter"}
    for noun in CORE:
        first, second = (sprites.sprite(noun.glyph, style=style) for style in ("noto", "twitter"))
        assert np.abs(first - second).mean() > 0.02, noun.name
        # Both fill the canvas about alike, so that scenes of both have objects of one size.
        for side in (0, 1):
            spans = [np.ptp(np.flatnonzero((image[..., 3] > 0.5).any(axis=side))) for image in (first, second)]
            assert max(spans) - min(spans) < 64, noun.name


def test_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match="unknown style 'oil': choose one of noto, twitter"):
        sprites.sprite("🍎", style="oil")


@pytest.mark.parametrize("style", SHEETS)
@pytest.mark.parametrize("glyph", ["🚗", "🍎", "👕"])
def test_tint_moves_the_hue(glyph: str, style: str) -> None:
    for hue in (0.0, 120.0, 220.0):
        image = sprites.sprite(glyph, hue, style)
        solid = image[..., 3] > 0.9
        hsv = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2HSV)
        strong = solid & (hsv[..., 1] > 0.4)
        away = np.abs((hsv[..., 0][strong] - hue + 180) % 360 - 180)
        assert np.median(away) < 25
