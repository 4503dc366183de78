"""A made-up run whose truth is known, without a workspace."""

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from schemas.reviews import TASKS, VERDICTS, ReviewPlan
from tasks.contract.run_labels import SIGNALS, RunLabels
from tasks.reviews.resolve import Answers, resolve

TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    labels: RunLabels
    wrong: np.ndarray


def _make_world(images=600, classes=2, seed=0, informative=True, share_wrong=0.25):
    """Labels in images of which some are hard; three signals tell right from wrong, the others are missing or noise."""
    rng = np.random.default_rng([7, seed])
    image = np.repeat(np.arange(images), 1 + rng.poisson(3, images))
    count = len(image)
    difficulty = rng.normal(0, 0.7, images)[image]
    wrong = rng.random(count) < expit(np.log(share_wrong / (1 - share_wrong)) + difficulty)
    names = tuple(f"class {number}" for number in range(classes))
    class_index = np.minimum(rng.geometric(0.6, count) - 1, classes - 1)
    signals = rng.standard_normal((count, len(SIGNALS))).astype(np.float32)
    if informative:
        for column in (SIGNALS.index("detector_score"), SIGNALS.index("clip_probability"), SIGNALS.index("sam_iou")):
            signals[wrong, column] -= 1.5
    corner = rng.uniform(0, 500, (count, 2))
    labels = RunLabels(
        label_ids=pa.array([hashlib.sha256(f"{seed} {row}".encode()).hexdigest()[:32] for row in range(count)]),
        class_index=class_index,
        class_names=names,
        image_index=image,
        boxes=np.concatenate([corner, corner + rng.uniform(20, 80, (count, 2))], axis=1).astype(np.float32),
        signals=signals,
        p_correct=np.full(count, np.nan),
        accepted=np.zeros(count, np.bool_),
        keys=pa.array([f"{number:05d}.jpg" for number in range(images)]),
        contents=pa.array([hashlib.sha256(f"{seed} image {number}".encode()).hexdigest() for number in range(images)]),
    )
    return World(labels, wrong)


def _make_verdicts(label_ids, verdicts, reviewer="ann", simulated=False, minutes=0):
    rows = {name: [None] * len(label_ids) for name in VERDICTS.names}
    rows |= {
        "label_id": list(label_ids),
        "verdict": list(verdicts),
        "reviewer": [reviewer] * len(label_ids),
        "seconds": [1.5] * len(label_ids),
        "reviewed_at": [TIME + timedelta(minutes=minutes)] * len(label_ids),
        "simulated": [simulated] * len(label_ids),
    }
    return pa.table(rows, VERDICTS)


def _answer(label_ids, wrong, **how) -> Answers:
    return resolve(_make_verdicts(label_ids, ["bad_box" if one else "correct" for one in wrong], **how))


def _make_plan(tasks, number=1, **changes):
    """A plan with these rows of TASKS; columns not given are filled in."""
    count = len(tasks["purpose"])
    rows = {name: [None] * count for name in TASKS.names}
    rows |= {"place": list(range(count)), "key": ["a.jpg"] * count, "seconds": [1.6] * count} | tasks
    fields = {
        "number": number,
        "run": "main",
        "created": "2026-01-01T00:00:00+00:00",
        "inputs": {"prompts": "a"},
        "precision": 0.95,
        "confidence": 0.9,
        "gate": "delivered",
        "seed": 0,
        "fit_share": 0.3,
        "counts": {},
        "seconds": 0,
        "tasks_sha256": "",
    }
    return ReviewPlan.model_validate(fields | changes), pa.table(rows, TASKS)


@pytest.fixture
def make_world():
    return _make_world


@pytest.fixture
def make_verdicts():
    return _make_verdicts


@pytest.fixture
def answer():
    return _answer


@pytest.fixture
def make_plan():
    return _make_plan
