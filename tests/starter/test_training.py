"""Training of the starter's detector, segmenter and scorer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoTokenizer

from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, EXTENDED, HELD_OUT
from vouch_labels.starter.train import data
from vouch_labels.starter.train.architectures import build_tokenizer, scorer_architecture, segmenter_architecture
from vouch_labels.starter.train.data import SceneCache, draw_prompt, scene_cache
from vouch_labels.starter.train.run import update_card
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
from vouch_labels.starter.train.segmenter import new_segmenter, segmenter_image, segmenter_losses

TOKENIZER = Path(__file__).parents[2] / "starter" / "weights" / "tokenizer"


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    from vouch_labels.starter.train.run import WEIGHTS

    return AutoTokenizer.from_pretrained(str(WEIGHTS / "tokenizer"))


def prompts(tokenizer, nouns, colours, count=300):
    rng = np.random.default_rng(3)
    return [draw_prompt(rng, tokenizer, CORE, nouns, colours) for _ in range(count)]


def test_prompt_names_objects_by_their_tokens(tokenizer):
    seen_colour = False
    for prompt in prompts(tokenizer, ["car", "dog"], ["red", None]):
        ids = tokenizer(prompt.caption)["input_ids"]
        texts = [tokenizer.decode(ids[start:end]) for start, end in prompt.spans]
        assert texts == [text.strip() for text in prompt.caption.split(".")[:-1]]
        car, dog = prompt.targets
        if car >= 0:
            assert texts[car] in {"car", "automobile", "red car", "red automobile"}
            seen_colour |= texts[car].startswith("red")
        if dog >= 0:
            assert texts[dog] in {"dog", "puppy"}
    assert seen_colour


def test_prompt_asks_for_absent_things_and_leaves_present_ones_out(tokenizer):
    drawn = prompts(tokenizer, ["dog"], [None])
    assert any(prompt.targets == [-1] for prompt in drawn)
    assert sum(prompt.targets == [-1] for prompt in drawn) < len(drawn) / 2
    assert all(len(prompt.spans) > 1 for prompt in drawn)


def test_no_prompt_names_a_held_out_pair(tokenizer):
    names = {noun.name: (noun.name, *noun.synonyms) for noun in CORE}
    held_out = {f"{colour} {name}" for colour, noun in HELD_OUT if noun in names for name in names[noun]}
    tinted = [noun.name for noun in CORE if noun.tinted]
    for prompt in prompts(tokenizer, tinted, ["red"] * len(tinted)):
        assert not held_out & {text.strip() for text in prompt.caption.split(".")}


def test_card_keeps_the_words_around_its_tables(tmp_path):
    card = tmp_path / "detector.md"
    card.write_text("# Detector\n\n<!-- training -->\nold\n<!-- /training -->\n\nLimits.\n")
    update_card(card, "training", {"Steps": "3"})
    update_card(card, "figures", {"mAP50": "0.9"})
    update_card(card, "figures", {"mAP50": "0.8"})
    text = card.read_text()
    assert "old" not in text
    assert "| Steps | 3 |" in text
    assert "Limits." in text
    assert "| mAP50 | 0.8 |" in text
    assert "0.9" not in text


@pytest.fixture
def small_world(tmp_path, monkeypatch):
    from vouch_labels.starter.train import data

    monkeypatch.setattr(data, "_CHUNK", 4)
    return data.scene_cache(tmp_path, 4, 5, "core", 96)


@pytest.mark.slow
def test_a_few_steps_on_one_batch_lower_the_loss_and_leave_loadable_weights(tmp_path, small_world, tokenizer):
    import torch

    from vouch_labels.starter.train.architectures import detector_architecture
    from vouch_labels.starter.train.data import normalised_batch
    from vouch_labels.starter.train.detector import DetectionLoss, start_quiet
    from vouch_labels.starter.train.run import WEIGHTS, Run, RunOptions
    from vouch_labels.tasks.models.checkpoints import sha256_of
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino

    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    architecture = detector_architecture(len(tokenizer), 32, (1, 1, 1, 1))
    model = build_groundingdino(architecture, WEIGHTS / "tokenizer")
    start_quiet(model)
    options = RunOptions(10.0, 1e-3, tmp_path / "work", tmp_path / "out", warmup=1)
    run = Run("detector", model, options, architecture)
    loss = DetectionLoss(run.model)
    images = normalised_batch(small_world.images[:4], (96, 96))
    asked = [draw_prompt(rng, tokenizer, CORE, small_world.nouns[i], small_world.colours[i]) for i in range(4)]
    totals = []

    def losses():
        parts = loss(images, asked, small_world.boxes[:4])
        totals.append(float(sum(parts.values()).detach()))
        return parts

    run.loop(losses, lambda _: {"recall": 0.0}, measure_every=1000, most_steps=25)
    assert np.mean(totals[-3:]) < 0.7 * np.mean(totals[:3])
    pinned = json.loads((tmp_path / "out" / "checksums.json").read_text())
    assert pinned["detector.safetensors"] == sha256_of(tmp_path / "out" / "detector.safetensors")
    resumed = Run("detector", build_groundingdino(architecture, WEIGHTS / "tokenizer"), options, architecture)
    assert resumed.step == 25


def test_scores_move_by_a_constant_and_boxes_stay():
    import torch

    from vouch_labels.starter.train.architectures import detector_architecture
    from vouch_labels.starter.train.detector import shift_logits, start_quiet
    from vouch_labels.starter.train.run import WEIGHTS
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino

    torch.manual_seed(1)
    model = build_groundingdino(detector_architecture(4000, 32, (1, 1, 1, 1)), WEIGHTS / "tokenizer")
    start_quiet(model)
    images = torch.randn(2, 3, 96, 96)
    with torch.inference_mode():
        before = model(images, captions=["red car. dog."] * 2)
        shift_logits(model, -1.25)
        after = model(images, captions=["red car. dog."] * 2)
    # Proposals may come in another order; as a set they stay.
    first, second = (out["pred_logits"][..., :7].flatten(1).sort(1).values for out in (before, after))
    assert torch.allclose(first - 1.25, second, atol=1e-2)


def test_scenes_come_back_as_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_CHUNK", 3)
    kept = scene_cache(tmp_path, 3, 1001, "core", 64)
    assert kept.images.shape == (3, 64, 64, 3)
    for index in range(3):
        scene = draw_scene(1001, index, "core", 64, 64)
        assert (kept.images[index] == scene.image).all()
        assert kept.nouns[index] == [item.noun for item in scene.objects]
        assert kept.colours[index] == [item.colour for item in scene.objects]
        masks = np.unpackbits(kept.masks[index], axis=-1, count=64).astype(bool)
        for item, box, mask in zip(scene.objects, kept.boxes[index], masks, strict=True):
            assert np.allclose(box * 64, item.xyxy)
            assert (mask == item.mask).all()


def test_what_is_there_is_not_drawn_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data, "_CHUNK", 2)
    scene_cache(tmp_path, 2, 1002, "core", 64)
    written = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    more = scene_cache(tmp_path, 4, 1002, "core", 64)
    assert len(more.images) == 4
    assert all(path.stat().st_mtime_ns == when for path, when in written.items())


SHIPPED = Path(__file__).parents[2] / "starter" / "weights" / "tokenizer"


def test_every_word_of_the_world_is_one_piece_and_others_are_legal() -> None:
    tokenizer = AutoTokenizer.from_pretrained(str(SHIPPED))
    for word in [*COLOURS, *(name for noun in CORE + EXTENDED for name in (noun.name, *noun.synonyms))]:
        assert tokenizer.tokenize(word) == [word]
    assert tokenizer.unk_token not in tokenizer.tokenize("a Zeppelin, two xylophones and 42 quokkas.")


def test_building_writes_the_shipped_world_words(tmp_path: Path) -> None:
    build_tokenizer(tmp_path)
    built, shipped = ((folder / "vocab.txt").read_text().splitlines() for folder in (tmp_path, SHIPPED))
    # Behind these come common words, which differ between versions of Python.
    known = shipped.index("##ball") + 1
    assert built[:known] == shipped[:known]
    assert len(set(shipped)) == len(shipped)


# The segmenter's batches show what they say, and its loss falls.


def test_boxes_lie_around_masks_and_the_longer_side_fits(few_scenes: SceneCache) -> None:
    rng = np.random.default_rng(0)
    drawn = [segmenter_image(rng, few_scenes, index % 8, 96) for index in range(64)]
    images = [image for image in drawn if image is not None]
    assert len(images) > 40
    sizes = set()
    for image in images:
        _, height, width = image.pixels.shape
        sizes.add((height, width))
        assert max(height, width) == 96
        assert image.masks.shape == (len(image.boxes), height, width)
        assert ((image.masks == 0) | (image.masks == 1)).all()
        for box, mask in zip(image.boxes, image.masks, strict=True):
            x0, y0, x1, y1 = (round(float(value)) for value in box)
            assert 0 <= x0 < x1 <= width
            assert 0 <= y0 < y1 <= height
            # A jittered box may cut an edge, never the object.
            assert mask[y0:y1, x0:x1].sum() > 0.6 * mask.sum() > 0
    assert len(sizes) > 5


@pytest.mark.slow
def test_training_steps_lower_the_loss_of_the_segmenter(few_scenes: SceneCache) -> None:
    torch.manual_seed(0)
    model = new_segmenter(segmenter_architecture(64, 32, 2)).train()
    rng = np.random.default_rng(1)
    images = [image for index in range(8) if (image := segmenter_image(rng, few_scenes, index, 64)) is not None]
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    values = []
    for _ in range(40):
        loss = torch.stack(list(segmenter_losses(model, images).values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        values.append(loss.item())
    assert np.mean(values[-5:]) < 0.75 * np.mean(values[:5])


# The scorer's batches and texts are what they say, and its loss falls.


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
def test_training_steps_lower_the_loss_of_the_scorer(few_scenes: SceneCache) -> None:
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
