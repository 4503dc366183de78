"""Measures how fast the three models work through images."""

import time

import numpy as np

from schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from starter.scenes.scene import draw_scene
from starter.scenes.vocabulary import CORE
from tasks.models.registry import Phrase, load_detector, load_scorer, load_segmenter
from tasks.models.runtime import Runtime
from tasks.score import crop

SEED = 16
_BATCH = 8


def measure_speed(count: int) -> dict[str, float]:
    """Detect, segment and score drawn scenes of 384 px with the bundled models, without reading or writing files.

    Args:
        count: Scenes; the first eight only warm up.

    Returns:
        images_per_second.
    """
    runtime, config = Runtime("cpu", "fp32"), DetectorConfig()
    detector = load_detector(config, runtime)
    segmenter = load_segmenter(SegmenterConfig(), runtime)
    scorer = load_scorer(ScorerConfig(), runtime)
    phrases = [Phrase(noun.name, index) for index, noun in enumerate(CORE)]
    images = [draw_scene(SEED, index, "core", 384, 384).image for index in range(count + _BATCH)]
    started = 0.0
    for first in range(0, len(images), _BATCH):
        if first == _BATCH:
            started = time.perf_counter()
        batch = images[first : first + _BATCH]
        boxes = [np.asarray(found.boxes) for found in detector.detect(batch, phrases, config.min_score)]
        segmenter.segment(batch, boxes)
        scorer.embed_crops(
            [
                crop(image, box, context)
                for image, found in zip(batch, boxes, strict=True)
                for box in found
                for context in (1.0, 1.5)
            ]
        )
    return {"images_per_second": count / (time.perf_counter() - started)}
