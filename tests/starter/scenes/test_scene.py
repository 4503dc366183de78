"""Scenes are the same for the same seed, and their truth is exact."""

import numpy as np
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.scenes.vocabulary import COLOURS, CORE, DISTRACTORS, EXTENDED, HELD_OUT, SPLITS


def test_same_arguments_draw_same_pixels_and_truth() -> None:
    first, second = (draw_scene(3, 5, "core", 160, 200) for _ in range(2))
    assert (first.image == second.image).all()
    assert first.image.shape == (160, 200, 3)
    assert [item.xyxy for item in first.objects] == [item.xyxy for item in second.objects]
    assert any((draw_scene(3, index, "core", 160, 200).image != first.image).any() for index in (6, 7))


def test_boxes_bound_masks_tightly_and_masks_do_not_overlap() -> None:
    count = 0
    for index in range(30):
        scene = draw_scene(21, index, "full", 144, 192)
        total = np.zeros((144, 192), int)
        for item in scene.objects:
            x0, y0, x1, y1 = (int(value) for value in item.xyxy)
            assert item.mask[y0:y1, x0:x1].sum() == item.mask.sum() > 0
            assert item.mask[y0].any()
            assert item.mask[y1 - 1].any()
            assert item.mask[:, x0].any()
            assert item.mask[:, x1 - 1].any()
            assert 0 <= item.occlusion <= 0.5
            total += item.mask
            count += 1
        assert total.max(initial=0) <= 1
    assert count > 60


def test_mask_is_where_the_object_was_drawn() -> None:
    """Pixels inside the masks of red hearts are redder than those outside of every mask."""
    inside, outside = [], []
    for index in range(120):
        scene = draw_scene(4, index, "core", 128, 128)
        empty = ~np.any([item.mask for item in scene.objects], axis=0) if scene.objects else np.ones((128, 128), bool)
        for item in scene.objects:
            if item.phrase == "red heart":
                red = scene.image[..., 0].astype(int) - scene.image[..., 2]
                inside.append(red[item.mask].mean())
                outside.append(red[empty].mean())
    assert len(inside) >= 3
    assert min(inside) > 80 > np.mean(outside) + 40


def test_training_splits_never_show_held_out_pairs_and_held_out_splits_do() -> None:
    def pairs(split: str) -> set[tuple[str | None, str]]:
        scenes = [draw_scene(9, index, split, 96, 96) for index in range(150)]
        return {(item.colour, item.noun) for scene in scenes for item in scene.objects}

    for split in ("core", "full"):
        assert not pairs(split) & HELD_OUT
        assert len(pairs(f"{split}-heldout") & HELD_OUT) >= 5


def test_some_scenes_are_empty_and_none_has_more_objects_than_asked() -> None:
    counts = [len(draw_scene(2, index, "core", 96, 96, most=4).objects) for index in range(120)]
    assert 0 < counts.count(0) < 30
    assert max(counts) <= 4


def test_vocabulary_is_large_enough_and_unambiguous() -> None:
    nouns = CORE + EXTENDED
    assert len(CORE) >= 24
    assert len(nouns) >= 60
    names = [name for noun in nouns for name in (noun.name, *noun.synonyms)]
    assert len(names) == len(set(names))
    glyphs = [noun.glyph for noun in nouns] + list(DISTRACTORS)
    assert len(glyphs) == len(set(glyphs))
    tinted = {noun.name for noun in nouns if noun.tinted}
    assert all(colour in COLOURS and noun in tinted for colour, noun in HELD_OUT)
    for name in tinted:
        # A colour that is held out for every noun could not be learned.
        assert any((colour, name) not in HELD_OUT for colour in COLOURS)


def test_another_style_shows_the_same_things_on_the_same_ground() -> None:
    first, second = (draw_scene(3, 5, "core", 160, 200, style=style) for style in ("noto", "twitter"))
    assert first.objects
    assert (first.objects[0].noun, first.objects[0].colour) == (second.objects[0].noun, second.objects[0].colour)
    assert (first.image != second.image).any()
    again = draw_scene(3, 5, "core", 160, 200, style="twitter")
    assert (second.image == again.image).all()


def test_unknown_style_is_refused() -> None:
    with pytest.raises(UserError, match="unknown style 'oil'"):
        draw_scene(0, 0, "core", style="oil")


def test_unknown_split_is_refused() -> None:
    with pytest.raises(UserError, match=r"unknown split 'everything': choose one of core"):
        draw_scene(0, 0, "everything")
    assert set(SPLITS) == {"core", "core-heldout", "full", "full-heldout"}
