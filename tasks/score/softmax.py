"""Turns cosines into probabilities."""

import numpy as np
from numpy.typing import NDArray

from tasks.models.registry import Floats


def softmax(
    similarities: Floats, competes: NDArray[np.bool_], classes: NDArray[np.int64], factor: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Probability of each label's class and of the best other text.

    p_t = exp(factor s_t) / sum of exp(factor s_u) over the texts u that compete.

    Args:
        similarities: (N, T) cosines.
        competes: (N, T) the texts that count for each label, its class among them.
        classes: (N,) text index of each label's class.
        factor: 1 / temperature.

    Returns:
        Probability of the class, that of the best other text (0 without any), and that text's index, (N,) each.
    """
    logits = np.where(competes, similarities.astype(np.float64) * factor, -np.inf)
    # Less the greatest, so that no exponential overflows.
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = weights / weights.sum(axis=1, keepdims=True)
    rows = np.arange(len(classes))
    own = probabilities[rows, classes]
    logits[rows, classes] = -np.inf
    # By logits: far below the best, probabilities are all zero and would tie.
    best = logits.argmax(axis=1)
    return own, np.where(np.isfinite(logits[rows, best]), probabilities[rows, best], 0), best


def class_softmax(similarities: Floats, competes: NDArray[np.bool_], factor: float) -> NDArray[np.float64]:
    """Probability of every class, as `softmax` has it for one; work and memory grow with N (T + C) beside a product.

    Args:
        similarities: (N, T) cosines, the C classes first.
        competes: (C, T) the texts that count for each class; every class counts for every other.
        factor: 1 / temperature.

    Returns:
        (N, C); NaN in the rows of which a similarity is NaN.
    """
    count = len(competes)
    logits = similarities.astype(np.float64) * factor
    # Less the greatest of the texts that count for all; of another, a class's own negative, only an excess can
    # overflow, and at e^600 the class's probability is 0 already.
    logits = np.minimum(logits - logits[:, competes.all(axis=0)].max(axis=1, keepdims=True), 600)
    weights = np.exp(logits)
    return np.asarray(weights[:, :count] / (weights @ competes.T.astype(np.float64)), np.float64)
