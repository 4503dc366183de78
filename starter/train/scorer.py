"""Trains the starter CLIP: `python -m vouch_labels.starter.train.scorer --help`.

Crops are objects as the pipeline cuts them out, and squares that show none; texts are the names that the scorer learns
to tell apart.
"""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from vouch_labels.starter.scenes.vocabulary import COLOURS, HELD_OUT, SPLITS, Noun
from vouch_labels.starter.train.architectures import scorer_architecture
from vouch_labels.starter.train.data import SceneCache, scene_cache
from vouch_labels.starter.train.run import WEIGHTS, Run, prepare, run_options, training_parser
from vouch_labels.tasks.score import crop, fill, templates_of

_COMPOSED = 24
_PADDING = 0
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

_MOST_SEEN = 0.3
# Nearer hues share a name.
_NEAR_HUE = 35.0


def main(arguments: list[str] | None = None) -> None:
    """Train until the minutes are over; run again with the same --work to go on."""
    options = _options().parse_args(arguments)
    device = prepare(options)
    nouns = SPLITS[options.split][0]
    scenes = scene_cache(options.cache, options.scenes, 1000, options.split, 256, options.workers)
    held = scene_cache(options.cache, 200, 7, options.split, 256, options.workers)
    pieces = (options.tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines()
    architecture = scorer_architecture(len(pieces), pieces.index("[SEP]"), options.side, options.width)
    model, tokenize = new_scorer(architecture, options.tokenizer)
    model.to(device).train()
    run = Run("scorer", model, run_options(options), architecture)
    rng = np.random.default_rng([options.seed, run.step])

    def losses() -> dict[str, Tensor]:
        batch = scorer_batch(rng, scenes, options.batch, options.side)
        with torch.autocast(device.type, torch.bfloat16):
            return scorer_losses(model, tokenize, batch, nouns, rng)

    def measure(averaged: nn.Module) -> dict[str, float]:
        clip: Any = averaged.eval()
        batch = scorer_batch(np.random.default_rng(0), held, 400, options.side)
        with torch.inference_mode():
            images = _encode_images(clip, batch, device)
            texts = [noun.name for noun in nouns] + ["background"]
            answers = (images @ _encode_texts(clip, tokenize, texts, device).T).argmax(1).tolist()
        wanted = [len(nouns) if noun is None else texts.index(noun) for noun in batch.nouns]
        seen = [found == right for found, right in zip(answers, wanted, strict=True) if right < len(nouns)]
        empty = [found == right for found, right in zip(answers, wanted, strict=True) if right == len(nouns)]
        return {"held_top1": float(np.mean(seen)), "held_background": float(np.mean(empty))}

    run.loop(losses, measure, options.measure_every)


def new_scorer(architecture: dict[str, Any], tokenizer: Path) -> tuple[nn.Module, Callable[[Sequence[str]], Tensor]]:
    """Build an untrained CLIP as the loading code does, and a function from T texts to (T, context length) tokens."""
    from vouch_labels.tasks.models.open_clip.build import build_model, find_architecture, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer").symlink_to(tokenizer.resolve(), target_is_directory=True)
        path = Path(folder) / "scorer.json"
        path.write_text(json.dumps(architecture), encoding="utf-8")
        found = find_architecture(path)
        tokens = load_tokenizer(found)
        length = found.text_length
        return build_model(found), lambda texts: tokens(list(texts), length)


@dataclass(frozen=True)
class ScorerBatch:
    """Crops and what they show.

    Attributes:
        pixels: (B, 3, S, S) float32 RGB in [0, 1].
        nouns: B class names, None for background.
        colours: B colours, None where the noun has none.
        shifted: B flags: all hues were moved, so that no colour is true of the crop.
    """

    pixels: Tensor
    nouns: list[str | None]
    colours: list[str | None]
    shifted: list[bool]


def scorer_losses(
    model: nn.Module,
    tokenize: Callable[[Sequence[str]], Tensor],
    batch: ScorerBatch,
    nouns: Sequence[Noun],
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Cross entropy of crops against three sets of texts: nouns, nouns with their colours, colours alone.

    Crops whose hues were moved are compared with nouns only. A phrase is also to be the sum of its parts, so that
    pairs never trained on mean something. The sum of the losses is to be minimised.
    """
    clip: Any = model
    device = next(model.parameters()).device
    pairs = pairs_of(nouns)
    by_name = {noun.name: noun for noun in nouns}
    texts = [noun_text(rng, noun, None) for noun in nouns] + [background_text(rng)]
    texts += [noun_text(rng, by_name[name], colour) for name, colour in pairs]
    texts += [colour_text(rng, colour) for colour in COLOURS]
    composed = composed_texts(rng, nouns, _COMPOSED)
    images = _encode_images(clip, batch, device).float()
    embedded = _encode_texts(clip, tokenize, [*texts, *composed], device).float()
    logits = clip.logit_scale.exp().clamp(max=60) * images @ embedded[: len(texts)].T
    end, last = len(nouns), len(nouns) + 1 + len(pairs)
    names = [noun.name for noun in nouns]
    plain = torch.tensor([end if noun is None else names.index(noun) for noun in batch.nouns], device=device)
    # How far phrases are from the sum of their parts: a colour with a noun, the noun, the colour, ...
    phrases, words, tints = embedded[len(texts) :].reshape(-1, 3, embedded.shape[-1]).unbind(1)
    losses = {
        "nouns": functional.cross_entropy(logits[:, : end + 1], plain),
        "composed": 2 * (1 - functional.cosine_similarity(phrases, words + tints)).mean(),
    }
    true = [number for number, shifted in enumerate(batch.shifted) if not shifted]
    coloured = [number for number in true if batch.colours[number]]
    if true and coloured:
        wanted = [(batch.nouns[number], batch.colours[number]) for number in true]
        exact = torch.tensor([0 if noun is None else 1 + pairs.index((noun, colour)) for noun, colour in wanted])
        losses["pairs"] = functional.cross_entropy(logits[true, end:last], exact.to(device))
        right = torch.tensor([list(COLOURS).index(str(batch.colours[number])) for number in coloured])
        losses["colours"] = 0.5 * functional.cross_entropy(logits[coloured, last:], right.to(device))
    return losses


def _encode_images(clip: Any, batch: ScorerBatch, device: torch.device) -> Tensor:  # noqa: ANN401 - untyped package
    mean = torch.tensor(_MEAN, device=device)[:, None, None]
    std = torch.tensor(_STD, device=device)[:, None, None]
    features: Tensor = clip.encode_image((batch.pixels.to(device) - mean) / std, normalize=True)
    return features


def _encode_texts(
    clip: Any,  # noqa: ANN401 - untyped package
    tokenize: Callable[[Sequence[str]], Tensor],
    texts: Sequence[str],
    device: torch.device,
) -> Tensor:
    """(T, D) unit length, as encode_text gives; the padding behind the longest text is not computed."""
    tokens = tokenize(texts).to(device)
    length = int((tokens != _PADDING).sum(1).max())
    tokens = tokens[:, :length]
    states = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    # A view of the mask made attention in eval mode give NaN.
    mask = clip.attn_mask[:length, :length].contiguous()
    states = clip.ln_final(clip.transformer(states, attn_mask=mask))
    ends = (tokens == clip.text_eos_id).int().argmax(1)
    features = states[torch.arange(len(tokens), device=device), ends] @ clip.text_projection
    return functional.normalize(features, dim=-1)


def _options() -> argparse.ArgumentParser:
    parser = training_parser(
        "scorer", __doc__, minutes=12.0, scenes=2000, batch=192, learning_rate=1e-3, measure_every=150, save_every=120.0
    )
    parser.add_argument("--side", type=int, default=64, help="side of the crops in pixels")
    parser.add_argument("--width", type=int, default=24, help="channels of the ResNet's first stage")
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "tokenizer")
    return parser


def scorer_batch(rng: np.random.Generator, scenes: SceneCache, size: int, side: int) -> ScorerBatch:
    """Draw a batch of crops of a side in pixels: four of five show an object; of half of them the hues are moved.

    Moved hues keep the noun from depending on the colour. Without them a network learns from the held-out pairs that
    what is blue is no car. No shift brings a noun to a hue that is held out for it.
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
            exact = boxes[chosen]
            jitter = np.clip(rng.normal(0, 0.05, 4), -0.15, 0.15) * np.tile(exact[2:] - exact[:2], 2)
            box = np.asarray(exact + jitter, np.float32)
            context = 1.0 if rng.random() < 0.5 else float(rng.uniform(1.0, 1.6))
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


BACKGROUND = (
    "background",
    "texture",
    "a blurry picture of nothing",
    "nothing",
    "an empty scene",
    "a pattern",
    "something else",
)


def pairs_of(vocabulary: Sequence[Noun]) -> list[tuple[str, str | None]]:
    """(noun, colour) pairs that training may name: every legal colour of tinted nouns, None for the others."""
    return [
        (noun.name, colour)
        for noun in vocabulary
        for colour in (COLOURS if noun.tinted else (None,))
        if (colour, noun.name) not in HELD_OUT
    ]


def noun_text(rng: np.random.Generator, noun: Noun, colour: str | None) -> str:
    """A text for a noun, by one of its names, in one of the templates that campaigns use."""
    names = (noun.name, *noun.synonyms)
    name = names[0] if rng.random() < 0.7 else names[int(rng.integers(len(names)))]
    return in_template(rng, f"{colour} {name}" if colour else name)


def colour_text(rng: np.random.Generator, colour: str) -> str:
    """A text for anything of a colour."""
    forms = ("{}", "a {} thing", "something {}", "a {} object")
    return in_template(rng, fill(forms[int(rng.integers(len(forms)))], colour))


def composed_texts(rng: np.random.Generator, nouns: Sequence[Noun], count: int) -> list[str]:
    """Triples "red dog", "dog", "red", each set into one template; held-out pairs are left out.

    The nouns need not be tinted: a text may be of what no scene shows.
    """
    texts: list[str] = []
    colours = list(COLOURS)
    while len(texts) < 3 * count:
        noun, colour = nouns[int(rng.integers(len(nouns)))], colours[int(rng.integers(len(colours)))]
        if (colour, noun.name) in HELD_OUT:
            continue
        names = (noun.name, noun.name, *noun.synonyms)
        name = names[int(rng.integers(len(names)))]
        presets = templates_of("photo")
        template = "{}" if rng.random() < 0.4 else presets[int(rng.integers(len(presets)))]
        texts += [fill(template, f"{colour} {name}"), fill(template, name), fill(template, f"{colour} thing")]
    return texts


def background_text(rng: np.random.Generator) -> str:
    """A text for a picture without an object."""
    return in_template(rng, BACKGROUND[int(rng.integers(len(BACKGROUND)))])


def in_template(rng: np.random.Generator, text: str) -> str:
    """Set a text into a random template, or into none."""
    if rng.random() < 0.4:
        return text
    templates = templates_of("photo" if rng.random() < 0.7 else "imagenet")
    return fill(templates[int(rng.integers(len(templates)))], text)


if __name__ == "__main__":
    main()
