"""The cache gives back what was drawn, and draws only what is missing.

The tokenizer is rebuilt as it is shipped, knows the world's words whole, and takes any text.
"""

from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer

from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, EXTENDED
from vouch_labels.starter.train import data
from vouch_labels.starter.train.architectures import build_tokenizer
from vouch_labels.starter.train.data import scene_cache


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
