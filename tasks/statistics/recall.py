"""Estimates recall from images that people have annotated exhaustively, with an interval that needs no large sample."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.bounds import Bools, Ints
from vouch_labels.tasks.statistics.monitoring import Estimate
from vouch_labels.tasks.statistics.sampling import IMAGES, Drawn, allocate, generator

BETS: Final = np.array([1, 1 / 3, 1 / 10])
"""Shares of the largest bet that cannot lose everything: large ones for rare misses, small ones for frequent ones."""
STAKES: Final = np.array([0.5, 0.3, 0.2])
USUAL: Final = 0.995
FIRST_SHARE: Final = 0.9
"""Part of delta for the number of misses assumed at first; its doubles get halves of the rest, one after the other."""


@dataclass(frozen=True)
class ExhaustiveImages:
    """m images that were drawn by strata and annotated exhaustively, and those that should have been."""

    strata: Ints
    """(m,) stratum, such as "no boxes", "boxes", "CLIP says present, but no box"."""
    found: Ints
    """(m,) objects that the labels in question have found."""
    objects: Ints
    """(m,) objects that are there, found or not."""
    undecided: Ints | int = 0
    """(m,) labels whose objects are in neither, as nobody has decided them yet."""
    searched: Bools | bool = True
    """(m,) False where the image was passed over, so that anything may be missed there."""


@dataclass(frozen=True)
class Recall(Estimate):
    """An estimated recall with its interval."""

    most_missed: int
    """The low end holds if no image misses more objects than this; what single images miss beyond it is not in it."""
    images_with_misses: float
    """Upper bound of the share of images with a missed object, however many they miss."""


def image_sample(strata: Ints, count: int, seed: int, batch: int = 0) -> Drawn:
    """Draw images to be searched, equally many of each stratum as far as it goes, with probabilities m_h / M_h.

    batch numbers the draw, from 0, where more is drawn later of what is left.
    """
    # Stream 1 was the bootstrap's; later draws keep their numbers.
    rng, sizes = generator(seed, IMAGES, batch + (batch > 0)), np.bincount(strata)
    taken = allocate(sizes, count, least=2)
    parts = [rng.permutation(np.flatnonzero(strata == stratum))[:share] for stratum, share in enumerate(taken)]
    rows = rng.permutation(np.concatenate([np.zeros(0, np.int64), *parts]))
    return Drawn(rows, (taken / np.maximum(sizes, 1))[strata[rows]])


def most_missed(labels: Ints) -> int:
    """Say how many objects one image may miss: as many as its like has labels.

    labels, (M,), are those of every image; of images that have any all but one in 200 have no more. That depends on
    no search, so it is fixed before the first one.
    """
    some = labels[labels > 0]
    return int(np.quantile(some, USUAL, method="higher")) if len(some) else 1


def recall(images: ExhaustiveImages, sizes: Ints, most_found: Ints, assumed: int, delta: float) -> Recall:
    """Estimate the share of objects that were found: R = sum(found / pi) / sum(objects / pi).

    The estimate is that of the images that were finished. Its interval counts every drawn image: an undecided label is
    a missed object at the low end and a found one at the high end, and an image that was passed over misses as many as
    an image may at the low end and nothing at the high end.

    The low end is 1 / (1 + q), with q an upper bound (`_ratio_bound`) of missed / found at level delta / 2, the high
    end 1 - 1 / (1 + q') with q' that of found / missed. An image finds at most what it has labels, so the high end
    holds whatever the images are like. No sample tells how much images miss that were not searched: one could hide
    thousands of objects. So the low end counts at most c objects missed in an image, and is one of the true recall if
    no image misses more. c is `assumed`, which must not depend on the search (`most_missed`), or the first of 2 c,
    4 c, ... that is no less than what a searched image misses; as all of these share delta, the choice may depend on
    what was seen. How many images miss something is bounded at level delta, without c.

    Args:
        images: The drawn images.
        sizes: (H,) images in each stratum.
        most_found: (H,) most objects that labels can have found in one image of each stratum: its labels.
        assumed: Most objects missed in an image, c.
        delta: 1 - confidence.

    Raises:
        UserError: A stratum has images, and none of them was searched.
    """
    drawn = np.bincount(images.strata, minlength=len(sizes))
    if ((sizes > 0) & (drawn == 0)).any():
        raise UserError("recall needs searched images of every stratum; search two of each at least")
    missed = images.objects - images.found
    share, cap = FIRST_SHARE, assumed
    while cap < missed.max(initial=0):
        share, cap = (1 - FIRST_SHARE) / 2 if cap == assumed else share / 2, 2 * cap
    caps = np.full(len(sizes), cap)
    most = np.where(images.searched, np.minimum(missed + images.undecided, cap), cap)
    low = _ratio_bound(most, images.found, caps, images.strata, sizes, share * delta / 2)
    # An object that was drawn may be that of an undecided label, and only so many labels can have found one.
    least, room = np.maximum(missed - images.undecided, 0), most_found[images.strata] - images.found
    more = np.where(images.searched, np.minimum(images.undecided, room), room)
    best = images.found + np.maximum(more, 0)
    high = _ratio_bound(best, least, most_found, images.strata, sizes, delta / 2)
    with_misses = _ratio_bound(
        np.minimum(most, 1), np.ones_like(missed), np.ones_like(sizes), images.strata, sizes, delta
    )
    value, lowest, highest = _estimate(images, sizes), 1 / (1 + low), 1 - 1 / (1 + high)
    # The images left out of the estimate may all be unlike the others.
    return Recall(
        value,
        float(np.fmin(lowest, value)),
        float(np.fmax(highest, value)),
        most_missed=cap,
        images_with_misses=min(1.0, with_misses),
    )


def _estimate(images: ExhaustiveImages, sizes: Ints) -> float:
    finished = np.broadcast_to((np.asarray(images.undecided) == 0) & images.searched, images.strata.shape)
    counted = np.bincount(images.strata[finished], minlength=len(sizes))
    weights = (sizes / np.maximum(counted, 1))[images.strata] * finished
    objects = float(weights @ images.objects)
    return float(weights @ images.found) / objects if objects else float("nan")


def _ratio_bound(top: Ints, bottom: Ints, most: Ints, strata: Ints, sizes: Ints, level: float) -> float:
    """Upper bound of sum(top) / sum(bottom) over all images, which is too low with a chance of at most `level`.

    Top and bottom, (m,), are counts of the drawn images, top at most most_h, (H,), in any image of stratum h.

    Let q be a ratio that the true one reaches, x = top - q bottom in each image, so that the sum of x over all images
    is at least 0, and w_h = M_h / m_h. For every bet b with b w_h x <= 1 the product of 1 - b w_h x over drawn images
    has an expectation of at most 1: draws without replacement within a stratum give at most the m_h-th power of the
    stratum's mean (C. Maclaurin's inequality of symmetric means), strata are drawn apart, and 1 - y <= exp(-y), so it
    is at most exp(-b sum_h m_h w_h mean_h(x)) = exp(-b sum over all images of x) <= 1. So is that of a weighted mean
    over bets, which therefore reaches 1 / level with a chance of at most `level` (Markov). It grows with q; the bound
    is where it does. No stratum needs a bound of its own, and no variance is estimated. What a stratum holds that was
    searched whole is known; it is spread over the images of the others. As what was not searched is bounded as well,
    the bound is never above what would follow if all of that were at its worst.
    """
    if not bottom.any():
        return float("inf")
    most = most.copy()
    np.maximum.at(most, strata, top)
    drawn = np.bincount(strata, minlength=len(sizes))
    worst = float(top.sum() + most @ (sizes - drawn)) / float(bottom.sum())
    partly = (drawn < sizes)[strata]
    if worst == 0 or not partly.any():
        return worst
    unknown = int(sizes[drawn < sizes].sum())
    known_top, known_bottom = top[~partly].sum() / unknown, bottom[~partly].sum() / unknown
    weights = sizes / np.maximum(drawn, 1)
    largest = (weights * (most + known_top))[drawn < sizes].max()
    weight, over, under = (weights / largest)[strata[partly]], top[partly] + known_top, bottom[partly] + known_bottom

    def refuted(ratio: float) -> bool:
        lost = np.minimum(weight * (over - ratio * under), 1)  # never above 1 but by rounding
        with np.errstate(divide="ignore"):
            logs = np.log1p(-BETS[:, None] * lost).sum(axis=1)
        return bool(scipy.special.logsumexp(logs, b=STAKES) >= -np.log(level))

    low, high = 0.0, worst
    if not refuted(high):
        return worst
    while high - low > 1e-6 * high:
        middle = (low + high) / 2
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high
