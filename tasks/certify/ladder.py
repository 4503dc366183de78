"""Which thresholds are tried, in which order, and which of them are certified.

Fixed-sequence testing (A. Angelopoulos, S. Bates, E. Candès, M. Jordan and L. Lei, Learn then Test, 2021): thresholds
in an order that is fixed before the certification labels are reviewed, each tested at the full delta, until the first
one fails. The chance that any certified threshold breaks the promise is at most delta, because the first threshold in
the order that breaks it has to pass a valid test.
"""

from typing import Final

import numpy as np

from tasks.certify.bounds import Floats
from tasks.certify.gates import Evidence

STEPS: Final = 100


def ladder(scores: Floats, steps: int = STEPS) -> Floats:
    """Thresholds from strict to loose, about equally many labels apart.

    Args:
        scores: (N,) p(correct) of the set that the promise is about; NaN is left out.
        steps: How many at most.

    Returns:
        Different values out of scores, descending; the last accepts everything. Empty where there is no score.
    """
    known = np.sort(scores[np.isfinite(scores)])[::-1]
    if not len(known):
        return np.zeros(0)
    ranks = np.linspace(0, len(known), steps + 1)[1:]
    return np.asarray(np.unique(known[np.maximum(np.ceil(ranks).astype(np.int64), 1) - 1])[::-1], np.float64)


def certified_step(evidence: Evidence) -> int | None:
    """Index of the loosest certified threshold: the last before the first p-value above delta; None without any."""
    failed = evidence.p_values > evidence.delta
    passed = int(np.argmax(failed)) if failed.any() else len(failed)
    return passed - 1 if passed else None
