"""Trains the starter SAM: `python -m vouch_labels.starter.train.segmenter --help`.

Batches are parts of drawn scenes with jittered boxes and true masks.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vouch_labels.starter.train.architectures import segmenter_architecture
from vouch_labels.starter.train.data import SceneCache, scene_cache
from vouch_labels.starter.train.run import Run, prepare, run_options, start_from, training_parser

_MOST_BOXES = 6
_LEAST_PIXELS = 60


def main(arguments: list[str] | None = None) -> None:
    """Train until the minutes are over; run again with the same --work to go on."""
    options = _options().parse_args(arguments)
    device = prepare(options)
    scenes = scene_cache(options.cache, options.scenes, 1000, options.split, 256, options.workers)
    held = scene_cache(options.cache, 200, 7, options.split, 256, options.workers)
    architecture = segmenter_architecture(options.side, options.width, options.depth)
    model = new_segmenter(architecture).to(device).train()
    start_from(model, options.start)
    run = Run("segmenter", model, run_options(options), architecture)
    rng = np.random.default_rng([options.seed, run.step])

    def losses() -> dict[str, Tensor]:
        images: list[SegmenterImage] = []
        while len(images) < options.batch:
            image = segmenter_image(rng, scenes, int(rng.integers(len(scenes.images))), options.side)
            if image is not None:
                images.append(image)
        return segmenter_losses(model, images)

    def measure(averaged: nn.Module) -> dict[str, float]:
        fixed = np.random.default_rng(0)
        drawn = [segmenter_image(fixed, held, index, options.side) for index in range(48)]
        averaged.eval()
        with torch.inference_mode():
            overlaps = torch.cat(
                [_overlap(*_predict(averaged, [image], device)[:2]) for image in drawn if image is not None]
            )
        return {"held_mean_iou": float(overlaps.mean())}

    run.loop(losses, measure, options.measure_every)


def new_segmenter(architecture: dict[str, Any]) -> nn.Module:
    """Build an untrained SAM, as the loading code does."""
    from vouch_labels.tasks.models.sam.build import build_sam

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "segmenter.json"
        path.write_text(json.dumps(architecture), encoding="utf-8")
        built: nn.Module = build_sam(path)
        return built


@dataclass(frozen=True)
class SegmenterImage:
    """One image and some of its objects.

    Attributes:
        pixels: (3, H, W) float32 RGB in [0, 255]; the longer side is the model's input side.
        boxes: (K, 4) float32 xyxy in pixels, not exact.
        masks: (K, H, W) float32, 0 or 1.
    """

    pixels: Tensor
    boxes: Tensor
    masks: Tensor


def segmenter_losses(model: nn.Module, images: list[SegmenterImage]) -> dict[str, Tensor]:
    """Cross entropy around the box, dice, and the error of the model's own estimate of its IoU, weighted."""
    device = next(model.parameters()).device
    logits, masks, estimate, boxes = _predict(model, images, device)
    near = _near(boxes, masks.shape[-2:])
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    probability = logits.sigmoid()
    shared = (probability * masks).sum((1, 2))
    dice = 1 - (2 * shared + 1) / (probability.sum((1, 2)) + masks.sum((1, 2)) + 1)
    return {
        "entropy": 2 * ((entropy * near).sum((1, 2)) / near.sum((1, 2))).mean(),
        "dice": dice.mean(),
        "estimate": functional.mse_loss(estimate, _overlap(logits.detach(), masks)),
    }


