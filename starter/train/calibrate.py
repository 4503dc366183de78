"""Moves the trained detector's scores so that the campaign's default threshold is the right one for it."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torchvision.ops import box_convert, box_iou, nms

from schemas.campaign import DetectorConfig
from starter.scenes.vocabulary import SPLITS
from starter.train.batches import normalised_batch
from starter.train.cache import SceneCache

_BATCH = 16
_MOST_FALSE = 0.3


def calibrate(model: nn.Module, scenes: SceneCache, split: str, side: int) -> float:
    """Add one number to all logits: the one with the best F1 at the default threshold among those good enough.

    Good enough means at most 0.3 boxes an image when only absent nouns are prompted.

    Args:
        model: A GroundingDINO; changed in place.
        scenes: Scenes that it was not trained on and is not evaluated on.
        split: Their split.
        side: What to resize them to, in pixels.

    Returns:
        The number added.
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
    text is told of the move through its bias.
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
    model: Any,  # noqa: ANN401
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
