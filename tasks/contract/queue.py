"""Orders the labels that wait for people by how much each second spent on them removes."""

from typing import Final, Literal

import numpy as np
import pyarrow.compute as pc

from tasks.contract.costs import CHANGE_CLASS_S, DRAW_BOX_S, VERIFY_S
from tasks.contract.run_reviews import RunReviews
from tasks.reviews.resolve import IN_DISPUTE, NO_ANSWER
from tasks.statistics.bounds import Floats, Ints

WORTH_VERIFYING: Final = VERIFY_S / DRAW_BOX_S
"""Below this p(correct) it is quicker to draw the objects than to look through proposals for them."""
UNKNOWN_P: Final = 0.5

Undecided = Literal["ignore", "drop", "include"]


def doubtful_rows(reviews: RunReviews, scores: Floats, count: int) -> tuple[Ints, int]:
    """Choose the labels that wait for people, disputed ones first, then by errors removed per second.

    Labels that an earlier plan asks about already are left out.

    Args:
        reviews: The run.
        scores: (N,) p(correct) of every label; NaN counts as `UNKNOWN_P`.
        count: How many at most.

    Returns:
        (n,) rows, best first, and how many labels wait in all.
    """
    labels = reviews.labels
    codes = reviews.answers.wrong_of(labels.label_ids)
    disputed = np.flatnonzero(codes == IN_DISPUTE)
    asked = np.zeros(labels.count, np.bool_)
    for _, tasks in reviews.plans:
        places = labels.places(tasks.filter(pc.is_valid(tasks["label_id"]))["label_id"].to_pylist())
        asked[places[places >= 0]] = True
    waiting = np.flatnonzero((codes == NO_ANSWER) & ~labels.accepted & ~asked)
    p = np.where(np.isnan(scores[waiting]), UNKNOWN_P, scores[waiting])
    rate = removed_per_second(p, reviews.campaign.export.undecided)
    order = np.argsort(-rate, kind="stable")
    worth = waiting[order][p[order] > WORTH_VERIFYING]
    return np.concatenate([disputed, worth])[:count], len(disputed) + len(waiting)


def nothing_worth_asking(waiting: int, undecided: Undecided) -> str:
    """Say why none of the labels that wait is worth asking about.

    Args:
        waiting: How many wait that no plan asks about.
        undecided: What export does with them.
    """
    if not waiting:
        return "nothing is left to ask: every label that waits has been asked about"
    stay = {
        "ignore": "they stay out of the data set as ignore regions",
        "drop": "they stay out of the data set",
        "include": "they are in the data set as they are",
    }
    return (
        f"{waiting:,} label{'' if waiting == 1 else 's'} wait{'s' if waiting == 1 else ''}; all have p_correct below "
        f"{WORTH_VERIFYING:.3f}, where drawing is quicker than looking ({stay[undecided]})"
    )


def removed_per_second(p: Floats, undecided: Undecided) -> Floats:
    """Errors of the data set that a second spent on a label removes, on average.

    A label that waits is left out of the data set ("ignore", "drop"): deciding it brings an object back with chance p.
    Where it is included, deciding it takes a wrong one out with chance 1 - p. Looking takes `VERIFY_S`, naming what is
    wrong `CHANGE_CLASS_S` more.
    """
    removed = 1 - p if undecided == "include" else p
    return np.asarray(removed / (VERIFY_S + (1 - p) * CHANGE_CLASS_S), np.float64)
