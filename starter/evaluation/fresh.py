"""Scenes to measure on: drawn when they are asked for, from seeds that no training used."""

from typing import Final

import numpy as np

from starter.scenes.scene import Scene, draw_scene

OTHER_STYLE: Final = "twitter"
"""An emoji style that no training scene shows."""


def fresh_scene(seed: int, index: int, split: str, style: str = "noto") -> Scene:
    """Draw a scene of 256 to 384 px a side.

    Args:
        seed: Which world; below 1000, where no training draws.
        index: Which scene of it.
        split: One of vocabulary.SPLITS.
        style: One of sprites.STYLES.

    Returns:
        The scene with its ground truth; its size does not depend on split and style.
    """
    height, width = (int(side) for side in np.random.default_rng([seed, index, 1]).integers(256, 385, 2))
    return draw_scene(seed, index, split, height, width, style=style)
