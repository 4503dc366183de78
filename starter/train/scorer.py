"""Trains the starter CLIP: `python -m starter.train.scorer --help`."""

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from starter.scenes.vocabulary import COLOURS, SPLITS, Noun
from starter.train.architectures import scorer_architecture
from starter.train.cache import scene_cache
from starter.train.run import WEIGHTS, Run, RunOptions
from starter.train.scorer_batch import ScorerBatch, scorer_batch
from starter.train.scorer_texts import background_text, colour_text, composed_texts, noun_text, pairs_of


def main(arguments: list[str] | None = None) -> None:
    """Train until the minutes are over; run again with the same --work to go on."""
    options = _options().parse_args(arguments)
    torch.manual_seed(options.seed)
    torch.set_num_threads(options.threads)
    available = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(available if options.device == "auto" else options.device)
    nouns = SPLITS[options.split][0]
    scenes = scene_cache(options.cache, options.scenes, 1000, options.split, 256, options.workers)
    held = scene_cache(options.cache, 200, 7, options.split, 256, options.workers)
    pieces = (options.tokenizer / "vocab.txt").read_text(encoding="utf-8").splitlines()
    architecture = scorer_architecture(len(pieces), pieces.index("[SEP]"), options.side, options.width)
    model, tokenize = new_scorer(architecture, options.tokenizer)
    model.to(device).train()
    run = Run(
        "scorer",
        model,
        RunOptions(options.minutes, options.learning_rate, options.work, options.out, options.save_every),
        architecture,
    )
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
    """Build an untrained CLIP as the loading code does.

    Args:
        architecture: As scorer.json states it.
        tokenizer: Folder of the tokenizer.

    Returns:
        The model, and a function from T texts to (T, context length) token ids.
    """
    from tasks.models.open_clip.build import build_model, find_architecture, load_tokenizer

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "tokenizer").symlink_to(tokenizer.resolve(), target_is_directory=True)
        path = Path(folder) / "scorer.json"
        path.write_text(json.dumps(architecture), encoding="utf-8")
        found = find_architecture(path)
        tokens = load_tokenizer(found)
        length = found.text_length
        return build_model(found), lambda texts: tokens(list(texts), length)


def scorer_losses(
    model: nn.Module,
    tokenize: Callable[[Sequence[str]], Tensor],
    batch: ScorerBatch,
    nouns: Sequence[Noun],
    rng: np.random.Generator,
) -> dict[str, Tensor]:
    """Cross entropy of crops against three sets of texts: nouns, nouns with their colours, colours alone.

    Crops whose hues were moved are compared with nouns only. A phrase is also to be the sum of its parts, so that
    pairs never trained on mean something.

    Returns:
        Named scalar losses; their sum is to be minimised.
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
    losses = {
        "nouns": functional.cross_entropy(logits[:, : end + 1], plain),
        "composed": 2 * _composition(embedded[len(texts) :]),
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


def _composition(embedded: Tensor) -> Tensor:
    """How far phrases are from the sum of their parts: rows are a colour with a noun, the noun, the colour, ..."""
    phrases, nouns, colours = embedded.reshape(-1, 3, embedded.shape[-1]).unbind(1)
    return (1 - functional.cosine_similarity(phrases, nouns + colours)).mean()


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


_COMPOSED = 24
_PADDING = 0
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)


def _options() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=12.0, help="training time over all resumptions")
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2, help="processes that draw scenes")
    parser.add_argument("--split", default="core", choices=[name for name in SPLITS if "heldout" not in name])
    parser.add_argument("--scenes", type=int, default=2000)
    parser.add_argument("--side", type=int, default=64, help="side of the crops in pixels")
    parser.add_argument("--width", type=int, default=24, help="channels of the ResNet's first stage")
    parser.add_argument("--batch", type=int, default=192)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--measure-every", type=int, default=150)
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cache", type=Path, default=WEIGHTS.parent / ".cache")
    parser.add_argument("--work", type=Path, default=WEIGHTS.parent / ".cache" / "scorer")
    parser.add_argument("--out", type=Path, default=WEIGHTS)
    parser.add_argument("--tokenizer", type=Path, default=WEIGHTS / "tokenizer")
    return parser


if __name__ == "__main__":
    main()
