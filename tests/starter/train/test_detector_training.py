"""Training the detector: what it is trained on comes back as drawn, prompts name what they should, few steps learn.

The tokenizer is rebuilt as it is shipped, knows the words of the world whole, and takes any text.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, EXTENDED, HELD_OUT
from vouch_labels.starter.train import data
from vouch_labels.starter.train.architectures import build_tokenizer
from vouch_labels.starter.train.data import draw_prompt, scene_cache
from vouch_labels.starter.train.run import update_card


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


SHIPPED = Path(__file__).parents[3] / "starter" / "weights" / "tokenizer"


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
