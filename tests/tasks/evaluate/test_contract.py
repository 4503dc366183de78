"""Did the contract hold?"""

import hashlib

import numpy as np
import pyarrow as pa
import pytest

from schemas.policy import Certification, Group, GroupCertificate, Policy
from tasks.evaluate.contract import contract_truth, is_kept, true_precision
from tasks.labels.arrays import SIGNALS, RunLabels
from tasks.simulate.answers import CORRECT, NOT_AN_OBJECT, UNKNOWN
from tasks.simulate.truth import RunTruth
from tasks.statistics.sampling import on_fit_side

IMAGES = 40
SHARE, SEED = 0.5, 3
CONTENTS = [hashlib.sha256(str(image).encode()).hexdigest() for image in range(IMAGES)]
FITTING = on_fit_side(CONTENTS, SHARE, SEED)


def world(accepted, verdict, classes) -> tuple[RunLabels, RunTruth]:
    """One label an image."""
    count = len(accepted)
    labels = RunLabels(
        label_ids=pa.array([f"l{number}" for number in range(count)]),
        class_index=np.asarray(classes, np.int64),
        class_names=("cat", "dog"),
        image_index=np.arange(count),
        boxes=np.zeros((count, 4), np.float32),
        signals=np.zeros((count, len(SIGNALS)), np.float32),
        p_correct=np.full(count, 0.9),
        accepted=np.asarray(accepted, bool),
        keys=pa.array([f"{number}.jpg" for number in range(count)]),
        contents=pa.array(CONTENTS),
    )
    truth = RunTruth(
        verdict=np.asarray(verdict, np.int8),
        class_index=np.zeros(count, np.int64),
        boxes=np.zeros((count, 4), np.float32),
        known=np.ones(count, bool),
        missed_image=np.zeros(0, np.int64),
        missed_class=np.zeros(0, np.int64),
        missed_boxes=np.zeros((0, 4), np.float32),
        left_out={"on a crowd region": int((np.asarray(verdict) == UNKNOWN).sum())},
    )
    return labels, truth


def certified(gate="delivered", precision=0.9) -> Policy:
    """One group each; the cats' is certified at 0.5, the dogs' is not."""
    certificate = GroupCertificate(
        labels=20, accepted=10, reviewed=10, errors=0, limit=0.1, bound=0.08, p_value=0.05, delta=0.1, tested=(0.5,)
    )
    certification = Certification(
        precision=precision, confidence=0.9, gate=gate, look=1, inputs={}, calibrator={}, fit_labels=50, brier=0.1,
        brier_of_rate=0.2, fit_share=SHARE, seed=SEED, plans=(1, 2), verdicts="0", created="2026-01-01T00:00:00+00:00",
        simulated=True,
    )  # fmt: skip
    groups = (
        Group(name="cats", classes=("cat",), p_correct=0.5, certificate=certificate),
        Group(name="dogs", classes=("dog",)),
    )
    return Policy(version="certified-1-test", basis="certified", groups=groups, certification=certification)


def test_the_promise_is_about_the_certified_side_alone():
    """Wrong labels that were accepted in images kept for fitting break nothing, but show in the whole run."""
    verdict = np.where(FITTING, NOT_AN_OBJECT, CORRECT)
    found = contract_truth(*world(np.ones(IMAGES), verdict, np.zeros(IMAGES)), certified())
    assert found.held is True
    assert found.certified_side.accepted_precision == found.certified_side.delivered_precision == 1
    assert found.certified_side.labels == (~FITTING).sum()
    assert found.whole_run.accepted_precision == pytest.approx((~FITTING).mean())
    assert found.simulated


@pytest.mark.parametrize(("gate", "held"), [("accepted", False), ("delivered", True)])
def test_both_precisions(gate, held):
    """Of the cats on the certified side ten are accepted, two of them wrong; the others are right, one on a crowd."""
    side = np.flatnonzero(~FITTING)
    assert len(side) >= 15
    accepted, verdict = np.zeros(IMAGES, bool), np.full(IMAGES, CORRECT)
    accepted[side[:10]] = True
    verdict[side[:2]], verdict[side[-1]] = NOT_AN_OBJECT, UNKNOWN
    found = contract_truth(*world(accepted, verdict, np.zeros(IMAGES)), certified(gate, precision=0.85))
    cats, dogs = found.groups
    labels = len(side) - 1
    assert (cats.labels, cats.accepted, cats.automation) == (labels, 10, 10 / labels)
    assert (cats.accepted_precision, cats.delivered_precision) == (0.8, (labels - 2) / labels)
    assert (cats.kept, found.held, cats.certified) == (held, held, 0.92)
    assert (dogs.labels, dogs.kept, dogs.accepted_precision, dogs.certified) == (0, None, None, None)
    assert found.without_truth == {"on a crowd region": 1}


def test_nothing_accepted_promises_nothing():
    found = contract_truth(*world(np.zeros(IMAGES), np.full(IMAGES, NOT_AN_OBJECT), np.ones(IMAGES)), certified())
    assert found.held is None
    assert found.whole_run.delivered_precision is None


def test_a_policy_of_the_users_thresholds_promises_nothing():
    policy = Policy(version="user-1", groups=(Group(name="all", classes=("cat", "dog")),))
    assert contract_truth(*world(np.ones(IMAGES), np.zeros(IMAGES), np.zeros(IMAGES)), policy) is None


def test_nineteen_of_twenty_are_95_percent():
    correct = np.arange(20) > 0
    found = true_precision(np.ones(20, bool), correct, np.ones(20, bool))
    assert is_kept(found, "accepted", 0.95) is True
    assert is_kept(found, "accepted", 0.951) is False
