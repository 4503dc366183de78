"""Glyphs of the second emoji style, Twemoji, in one bundled sheet: `python -m starter.scenes.sheet --help` makes it."""

import argparse
import json
import sys
from functools import lru_cache
from pathlib import Path
from typing import Final

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from schemas.errors import UserError, VouchError
from starter.command import exit_code
from starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED

SHEET: Final = Path(__file__).with_name("twitter.png")
CREDIT: Final = "Twemoji, copyright Twitter, Inc and other contributors, CC BY 4.0"

_SIDE: Final = 64
"""Width and height of a glyph in pixels."""
_COLUMNS: Final = 10
# Which glyphs the sheet holds, left to right and top to bottom, stands in the file itself: the vocabulary may grow.
_GLYPHS: Final = "Glyphs"


def sheet_glyph(glyph: str) -> Image.Image:
    """Cut a glyph out of the sheet.

    Args:
        glyph: One emoji character.

    Returns:
        RGBA, 64 x 64 pixels.

    Raises:
        VouchError: The sheet is missing or damaged, or does not hold the glyph.
    """
    sheet, glyphs = _sheet()
    if glyph not in glyphs:
        raise VouchError(f"{SHEET} has no glyph {glyph!r}: make it again by `python -m starter.scenes.sheet PACKAGE`")
    return sheet.crop(_cell(glyphs.index(glyph)))


def make_sheet(package: Path, out: Path = SHEET) -> int:
    """Put the glyphs of the vocabulary together into one sheet.

    Args:
        package: The unpacked npm package emoji-datasource-twitter: emoji.json and img/twitter/64/.
        out: The PNG file to write.

    Returns:
        Glyphs written.

    Raises:
        UserError: The package lacks a file or a glyph, or the sheet cannot be written.
    """
    glyphs = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)
    sheet = Image.new("RGBA", (_COLUMNS * _SIDE, -(-len(glyphs) // _COLUMNS) * _SIDE), (0, 0, 0, 0))
    try:
        entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
        files = {entry[form]: entry["image"] for entry in entries for form in ("unified", "non_qualified")}
        for place, glyph in enumerate(glyphs):
            file = files.get("-".join(f"{ord(character):04X}" for character in glyph))
            if file is None:
                raise UserError(f"{package} has no glyph {glyph!r}: take another version of the package")
            with Image.open(package / "img" / "twitter" / str(_SIDE) / file) as image:
                sheet.paste(image.convert("RGBA").resize((_SIDE, _SIDE)), _cell(place))
        words = PngInfo()
        words.add_text("Copyright", CREDIT)
        words.add_itxt(_GLYPHS, "".join(glyphs))
        sheet.save(out, optimize=True, pnginfo=words)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"cannot make {out} of {package}: {error}; name the folder of the unpacked npm package "
            "emoji-datasource-twitter"
        ) from error
    return len(glyphs)


@lru_cache(maxsize=1)
def _sheet() -> tuple[Image.Image, str]:
    """The sheet, and the glyphs that it holds."""
    try:
        with Image.open(SHEET) as opened:
            opened.verify()  # checksums; the image must be opened anew after it
        with Image.open(SHEET) as opened:
            sheet, glyphs = opened.convert("RGBA"), str(opened.info[_GLYPHS])
        if not glyphs or sheet.size != (_COLUMNS * _SIDE, -(-len(glyphs) // _COLUMNS) * _SIDE):
            raise ValueError("its size does not fit its glyphs")
    except FileNotFoundError as error:
        raise VouchError(f"the emoji sheet {SHEET} is missing: install Vouch again") from error
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise VouchError(f"the emoji sheet {SHEET} is damaged: install Vouch again") from error
    return sheet, glyphs


def _cell(place: int) -> tuple[int, int, int, int]:
    left, top = place % _COLUMNS * _SIDE, place // _COLUMNS * _SIDE
    return left, top, left + _SIDE, top + _SIDE


def main(arguments: list[str] | None = None) -> int:
    """Make the sheet.

    Args:
        arguments: Command line; sys.argv's by default.

    Returns:
        The exit code: 0, or that of the error, which goes to stderr in one line.
    """
    parser = argparse.ArgumentParser(
        description="Makes the sheet of Twemoji glyphs that `vouch scenes --style twitter` draws.",
        epilog="example: npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz "
        "&& python -m starter.scenes.sheet package",
    )
    parser.add_argument("package", type=Path, help="folder of the unpacked npm package emoji-datasource-twitter")
    parser.add_argument("--out", type=Path, default=SHEET, help="the PNG file to write")
    options = parser.parse_args(arguments)
    return exit_code(lambda: f"{make_sheet(options.package, options.out)} glyphs in {options.out}")


if __name__ == "__main__":
    sys.exit(main())
