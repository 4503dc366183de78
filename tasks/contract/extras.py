"""What may be asked beside a stage's own draw: known-wrong plants, and whole images."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from schemas.errors import UserError
from schemas.reviews import TASKS, Stratum
from tasks.certify.bounds import Floats
from tasks.certify.sampling import generator
from tasks.contract.declare import Promise
from tasks.contract.draw import Draw
from tasks.contract.plants import plant
from tasks.contract.recall import draw_image_checks, image_strata
from tasks.contract.run_presence import read_presence
from tasks.contract.run_reviews import RunReviews
from tasks.plan.ledger import Ledger

_PLANTS: Final = 98
"""Purpose of the generator that makes plants."""


@dataclass(frozen=True)
class Planted:
    """Known-wrong labels to be mixed in."""

    tasks: pa.Table
    words: tuple[str, ...] = ()


def add_plants(reviews: RunReviews, draw: Draw, count: int) -> Planted:
    """Make known-wrong labels with the scores of what is asked.

    Gate "delivered" needs them with the scores of routed labels as well, for reviewers who miss wrong ones leave these
    in the data set; gate "accepted" does not.

    Raises:
        UserError: There is nothing to make them of, or no probability to choose them by.
    """
    if not count:
        return Planted(TASKS.empty_table())
    if np.isnan(draw.scores).all():
        raise UserError("--plants needs a fitted calibrator; ask for plants from the certification sample on")
    side = ~reviews.fit_side()
    cuts = [group.region for group in draw.groups if group.region is not None]
    cut = min(cuts) if cuts else expected_threshold(draw.scores[side], reviews.promise)
    rng = generator(reviews.seed, _PLANTS, len(reviews.plans))
    tasks = plant(reviews, draw.scores, cut, count, rng, routed=reviews.promise.gate == "delivered")
    if not tasks.num_rows:
        raise UserError("--plants needs labels of the fit side that reviewers found correct, and there are none")
    words = f"{tasks.num_rows:,} known-wrong labels among them, which show how many wrong ones reviewers miss"
    if tasks.num_rows < count:
        words += f" ({count:,} were asked for; there are no more labels to make them of)"
    return Planted(tasks, (words,))


def expected_threshold(scores: Floats, promise: Promise) -> float:
    """The loosest threshold that the probabilities themselves allow, were they exact; infinite where none is.

    Args:
        scores: (N,) p(correct) of the certify side.
        promise: What is to be certified.
    """
    p = np.sort(scores[np.isfinite(scores)])[::-1]
    wrong = np.cumsum(1 - p)
    kept = np.arange(1, len(p) + 1) + (p.sum() - np.cumsum(p) if promise.gate == "delivered" else 0)
    good = np.flatnonzero(wrong <= (1 - promise.precision) * kept)
    return float(p[good[-1]]) if len(good) else float("inf")


def add_image_checks(reviews: RunReviews, count: int) -> tuple[pa.Table, tuple[Stratum, ...], tuple[str, ...]]:
    """Draw images to be searched for every object.

    Returns:
        Rows of TASKS, the strata for the plan, and what was drawn in words.

    Raises:
        UserError: The run did not look at whole images.
    """
    if not count:
        return TASKS.empty_table(), (), ()
    with Ledger.load(reviews.workspace, reviews.run) as ledger:
        presence = read_presence(reviews.workspace, reviews.run, ledger, reviews.current)
    strata = image_strata(reviews.labels, presence)
    checks = draw_image_checks(
        reviews.labels,
        strata,
        count,
        reviews.seed,
        plans=reviews.plans,
        inputs=reviews.current.inputs,
        answers=reviews.answers,
    )
    drawn = sum(stratum.drawn for stratum in checks.strata)
    words = f"{drawn:,} images to be searched for every object, with their undecided labels: they tell the recall"
    return checks.tasks, checks.strata, (words,)
