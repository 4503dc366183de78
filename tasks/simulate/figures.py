"""Adds up what many draws came to, and answers how many reviews a plan takes."""

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from schemas.evaluation import PlanningAnswer, SimulatedRow, Spread
from tasks.statistics.bounds import lower_bound, upper_bound

_INTERVAL: Final = 0.05


class Draw(NamedTuple):
    """What one draw came to."""

    reviewed: int
    """Labels that were reviewed."""
    review_seconds: float
    automation: float
    """Share of all labels accepted."""
    accepted_precision: float | None
    """A, true, on the side that the promise is about; None without an accepted label."""
    delivered_precision: float | None
    broken: bool
    """Something was accepted, and the promise of a group is not kept."""
    seconds_per_box: float | None
    oracle: float
    naive: float
    naive_broken: bool


def row(precision: float, reviews: int, draws: Sequence[Draw]) -> SimulatedRow:
    """Add up the draws of one precision and one number of reviews, at least one draw."""
    accepting = [draw for draw in draws if draw.automation > 0]
    broken, count = sum(draw.broken for draw in draws), len(draws)
    seconds = [draw.seconds_per_box for draw in draws if draw.seconds_per_box is not None]
    return SimulatedRow(
        precision=precision,
        reviews=reviews,
        reviewed=_median([draw.reviewed for draw in draws]),
        certified=len(accepting) / count,
        automation=_spread([draw.automation for draw in draws]),
        accepted_precision=_spread_of_known([draw.accepted_precision for draw in accepting]),
        delivered_precision=_spread_of_known([draw.delivered_precision for draw in accepting]),
        broken=broken / count,
        broken_interval=(
            float(lower_bound(broken, count, _INTERVAL / 2)),
            float(upper_bound(broken, count, _INTERVAL / 2)),
        ),
        review_minutes=_median([draw.review_seconds for draw in draws]) / 60,
        seconds_per_box=_median(seconds) if seconds else None,
        oracle=_median([draw.oracle for draw in draws]),
        naive=_median([draw.naive for draw in draws]),
        naive_broken=sum(draw.naive_broken for draw in draws) / count,
    )


def answers(rows: Sequence[SimulatedRow], automate: float) -> tuple[PlanningAnswer, ...]:
    """Say for each precision how many of the reviews tried automate so much in the median draw."""
    precisions = sorted({one.precision for one in rows})
    return tuple(_answer([one for one in rows if one.precision == precision], automate) for precision in precisions)


def _answer(rows: Sequence[SimulatedRow], automate: float) -> PlanningAnswer:
    precision, by_reviews = rows[0].precision, sorted(rows, key=lambda one: one.reviews)
    enough = next((one for one in by_reviews if one.automation.median >= automate), None)
    promise = f"{automate:.0%} of these labels at {precision:g}"
    if enough is not None:
        words = (
            f"{enough.reviews:,} reviews (about {max(1, round(enough.review_minutes)):,} min) automate {promise}: "
            f"{enough.automation.median:.0%} in the median draw, at least {enough.automation.tenth:.0%} in nine of ten"
        )
        return PlanningAnswer(precision=precision, automate=automate, reviews=enough.reviews, words=words)
    best = max(by_reviews, key=lambda one: (one.automation.median, one.certified, one.reviews))
    oracle = max(one.oracle for one in by_reviews)
    words = (
        f"none of the reviews tried automates {promise}: {best.reviews:,} come to {best.automation.median:.0%} in the "
        f"median draw; who knows every label and ranks as well would come to {oracle:.0%}"
    )
    if oracle < automate:
        words += ", so more reviews alone will not do"
    else:
        words += ": try more reviews" if best.reviewed >= best.reviews else ": it takes a larger batch"
    return PlanningAnswer(precision=precision, automate=automate, reviews=None, words=words)


def _spread(values: Sequence[float]) -> Spread:
    return Spread(
        median=_median(values),
        tenth=float(np.quantile(values, 0.1, method="inverted_cdf")),
        worst=float(min(values)),
    )


def _spread_of_known(values: Sequence[float | None]) -> Spread | None:
    known = [value for value in values if value is not None]
    return _spread(known) if known else None


def _median(values: Sequence[float]) -> float:
    return float(np.median(values))
