"""Runs made up as arrays, with the right answers."""

import hashlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from vouch_labels.schemas.evaluation import TruthFile
from vouch_labels.tasks.evaluate.run_truth import BAD_BOX, CORRECT, NOT_AN_OBJECT, WRONG_CLASS, RunTruth
from vouch_labels.tasks.labels.arrays import SIGNALS, RunLabels


def made_up(images: int = 300, labels_an_image: int = 5, seed: int = 0, base: float = 1.5):
    """Labels whose detector score tells right from wrong, though not well; one object is missed in each tenth image."""
    rng = np.random.default_rng(seed)
    count = images * labels_an_image
    signals = np.zeros((count, len(SIGNALS)), np.float32)
    strength = rng.normal(size=count)
    signals[:, 0] = expit(strength)
    signals[:, 5] = rng.random(count)
    correct = rng.random(count) < expit(base + 2 * strength)
    verdict = np.where(correct, CORRECT, rng.choice([WRONG_CLASS, BAD_BOX, NOT_AN_OBJECT], count)).astype(np.int8)
    shown = verdict != NOT_AN_OBJECT
    class_index = rng.integers(0, 2, count)
    boxes = np.tile(np.array([1, 2, 11, 12], np.float32), (count, 1))
    labels = RunLabels(
        label_ids=pa.array([f"label-{number}" for number in range(count)]),
        class_index=class_index,
        class_names=("cat", "dog"),
        image_index=np.repeat(np.arange(images), labels_an_image),
        boxes=boxes,
        signals=signals,
        p_correct=np.full(count, np.nan),
        accepted=np.zeros(count, bool),
        keys=pa.array([f"{number:05d}.jpg" for number in range(images)]),
        contents=pa.array([hashlib.sha256(str(number).encode()).hexdigest() for number in range(images)]),
    )
    missed = np.arange(0, images, 10)
    truth = RunTruth(
        verdict=verdict,
        class_index=np.where(shown, np.where(verdict == WRONG_CLASS, 1 - class_index, class_index), -1),
        boxes=np.where(shown[:, None], boxes + 1, np.nan).astype(np.float32),
        known=np.ones(images, bool),
        missed_image=missed,
        missed_class=missed // 10 % 2,
        missed_boxes=np.tile(np.array([3, 3, 9, 9], np.float32), (len(missed), 1)),
        left_out={},
        dropped=np.zeros(labels.count, bool),
        file=TruthFile(),
    )
    return labels, truth


@pytest.fixture
def make_run() -> Callable[..., tuple[RunLabels, RunTruth]]:
    return made_up
