"""Draws random samples of labels for review, seeded and with known inclusion probabilities, and splits images in two.

Every draw has a purpose and a seed; different purposes give independent draws from one seed. What certifies is drawn
label by label from a fixed set; that makes the binomial and hypergeometric tests valid, however errors cluster.

Labels that fit the calibrator come from all images. What is certified afterwards is drawn from the labels without an
answer: such a bound rests on the draw alone, whichever labels the scores were made from.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints

FIRST: Final = 1
CERTIFICATION: Final = 2
AUDIT: Final = 3
IMAGES: Final = 4
BLOCKS: Final = 5
SCORE_BINS: Final = 10


@dataclass(frozen=True)
class Drawn:
    """Drawn items."""

    rows: Ints
    """(n,) indices, in the order in which they are to be shown."""
    inclusion: Floats
    """(n,) probability with which each was to be drawn, in (0, 1]."""


def generator(seed: int, purpose: int, batch: int = 0) -> np.random.Generator:
    """Give a generator whose stream is its own for each seed, purpose and batch."""
    return np.random.default_rng([seed, purpose, batch])


def first_sample(scores: Floats, count: int, seed: int) -> Drawn:
    """Draw what the calibrator is fitted to: half over the range of a score, half uniformly.

    Half of the labels come in equal numbers from `SCORE_BINS` equally wide bins of the score between its 1st and 99th
    percentile (bins with too few labels are taken whole, the others share what is left), then the other half uniformly
    from the rest. With s_h = m_h / N_h in bin h and n_u of the N - n_s others, the inclusion probability is
    s_h + (1 - s_h) n_u / (N - n_s). Any score serves, before a calibrator the detector's; NaN is a bin of its own.
    Where there are no more than count, all are taken.
    """
    rng = generator(seed, FIRST)
    bins = score_bins(scores, SCORE_BINS)
    sizes = np.bincount(bins)
    taken = allocate(sizes, min(count, len(scores)) // 2)
    spread = _from_strata(bins, taken, rng)
    others = np.ones(len(scores), np.bool_)
    others[spread] = False
    rest = np.flatnonzero(others)
    uniform = rng.permutation(rest)[: min(count, len(scores)) - len(spread)]
    shares = np.divide(taken, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    rows = rng.permutation(np.concatenate([spread, uniform]))
    share = shares[bins[rows]]
    return Drawn(rows, share + (1 - share) * (len(uniform) / len(rest) if len(rest) else 0.0))


def certification_sample(among: Bools, count: int, seed: int, number: int = 0, purpose: int = CERTIFICATION) -> Drawn:
    """Draw what certifies, or with purpose `AUDIT` a blind audit: a simple random sample of the labels marked.

    For gate B mark the population, for gate A its labels at or above the plan's region. The rows are the beginning of
    a random order, so a larger draw of the same seed begins with the smaller one. Reviewing more after seeing the
    result is another test, and spends another part of delta (`threshold_tests.delta_of_test`). number is that of
    the policy or certification that it is for: others have other orders.
    """
    candidates = np.flatnonzero(among)
    rows = generator(seed, purpose, number).permutation(candidates)[:count]
    return Drawn(rows, np.full(len(rows), len(rows) / max(1, len(candidates))))


def score_bins(scores: Floats, bins: int) -> NDArray[np.int16]:
    """Bin of each score, (N,): equally wide between the 1st and 99th percentile, open outside; NaN in a last one."""
    known = np.isfinite(scores)
    found = np.full(len(scores), bins, np.int16)
    if known.any():
        low, high = np.percentile(scores[known], [1, 99])
        found[known] = np.searchsorted(np.linspace(low, high, bins + 1)[1:-1], scores[known], side="right")
    return found


def allocate(sizes: Ints, count: int, least: int = 0, proportional: bool = False) -> Ints:
    """Divide count labels among strata, no stratum getting more than it has.

    Each gets at least `least`, where it has them and count allows; the rest is divided by size (`proportional`) or
    equally.
    """
    count = min(count, int(sizes.sum()))
    taken = np.minimum(sizes, least) if np.minimum(sizes, least).sum() <= count else np.zeros_like(sizes)
    while (left := count - int(taken.sum())) > 0:
        room = sizes - taken
        weights = np.where(room > 0, sizes if proportional else 1, 0).astype(np.float64)
        more = np.minimum(room, np.floor(left * weights / weights.sum()).astype(np.int64))
        if not more.any():
            # What is left over by rounding goes to where there is most room.
            more = np.zeros_like(sizes)
            more[np.argsort(-room, kind="stable")[: min(left, int((room > 0).sum()))]] = 1
        taken = taken + more
    return np.asarray(taken, np.int64)


def _from_strata(strata: NDArray[np.integer[Any]], taken: Ints, rng: np.random.Generator) -> Ints:
    """So many rows of each stratum, drawn without replacement."""
    order = rng.permutation(len(strata))
    of_order = strata[order]
    rows = [order[np.flatnonzero(of_order == stratum)[:count]] for stratum, count in enumerate(taken.tolist()) if count]
    return np.concatenate([np.zeros(0, np.int64), *rows])


def on_fit_side(images: Sequence[str], share: float, seed: int) -> Bools:
    """Say of each image, (M,), whether a policy of before 2026-12 keeps it for fitting and accepts none of its labels.

    The SHA-256 of seed and identity, as a number in [0, 1), is held against the share: an image keeps its side
    whatever other images come or go, and copies of one image share theirs. Images are named by the SHA-256 of their
    content, or by keys where that is unknown.
    """
    digests = (hashlib.sha256(f"certify\n{seed}\n{image}".encode()).digest() for image in images)
    # 53 bits, so that the division is exact and the quotient stays below 1.
    places = ((int.from_bytes(digest[:8]) >> 11) / 2**53 for digest in digests)
    return np.fromiter(places, np.float64, len(images)) < share
