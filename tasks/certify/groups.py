"""Several promises at once: which classes are certified together, and how delta is shared out.

Each certified group has a promise of its own, kept together with confidence 1 - delta: each is tested at delta / K
(Bonferroni). Classes too rare for a promise of their own form one declared group; the promise is then about that group
as a whole, not about each class in it. Groups are declared before certification labels are reviewed.
"""

from typing import Final

import numpy as np

from tasks.certify.bounds import Ints, labels_needed

SPARE_ERRORS: Final = 5
"""Errors that a group's expected reviews must be able to bear for the group to be worth testing."""
FIRST_LOOK: Final = 0.8
NEXT_LOOK: Final = 1 - FIRST_LOOK
"""A look may spend this much of what the one before it could."""


def certified_groups(labels: Ints, reviews: int, precision: float, delta: float) -> list[Ints]:
    """Divide classes into groups that can be certified.

    The most frequent classes stand alone and the others are pooled: as many alone as leaves every group enough of the
    reviews, shared out by size, to bear `SPARE_ERRORS` errors at delta / K. Only the pooled group may have fewer when
    nothing better is possible.

    Args:
        labels: (C,) labels of each class on the certify side.
        reviews: Certification labels in all.
        precision: T.
        delta: 1 - confidence of all promises together.

    Returns:
        Class indices of each group, the most frequent class first, the pooled group last; a class without labels is in
        the pooled group.
    """
    order = np.argsort(-labels, kind="stable")
    total = int(labels.sum())
    for alone in range(len(labels), 0, -1):
        groups = [order[index : index + 1] for index in range(alone)]
        if alone < len(labels):
            groups.append(order[alone:])
        sizes = np.array([labels[group].sum() for group in groups])
        least = labels_needed(SPARE_ERRORS, 1 - precision, delta / len(groups))
        if total and (sizes * reviews >= least * total).all():
            return groups
    return [order]


def delta_of_look(delta: float, look: int) -> float:
    """Part of delta that a look at certification labels may spend.

    The first look gets 80%, each later one 80% of what is left, so any number of looks spend at most delta. Certifying
    again with more reviews, because the first result disappointed, is such a look; tests at the full delta each time
    would break the promise in the end.

    Args:
        delta: 1 - confidence of the promise.
        look: 1 for the first.
    """
    return delta * FIRST_LOOK * NEXT_LOOK ** (look - 1)
