"""Writes drawn scenes and their ground truth as a COCO data set."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes.scene import Scene, draw_scene
from vouch_labels.starter.scenes.sprites import style_of
from vouch_labels.starter.scenes.vocabulary import SPLITS

TRUTH = "ground_truth.json"


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

    Args:
        out: Folder for scene-00000.jpg ... and ground_truth.json; made if missing, must hold no scenes yet.
        count: Number of scenes.
        seed: Which world. The bundled models were trained on seeds from 1000 on; the ones below are new to them.
        split: "core" (the nouns of the bundled models), "full" (all nouns), "core-heldout" or "full-heldout" (with
            the colour and noun pairs that no training scene shows).
        smallest: Least height and width in pixels.
        largest: Greatest height and width in pixels.
        on_scene: Called with the number of scenes written so far, after each.
        style: How things look: "noto" (what the bundled models know) or "twitter" (never trained on).

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
