"""Which tasks of review plans still wait for an answer."""

from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.reviews import Purpose
from tasks.arrow import numbers
from tasks.reviews.decisions import Accepts
from tasks.reviews.resolve import IN_DISPUTE, NO_ANSWER, Answers, ImageAnswers

_SETTLES: Final[Purpose] = "doubtful"
_LOOKS_FOR_ONE: Final[Purpose] = "possible_miss"
_SEARCHES: Final[Purpose] = "image"


def open_tasks(tasks: pa.Table, answers: Answers, images: ImageAnswers, accepts: Accepts) -> pa.Table:
    """Keep the tasks without an answer, in their order.

    A label is answered by any verdict on it, but a doubtful one not while reviewers disagree, for that is what it is
    asked for. Nobody need decide a doubtful label that the policy in force accepts, but in an image that is searched
    for recall, which counts only once all its labels are decided. An image is answered by `checked`, of its class or of
    every class; where one class was looked for because CLIP sees it, a `missed` object of that class says enough.

    Args:
        tasks: Rows of schemas.reviews.TASKS, of whole plans.
        answers: What was answered about labels.
        images: What was answered about images.
        accepts: The decisions of the policy in force; asked only about doubtful labels without an answer.
    """
    about_image = numbers(tasks["label_id"].is_null(), np.bool_)
    said = answers.wrong_of(tasks["label_id"])
    settles = numbers(pc.equal(tasks["purpose"], _SETTLES), np.bool_)
    waits = (said == NO_ANSWER) | ((said == IN_DISPUTE) & settles)
    doubted = np.flatnonzero((said == NO_ANSWER) & settles & ~_of_searched_images(tasks))
    if len(doubted):
        waits[doubted] = ~accepts(tasks["label_id"].take(pa.array(doubted)))
    return tasks.filter(pa.array(np.where(about_image, ~_looked_at(tasks, images), waits)))


def _of_searched_images(tasks: pa.Table) -> NDArray[np.bool_]:
    searched = tasks.filter(pc.equal(tasks["purpose"], _SEARCHES))["key"]
    return numbers(pc.is_in(tasks["key"], value_set=searched), np.bool_)


def _looked_at(tasks: pa.Table, images: ImageAnswers) -> NDArray[np.bool_]:
    """Which tasks, taken as tasks about images, are answered."""
    checked, missed = (set(_pairs(table)) for table in (images.checked, images.missed))
    one_class = pc.equal(tasks["purpose"], _LOOKS_FOR_ONE).to_pylist()
    return np.array(
        [
            pair in checked or (pair[0], None) in checked or (hinted and pair in missed)
            for pair, hinted in zip(_pairs(tasks), one_class, strict=True)
        ],
        np.bool_,
    )


def _pairs(table: pa.Table) -> list[tuple[str, str | None]]:
    return list(zip(table["key"].to_pylist(), table["class_name"].to_pylist(), strict=True))
