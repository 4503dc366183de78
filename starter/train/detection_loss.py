"""Training loss of the detector: dense on the encoder's proposals, one-to-one on each decoder layer."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import (
    box_convert,
    box_iou,
    generalized_box_iou,
)

from starter.train.prompts import Prompt

_TOP = 8
# The paper's 0.75 leaves boxes of absent classes above the threshold for long.
_NEGATIVES = 1.5
_WEIGHTS = {"class": 1.0, "name": 0.5, "l1": 5.0, "giou": 2.0}


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


@dataclass
class _Sums:
    """Loss sums of one set of predictions over a batch, and what to divide them by."""

    parts: dict[str, Tensor]
    norm: float


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
        """Compute all losses of a batch.

        Args:
            images: (B, 3, H, W) float32, normalised.
            prompts: One for each image.
            boxes: Of each image (K, 4) float32 relative xyxy, in the order of the prompt's targets.

        Returns:
            Named scalar losses, weighted; their sum is to be minimised.
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
            found = _one_to_one(logits[..., :tokens].float(), raw.float().sigmoid(), valid, targets)
            losses.update({f"{name}_{index}": value / found.norm for name, value in found.parts.items()})
        return losses

    def _dense(self, anchors: Tensor, tokens: int, valid: Tensor, targets: list[_Target]) -> dict[str, Tensor]:
        logits = self._caught["encoder_logits"][..., :tokens].float()
        predicted = (self._caught["encoder_deltas"].float() + torch.logit(anchors)).sigmoid()
        found = _many_to_one(logits, predicted, anchors[:, :2], valid, targets)
        return {f"{name}_dense": value / found.norm for name, value in found.parts.items()}

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


def _many_to_one(logits: Tensor, boxes: Tensor, centres: Tensor, valid: Tensor, targets: list[_Target]) -> _Sums:
    """Task-aligned assignment (Feng et al., TOOD, ICCV 2021, eq. 1): the best few inside each object's box."""
    quality = torch.zeros_like(logits)
    chosen, wanted, weights, names = [], [], [], []
    for image, target in enumerate(targets):
        if not len(target.boxes):
            continue
        with torch.no_grad():
            xyxy = box_convert(target.boxes, "cxcywh", "xyxy")
            inside = (centres[:, None] > xyxy[None, :, :2]).all(-1) & (centres[:, None] < xyxy[None, :, 2:]).all(-1)
            iou = box_iou(box_convert(boxes[image], "cxcywh", "xyxy"), xyxy)
            score = _phrase_scores(logits[image], target.tokens)
            metric = (score.sqrt() * iou.clamp(min=1e-3) ** 3) * inside
            best = metric.topk(_TOP, dim=0)
            picked = torch.zeros_like(metric).scatter_(0, best.indices, best.values)
            owner = picked.argmax(1)
            rows = torch.nonzero(picked.amax(1) > 0)[:, 0]
            columns = owner[rows]
            scaled = metric / metric.amax(0, keepdim=True).clamp(min=1e-9) * (iou * inside).amax(0, keepdim=True)
            amount = scaled[rows, columns].clamp(0.02, 1.0)
        quality[image, rows] = target.tokens[columns].float() * amount[:, None]
        names.append(_naming(logits[image, rows], target, columns))
        chosen.append(boxes[image, rows])
        wanted.append(target.boxes[columns])
        weights.append(amount)
    return _sums(logits, quality, valid, chosen, wanted, weights, names)


