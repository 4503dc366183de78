"""Whole campaigns of reviews by the functions of the commands, a simulated reviewer answering, held against truth."""

import shutil
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.campaigns import write_campaign
from benchmarks.routing.starter_runs import MODELS, StarterRun
from schemas.campaign_file import load_campaign
from tasks.certify.plan_reviews import Wish
from tasks.evaluate.run_truth import NOT_AN_OBJECT
from tasks.simulate.simulate import Round, minutes_of, review_round, reviews_to_fit, seconds_of


def play_commands(
    run: StarterRun, labels: int, precision: float, confidence: float, reviews: int, campaigns: int
) -> dict[str, float]:
    """Play so many campaigns, each with a seed and a copy of the workspace of its own.

    Args:
        run: The labelled run.
        labels: Its labels.
        precision: T.
        confidence: 1 - delta.
        reviews: Labels that people look at, those for fitting included.
        campaigns: How many.

    Returns:
        Figures, named as those of draws.
    """
    first = reviews_to_fit(labels, reviews)
    wishes = Wish(minutes_of(first)), Wish(minutes_of(reviews - first))
    played = []
    for seed in range(campaigns):
        with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
            shutil.copytree(run.workspace, Path(name) / "workspace")
            routing = {"precision": precision, "confidence": confidence, "seed": seed}
            names = [entry.name for entry in run.campaign.classes]
            path = write_campaign(Path(name), run.truth.parent, classes=names, models=MODELS, routing=routing)
            played.append(review_round(load_campaign(path), run.truth, wishes, export=False))
    return _figures(played)


def _figures(played: list[Round]) -> dict[str, float]:
    automation = [one.applied.accepted / one.applied.labels if one.applied is not None else 0.0 for one in played]
    found = {
        "broken": float(np.mean([one.contract is not None and one.contract.held is False for one in played])),
        "automation": float(np.mean(automation)),
        "automation_tenth": float(np.quantile(automation, 0.1, method="inverted_cdf")),
        "automation_worst": min(automation),
        "seconds_per_box": float(np.mean([_seconds_per_box(one) for one in played])),
    }
    sides = [one.contract.certified_side for one in played if one.contract is not None]
    for name in ("accepted_precision", "delivered_precision"):
        known = [value for side in sides if side.accepted and (value := getattr(side, name)) is not None]
        if known:
            found |= {f"{name}_median": float(np.median(known)), f"{name}_worst": min(known)}
    return found


def _seconds_per_box(one: Round) -> float:
    accepted = one.labels.accepted if one.applied is not None else np.zeros(one.labels.count, np.bool_)
    seen = ~accepted
    seen[np.concatenate([part.rows for part in one.reviewed])] = True
    verdict, counted = one.truth.verdict, one.truth.counted
    boxes = accepted | (counted & (verdict != NOT_AN_OBJECT))
    return float(seconds_of(verdict[seen & counted]).sum()) / max(1, int(boxes.sum()))
