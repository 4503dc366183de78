"""The scorer's batches and texts are what they say, and its loss falls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, HELD_OUT
from vouch_labels.starter.train.architectures import scorer_architecture
from vouch_labels.starter.train.data import SceneCache
from vouch_labels.starter.train.scorer import (
    _shift,
    background_text,
    composed_texts,
    new_scorer,
    noun_text,
    pairs_of,
    scorer_batch,
    scorer_losses,
    shift_hue,
)

TOKENIZER = Path(__file__).parents[3] / "starter" / "weights" / "tokenizer"


def test_held_out_pairs_are_never_named() -> None:
    pairs = pairs_of(CORE)
    assert not {(colour, noun) for noun, colour in pairs} & HELD_OUT
    assert {noun for noun, _ in pairs} == {noun.name for noun in CORE}


def test_texts_vary_and_hold_the_name() -> None:
    rng = np.random.default_rng(0)
    dog = next(noun for noun in CORE if noun.name == "dog")
    texts = {noun_text(rng, dog, None) for _ in range(100)}
    assert len(texts) > 20
    assert all("dog" in text or "puppy" in text for text in texts)
    assert not any("dog" in background_text(rng) for _ in range(50))


def test_batch_shows_objects_and_nothing(few_scenes: SceneCache) -> None:
    batch = scorer_batch(np.random.default_rng(0), few_scenes, 64, 32)
    assert batch.pixels.shape == (64, 3, 32, 32)
    assert 0 <= batch.pixels.min() < batch.pixels.max() <= 1
    empty = batch.nouns.count(None)
    assert 4 < empty < 40
    known = {
        entry for pair in zip(few_scenes.nouns, few_scenes.colours, strict=True) for entry in zip(*pair, strict=True)
    }
    assert {entry for entry in zip(batch.nouns, batch.colours, strict=True) if entry[0]} <= known


@pytest.mark.slow
def test_training_steps_lower_the_loss(few_scenes: SceneCache) -> None:
    torch.manual_seed(0)
    pieces = (TOKENIZER / "vocab.txt").read_text().splitlines()
    model, tokenize = new_scorer(scorer_architecture(len(pieces), pieces.index("[SEP]"), 32, 8), TOKENIZER)
    model.train()
    rng = np.random.default_rng(1)
    batch = scorer_batch(rng, few_scenes, 48, 32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    values = []
    for _ in range(40):
        loss = torch.stack(list(scorer_losses(model, tokenize, batch, CORE, rng).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert np.mean(values[-5:]) < 0.6 * np.mean(values[:5])


def test_moved_hues_never_show_a_held_out_pair() -> None:
    rng = np.random.default_rng(3)
    angles = [angle for _ in range(400) if (angle := _shift(rng, "car", "red")) is not None]
    assert len(angles) > 100
    blue, red = COLOURS["blue"], COLOURS["red"]
    assert min(abs((red + angle - blue + 180) % 360 - 180) for angle in angles) > 30
    assert any(_shift(rng, "dog", None) is not None for _ in range(20))


def test_hues_turn() -> None:
    red = np.full((2, 2, 3), (200, 20, 20), np.uint8)
    turned = shift_hue(red, 120)
    assert (turned[..., 1] > 150).all()
    assert (turned[..., 0] < 60).all()
    assert np.abs(shift_hue(turned, 240).astype(int) - red).max() <= 4


def test_phrases_come_with_their_parts() -> None:
    texts = composed_texts(np.random.default_rng(0), CORE, 50)
    assert len(texts) == 150
    for phrase, noun, colour in zip(texts[::3], texts[1::3], texts[2::3], strict=True):
        word = next(word for word in COLOURS if word in phrase.split())
        assert phrase.replace(f"{word} ", "", 1) == noun
        assert f"{word} thing" in colour
    assert not any(f"{colour} {noun}" in text for text in texts for colour, noun in HELD_OUT)
