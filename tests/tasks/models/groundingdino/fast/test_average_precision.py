"""What the speed-ups and bf16 do to the average precision of the bundled detector, on freshly drawn scenes."""

import pytest

from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig
from vouch_labels.starter.evaluate import DETECTOR_SEEN_SEED, average_precision_of_nouns, fresh_scene
from vouch_labels.starter.scenes.vocabulary import SPLITS
from vouch_labels.tasks.models.registry import load_detector
from vouch_labels.tasks.models.runtime import choose_runtime

FEW, MANY = 100, 700
"""Scenes: on few of them bf16 differs by chance, up to 0.003 either way."""


def average_precision(engine, precision, scenes, nouns):
    config = DetectorConfig()
    runtime = choose_runtime(ModelsConfig(device="cpu", engine=engine, precision=precision))
    return average_precision_of_nouns(load_detector(config, runtime), config, scenes, nouns)["map"]


@pytest.mark.slow
def test_average_precision_stays():
    nouns = [noun.name for noun in SPLITS["core"][0]]
    scenes = [fresh_scene(DETECTOR_SEEN_SEED, index, "core") for index in range(MANY)]
    reference = average_precision("reference", "fp32", scenes[:FEW], nouns)
    assert reference > 0.5
    # Two boxes of nearly the same score may change places, and an overlap may lie at a threshold; either moves the mean
    # over 28 classes of some 15 objects and 10 thresholds by about 1 / (28 * 15 * 10). Rounding does that to a few.
    assert average_precision("fast", "fp32", scenes[:FEW], nouns) == pytest.approx(reference, abs=2e-3)
    exact = average_precision("fast", "fp32", scenes, nouns)
    assert average_precision("fast", "bf16", scenes, nouns) == pytest.approx(exact, abs=2e-3)
