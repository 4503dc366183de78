"""Certified policies to route by."""

from collections.abc import Callable
from typing import Any

import pytest

from schemas.policy import Certification, Group, Policy
from tasks.certify.calibrator import Calibrator


@pytest.fixture
def calibrator() -> Calibrator:
    """Looks at one signal: p = sigmoid(4 (sam_iou - 0.5)), and is blind where it is missing."""
    return Calibrator(("sam_iou",), (0.5,), (0.25,), (1.0,), (None,), 0.0, {})


@pytest.fixture
def certified(calibrator: Calibrator) -> Callable[..., Policy]:
    """Make a certified policy from thresholds of classes; keyword arguments replace parts of its certification."""

    def make(thresholds: dict[str, float | None], *, version: str = "certified-1-test", **changes: Any) -> Policy:
        values = {
            "precision": 0.95, "confidence": 0.9, "gate": "delivered", "look": 1, "inputs": {},
            "calibrator": calibrator.to_dict(), "fit_labels": 200, "brier": 0.1, "brier_of_rate": 0.2,
            "fit_share": 0.0, "seed": 0, "plans": (1, 2), "verdicts": "0", "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        groups = tuple(Group(name=name, classes=(name,), p_correct=least) for name, least in thresholds.items())
        return Policy(
            version=version, basis="certified", groups=groups, certification=Certification(**(values | changes))
        )

    return make
