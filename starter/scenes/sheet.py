"""Bundled sheets of emoji glyphs, one a style, and the glyphs cut out of them and tinted.

`python -m vouch_labels.starter.scenes.sheet --help` makes the sheets.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.starter.command import exit_code
from vouch_labels.starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED

_COLUMNS: Final = 10
# Which glyphs a sheet holds, left to right and top to bottom, stands in the file itself: the vocabulary may grow.
_GLYPHS: Final = "Glyphs"
# Noto Color Emoji holds bitmaps of one size only; FreeType accepts no other.
_NOTO_BITMAP_SIZE: Final = 109
_SIDE = 128


@dataclass(frozen=True)
class Sheet:
    """A PNG file of glyphs in rows of ten: one way of drawing emoji.

    Attributes:
        file: The file; its licence lies beside it, as a .md file of the same name.
        side: Width and height of a glyph in pixels.
        credit: Whose glyphs they are, and their licence.
        licence: Name of the licence, and whose glyphs they are, as a data set's list of licences has it.
        source: What `make_sheet` makes it of.
        images: Gives the RGBA image of each of the glyphs, out of the source.
    """

    file: Path
    side: int
    credit: str
    licence: str
    licence_url: str
    source: str
    images: Callable[[Path, list[str]], list[Image.Image]]

    def glyph(self, glyph: str) -> Image.Image:
        """Cut out a glyph, one emoji character: RGBA, `side` x `side` pixels.

        Raises:
            VouchError: The sheet is missing or damaged, or does not hold the glyph.
        """
        image, glyphs = _read(self)
        if glyph not in glyphs:
            raise VouchError(
                f"{self.file} has no glyph {glyph!r}: make it again, "
                "see `python -m vouch_labels.starter.scenes.sheet --help`"
            )
        return image.crop(self.cell(glyphs.index(glyph)))

    def cell(self, index: int) -> tuple[int, int, int, int]:
        """Left, top, right and bottom of a glyph in pixels of the sheet."""
        left, top = index % _COLUMNS * self.side, index // _COLUMNS * self.side
        return left, top, left + self.side, top + self.side

    def size(self, glyphs: int) -> tuple[int, int]:
        """Width and height in pixels of a sheet of so many glyphs."""
        return _COLUMNS * self.side, -(-glyphs // _COLUMNS) * self.side


def make_sheet(sheet: Sheet, source: Path, out: Path) -> int:
    """Put the glyphs of the vocabulary together into one sheet; returns how many there are.

    Raises:
        UserError: The source lacks a file or a glyph, or the sheet cannot be written.
    """
    glyphs = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)
    image = Image.new("RGBA", sheet.size(len(glyphs)), (0, 0, 0, 0))
    try:
        for index, drawn in enumerate(sheet.images(source, glyphs)):
            drawn.thumbnail((sheet.side, sheet.side))
            left, top, _, _ = sheet.cell(index)
            image.paste(drawn, (left + (sheet.side - drawn.width) // 2, top + (sheet.side - drawn.height) // 2))
        texts = PngInfo()
        texts.add_text("Copyright", sheet.credit)
        texts.add_itxt(_GLYPHS, "".join(glyphs))
        image.save(out, optimize=True, pnginfo=texts)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"cannot make {out} of {source}: {error}; name {sheet.source}") from error
    return len(glyphs)


def _noto_images(font: Path, glyphs: list[str]) -> list[Image.Image]:
    from fontTools.ttLib import TTFont  # comes with matplotlib

    face = ImageFont.truetype(font, _NOTO_BITMAP_SIZE)
    known = TTFont(font, lazy=True).getBestCmap()
    images = []
    for glyph in glyphs:
        if ord(glyph) not in known:
            raise UserError(f"{font} has no glyph {glyph!r}: take a newer version of the font")
        image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
        ImageDraw.Draw(image).text((8, 8), glyph, font=face, embedded_color=True)
        images.append(image.crop(image.getbbox()))
    return images


def _twitter_images(package: Path, glyphs: list[str]) -> list[Image.Image]:
    entries = json.loads((package / "emoji.json").read_text(encoding="utf-8"))
    files = {entry[form]: entry["image"] for entry in entries for form in ("unified", "non_qualified")}
    images = []
    for glyph in glyphs:
        file = files.get("-".join(f"{ord(character):04X}" for character in glyph))
        if file is None:
            raise UserError(f"{package} has no glyph {glyph!r}: take another version of the package")
        with Image.open(package / "img" / "twitter" / "64" / file) as image:
            images.append(image.convert("RGBA"))
    return images


_FOLDER: Final = Path(__file__).parent
SHEETS: Final = {
    "noto": Sheet(
        file=_FOLDER / "noto.png",
        side=128,
        credit="Noto Color Emoji, copyright 2022 Google Inc., SIL Open Font License 1.1",
        licence="SIL Open Font License 1.1 (glyphs: Noto Color Emoji)",
        licence_url="https://openfontlicense.org",
        source="the file NotoColorEmoji.ttf",
        images=_noto_images,
    ),
    # Never trained on: shows what becomes of the models where the world looks a little different.
    "twitter": Sheet(
        file=_FOLDER / "twitter.png",
        side=64,
        credit="Twemoji, copyright Twitter, Inc and other contributors, CC BY 4.0",
        licence="CC BY 4.0 (glyphs: Twemoji, copyright Twitter, Inc and other contributors, CC BY 4.0)",
        licence_url="https://creativecommons.org/licenses/by/4.0/",
        source="the folder of the unpacked npm package emoji-datasource-twitter",
        images=_twitter_images,
    ),
}


@lru_cache(maxsize=4)
def _read(sheet: Sheet) -> tuple[Image.Image, str]:
    """The sheet's image, and the glyphs that it holds."""
    try:
        with Image.open(sheet.file) as opened:
            opened.verify()  # checksums; the image must be opened again after it
        with Image.open(sheet.file) as opened:
            image, glyphs = opened.convert("RGBA"), str(opened.info[_GLYPHS])
        if not glyphs or image.size != sheet.size(len(glyphs)):
            raise ValueError("its size does not fit its glyphs")
    except FileNotFoundError as error:
        raise VouchError(f"the emoji sheet {sheet.file} is missing: install Vouch again") from error
    except (OSError, ValueError, KeyError, SyntaxError) as error:
        raise VouchError(f"the emoji sheet {sheet.file} is damaged: install Vouch again") from error
    return image, glyphs


