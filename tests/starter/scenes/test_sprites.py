"""Sprites of both styles come from the bundled sheets; no font need be installed."""

import cv2
import numpy as np
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes import sprites
from vouch_labels.starter.scenes.sheet import SHEETS
from vouch_labels.starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED


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
