"""Trains the starter GroundingDINO on drawn scenes: `python -m vouch_labels.starter.train.detector --help`.

The loss is dense on the encoder's proposals and one-to-one on each decoder layer. At the end the scores are moved so
that the campaign's default threshold is the right one for the detector.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_convert, box_iou, generalized_box_iou, generalized_box_iou_loss, nms

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.starter.scenes.vocabulary import SPLITS
from vouch_labels.starter.train.architectures import detector_architecture
from vouch_labels.starter.train.data import Prompt, SceneCache, draw_prompt, normalised_batch, scene_cache
from vouch_labels.starter.train.run import Run, export, prepare, run_options, start_from, training_parser
from vouch_labels.tasks.models.groundingdino.build import build_groundingdino

_SIDE, _LONG_SIDE = 192, 256

_TOP = 8
# The paper's 0.75 leaves boxes of absent classes above the threshold for long.
_NEGATIVES = 1.5
_WEIGHTS = {"class": 1.0, "name": 0.5, "l1": 5.0, "giou": 2.0}

_BATCH = 16
_MOST_FALSE = 0.3


def main() -> None:
    """Train, resuming where an earlier run with the same --work stopped."""
    options = _parser().parse_args()
    device = prepare(options)
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
    run = Run("detector", model, run_options(options), architecture)
    loss = DetectionLoss(run.model)

    def losses() -> dict[str, Tensor]:
        share = min(run.elapsed / (60 * options.minutes), 0.999)
        side = options.sides[int(share * len(options.sides))]
        scenes = pools[int(rng.integers(len(pools)))]
        picked = rng.integers(len(scenes.images), size=options.batch)
        squeezed = [side - side // 10 * int(i) for i in rng.integers(2, size=2)]
        height, width = (round(s * full / _SIDE) for s, full in zip(squeezed, scenes.images.shape[1:3], strict=True))
        images, boxes = _batch(rng, scenes, picked, (height, width))
        nouns, named = SPLITS[options.split][0], [(scenes.nouns[index], scenes.colours[index]) for index in picked]
        prompts = [draw_prompt(rng, model.tokenizer, nouns, *one) for one in named]
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


def _parser() -> argparse.ArgumentParser:
    parser = training_parser(
        "detector", __doc__, minutes=60.0, scenes=8000, batch=8, learning_rate=3e-4, measure_every=250, save_every=180.0
    )
    parser.add_argument("--steps", type=int, help="end after this many steps, whatever the minutes say")
    parser.add_argument("--start", type=Path, help="weights to begin from, such as the bundled ones")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 160, 192], help="pixels, each for an equal time")
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--depths", type=int, nargs=4, default=[2, 2, 2, 2])
    parser.add_argument("--queries", type=int, default=30)
    return parser


@dataclass(frozen=True)
class _Target:
    """Asked-for objects of one image.

    Attributes:
        boxes: (K, 4) relative cxcywh.
        tokens: (K, T) bool, the tokens that name each.
        phrases: (P, T) float, each phrase's tokens, of sum 1.
        named: (K,) index of the phrase that names each.
    """

    boxes: Tensor
    tokens: Tensor
    phrases: Tensor
    named: Tensor


class DetectionLoss:
    """Runs a GroundingDINO and computes its loss.

    The package's forward pass returns the last layer only; hooks catch what the other losses need.
    """

    def __init__(self, model: nn.Module) -> None:
        """Attach to a model; `call` runs it."""
        self._model = model
        self._caught: dict[str, Any] = {}
        transformer: Any = model.transformer
        transformer.register_forward_hook(self._catch_transformer)
        transformer.enc_out_class_embed.register_forward_hook(self._catch("encoder_logits"))
        transformer.enc_out_bbox_embed.register_forward_hook(self._catch("encoder_deltas"))

    def __call__(self, images: Tensor, prompts: list[Prompt], boxes: list[np.ndarray]) -> dict[str, Tensor]:
        """Weighted losses of a batch by name; their sum is to be minimised.

        Args:
            images: (B, 3, H, W) float32, normalised.
            prompts: One for each image.
            boxes: Of each image (K, 4) float32 relative xyxy, in the order of the prompt's targets.
        """
        from groundingdino.util.misc import NestedTensor, inverse_sigmoid

        size = images.shape[-2:]
        mask = torch.zeros((len(images), *size), dtype=torch.bool, device=images.device)
        model: Any = self._model
        with torch.autocast(images.device.type, torch.bfloat16):
            model(NestedTensor(images, mask), captions=[prompt.caption for prompt in prompts])
            hidden, references, text = (self._caught[name] for name in ("hidden", "references", "text"))
            layers = [
                (model.class_embed[index](state, text), model.bbox_embed[index](state) + inverse_sigmoid(reference))
                for index, (state, reference) in enumerate(zip(hidden, references[:-1], strict=True))
            ]
        tokens = int(text["text_token_mask"].shape[1])
        valid = text["text_token_mask"].float()
        targets = [_target(prompt, box, tokens, images.device) for prompt, box in zip(prompts, boxes, strict=True)]
        anchors = _anchors(size, images.device)
        losses = self._dense(anchors, tokens, valid, targets)
        for index, (logits, raw) in enumerate(layers):
            found = _losses(logits[..., :tokens].float(), raw.float().sigmoid(), valid, targets, _one_to_one)
            losses |= {f"{name}_{index}": value for name, value in found.items()}
        return losses

    def _dense(self, anchors: Tensor, tokens: int, valid: Tensor, targets: list[_Target]) -> dict[str, Tensor]:
        logits = self._caught["encoder_logits"][..., :tokens].float()
        predicted = (self._caught["encoder_deltas"].float() + torch.logit(anchors)).sigmoid()
        found = _losses(logits, predicted, valid, targets, partial(_many_to_one, centres=anchors[:, :2]))
        return {f"{name}_dense": value for name, value in found.items()}

    def _catch(self, name: str) -> Any:  # noqa: ANN401 - a hook
        def hook(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._caught[name] = output

        return hook

    def _catch_transformer(self, _module: nn.Module, inputs: tuple[Any, ...], output: tuple[Any, ...]) -> None:
        self._caught.update(hidden=output[0], references=output[1], text=inputs[6])


def _target(prompt: Prompt, boxes: np.ndarray, tokens: int, device: torch.device) -> _Target:
    kept = [index for index, phrase in enumerate(prompt.targets) if phrase >= 0]
    positive = torch.zeros((len(kept), tokens), dtype=torch.bool)
    for row, index in enumerate(kept):
        start, end = prompt.spans[prompt.targets[index]]
        positive[row, start:end] = True
    phrases = torch.zeros((len(prompt.spans), tokens))
    for row, (start, end) in enumerate(prompt.spans):
        phrases[row, start:end] = 1.0 / (end - start)
    named = torch.tensor([prompt.targets[index] for index in kept], dtype=torch.long)
    xyxy = torch.from_numpy(np.asarray(boxes, np.float32).reshape(-1, 4)[kept])
    centred = box_convert(xyxy, "xyxy", "cxcywh")
    return _Target(centred.to(device), positive.to(device), phrases.to(device), named.to(device))


def _anchors(size: torch.Size, device: torch.device) -> Tensor:
    """(S, 4) relative cxcywh of the encoder's proposals at strides 8, 16 and 32, as the package makes them."""
    levels = []
    for level in range(3):
        rows, columns = (-(-side // (8 * 2**level)) for side in size)
        y, x = torch.meshgrid(
            (torch.arange(rows, device=device) + 0.5) / rows,
            (torch.arange(columns, device=device) + 0.5) / columns,
            indexing="ij",
        )
        wide = torch.full_like(x, 0.05 * 2**level)
        levels.append(torch.stack((x, y, wide, wide), -1).flatten(0, 1))
    return torch.cat(levels)


def _phrase_scores(logits: Tensor, tokens: Tensor) -> Tensor:
    """(N, K) mean probability of each object's phrase at each of N predictions (N, T)."""
    share = tokens.float() / tokens.sum(1, keepdim=True).clamp(min=1)
    return logits.sigmoid() @ share.T


_Matched = tuple[Tensor, Tensor, Tensor, Tensor]
"""Predictions that are to be objects of an image, (M,) each: their rows, the objects' rows, class targets, weights."""


def _many_to_one(logits: Tensor, boxes: Tensor, target: _Target, centres: Tensor) -> _Matched:
    """Task-aligned assignment (Feng et al., TOOD, ICCV 2021, eq. 1): the best few inside each object's box."""
    xyxy = box_convert(target.boxes, "cxcywh", "xyxy")
    inside = (centres[:, None] > xyxy[None, :, :2]).all(-1) & (centres[:, None] < xyxy[None, :, 2:]).all(-1)
    iou = box_iou(box_convert(boxes, "cxcywh", "xyxy"), xyxy)
    metric = (_phrase_scores(logits, target.tokens).sqrt() * iou.clamp(min=1e-3) ** 3) * inside
    best = metric.topk(_TOP, dim=0)
    picked = torch.zeros_like(metric).scatter_(0, best.indices, best.values)
    rows = torch.nonzero(picked.amax(1) > 0)[:, 0]
    columns = picked.argmax(1)[rows]
    scaled = metric / metric.amax(0, keepdim=True).clamp(min=1e-9) * (iou * inside).amax(0, keepdim=True)
    amount = scaled[rows, columns].clamp(0.02, 1.0)
    return rows, columns, amount, amount


def _one_to_one(logits: Tensor, boxes: Tensor, target: _Target) -> _Matched:
    """Hungarian matching (Carion et al., DETR, ECCV 2020), class targets the IoU reached."""
    xyxy = box_convert(target.boxes, "cxcywh", "xyxy")
    predicted = box_convert(boxes, "cxcywh", "xyxy")
    score = _phrase_scores(logits, target.tokens).clamp(1e-4, 1 - 1e-4)
    positive = -0.25 * (1 - score) ** 2 * score.log()
    negative = -0.75 * score**2 * (1 - score).log()
    cost = 2 * (positive - negative) + 5 * torch.cdist(boxes, target.boxes, p=1)
    cost = cost - 2 * generalized_box_iou(predicted, xyxy)
    rows, columns = (torch.as_tensor(x, device=cost.device) for x in linear_sum_assignment(cost.cpu().numpy()))
    amount = box_iou(predicted, xyxy)[rows, columns].clamp(min=0.02)
    return rows, columns, amount, torch.ones_like(amount)


def _naming(logits: Tensor, target: _Target, columns: Tensor) -> Tensor:
    """(N,) cross-entropy of the right phrase among all of the caption.

    The other class loss learns how good a box is before it learns to tell phrases apart; this one only does the
    latter.
    """
    # Tokens beyond the caption are minus infinity and no part of any phrase.
    finite = logits.masked_fill(logits.isinf(), 0.0)
    return functional.cross_entropy(finite @ target.phrases.T, target.named[columns], reduction="none")


def _losses(
    logits: Tensor, boxes: Tensor, valid: Tensor, targets: list[_Target], match: Callable[..., _Matched]
) -> dict[str, Tensor]:
    """Varifocal class loss (Zhang et al., VarifocalNet, CVPR 2021, eq. 2) over real tokens, L1 and GIoU.

    Logits are (B, N, T), boxes (B, N, 4), valid (B, T); `match` gets those of one image and its objects.
    """
    quality = torch.zeros_like(logits)
    chosen, wanted, weights, names = [], [], [], []
    for image, target in enumerate(targets):
        if not len(target.boxes):
            continue
        with torch.no_grad():
            rows, columns, amount, weight = match(logits[image], boxes[image], target)
        quality[image, rows] = target.tokens[columns].float() * amount[:, None]
        names.append(_naming(logits[image, rows], target, columns))
        chosen.append(boxes[image, rows])
        wanted.append(target.boxes[columns])
        weights.append(weight)
    finite = torch.where(valid[:, None].bool(), logits, torch.full_like(logits, -20.0))
    probability = finite.detach().sigmoid()
    share = torch.where(quality > 0, quality, _NEGATIVES * probability**2) * valid[:, None]
    classes = (share * functional.binary_cross_entropy_with_logits(finite, quality, reduction="none")).sum()
    zero = logits.new_zeros(())
    if not chosen:
        return {"class": classes * _WEIGHTS["class"], "name": zero, "l1": zero, "giou": zero}
    found, truth, share = torch.cat(chosen), torch.cat(wanted), torch.cat(weights)
    l1 = ((found - truth).abs().sum(1) * share).sum()
    corners = (box_convert(boxes, "cxcywh", "xyxy") for boxes in (found, truth))
    giou = (generalized_box_iou_loss(*corners) * share).sum()
    naming = (torch.cat(names) * share).sum()
    parts = {"class": classes, "name": naming, "l1": l1, "giou": giou}
    return {name: value * _WEIGHTS[name] / max(float(share.sum()), 1.0) for name, value in parts.items()}


def calibrate(model: nn.Module, scenes: SceneCache, split: str, side: int) -> float:
    """Add one number to all logits: the one with the best F1 at the default threshold among those good enough.

    Good enough means at most 0.3 boxes an image when only absent nouns are prompted. The model is changed in place; the
    scenes, resized to `side` pixels, are some that it was not trained on and is not evaluated on. Returns the number.
    """
    names = [noun.name for noun in SPLITS[split][0]]
    all_asked = [names] * len(scenes.images)
    absent = [[name for name in names if name not in scene] for scene in scenes.nouns]
    threshold = float(np.log(DetectorConfig().min_score / (1 - DetectorConfig().min_score)))
    right, missed = _right_boxes(model, scenes, all_asked, side)
    wrong = np.concatenate([scores for _, scores, _ in _found(model, scenes, absent, side)])
    best = (0.0, -1.0)
    for shift in np.arange(-3.0, 1.05, 0.05):
        kept = right[right[:, 0] + shift >= threshold]
        hits = float(kept[:, 1].sum())
        score = 2 * hits / max(len(kept) + missed + right[:, 1].sum(), 1)
        if (wrong + shift >= threshold).sum() <= _MOST_FALSE * len(scenes.images) and score > best[1]:
            best = (float(shift), float(score))
    shift_logits(model, best[0])
    return best[0]


def shift_logits(model: Any, amount: float) -> None:  # noqa: ANN401 - the package is untyped
    """Add a constant to the logits of every query and token, exactly, and change nothing else the decoder does.

    A query is n * w + b with n from a LayerNorm, so that n sums to 0 and a query's product with 1 / w is sum(b / w)
    whatever it says. Moving all text features along 1 / w therefore moves all logits alike. The decoder's attention to
    text learns of the move through its bias.
    """
    transformer = model.transformer
    norm, text = transformer.decoder.norm, transformer.encoder.text_layers[-1].norm2
    with torch.no_grad():
        along = 1.0 / norm.weight
        move = along * (amount / (along * norm.bias).sum())
        text.bias.add_(move)
        for layer in transformer.decoder.layers:
            width = layer.ca_text.embed_dim
            keys_and_values = layer.ca_text.in_proj_weight[width:]
            layer.ca_text.in_proj_bias[width:].sub_(keys_and_values @ move)


def _right_boxes(
    model: nn.Module, scenes: SceneCache, asked: list[list[str]], side: int
) -> tuple[NDArray[np.float64], int]:
    """(N, 2) logit of each box and whether it is the first right one of an object, and the objects never found."""
    rows, objects = [], 0
    for image, (boxes, scores, labels) in enumerate(_found(model, scenes, asked, side)):
        truth = torch.from_numpy(scenes.boxes[image])
        nouns = scenes.nouns[image]
        overlap = box_iou(torch.from_numpy(boxes), truth).numpy() if len(boxes) and len(truth) else None
        free = set(range(len(nouns)))
        objects += len(nouns)
        for row in np.argsort(-scores):
            fits = [k for k in free if nouns[k] == asked[image][labels[row]] and overlap is not None]
            match = next((k for k in fits if overlap is not None and overlap[row, k] >= 0.5), None)
            free.discard(-1 if match is None else match)
            rows.append((float(scores[row]), float(match is not None)))
    table = np.asarray(rows, np.float64).reshape(-1, 2)
    return table, objects - int(table[:, 1].sum())


def _found(
    model: Any,  # noqa: ANN401 - groundingdino has no types
    scenes: SceneCache,
    asked: list[list[str]],
    side: int,
) -> list[tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.int64]]]:
    """Boxes (N, 4) relative xyxy, logits (N,) and phrase indices (N,) of each image, duplicates merged."""
    device = next(model.parameters()).device
    results = []
    for start in range(0, len(scenes.images), _BATCH):
        picked = np.arange(start, min(start + _BATCH, len(scenes.images)))
        captions = [" ".join(name + "." for name in asked[int(index)]) for index in picked]
        with torch.inference_mode():
            out = model(normalised_batch(scenes.images[picked], (side, side)).to(device), captions=captions)
        for row, index in enumerate(picked):
            # Every class name is one token, followed by its full stop.
            logits = out["pred_logits"][row].float().cpu()[:, 1 : 1 + 2 * len(asked[int(index)]) : 2]
            scores, labels = logits.max(1)
            boxes = box_convert(out["pred_boxes"][row].float().cpu(), "cxcywh", "xyxy")
            kept = nms(boxes, scores, DetectorConfig().nms_iou)
            results.append((boxes[kept].numpy(), scores[kept].numpy(), labels[kept].numpy()))
    return results


if __name__ == "__main__":
    main()
