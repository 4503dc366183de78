"""The figures at the head of the page, each with what it rests on."""

from typing import NamedTuple

from schemas.report import Interval, Report
from tasks.report.formats import least, most, pct


class Tile(NamedTuple):
    """A figure at the head of the page."""

    figure: str
    """Empty where there is none."""
    says: str
    """What it rests on, or why there is none."""
    of_accepted: bool = False
    """Of accepted labels alone, where the figure is a precision."""


def precision_tile(report: Report) -> Tile:
    """The promise where there is one, else the best that is known."""
    policy, truth = report.policy, report.truth
    found = f"; ground truth says {pct(truth.accepted.precision)}" if truth and truth.accepted.labels else ""
    if policy.standing == "certified":
        groups = sum(group.p_correct is not None for group in policy.groups)
        number = f"{groups:,} group{'' if groups == 1 else 's'}"
        return Tile(
            f"≥ {pct(policy.precision)}",
            f"certified for {number} of classes with {pct(policy.confidence)} confidence{found}",
            of_accepted=policy.gate == "accepted",
        )
    audited = next((audit.precision for audit in report.audits if audit.precision), None)
    if policy.standing != "simulated" and audited is not None and audited.value is not None:
        return Tile(pct(audited.value), f"audited: {_between(audited)}; not certified{found}", of_accepted=True)
    if truth and truth.accepted.precision is not None:
        words = f"against ground truth on {truth.images:,} images; no certificate"
        return Tile(pct(truth.accepted.precision), words, of_accepted=True)
    why = {
        "simulated": "the verdicts came from a simulated reviewer",
        "expired": "the policy has expired; certify again",
        "nothing_accepted": "nothing is accepted, so there is nothing to certify",
        "empty": "there are no labels yet",
    }
    return Tile("", why.get(policy.standing, "no reviewed sample stands behind the thresholds"))


def recall_tile(report: Report) -> Tile:
    """Recall from searched images, else against ground truth."""
    found, truth = report.recall.delivered, report.truth
    if found is not None and found.value is not None:
        who = "a simulated reviewer" if report.recall.simulated else "people"
        words = f"of objects have a label, accepted or waiting: {_between(found)}, from images that {who} searched"
        return Tile(pct(found.value), words)
    if truth and truth.everything.recall is not None:
        words = "of the objects in the ground truth have a label, accepted or waiting"
        return Tile(pct(truth.everything.recall), words)
    return Tile("", "it takes images that people have searched for every object")


def _between(found: Interval) -> str:
    return f"{least(found.low)} to {most(found.high)} with {pct(found.confidence)} confidence"
