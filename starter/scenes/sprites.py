"""Emoji of one style or another as premultiplied RGBA arrays, cut out once and tinted on demand."""

from functools import lru_cache

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes.sheet import SHEETS, Sheet

_SIDE = 128


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
