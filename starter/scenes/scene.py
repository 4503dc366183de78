"""Draws scenes with their exact ground truth, and writes them as a COCO data set.

Backgrounds are gradients, cloudy noise, stripes, tiles and out-of-focus lights.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes.sheet import sprite, style_of
from vouch_labels.starter.scenes.vocabulary import COLOURS, DISTRACTORS, HELD_OUT, SPLITS, Noun

_MOST_COVERED = 0.5
# Share of a new object that may lie over others: more, and it would be drawn on top of one thing, not beside it.
_MOST_COVERING = 0.35
_ATTEMPTS = 12

Pixels = NDArray[np.float32]
TRUTH = "ground_truth.json"


@dataclass(frozen=True)
class SceneObject:
    """One drawn object of the vocabulary; its colour is None if the noun is not tinted.

    Attributes:
        xyxy: Box of the visible part (x0, y0, x1, y1) in pixels; x1 and y1 are exclusive edges.
        mask: (H, W) bool, the visible part.
        occlusion: Share of the whole object that other objects or the image's edge hide, in [0, 1].
    """

    noun: str
    colour: str | None
    xyxy: tuple[float, float, float, float]
    mask: NDArray[np.bool_]
    occlusion: float

    @property
    def phrase(self) -> str:
        """The noun with its colour, if it has one: "blue car"."""
        return f"{self.colour} {self.noun}" if self.colour else self.noun


@dataclass(frozen=True)
class Scene:
    """One scene: image (H, W, 3) uint8 RGB and the vocabulary's objects in it, back to front."""

    image: NDArray[np.uint8]
    objects: tuple[SceneObject, ...]


@dataclass
class _Placed:
    """A sprite on the canvas: `whole` is its full area in pixels, patch edges included or not."""

    noun: Noun | None
    colour: str | None
    rgba: NDArray[np.float32]
    left: int
    top: int
    whole: int
    visible: NDArray[np.bool_]


