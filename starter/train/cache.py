"""Training scenes, drawn once and kept on disk."""

import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from starter.scenes.scene import draw_scene

_CHUNK = 200


@dataclass(frozen=True)
class SceneCache:
    """Scenes of one size.

    Attributes:
        images: (N, H, W, 3) uint8 RGB.
        boxes: N arrays (K, 4) float32, xyxy relative to the image, in [0, 1].
        nouns: N lists of K class names.
        colours: N lists of K colour words or None.
        masks: N arrays (K, H, W) bool packed by numpy.packbits along the last axis.
    """

    images: NDArray[np.uint8]
    boxes: list[NDArray[np.float32]]
    nouns: list[list[str]]
    colours: list[list[str | None]]
    masks: list[NDArray[np.uint8]]


def scene_cache(
    folder: Path, count: int, seed: int, split: str, side: int, workers: int = 1, width: int | None = None
) -> SceneCache:
    """Open the cache of these scenes, drawing it first where it is missing.

    Args:
        folder: Holds all caches.
        count: Number of scenes; a multiple of 200 draws no more than asked.
        seed: The world's seed; training uses seeds from 1000 on, evaluation the ones below.
        split: One of the scene splits.
        side: Height of the scenes in pixels, and width where none is given.
        workers: Processes that draw.
        width: Width of the scenes in pixels.
    """
    root = folder / (f"{split}-{seed}-{side}" if width is None else f"{split}-{seed}-{side}x{width}")
    root.mkdir(parents=True, exist_ok=True)
    chunks = range(-(-count // _CHUNK))
    missing = [chunk for chunk in chunks if not (root / f"{chunk}.json").exists()]
    if missing:
        with ProcessPoolExecutor(workers) as pool:
            list(
                pool.map(
                    _draw_chunk,
                    *zip(*((root, chunk, seed, split, side, width or side) for chunk in missing), strict=True),
                )
            )
    records = [json.loads((root / f"{chunk}.json").read_text(encoding="utf-8")) for chunk in chunks]
    scenes = [scene for record in records for scene in record]
    masks = [packed for chunk in chunks for packed in _masks(root, chunk)]
    return SceneCache(
        images=np.concatenate([np.load(root / f"{chunk}-images.npy", mmap_mode="r") for chunk in chunks]),
        boxes=[np.asarray(scene["boxes"], np.float32).reshape(-1, 4) for scene in scenes],
        nouns=[scene["nouns"] for scene in scenes],
        colours=[scene["colours"] for scene in scenes],
        masks=masks,
    )


def _draw_chunk(root: Path, chunk: int, seed: int, split: str, height: int, width: int) -> None:
    scenes = [draw_scene(seed, chunk * _CHUNK + offset, split, height, width) for offset in range(_CHUNK)]
    np.save(root / f"{chunk}-images.npy", np.stack([scene.image for scene in scenes]))
    packed = [np.packbits(item.mask, axis=-1) for scene in scenes for item in scene.objects]
    np.save(root / f"{chunk}-masks.npy", np.stack(packed))
    rows = [
        {
            "boxes": [
                [value / side for value, side in zip(item.xyxy, (width, height) * 2, strict=True)]
                for item in scene.objects
            ],
            "nouns": [item.noun for item in scene.objects],
            "colours": [item.colour for item in scene.objects],
        }
        for scene in scenes
    ]
    # Written last: a chunk counts only when it is whole.
    (root / f"{chunk}.json").write_text(json.dumps(rows), encoding="utf-8")


def _masks(root: Path, chunk: int) -> list[NDArray[np.uint8]]:
    packed = np.load(root / f"{chunk}-masks.npy", mmap_mode="r")
    counts = [len(scene["nouns"]) for scene in json.loads((root / f"{chunk}.json").read_text(encoding="utf-8"))]
    ends = np.cumsum(counts)
    return [packed[end - count : end] for end, count in zip(ends, counts, strict=True)]