def _one_to_one(logits: Tensor, boxes: Tensor, valid: Tensor, targets: list[_Target]) -> _Sums:
    """Hungarian matching (Carion et al., DETR, ECCV 2020), class targets the IoU reached."""
    quality = torch.zeros_like(logits)
    chosen, wanted, weights, names = [], [], [], []
    for image, target in enumerate(targets):
        if not len(target.boxes):
            continue
        with torch.no_grad():
            xyxy = box_convert(target.boxes, "cxcywh", "xyxy")
            predicted = box_convert(boxes[image], "cxcywh", "xyxy")
            score = _phrase_scores(logits[image], target.tokens).clamp(1e-4, 1 - 1e-4)
            positive = -0.25 * (1 - score) ** 2 * score.log()
            negative = -0.75 * score**2 * (1 - score).log()
            cost = 2 * (positive - negative) + 5 * torch.cdist(boxes[image], target.boxes, p=1)
            cost = cost - 2 * generalized_box_iou(predicted, xyxy)
            rows, columns = (torch.as_tensor(x, device=cost.device) for x in linear_sum_assignment(cost.cpu().numpy()))
            amount = box_iou(predicted, xyxy)[rows, columns].clamp(min=0.02)
        quality[image, rows] = target.tokens[columns].float() * amount[:, None]
        names.append(_naming(logits[image, rows], target, columns))
        chosen.append(boxes[image, rows])
        wanted.append(target.boxes[columns])
        weights.append(torch.ones_like(amount))
    return _sums(logits, quality, valid, chosen, wanted, weights, names)


def _naming(logits: Tensor, target: _Target, columns: Tensor) -> Tensor:
    """(N,) cross-entropy of the right phrase among all of the caption.

    The other class loss learns how good a box is before it learns to tell phrases apart; this one only does the
    latter.
    """
    # Tokens beyond the caption are minus infinity and no part of any phrase.
    finite = logits.masked_fill(logits.isinf(), 0.0)
    return functional.cross_entropy(finite @ target.phrases.T, target.named[columns], reduction="none")


def _sums(
    logits: Tensor,
    quality: Tensor,
    valid: Tensor,
    chosen: list[Tensor],
    wanted: list[Tensor],
    weights: list[Tensor],
    names: list[Tensor],
) -> _Sums:
    """Varifocal class loss (Zhang et al., VarifocalNet, CVPR 2021, eq. 2) over real tokens, L1 and GIoU."""
    finite = torch.where(valid[:, None].bool(), logits, torch.full_like(logits, -20.0))
    probability = finite.detach().sigmoid()
    weight = torch.where(quality > 0, quality, _NEGATIVES * probability**2) * valid[:, None]
    classes = (weight * functional.binary_cross_entropy_with_logits(finite, quality, reduction="none")).sum()
    zero = logits.new_zeros(())
    if not chosen:
        return _Sums({"class": classes * _WEIGHTS["class"], "name": zero, "l1": zero, "giou": zero}, 1.0)
    boxes, truth, share = torch.cat(chosen), torch.cat(wanted), torch.cat(weights)
    l1 = ((boxes - truth).abs().sum(1) * share).sum()
    overlap = _paired_giou(box_convert(boxes, "cxcywh", "xyxy"), box_convert(truth, "cxcywh", "xyxy"))
    giou = ((1 - overlap) * share).sum()
    naming = (torch.cat(names) * share).sum()
    parts = {"class": classes, "name": naming, "l1": l1, "giou": giou}
    return _Sums({name: value * _WEIGHTS[name] for name, value in parts.items()}, max(float(share.sum()), 1.0))


def _paired_giou(first: Tensor, second: Tensor) -> Tensor:
    """(N,) generalised IoU of box pairs (Rezatofighi et al., CVPR 2019)."""
    low, high = torch.maximum(first[:, :2], second[:, :2]), torch.minimum(first[:, 2:], second[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    area = (first[:, 2:] - first[:, :2]).prod(1) + (second[:, 2:] - second[:, :2]).prod(1)
    outer = torch.maximum(first[:, 2:], second[:, 2:]) - torch.minimum(first[:, :2], second[:, :2])
    union = area - common
    hull = outer.prod(1).clamp(min=1e-9)
    return common / union.clamp(min=1e-9) - (hull - union) / hull
