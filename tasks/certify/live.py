"""Says while people review what their answers certify so far, and about how many more would certify more.

From the plan of a sample that is tested after any answer, and the answers alone: no label of the run is read.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from pydantic import Field

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.reviews import GroupPlan, ReviewPlan
from vouch_labels.schemas.text import pct
from vouch_labels.tasks.arrow import numbers
from vouch_labels.tasks.certify.data import Guarantee, bets_of
from vouch_labels.tasks.certify.judge import any_time_part
from vouch_labels.tasks.certify.rounds import last_round
from vouch_labels.tasks.reviews.plans import Plans
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.threshold_tests import Sample, certified_step
from vouch_labels.tasks.store.store import Store

GAIN: Final = 0.05
"""Share of the labels that more answers should add to be worth saying."""
_FARTHEST: Final = 5
"""Times as many answers as there are, beyond which nothing is foretold."""


@dataclass(frozen=True)
class SoFar:
    """What a sample certifies by its first answers in the order drawn."""

    precision: float
    """T."""
    answered: int
    share: float
    """Of the labels that the sample was drawn from: accepted at T."""
    more: int | None = None
    """About how many more answers would raise the share; None: no number near would."""
    then: float | None = None
    """To what."""

    def __str__(self) -> str:
        """In one line."""
        now = f"certified at {self.precision:.4g} for {pct(self.share)} of the labels"
        if not self.share:
            now = f"nothing is certified at {self.precision:.4g} yet"
        if self.more is None or self.then is None:
            return now
        return f"{now}; about {self.more:,} more answers for {pct(self.then)}"


def certified_so_far(
    groups: tuple[GroupPlan, ...], guarantee: Guarantee, delta: float, scores: Floats, wrong: Bools, classes: list[str]
) -> SoFar:
    """Test the beginning of a sample, and foretell how many more answers like these certify more.

    scores, wrong and classes are those of the first n labels in the order drawn, (n,): p(correct), the verdicts (a
    disputed label counts as wrong), names. delta is what the test may spend on all groups.
    """
    labels = max(1, sum(group.labels for group in groups))
    accepted, steps, names = 0, [], np.array(classes, np.str_)
    for group in groups:
        inside = np.isin(names, group.classes)
        evidence = bets_of(Sample(scores[inside], wrong[inside]), group, guarantee, delta / len(groups))
        step = certified_step(evidence)
        accepted += 0 if step is None else group.accepted[step]
        if not inside.any() or evidence.bets is None:
            continue
        # Each threshold is passed after those before it.
        needed = np.maximum.accumulate(evidence.bets.answers_to(evidence.delta)) * len(names) / inside.sum()
        gained = np.diff(np.array(group.accepted, np.int64), prepend=0)
        steps += [(more, gain) for more, gain in zip(needed.tolist(), gained.tolist(), strict=True) if more > 0]
    share, total = accepted / labels, accepted
    for more, gain in sorted(steps):
        total += gain
        if more > _FARTHEST * len(names):
            break
        if total / labels >= share + GAIN:
            return SoFar(guarantee.precision, len(names), share, max(10, int(round(more, -1))), total / labels)
    return SoFar(guarantee.precision, len(names), share)


class DrawnSample(Strict):
    """What is needed of a sample to test it after any answer; its labels are in the order drawn."""

    plan: ReviewPlan = Field(description="The plan that declared it, with what is to be certified now.")
    labels: tuple[str, ...] = Field(description="Ids of the labels.")
    scores: tuple[float | None, ...] = Field(description="p(correct) of each, by which it was drawn.")
    classes: tuple[str, ...] = Field(description="Class of each.")
    known: tuple[int, ...] = Field(description="What was said of each by then, as `Answers.wrong_of` has it.")

    def so_far(self, codes: Ints) -> SoFar:
        """What the sample certifies; codes: (n,) what was said of each label since, as `Answers.wrong_of` has it."""
        plan, known = self.plan, np.array(self.known, np.int64)
        now = np.where(codes == NO_ANSWER, known, codes)
        missing = now == NO_ANSWER
        count = int(np.argmax(missing)) if missing.any() else len(now)
        scores = np.array(self.scores[:count], np.float64)
        guarantee = Guarantee(plan.precision, plan.confidence, plan.gate, plan.missed)
        wrong, classes = now[:count] != CORRECT, list(self.classes[:count])
        return certified_so_far(plan.groups, guarantee, plan.any_time_delta, scores, wrong, classes)


def drawn_sample(workspace: Store, plans: Plans, answers: Answers, guarantee: Guarantee) -> DrawnSample | None:
    """The last sample of a run, if it is tested after any answer, as the test of what is to be certified now."""
    found = last_round(plans)
    if found is None or not found.any_time or found.plan.gate != guarantee.gate or guarantee.leaves_out:
        return None
    tasks = found.in_order
    scores = numbers(tasks["p_correct"], np.float64)
    asked = {
        "precision": guarantee.precision,
        "confidence": guarantee.confidence,
        "missed": guarantee.missed,
        "any_time_delta": any_time_part(workspace, answers, found, guarantee),
    }
    return DrawnSample(
        plan=found.plan.model_copy(update=asked),
        labels=tuple(tasks["label_id"].to_pylist()),
        scores=tuple(None if np.isnan(one) else one for one in scores.tolist()),
        classes=tuple(tasks["class_name"].to_pylist()),
        known=tuple(answers.wrong_of(tasks["label_id"]).tolist()),
    )
