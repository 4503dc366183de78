"""Scenes to measure on are of the right size, and alike in both styles."""

from starter.evaluation.fresh import OTHER_STYLE, fresh_scene
from starter.scenes.sprites import STYLES


def test_size_depends_on_seed_and_index_alone() -> None:
    assert OTHER_STYLE in STYLES
    shapes = []
    for index in range(4):
        scenes = [fresh_scene(5, index, "core"), fresh_scene(5, index, "core-heldout", OTHER_STYLE)]
        assert scenes[0].image.shape == scenes[1].image.shape
        assert all(256 <= side <= 384 for side in scenes[0].image.shape[:2])
        assert (scenes[0].image != scenes[1].image).any()
        shapes.append(scenes[0].image.shape)
    assert len(set(shapes)) > 1
