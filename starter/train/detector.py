"""Trains the starter GroundingDINO on drawn scenes: `python -m starter.train.detector --help`."""

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_convert, box_iou

from starter.scenes.vocabulary import SPLITS
from starter.train.architectures import detector_architecture
from starter.train.batches import normalised_batch
from starter.train.cache import SceneCache, scene_cache
from starter.train.calibrate import calibrate
from starter.train.detection_loss import DetectionLoss
from starter.train.prompts import Prompt, draw_prompt
from starter.train.run import WEIGHTS, Run, RunOptions, export, start_from
from tasks.models.groundingdino.build import build_groundingdino

_SIDE, _LONG_SIDE = 192, 256


def main() -> None:
    """Train, resuming where an earlier run with the same --work stopped."""
    options = _arguments()
    torch.set_num_threads(options.threads)
    device = torch.device(_device(options.device))
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    tokenizer_dir = options.out / "tokenizer"
    pieces = len((tokenizer_dir / "vocab.txt").read_text(encoding="utf-8").splitlines())
    sizes = (options.width, tuple(options.depths), options.queries, options.sides[-1])
    architecture = detector_architecture(pieces, *sizes)
    model = build_groundingdino(architecture, tokenizer_dir).to(device)
    start_quiet(model)
    start_from(model, options.start)
    pools = _pools(options)
    held = scene_cache(options.cache, 200, 7, options.split, _SIDE, options.workers)
    run = Run("detector", model, _run_options(options), architecture)
    loss = DetectionLoss(run.model)

    def losses() -> dict[str, Tensor]:
        share = min(run.elapsed / (60 * options.minutes), 0.999)
        side = options.sides[int(share * len(options.sides))]
        scenes = pools[int(rng.integers(len(pools)))]
        picked = rng.integers(len(scenes.images), size=options.batch)
        squeezed = [side - side // 10 * int(i) for i in rng.integers(2, size=2)]
        height, width = (round(s * full / _SIDE) for s, full in zip(squeezed, scenes.images.shape[1:3], strict=True))
        images, boxes = _batch(rng, scenes, picked, (height, width))
        prompts = [_prompt(rng, model, options.split, scenes, int(index)) for index in picked]
        return loss(images.to(device), prompts, boxes)

    def measure(averaged: nn.Module) -> dict[str, float]:
        return quick_figures(averaged, held, options.split, device, options.sides[-1])

    run.loop(losses, measure, options.measure_every, options.steps)
    calibrate(run.averaged, held, options.split, options.sides[-1])
    export("detector", run.averaged, architecture, options.out)


def _pools(options: argparse.Namespace) -> list[SceneCache]:
    """Scenes to draw batches from, each pool of one shape: square, wide, square, tall."""
    seed, split, few = 1000 + options.seed, options.split, max(options.scenes // 4, 1)
    square = scene_cache(options.cache, options.scenes, seed, split, _SIDE, options.workers)
    wide = scene_cache(options.cache, few, seed + 1, split, _SIDE, options.workers, _LONG_SIDE)
    tall = scene_cache(options.cache, few, seed + 1, split, _LONG_SIDE, options.workers, _SIDE)
    return [square, wide, square, tall]


def start_quiet(model: Any) -> None:  # noqa: ANN401 - the package is untyped
    """Make raw dot products of queries and tokens start near -4, so that first gradients are about objects.

    Without it they start in the hundreds, as both sides leave a LayerNorm of 256 channels. The text side is made
    small, not the queries: box heads read those too, once with and once without their last LayerNorm.
    """
    common = torch.where(torch.rand(256) < 0.5, -1.0, 1.0) / 16.0
    transformer = model.transformer
    with torch.no_grad():
        for norm in (transformer.decoder.norm, transformer.enc_output_norm):
            norm.weight.mul_(0.8)
            norm.bias.copy_(common * 10.0)
        text = transformer.encoder.text_layers[-1].norm2
        text.weight.mul_(0.08)
        text.bias.copy_(common * -0.4)


def quick_figures(
    model: nn.Module, scenes: SceneCache, split: str, device: torch.device, side: int
) -> dict[str, float]:
    """Precision and recall at score 0.4 and IoU 0.5 with all nouns prompted, over the first 96 scenes."""
    names = [noun.name for noun in SPLITS[split][0]]
    caption = " ".join(name + "." for name in names)
    hits = found = truth = 0
    for start in range(0, 96, 16):
        index = np.arange(start, start + 16)
        images, boxes = _batch(None, scenes, index, (side, side))
        with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16):
            out = model(images.to(device), captions=[caption] * len(index))
        # Every class name is one token, followed by its full stop.
        scores = out["pred_logits"].float().sigmoid().cpu()[..., 1 : 1 + 2 * len(names) : 2]
        for image in range(len(index)):
            best, label = scores[image].max(1)
            kept = best > 0.4
            xyxy = box_convert(out["pred_boxes"][image].float().cpu()[kept], "cxcywh", "xyxy")
            wanted = torch.tensor([names.index(noun) for noun in scenes.nouns[int(index[image])]], dtype=torch.long)
            overlap = box_iou(xyxy, torch.from_numpy(boxes[image])) * (label[kept][:, None] == wanted[None])
            hits += int((overlap > 0.5).any(0).sum()) if len(xyxy) else 0
            found += int(kept.sum())
            truth += len(wanted)
    return {"precision": hits / max(found, 1), "recall": hits / max(truth, 1)}


def _batch(
    rng: np.random.Generator | None, scenes: SceneCache, picked: np.ndarray, size: tuple[int, int]
) -> tuple[Tensor, list[np.ndarray]]:
    """Images (B, 3, H, W) normalised, and their boxes; flipped and relit at random if rng is given."""
    boxes = [scenes.boxes[int(index)] for index in picked]
    if rng is None:
        return normalised_batch(scenes.images[picked], size), boxes
    gain = torch.from_numpy(rng.uniform(0.8, 1.2, (len(picked), 1, 1, 1)).astype(np.float32))
    images = normalised_batch(scenes.images[picked], size, gain)
    for number in np.flatnonzero(rng.random(len(picked)) < 0.5):
        images[number] = images[number].flip(-1)
        x0, y0, x1, y1 = boxes[number].T
        boxes[number] = np.stack([1 - x1, y0, 1 - x0, y1], axis=1)
    return images, boxes


def _prompt(rng: np.random.Generator, model: Any, split: str, scenes: SceneCache, index: int) -> Prompt:  # noqa: ANN401
    return draw_prompt(rng, model.tokenizer, SPLITS[split][0], scenes.nouns[index], scenes.colours[index])


def _device(name: str) -> str:
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name


def _run_options(options: argparse.Namespace) -> RunOptions:
    return RunOptions(options.minutes, options.learning_rate, options.work, options.out, options.save_every, flat=0.35)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--steps", type=int, help="end after this many steps, whatever the minutes say")
    parser.add_argument("--start", type=Path, help="weights to begin from, such as the bundled ones")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes")
    parser.add_argument("--split", default="core", choices=[name for name in SPLITS if "heldout" not in name])
    parser.add_argument("--scenes", type=int, default=8000)
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 160, 192], help="pixels, each for an equal time")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--learning-rate", type=float, default=3e-4)
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depths", type=int, nargs=4, default=[2, 2, 2, 2])
    parser.add_argument("--queries", type=int, default=30)
    parser.add_argument("--measure-every", type=int, default=250)
    parser.add_argument("--save-every", type=float, default=180.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=WEIGHTS.parent / ".cache")
    parser.add_argument("--work", type=Path, default=WEIGHTS.parent / ".cache" / "detector")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
