"""Sprites come from the font or the bundled sheet; without the font the message says what to install."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from schemas.errors import UserError
from starter.scenes import sprites
from starter.scenes.vocabulary import CORE, DISTRACTORS, EXTENDED


@pytest.fixture
def no_cache() -> Iterator[None]:
    sprites.sprite.cache_clear()
    sprites._font.cache_clear()
    yield
    sprites.sprite.cache_clear()
    sprites._font.cache_clear()


@pytest.mark.usefixtures("no_cache")
def test_missing_font_names_the_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv(sprites.FONT_ENVIRONMENT_VARIABLE, raising=False)
    monkeypatch.setattr(sprites, "_FONT_PATHS", (str(tmp_path / "absent.ttf"),))
    with pytest.raises(UserError, match="install the package fonts-noto-color-emoji"):
        sprites.sprite("🍎")


@pytest.mark.usefixtures("no_cache")
def test_font_named_in_the_environment_is_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(sprites.FONT_ENVIRONMENT_VARIABLE, str(tmp_path / "absent.ttf"))
    with pytest.raises(UserError, match="VOUCH_EMOJI_FONT"):
        sprites.sprite("🍎")


@pytest.mark.parametrize("style", sprites.STYLES)
def test_every_glyph_is_in_the_style_and_differs_from_all_others(style: str) -> None:
    glyphs = [noun.glyph for noun in CORE + EXTENDED] + list(DISTRACTORS)
    drawn = [sprites.sprite(glyph, style=style) for glyph in glyphs]
    assert all(image.shape == (128, 128, 4) and image[..., 3].max() > 0.9 for image in drawn)
    small = np.stack([cv2.resize(image, (8, 8), interpolation=cv2.INTER_AREA) for image in drawn])
    apart = np.abs(small[:, None] - small[None]).mean(axis=(2, 3, 4)) + np.eye(len(small))
    assert apart.min() > 0.01


def test_styles_draw_the_same_thing_differently() -> None:
    assert set(sprites.STYLES) == {"noto", "twitter"}
    for noun in CORE:
        first, second = (sprites.sprite(noun.glyph, style=style) for style in ("noto", "twitter"))
        assert np.abs(first - second).mean() > 0.02, noun.name
        # Both fill the canvas about alike, so that scenes of both have objects of one size.
        for side in (0, 1):
            spans = [np.ptp(np.flatnonzero((image[..., 3] > 0.5).any(axis=side))) for image in (first, second)]
            assert max(spans) - min(spans) < 64, noun.name


@pytest.mark.usefixtures("no_cache")
def test_the_other_style_needs_no_font(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(sprites.FONT_ENVIRONMENT_VARIABLE, str(tmp_path / "absent.ttf"))
    assert sprites.sprite("🍎", style="twitter").shape == (128, 128, 4)


def test_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match="unknown style 'oil': choose one of noto, twitter"):
        sprites.sprite("🍎", style="oil")


@pytest.mark.parametrize("style", sprites.STYLES)
@pytest.mark.parametrize("glyph", ["🚗", "🍎", "👕"])
def test_tint_moves_the_hue(glyph: str, style: str) -> None:
    for hue in (0.0, 120.0, 220.0):
        image = sprites.sprite(glyph, hue, style)
        solid = image[..., 3] > 0.9
        hsv = cv2.cvtColor(np.ascontiguousarray(image[..., :3]), cv2.COLOR_RGB2HSV)
        strong = solid & (hsv[..., 1] > 0.4)
        away = np.abs((hsv[..., 0][strong] - hue + 180) % 360 - 180)
        assert np.median(away) < 25