def main(arguments: list[str] | None = None) -> int:
    """Make a sheet; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Makes the sheets of glyphs that scenes are drawn with.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="examples:\n"
        "  python -m vouch_labels.starter.scenes.sheet noto NotoColorEmoji.ttf\n"
        "  npm pack emoji-datasource-twitter && tar xzf emoji-datasource-twitter-*.tgz\n"
        "  python -m vouch_labels.starter.scenes.sheet twitter package",
    )
    parser.add_argument("style", choices=SHEETS, help="which sheet")
    sources = "; ".join(f"{name}: {sheet.source}" for name, sheet in SHEETS.items())
    parser.add_argument("source", type=Path, help=sources)
    parser.add_argument("--out", type=Path, help="the PNG file to write instead of the bundled one")
    options = parser.parse_args(arguments)
    sheet = SHEETS[options.style]
    out = options.out or sheet.file
    return exit_code(lambda: f"{make_sheet(sheet, options.source, out)} glyphs in {out}")


@lru_cache(maxsize=1024)
def sprite(glyph: str, hue: float | None = None, style: str = "noto") -> NDArray[np.float32]:
    """Draw a glyph, one emoji character, centred on a square canvas; a hue in degrees [0, 360) tints it.

    Returns:
        (128, 128, 4) float32 RGBA, colour premultiplied by alpha, all in [0, 1]. Do not write to it.

    Raises:
        UserError: The style is unknown.
        VouchError: The bundled sheet is missing or damaged, or has no such glyph.
    """
    sheet = style_of(style)
    drawn = sheet.glyph(glyph)
    if sheet.side != _SIDE:
        drawn = drawn.resize((_SIDE, _SIDE), Image.Resampling.BICUBIC)
    cut = drawn.crop(drawn.getbbox())
    canvas = Image.new("RGBA", (_SIDE, _SIDE), (0, 0, 0, 0))
    canvas.paste(cut, ((_SIDE - cut.width) // 2, (_SIDE - cut.height) // 2))
    rgba = np.asarray(canvas, np.float32) / 255.0
    rgb = rgba[..., :3] if hue is None else _tint(rgba, hue)
    premultiplied = np.concatenate([rgb * rgba[..., 3:], rgba[..., 3:]], axis=2)
    premultiplied.setflags(write=False)
    return premultiplied


def style_of(name: str) -> Sheet:
    """Return the sheet of a style.

    Raises:
        UserError: There is none of this name.
    """
    if name not in SHEETS:
        raise UserError(f"unknown style {name!r}: choose one of {', '.join(SHEETS)}")
    return SHEETS[name]


def _tint(rgba: NDArray[np.float32], hue: float) -> NDArray[np.float32]:
    """Move pixels near the dominant hue to another hue; leave grey, black, white and other hues alone."""
    hsv = cv2.cvtColor(np.ascontiguousarray(rgba[..., :3]), cv2.COLOR_RGB2HSV)
    coloured = (hsv[..., 1] > 0.2) & (rgba[..., 3] > 0.1)
    histogram, _ = np.histogram(hsv[..., 0][coloured], bins=36, range=(0, 360), weights=hsv[..., 1][coloured])
    dominant = (float(np.argmax(histogram)) + 0.5) * 10.0
    distance = (hsv[..., 0] - dominant + 180.0) % 360.0 - 180.0
    moved = coloured & (np.abs(distance) < 45.0)
    hsv[..., 0] = np.where(moved, (hue + 0.3 * distance) % 360.0, hsv[..., 0])
    # Pastel glyphs are strengthened, or their red would be pink.
    boost = max(0.8 / max(float(hsv[..., 1][moved].mean()), 0.1), 1.0)
    hsv[..., 1] = np.where(moved, np.clip(hsv[..., 1] * boost, 0.0, 1.0), hsv[..., 1])
    # Yellow reads as olive unless it is bright.
    lift = 0.22 if 30.0 < hue < 75.0 else 0.0
    hsv[..., 2] = np.where(moved, np.clip(hsv[..., 2] + lift * (1.0 - hsv[..., 2]), 0.0, 1.0), hsv[..., 2])
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)


if __name__ == "__main__":
    sys.exit(main())
