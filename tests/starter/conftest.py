"""What tests of the starter models share."""

import numpy as np
import pytest

from vouch_labels.starter.scenes.scene import draw_scene
from vouch_labels.starter.train.data import SceneCache


@pytest.fixture(scope="session")
def few_scenes() -> SceneCache:
    """Eight scenes of 128 px."""
    scenes = [draw_scene(1000, index, "core", 128, 128, most=4) for index in range(8)]
    return SceneCache(
        images=np.stack([scene.image for scene in scenes]),
        boxes=[np.asarray([item.xyxy for item in scene.objects], np.float32).reshape(-1, 4) / 128 for scene in scenes],
        nouns=[[item.noun for item in scene.objects] for scene in scenes],
        colours=[[item.colour for item in scene.objects] for scene in scenes],
        masks=[
            np.stack([np.packbits(item.mask, axis=-1) for item in scene.objects])
            if scene.objects
            else np.zeros((0, 128, 16), np.uint8)
            for scene in scenes
        ],
    )