def draw_scene(
    seed: int,
    index: int,
    split: str,
    height: int = 256,
    width: int = 256,
    most: int = 12,
    style: str = "noto",
    small: tuple[float, float] | None = None,
) -> Scene:
    """Draw scene number `index` of the world `seed`, with its truth; the same arguments give the same pixels.

    It has at most `most` objects; about one scene in twenty is empty. With `small`, the least and greatest size of an
    object as shares of the shorter side, it has `most` attempts at one.

    Raises:
        UserError: The split or the style is unknown.
        VouchError: The bundled sheet of the style is missing or damaged.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    style_of(style)
    rng = np.random.default_rng([seed, index])
    canvas = background(rng, height, width)
    count = 0 if rng.random() < 0.05 else int(min(1 + rng.poisson(min(4.0, most * 0.6)), most))
    if small is not None:
        count = most
    sizes = small or (0.15, 0.5 if count <= 4 else 0.36)
    placed: list[_Placed] = []
    for _ in range(count):
        _place(rng, placed, _choose(rng, split), (height, width), sizes, style)
    for _ in range(int(rng.choice(4, p=[0.45, 0.3, 0.15, 0.1]))):
        glyph = DISTRACTORS[int(rng.integers(len(DISTRACTORS)))]
        _place(rng, placed, (None, None, glyph), (height, width), small or (0.15, 0.5 if count <= 2 else 0.36), style)
    _composite(rng, canvas, placed)
    return Scene(_photograph(rng, canvas), tuple(_truth(item) for item in placed if item.noun is not None))


def _choose(rng: np.random.Generator, split: str) -> tuple[Noun | None, str | None, str]:
    nouns, held_out = SPLITS[split]
    if held_out and rng.random() < 0.6:
        # Enough objects to measure held-out pairs on, among others that look like them.
        nouns = tuple(noun for noun in nouns if noun.tinted)
    noun = nouns[int(rng.integers(len(nouns)))]
    if not noun.tinted:
        return noun, None, noun.glyph
    wanted = held_out and rng.random() < 0.5
    colours = [colour for colour in COLOURS if ((colour, noun.name) in HELD_OUT) == wanted]
    return noun, colours[int(rng.integers(len(colours)))], noun.glyph


def _place(
    rng: np.random.Generator,
    placed: list[_Placed],
    choice: tuple[Noun | None, str | None, str],
    shape: tuple[int, int],
    sizes: tuple[float, float],
    style: str,
) -> None:
    """Put one sprite in front of the others where it hides none of them too much; give up after some tries.

    Its size lies between two shares of the shorter side.
    """
    noun, colour, glyph = choice
    height, width = shape
    hue = None if colour is None else COLOURS[colour] + rng.uniform(-7, 7)
    art = sprite(glyph, None if hue is None else float(round(hue)), style)
    for attempt in range(_ATTEMPTS):
        share = float(np.exp(rng.uniform(*np.log(sizes)))) * (1.0 - 0.04 * attempt)
        patch = _transform(rng, art, share * min(height, width))
        size = patch.shape[0]
        left = int(rng.integers(-size // 6, max(width - size + size // 6, 1)))
        top = int(rng.integers(-size // 6, max(height - size + size // 6, 1)))
        solid = patch[..., 3] > 0.5
        visible = np.zeros(shape, bool)
        y0, x0, y1, x1 = max(top, 0), max(left, 0), min(top + size, height), min(left + size, width)
        visible[y0:y1, x0:x1] = solid[y0 - top : y1 - top, x0 - left : x1 - left]
        whole = int(solid.sum())
        if visible.sum() < (1 - _MOST_COVERED) * whole or whole < 40:
            continue
        hidden = [(item, item.visible & ~visible) for item in placed]
        if sum(int(item.visible.sum()) - int(rest.sum()) for item, rest in hidden) > _MOST_COVERING * whole:
            continue
        if all(rest.sum() >= (1 - _MOST_COVERED) * item.whole for item, rest in hidden):
            for item, rest in hidden:
                item.visible = rest
            placed.append(_Placed(noun, colour, patch, left, top, whole, visible))
            return


def _transform(rng: np.random.Generator, art: NDArray[np.float32], size: float) -> NDArray[np.float32]:
    """Scale to about `size` pixels, squeeze, rotate, flip and relight a sprite; returns a square patch."""
    angle = float(np.clip(rng.normal(0, 14), -40, 40)) if rng.random() < 0.85 else float(rng.uniform(-90, 90))
    squeeze = float(rng.uniform(0.85, 1.18))
    flip = -1.0 if rng.random() < 0.5 else 1.0
    while art.shape[0] > 2.2 * size:
        art = np.asarray(
            cv2.resize(art, (art.shape[1] // 2, art.shape[0] // 2), interpolation=cv2.INTER_AREA), np.float32
        )
    side = int(np.ceil(size * 1.3)) + 2
    scale = size / art.shape[0]
    cos, sin = np.cos(np.deg2rad(angle)) * scale, np.sin(np.deg2rad(angle)) * scale
    matrix = np.array([[cos * flip * squeeze, -sin / squeeze, 0], [sin * flip * squeeze, cos / squeeze, 0]])
    centre = (art.shape[0] - 1) / 2
    matrix[:, 2] = (side - 1) / 2 - matrix[:, :2] @ np.array([centre, centre])
    patch = np.asarray(cv2.warpAffine(art, matrix, (side, side), flags=cv2.INTER_LINEAR), np.float32)
    light = np.float32(rng.uniform(0.72, 1.12))
    cast = rng.uniform(0.94, 1.06, 3).astype(np.float32)
    patch[..., :3] = np.minimum(patch[..., :3] * light * cast, patch[..., 3:])
    return patch


def _composite(rng: np.random.Generator, canvas: NDArray[np.float32], placed: list[_Placed]) -> None:
    """Draw all patches onto the canvas, back to front, some with a shadow."""
    shadows = rng.random() < 0.6
    offset, strength = rng.integers(-4, 7, 2), float(rng.uniform(0.2, 0.5))
    for item in placed:
        if shadows:
            soft = cv2.GaussianBlur(item.rgba[..., 3], (0, 0), 1.0 + item.rgba.shape[0] / 30)
            dark = np.zeros((*soft.shape, 4), np.float32)
            dark[..., 3] = soft * strength
            _over(canvas, dark, item.left + int(offset[0]), item.top + int(offset[1]))
        _over(canvas, item.rgba, item.left, item.top)


def _over(canvas: NDArray[np.float32], rgba: NDArray[np.float32], left: int, top: int) -> None:
    height, width = canvas.shape[:2]
    y0, x0 = max(top, 0), max(left, 0)
    y1, x1 = min(top + rgba.shape[0], height), min(left + rgba.shape[1], width)
    if y0 < y1 and x0 < x1:
        part = rgba[y0 - top : y1 - top, x0 - left : x1 - left]
        region = canvas[y0:y1, x0:x1]
        region *= 1.0 - part[..., 3:]
        region += part[..., :3]


def _photograph(rng: np.random.Generator, canvas: NDArray[np.float32]) -> NDArray[np.uint8]:
    """What a camera and a file format do: exposure, white balance, blur, noise, JPEG."""
    canvas = canvas * (rng.uniform(0.82, 1.12) * rng.uniform(0.95, 1.05, 3)).astype(np.float32)
    if rng.random() < 0.3:
        canvas = np.asarray(cv2.GaussianBlur(canvas, (0, 0), float(rng.uniform(0.3, 1.0))), np.float32)
    if rng.random() < 0.5:
        grain = rng.standard_normal(canvas.shape, np.float32)
        canvas = canvas + np.float32(rng.uniform(0.005, 0.04)) * grain
    pixels = np.clip(canvas * 255.0 + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        quality = int(rng.integers(45, 95))
        _, data = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
        pixels = np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)[..., ::-1]
    return np.ascontiguousarray(pixels)


def _truth(item: _Placed) -> SceneObject:
    assert item.noun is not None
    rows, columns = np.flatnonzero(item.visible.any(axis=1)), np.flatnonzero(item.visible.any(axis=0))
    xyxy = (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1))
    occlusion = 1.0 - float(item.visible.sum()) / item.whole
    return SceneObject(item.noun.name, item.colour, xyxy, item.visible, occlusion)


def background(rng: np.random.Generator, height: int, width: int) -> Pixels:
    """Draw one background: (height, width, 3) float32 RGB in [0, 1]."""
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


def generate_scenes(
    out: Path,
    count: int,
    seed: int = 0,
    split: str = "core",
    smallest: int = 256,
    largest: int = 384,
    on_scene: Callable[[int], None] | None = None,
    style: str = "noto",
) -> Path:
    """Draw scenes with exact ground truth; the same arguments write the same files.

    The folder gets scene-00000.jpg ... of `smallest` to `largest` pixels a side. The bundled models were trained on
    seeds from 1000 on, the nouns of "core" and the style "noto"; other splits are "full" (all nouns), "core-heldout"
    and "full-heldout" (with the colour and noun pairs that no training scene shows), the other style is "twitter".
    `on_scene` is called with the number of scenes written so far, after each.

    Returns:
        The path of ground_truth.json: COCO instances with compressed RLE masks; each annotation's `attributes` hold
        the colour word (or null) and the hidden share of the object.

    Raises:
        UserError: The arguments make no sense, the folder cannot be written or has scenes already.
        VouchError: The bundled sheet of the style is missing or damaged.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")
    style_of(style)
    if count < 1 or seed < 0:
        raise UserError(f"cannot draw {count} scenes of seed {seed}: at least one scene, and a seed from 0 on")
    if not 64 <= smallest <= largest <= 4096:
        raise UserError(f"cannot draw scenes of {smallest} to {largest} pixels: choose sizes between 64 and 4096")
    try:
        out.mkdir(parents=True, exist_ok=True)
        if any(out.glob("scene-*.jpg")) or (out / TRUTH).exists():
            raise UserError(f"{out} already holds scenes: name another folder, or empty it")
        names = [noun.name for noun in SPLITS[split][0]]
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for index in range(count):
            # A stream of its own, so that the size does not move what is drawn at a given size.
            height, width = np.random.default_rng([seed, index, 1]).integers(smallest, largest + 1, 2).tolist()
            scene = draw_scene(seed, index, split, height, width, style=style)
            file_name = f"scene-{index:05d}.jpg"
            _, data = cv2.imencode(".jpg", scene.image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])
            (out / file_name).write_bytes(data.tobytes())
            images.append({"id": index + 1, "file_name": file_name, "height": height, "width": width, "license": 1})
            annotations += _annotations(scene, index + 1, len(annotations) + 1, names)
            if on_scene is not None:
                on_scene(index + 1)
        document = {
            "info": {
                "description": "Drawn scenes with exact ground truth",
                "split": split,
                "seed": seed,
                "style": style,
            },
            "licenses": [{"id": 1, "name": style_of(style).licence, "url": style_of(style).licence_url}],
            "categories": [{"id": number, "name": name} for number, name in enumerate(names, start=1)],
            "images": images,
            "annotations": annotations,
        }
        part = out / f"{TRUTH}.part"
        part.write_text(json.dumps(document) + "\n", encoding="utf-8")
        return part.replace(out / TRUTH)
    except OSError as error:
        raise UserError(f"cannot write scenes to {out}: {error.strerror or error}") from error


def _annotations(scene: Scene, image_id: int, first_id: int, names: list[str]) -> list[dict[str, Any]]:
    from pycocotools import mask as coco_mask

    rows = []
    for number, item in enumerate(scene.objects):
        rle = coco_mask.encode(np.asfortranarray(item.mask.astype(np.uint8)))
        x0, y0, x1, y1 = item.xyxy
        rows.append(
            {
                "id": first_id + number,
                "image_id": image_id,
                "category_id": names.index(item.noun) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(item.mask.sum()),
                "iscrowd": 0,
                "segmentation": {"size": list(item.mask.shape), "counts": rle["counts"].decode("ascii")},
                "attributes": {"colour": item.colour, "occlusion": round(item.occlusion, 4)},
            }
        )
    return rows
