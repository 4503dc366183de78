"""Training crops for the scorer: objects as the pipeline cuts them out, and squares that show none."""

from dataclasses import dataclass

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from starter.scenes.vocabulary import COLOURS, HELD_OUT
from starter.train.cache import SceneCache
from tasks.score import crop

_MOST_SEEN = 0.3
# Nearer hues share a name.
_NEAR_HUE = 35.0


@dataclass(frozen=True)
class ScorerBatch:
    """Crops and what they show.

    Attributes:
        pixels: (B, 3, S, S) float32 RGB in [0, 1].
        nouns: B class names, None for background.
        colours: B colour words, None where the noun has none.
        shifted: B flags: all hues were moved, so that no colour word is true of the crop.
    """

    pixels: Tensor
    nouns: list[str | None]
    colours: list[str | None]
    shifted: list[bool]


def scorer_batch(rng: np.random.Generator, scenes: SceneCache, size: int, side: int) -> ScorerBatch:
    """Draw a batch: four of five crops show an object; of half of the crops the hues are moved.

    Moved hues keep the noun from depending on the colour. Without them a network learns from the held-out pairs that
    what is blue is no car. No shift brings a noun to a hue that is held out for it.

    Args:
        rng: Source of all choices.
        scenes: Scenes to cut from.
        size: Crops in the batch.
        side: Their side in pixels.
    """
    pixels: list[NDArray[np.uint8]] = []
    nouns: list[str | None] = []
    colours: list[str | None] = []
    shifted: list[bool] = []
    while len(pixels) < size:
        index = int(rng.integers(len(scenes.images)))
        image, count = scenes.images[index], len(scenes.nouns[index])
        boxes = scenes.boxes[index] * image.shape[0]
        if count and rng.random() < 0.8:
            chosen = int(rng.integers(count))
            box, context = _jittered(rng, boxes[chosen]), 1.0 if rng.random() < 0.5 else float(rng.uniform(1.0, 1.6))
            nouns.append(scenes.nouns[index][chosen])
            colours.append(scenes.colours[index][chosen])
        else:
            nothing = _nothing(rng, scenes, index, boxes)
            if nothing is None:
                continue
            box, context = nothing, 1.0
            nouns.append(None)
            colours.append(None)
        view = crop(image, box, context)
        mode = cv2.INTER_AREA if view.shape[0] > side else cv2.INTER_CUBIC
        small = np.asarray(cv2.resize(view, (side, side), interpolation=mode), np.uint8)
        angle = _shift(rng, nouns[-1], colours[-1])
        shifted.append(angle is not None)
        small = small if angle is None else shift_hue(small, angle)
        pixels.append(small[:, ::-1] if rng.random() < 0.5 else small)
    stacked = np.stack(pixels).astype(np.float32) / 255.0
    gain = rng.uniform(0.8, 1.2, (size, 1, 1, 1)) * rng.uniform(0.95, 1.05, (size, 1, 1, 3))
    stacked = np.clip(stacked * gain, 0, 1).astype(np.float32)
    return ScorerBatch(torch.from_numpy(np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))), nouns, colours, shifted)


def shift_hue(pixels: NDArray[np.uint8], degrees: float) -> NDArray[np.uint8]:
    """Turn all hues of an (H, W, 3) RGB image."""
    hsv = cv2.cvtColor(pixels, cv2.COLOR_RGB2HSV)
    # OpenCV's hue of bytes counts half degrees.
    hsv[..., 0] = ((hsv[..., 0].astype(np.int64) + round(degrees / 2)) % 180).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _shift(rng: np.random.Generator, noun: str | None, colour: str | None) -> float | None:
    """An angle to move hues by; None for none, or if it would show a noun in a colour held out for it."""
    angle = float(rng.uniform(20, 340))
    if rng.random() < 0.5:
        return None
    hidden = [COLOURS[held] for held, name in HELD_OUT if name == noun] if colour else []
    away = [abs((COLOURS[str(colour)] + angle - hue + 180) % 360 - 180) for hue in hidden]
    return angle if all(distance > _NEAR_HUE for distance in away) else None


def _jittered(rng: np.random.Generator, box: NDArray[np.float32]) -> NDArray[np.float32]:
    size = np.array([box[2] - box[0], box[3] - box[1]] * 2, np.float32)
    return np.asarray(box + np.clip(rng.normal(0, 0.05, 4), -0.15, 0.15) * size, np.float32)


def _nothing(
    rng: np.random.Generator, scenes: SceneCache, index: int, boxes: NDArray[np.float32]
) -> NDArray[np.float32] | None:
    """A square that shows no object, or only a part too small to name; None if no try finds one."""
    full = scenes.images[index].shape[0]
    side = float(np.exp(rng.uniform(np.log(20), np.log(110))))
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
    for _ in range(4):
        left, top = rng.uniform(0, full - side, 2)
        box = np.array([left, top, left + side, top + side], np.float32)
        low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
        shared = (high - low).clip(0).prod(axis=1)
        if (shared < _MOST_SEEN * areas).all() and shared.sum() < 0.7 * side**2:
            return box
    return None
