"""What the speed-ups and bf16 do to the average precision of the bundled detector, on freshly drawn scenes."""

import pytest

from schemas.campaign.models import DetectorConfig, ModelsConfig
from starter.evaluation.detector import SEEN_SEED, average_precision_of_nouns
from starter.evaluation.fresh import fresh_scene
from starter.scenes.vocabulary import SPLITS
from tasks.models.registry import load_detector
from tasks.models.runtime import choose_runtime

SCENES = 150
NOISE = 0.004
"""Of so few scenes: with 700 the difference was 0.0013, with 150 of them twice that."""


def average_precision(engine, precision, scenes, nouns):
    config = DetectorConfig()
    runtime = choose_runtime(ModelsConfig(device="cpu", engine=engine, precision=precision))
    return average_precision_of_nouns(load_detector(config, runtime), config, scenes, nouns)["map"]


@pytest.mark.slow
def test_average_precision_stays():
    nouns = [noun.name for noun in SPLITS["core"][0]]
    scenes = [fresh_scene(SEEN_SEED, index, "core") for index in range(SCENES)]
    reference = average_precision("reference", "fp32", scenes, nouns)
    assert reference > 0.5
    assert average_precision("fast", "fp32", scenes, nouns) == pytest.approx(reference, abs=5e-4)
    assert average_precision("fast", "bf16", scenes, nouns) == pytest.approx(reference, abs=NOISE)
