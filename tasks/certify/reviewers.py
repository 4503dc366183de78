"""How many wrong labels reviewers miss, measured with labels that are known to be wrong.

Known-wrong labels are mixed into the queue where nobody can tell them from the others. They must be as hard to see as
the wrong labels that they stand for, and the share of wrong labels in the queue, plants included, must be the one under
which the certification labels are reviewed: people miss more of what is rare.
"""

from dataclasses import dataclass
from typing import Final

from tasks.certify.bounds import upper_bound

SHARE_OF_DELTA: Final = 0.2
"""Part of the promised delta that goes to the bounds of what reviewers miss."""


@dataclass(frozen=True)
class ReviewerError:
    """Upper bounds of the share of wrong labels that reviewers call correct."""

    accepted: float
    """Of wrong labels that a policy may accept."""
    routed: float
    """Of wrong labels that people get in any case."""
    spent: float
    """Chance that a bound is too low."""


TRUSTED: Final = ReviewerError(0.0, 0.0, 0.0)
"""The reviewer's word defines what is correct."""


def reviewer_error(
    planted: int, missed: int, delta: float, planted_routed: int = 0, missed_routed: int = 0
) -> ReviewerError:
    """Bound the share of wrong labels that reviewers miss.

    Clopper-Pearson upper bounds; `SHARE_OF_DELTA` of delta is spent, half on each where both are measured.

    Args:
        planted: Known-wrong labels with scores as accepted labels have them; 0: nothing is known, so the bound is 1 and
            nothing will be certified.
        missed: How many of them reviewers called correct.
        delta: 1 - confidence of the whole promise.
        planted_routed: The same for scores as routed labels have them; 0: the first bound stands for both.
        missed_routed: How many of these were missed.
    """
    spent = SHARE_OF_DELTA * delta
    if not planted_routed:
        bound = float(upper_bound(missed, planted, spent))
        return ReviewerError(bound, bound, spent)
    return ReviewerError(
        float(upper_bound(missed, planted, spent / 2)),
        float(upper_bound(missed_routed, planted_routed, spent / 2)),
        spent,
    )
