"""The bundled sheet holds the vocabulary, can be made again, and says in one line when it cannot be used."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.errors import UserError, VouchError
from starter.scenes import sheet
from starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED

GLYPHS = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """A place for another sheet, which is read instead of the bundled one."""
    sheet._sheet.cache_clear()
    monkeypatch.setattr(sheet, "SHEET", tmp_path / "sheet.png")
    yield tmp_path / "sheet.png"
    sheet._sheet.cache_clear()


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


def test_the_bundled_sheet_holds_every_glyph_and_names_its_authors() -> None:
    assert sheet.SHEET.stat().st_size < 400_000
    for glyph in GLYPHS:
        image = sheet.sheet_glyph(glyph)
        assert image.size == (64, 64)
        assert np.asarray(image)[..., 3].max() == 255
    with Image.open(sheet.SHEET) as opened:
        assert "CC BY 4.0" in opened.info["Copyright"]
    note = sheet.SHEET.with_suffix(".md").read_text()
    assert "creativecommons.org/licenses/by/4.0" in note
    assert "MIT" in note


def test_a_sheet_is_made_of_a_package(package: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sheet.main([str(package), "--out", str(elsewhere)]) == 0
    assert f"{len(GLYPHS)} glyphs" in capsys.readouterr().out
    for number in (0, 1, 9, 10, len(GLYPHS) - 1):
        assert (np.asarray(sheet.sheet_glyph(GLYPHS[number])) == (number, number, number, 255)).all()


@pytest.mark.parametrize("lost", ["emoji.json", f"img/twitter/64/{ord(GLYPHS[3]):04X}.png"])
def test_another_folder_is_one_clear_line(
    package: Path, elsewhere: Path, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    (package / lost).unlink()
    assert sheet.main([str(package), "--out", str(elsewhere)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "name the folder of the unpacked npm package emoji-datasource-twitter" in error
    assert not elsewhere.exists()


def test_a_package_without_a_glyph_is_one_clear_line(package: Path, elsewhere: Path) -> None:
    (package / "emoji.json").write_text("[]")
    with pytest.raises(UserError, match="has no glyph '🐶': take another version"):
        sheet.make_sheet(package, elsewhere)


def test_a_missing_sheet_is_one_clear_line(elsewhere: Path) -> None:
    with pytest.raises(VouchError, match=r"sheet\.png is missing: install Vouch again"):
        sheet.sheet_glyph("🐶")


@pytest.mark.parametrize("damage", ["cut", "flipped", "other"])
def test_a_damaged_sheet_is_one_clear_line(elsewhere: Path, damage: str) -> None:
    whole = Path(sheet.__file__).with_name("twitter.png").read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    elsewhere.write_bytes({"cut": whole[:-500], "flipped": bytes(flipped), "other": b"no picture"}[damage])
    with pytest.raises(VouchError, match=r"sheet\.png is damaged: install Vouch again"):
        sheet.sheet_glyph("🐶")


def test_a_picture_that_is_no_sheet_is_damaged_too(elsewhere: Path) -> None:
    Image.new("RGBA", (640, 640)).save(elsewhere)
    with pytest.raises(VouchError, match="is damaged"):
        sheet.sheet_glyph("🐶")


def test_a_glyph_that_the_sheet_lacks_says_how_to_get_it() -> None:
    with pytest.raises(VouchError, match=r"has no glyph '🦖': make it again by `python -m starter\.scenes\.sheet"):
        sheet.sheet_glyph("🦖")
