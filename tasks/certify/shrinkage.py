"""Estimates the precision of each class when most have few reviewed labels; for reading, never for a promise."""

from typing import Final

import numpy as np
from scipy.special import betaln

from tasks.certify.bounds import Floats, Ints

STRENGTHS: Final = np.geomspace(1, 1_000, 31)
"""Labels that the common share may be worth to each class."""


def shrunken_shares(errors: Ints, reviewed: Ints) -> Floats:
    """Estimate a share of each class, drawn towards that of all: empirical Bayes.

    Each class has a share of its own from Beta(m s, m (1-s)), s the share of all (half an error and half a right label
    added, so that it is neither 0 nor 1), m the strength with the largest beta-binomial likelihood. The estimate is
    (k + m s) / (n + m) (B. Efron and C. Morris, Scientific American 236, 1977, for the idea).

    Args:
        errors: (C,) wrong of each class.
        reviewed: (C,) reviewed labels of each.

    Returns:
        (C,) shares of errors; a class without a review has that of all.
    """
    share = (float(errors.sum()) + 0.5) / (float(reviewed.sum()) + 1)
    likelihood = [
        float(
            (betaln(errors + m * share, reviewed - errors + m * (1 - share)) - betaln(m * share, m - m * share)).sum()
        )
        for m in STRENGTHS
    ]
    strength = float(STRENGTHS[int(np.argmax(likelihood))])
    return np.asarray((errors + strength * share) / (reviewed + strength), np.float64)
