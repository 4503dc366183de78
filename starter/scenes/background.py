"""Textured backgrounds: gradients, cloudy noise, stripes, tiles and out-of-focus lights."""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.float32]


def background(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Draw one background.

    Args:
        rng: Source of all choices.
        height: In pixels.
        width: In pixels.

    Returns:
        (height, width, 3) float32 RGB in [0, 1].
    """
    draw: Callable[[np.random.Generator, int, int], Pixels] = (_clouds, _gradient, _stripes, _lights, _tiles)[
        int(rng.integers(5))
    ]
    pixels = draw(rng, height, width)
    if rng.random() < 0.6:
        grain = _noise(rng, height, width, int(rng.integers(3, 7)))
        pixels = pixels + np.float32(rng.uniform(0.03, 0.15)) * (grain - 0.5)[..., None]
    return np.clip(pixels, 0.0, 1.0, out=pixels)


def _colour(rng: np.random.Generator) -> Pixels:
    value = rng.uniform(0.08, 1.0)
    saturation = rng.beta(1.2, 2.5)
    hsv = np.array([[[rng.uniform(0, 360), saturation, value]]], np.float32)
    colour: Pixels = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.float32)[0, 0]
    return colour


def _noise(rng: np.random.Generator, height: int, width: int, octaves: int) -> Pixels:
    """Sum of enlarged white noise, each octave twice as fine and half as strong; range about [0, 1]."""
    total = np.zeros((height, width), np.float32)
    strength = 0.5
    for octave in range(octaves):
        cells = min(2 ** (octave + 1), min(height, width))
        grid = rng.random((cells + 1, cells + 1), np.float32)
        total += np.float32(strength) * cv2.resize(grid, (width, height), interpolation=cv2.INTER_LINEAR)
        strength *= 0.6
    low, high = float(total.min()), float(total.max())
    return (total - low) / max(high - low, 1e-6)


def _blend(mix: Pixels, first: Pixels, second: Pixels) -> Pixels:
    return first + mix[..., None] * (second - first)


def _clouds(rng: np.random.Generator, height: int, width: int) -> Pixels:
    return _blend(_noise(rng, height, width, int(rng.integers(3, 7))), _colour(rng), _colour(rng))


def _grid(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """A ramp over the image in a random direction, in pixels."""
    angle = rng.uniform(0, np.pi)
    y = np.arange(height, dtype=np.float32)[:, None] * np.float32(np.sin(angle))
    return y + np.arange(width, dtype=np.float32)[None, :] * np.float32(np.cos(angle))


def _gradient(rng: np.random.Generator, height: int, width: int) -> Pixels:
    ramp = _grid(rng, height, width)
    return _blend((ramp - ramp.min()) / (np.ptp(ramp) + 1e-6), _colour(rng), _colour(rng))


def _stripes(rng: np.random.Generator, height: int, width: int) -> Pixels:
    bend = _noise(rng, height, width, 3) * np.float32(rng.uniform(0, 40))
    period = rng.uniform(6, 50)
    wave = 0.5 + 0.5 * np.sin((_grid(rng, height, width) + bend) * np.float32(2 * np.pi / period))
    if rng.random() < 0.4:
        wave = (wave > 0.5).astype(np.float32)
    first = _colour(rng)
    second = np.clip(first + rng.uniform(-0.25, 0.25, 3), 0, 1).astype(np.float32)
    return _blend(wave.astype(np.float32), first, second)


def _lights(rng: np.random.Generator, height: int, width: int) -> Pixels:
    small = np.tile(_colour(rng), (height // 2, width // 2, 1)).astype(np.float32)
    for _ in range(int(rng.integers(8, 30))):
        centre = (int(rng.integers(width // 2)), int(rng.integers(height // 2)))
        cv2.circle(small, centre, int(rng.integers(3, max(height // 8, 5))), _colour(rng).tolist(), -1)
    blurred = cv2.GaussianBlur(small, (0, 0), float(rng.uniform(2, 8)))
    return np.asarray(cv2.resize(blurred, (width, height)), np.float32)


def _tiles(rng: np.random.Generator, height: int, width: int) -> Pixels:
    rows, columns = int(rng.integers(2, 12)), int(rng.integers(2, 12))
    base = _colour(rng)
    spread = rng.uniform(0.02, 0.18)
    cells = np.clip(base + rng.normal(0, spread, (rows, columns, 3)), 0, 1).astype(np.float32)
    mode = cv2.INTER_NEAREST if rng.random() < 0.7 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(cells, (width, height), interpolation=mode), np.float32)
