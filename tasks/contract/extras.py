"""What may be asked beside a stage's own draw: known-wrong plants, whole images, possible misses."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.reviews import TASKS, Stratum
from tasks.contract.declare import Promise
from tasks.contract.draw import Draw
from tasks.contract.plants import plant
from tasks.contract.recall import draw_image_checks, image_strata
from tasks.contract.run_presence import possible_misses, read_presence
from tasks.contract.run_reviews import RunReviews
from tasks.plan.ledger import Ledger
from tasks.reviews.resolve import ImageAnswers
from tasks.statistics.bounds import Floats
from tasks.statistics.sampling import generator

_PLANTS: Final = 98
"""Purpose of the generator that makes plants."""
# Measured on drawn scenes; docs/design.md has the whole of it.
_WEAK: Final = (
    "a weak hint, chosen and not drawn, so the answers tell nothing of the recall: with the bundled CLIP, on drawn "
    "scenes of two styles, 1.9% and 16.4% of such pairs held an overlooked object, of all pairs without a box 1.1% and "
    "11.0%"
)


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


@dataclass(frozen=True)
class AboutImages:
    """What is asked about images."""

    tasks: pa.Table
    strata: tuple[Stratum, ...] = ()
    """For the plan."""
    words: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected time."""
        return float(pc.sum(self.tasks["seconds"]).as_py() or 0)


def ask_about_images(reviews: RunReviews, answers: ImageAnswers, searches: int, misses: int) -> AboutImages:
    """Draw images to be searched for every object, and choose possible misses, which are asked last.

    Args:
        reviews: The run.
        answers: What is known of images.
        searches: How many images to draw.
        misses: How many pairs of image and class to choose.

    Raises:
        UserError: The run did not look at whole images.
    """
    if not searches and not misses:
        return AboutImages(TASKS.empty_table())
    with Ledger.load(reviews.workspace, reviews.run) as ledger:
        presence = read_presence(reviews.workspace, reviews.run, ledger, reviews.current)
    if misses and not presence.num_rows and not reviews.campaign.models.scorer.presence:
        raise UserError(
            "--misses asks about what CLIP sees in whole images, and models.scorer.presence is false, so it did not "
            "look; set it to true and use `vouch run`, which keeps the labels, or leave --misses out"
        )
    searched = _searches(reviews, presence, searches) if searches else AboutImages(TASKS.empty_table())
    missed = _misses(reviews, presence, answers, searched.tasks, misses) if misses else AboutImages(TASKS.empty_table())
    return AboutImages(
        pa.concat_tables([searched.tasks, missed.tasks]), searched.strata, (*searched.words, *missed.words)
    )


def _searches(reviews: RunReviews, presence: pa.Table, count: int) -> AboutImages:
    checks = draw_image_checks(
        reviews.labels,
        image_strata(reviews.labels, presence),
        count,
        reviews.seed,
        plans=reviews.plans,
        inputs=reviews.current.inputs,
        answers=reviews.answers,
    )
    drawn = sum(stratum.drawn for stratum in checks.strata)
    words = f"{drawn:,} images to be searched for every object, with their undecided labels: they tell the recall"
    return AboutImages(checks.tasks, checks.strata, (words,))


def _misses(
    reviews: RunReviews, presence: pa.Table, answers: ImageAnswers, searches: pa.Table, count: int
) -> AboutImages:
    # What was asked about labels of other models was about other boxes.
    asked = [tasks for plan, tasks in reviews.plans if plan.inputs == reviews.current.inputs]
    tasks = possible_misses(reviews.labels, presence, answers, pa.concat_tables([searches, *asked]), count)
    words = f"{tasks.num_rows:,} classes that CLIP sees in an image and no box shows, the last to be asked"
    if tasks.num_rows < count:
        words += f" ({count:,} were asked for; there are no more that nobody was asked about)"
    return AboutImages(tasks, words=(words, _WEAK) if tasks.num_rows else (words,))