def _predict(
    model: nn.Module, images: list[SegmenterImage], device: torch.device
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Logits (N, S, S) of all boxes, their true masks padded alike, estimated IoU (N,) and the boxes (N, 4)."""
    sam: Any = model
    inputs = torch.stack([sam.preprocess(image.pixels.to(device)) for image in images])
    side = inputs.shape[-1]
    with torch.autocast(device.type, torch.bfloat16):
        features = sam.image_encoder(inputs).float()
    found = []
    for number, image in enumerate(images):
        boxes = image.boxes.to(device)
        sparse, dense = sam.prompt_encoder(points=None, boxes=boxes, masks=None)
        with torch.autocast(device.type, torch.bfloat16):
            low, estimate = sam.mask_decoder(
                image_embeddings=features[number : number + 1],
                image_pe=sam.prompt_encoder.get_dense_pe(),
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=False,
            )
        padded = functional.pad(
            image.masks.to(device), (0, side - image.masks.shape[2], 0, side - image.masks.shape[1])
        )
        found.append((low.float(), padded, estimate[:, 0].float(), boxes))
    low, masks, estimates, boxes = (torch.cat(parts) for parts in zip(*found, strict=True))
    logits = functional.interpolate(low, (side, side), mode="bilinear", align_corners=False)[:, 0]
    return logits, masks, estimates, boxes


def _near(boxes: Tensor, size: torch.Size) -> Tensor:
    """(N, S, S) 1 in and around each box, a little elsewhere."""
    margin = 0.15 * (boxes[:, 2:] - boxes[:, :2])
    low, high = boxes[:, :2] - margin, boxes[:, 2:] + margin
    y = torch.arange(size[0], device=boxes.device)[None, :, None]
    x = torch.arange(size[1], device=boxes.device)[None, None, :]
    inside = (x >= low[:, 0, None, None]) & (x < high[:, 0, None, None])
    inside = inside & (y >= low[:, 1, None, None]) & (y < high[:, 1, None, None])
    return torch.where(inside, 1.0, 0.02)


def _overlap(logits: Tensor, masks: Tensor) -> Tensor:
    found, wanted = logits > 0, masks > 0.5
    return (found & wanted).sum((1, 2)).float() / (found | wanted).sum((1, 2)).clamp(min=1)


def _options() -> argparse.ArgumentParser:
    parser = training_parser(
        "segmenter",
        __doc__,
        minutes=15.0,
        scenes=6000,
        batch=8,
        learning_rate=1e-3,
        measure_every=150,
        save_every=120.0,
    )
    parser.add_argument("--start", type=Path, help="weights to begin from, such as the bundled ones")
    parser.add_argument("--side", type=int, default=256, help="longer side of the input in pixels")
    parser.add_argument("--width", type=int, default=128, help="channels of the image encoder")
    parser.add_argument("--depth", type=int, default=4, help="blocks of the image encoder")
    return parser


def segmenter_image(rng: np.random.Generator, scenes: SceneCache, index: int, side: int) -> SegmenterImage | None:
    """Cut a part out of a square scene, of any aspect, and enlarge its longer side to `side` pixels.

    None if the part shows no object.
    """
    image = scenes.images[index]
    full = image.shape[0]
    width, height = (int(full * (1.0 if rng.random() < 0.5 else rng.uniform(0.6, 1.0))) for _ in range(2))
    left, top = int(rng.integers(full - width + 1)), int(rng.integers(full - height + 1))
    view = image[top : top + height, left : left + width]
    whole = np.unpackbits(scenes.masks[index], axis=-1, count=full)
    masks = whole[:, top : top + height, left : left + width]
    # Half of an object at an image's edge is still that object; a sliver is not.
    shown = masks.sum((1, 2)) >= np.maximum(0.3 * whole.sum((1, 2)), _LEAST_PIXELS)
    kept = rng.permutation(np.flatnonzero(shown))[:_MOST_BOXES]
    if not len(kept):
        return None
    scale = side / max(width, height)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    pixels = np.asarray(cv2.resize(view, size, interpolation=cv2.INTER_LINEAR), np.float32)
    enlarged = np.stack([cv2.resize(masks[k].astype(np.float32), size, interpolation=cv2.INTER_LINEAR) for k in kept])
    enlarged = (enlarged > 0.5).astype(np.float32)
    if rng.random() < 0.5:
        pixels, enlarged = pixels[:, ::-1], enlarged[:, :, ::-1]
    pixels = np.clip(pixels * rng.uniform(0.8, 1.2) * rng.uniform(0.95, 1.05, 3), 0, 255).astype(np.float32)
    boxes = np.stack([_box(rng, mask) for mask in enlarged])
    return SegmenterImage(
        torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))),
        torch.from_numpy(boxes),
        torch.from_numpy(np.ascontiguousarray(enlarged)),
    )


def _box(rng: np.random.Generator, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mask's box, mostly a little wrong, as a detector's boxes are."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    exact = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)
    size = np.array([exact[2] - exact[0], exact[3] - exact[1]] * 2, np.float32)
    amount = 0.0 if rng.random() < 0.3 else float(rng.uniform(0.01, 0.07))
    jitter = np.clip(rng.normal(0, amount, 4), -0.15, 0.15).astype(np.float32)
    limit = np.array([mask.shape[1], mask.shape[0]] * 2, np.float32)
    return np.asarray(np.clip(exact + jitter * size, 0, limit), np.float32)


if __name__ == "__main__":
    main()
