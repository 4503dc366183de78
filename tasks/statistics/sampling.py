"""Draws random samples of labels for review, seeded and with known inclusion probabilities, and splits images in two.

Every draw has a purpose and a seed; different purposes give independent draws from one seed. What certifies is drawn
label by label from a fixed set; that makes the binomial and hypergeometric tests valid, however errors cluster.

Images whose labels fit the calibrator are kept apart from those that certify. Verdicts on the fit side train the
calibrator and order the thresholds; the validation sample is drawn from the other side alone. What is certified is
therefore stated of the certify side. A batch in which the fit side is small keeps the rest of that side for people:
`fit_share` makes it just large enough. (Drawn afresh with our own seed from the whole batch, a sample would certify the
whole batch even with images on both sides, for such a bound rests on the draw alone; but a policy outlives its batch,
and scores of images that trained them flatter what later batches will get.)
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints

FIRST: Final = 1
CERTIFICATION: Final = 2
AUDIT: Final = 3
IMAGES: Final = 4
SCORE_BINS: Final = 10
AUDIT_BINS: Final = 4

ROOM: Final = 1.5
"""Labels on the fit side for each one that is to be reviewed there, so that strata have something to choose from."""
LARGEST: Final = 0.5


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
    rest = np.setdiff1d(np.arange(len(scores)), spread)
    uniform = rng.permutation(rest)[: min(count, len(scores)) - len(spread)]
    shares = np.divide(taken, sizes, out=np.zeros(len(sizes)), where=sizes > 0)
    rows = rng.permutation(np.concatenate([spread, uniform]))
    share = shares[bins[rows]]
    return Drawn(rows, share + (1 - share) * (len(uniform) / len(rest) if len(rest) else 0.0))


def certification_sample(among: Bools, count: int, seed: int, number: int = 0) -> Drawn:
    """Draw what certifies: a simple random sample of the labels marked.

    For gate B mark the certify side, for gate A its labels at or above the plan's region. The rows are the beginning of
    a random order, so a larger draw of the same seed begins with the smaller one. Reviewing more after seeing the
    result is another test, and spends another part of delta (`threshold_tests.delta_of_test`). number is that of
    the policy or certification that it is for: others have other orders.
    """
    candidates = np.flatnonzero(among)
    rows = generator(seed, CERTIFICATION, number).permutation(candidates)[:count]
    return Drawn(rows, np.full(len(rows), len(rows) / max(1, len(candidates))))


def audit_sample(classes: Ints, probabilities: Floats, count: int, seed: int, batch: int) -> Drawn:
    """Draw accepted labels for a blind audit, stratified by class and score.

    Strata are class x quarter of p(correct) within the batch. Each gets two labels where it has them, so that every
    variance can be estimated, and the rest in proportion to its size. Where two a stratum are more than count, the
    quarters are joined, then the classes. The inclusion probability m_h / N_h is to be stored with each row.
    """
    strata = audit_strata(classes, probabilities, count)
    sizes = np.bincount(strata)
    taken = allocate(sizes, count, least=2, proportional=True)
    rng = generator(seed, AUDIT, batch)
    rows = rng.permutation(_from_strata(strata, taken, rng))
    return Drawn(rows, (taken / np.maximum(sizes, 1))[strata[rows]])


def audit_strata(classes: Ints, probabilities: Floats, count: int) -> Ints:
    """Stratum of each accepted label, (N,): as fine as two labels of each allow."""
    order = np.argsort(probabilities, kind="stable")
    quarter = np.empty(len(order), np.int64)
    quarter[order] = np.arange(len(order)) * AUDIT_BINS // max(1, len(order))
    for strata in (classes * AUDIT_BINS + quarter, classes, quarter):
        found, index = np.unique(strata, return_inverse=True)
        if 2 * len(found) <= count:
            return np.asarray(index.reshape(-1), np.int64)
    return np.zeros(len(order), np.int64)


def score_bins(scores: Floats, bins: int) -> Ints:
    """Bin of each score, (N,): equally wide between the 1st and 99th percentile, open outside; NaN in a last one."""
    known = np.isfinite(scores)
    found = np.full(len(scores), bins, np.int64)
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


def _from_strata(strata: Ints, taken: Ints, rng: np.random.Generator) -> Ints:
    """So many rows of each stratum, drawn without replacement."""
    order = rng.permutation(len(strata))
    order = order[np.argsort(strata[order], kind="stable")]
    starts = np.cumsum(np.bincount(strata, minlength=len(taken))) - np.bincount(strata, minlength=len(taken))
    place = np.arange(len(order)) - starts[strata[order]]
    return np.asarray(order[place < taken[strata[order]]], np.int64)


def fit_share(labels: int, reviews: int) -> float:
    """Share of images to put on the fit side: enough for `ROOM` times the reviews, at most `LARGEST`; 0 without any."""
    return min(LARGEST, ROOM * reviews / labels) if labels else 0.0


def on_fit_side(images: Sequence[str], share: float, seed: int) -> Bools:
    """Say of each image, (M,), whether it is on the fit side.

    The SHA-256 of seed and identity, as a number in [0, 1), is held against the share: an image keeps its side
    whatever other images come or go, and copies of one image share theirs. Images are named by the SHA-256 of their
    content, or by keys where that is unknown.
    """
    digests = (hashlib.sha256(f"certify\n{seed}\n{image}".encode()).digest() for image in images)
    # 53 bits, so that the division is exact and the quotient stays below 1.
    places = ((int.from_bytes(digest[:8]) >> 11) / 2**53 for digest in digests)
    return np.fromiter(places, np.float64, len(images)) < share
