"""Estimates recall from images that people have searched exhaustively."""

from dataclasses import dataclass
from typing import Final

import numpy as np
from scipy import stats
from scipy.special import expit, logit

from schemas.errors import UserError
from tasks.certify.audit import Estimate
from tasks.certify.bounds import Ints, lower_bound
from tasks.certify.sampling import IMAGES, Drawn, allocate, generator

BOOTSTRAPS: Final = 1_000


@dataclass(frozen=True)
class SearchedImages:
    """m images that were drawn by strata and searched for every object."""

    strata: Ints
    """(m,) stratum, such as "no boxes", "boxes", "CLIP says present, but no box"."""
    found: Ints
    """(m,) objects that the labels in question have found."""
    objects: Ints
    """(m,) objects that are there, found or not."""


def image_sample(strata: Ints, count: int, seed: int) -> Drawn:
    """Draw images to be searched, equally many of each stratum as far as it goes.

    Args:
        strata: (M,) stratum of every image, from 0.
        count: How many images.
        seed: Seed of the campaign's sampling.

    Returns:
        Rows and their inclusion probabilities m_h / M_h.
    """
    rng, sizes = generator(seed, IMAGES), np.bincount(strata)
    taken = allocate(sizes, count, least=2)
    parts = [rng.permutation(np.flatnonzero(strata == stratum))[:share] for stratum, share in enumerate(taken)]
    rows = rng.permutation(np.concatenate([np.zeros(0, np.int64), *parts]))
    return Drawn(rows, (taken / np.maximum(sizes, 1))[strata[rows]])


def recall(searched: SearchedImages, sizes: Ints, delta: float, seed: int, bootstraps: int = BOOTSTRAPS) -> Estimate:
    """Estimate the share of objects that were found: R = sum(found / pi) / sum(objects / pi).

    The interval is from a bootstrap over images within strata, so clustering of misses within an image is in it. Each
    resample draws m_h - 1 images of a stratum with replacement and weighs them m_h / (m_h - 1), which makes the
    variance unbiased for few images too (J. N. K. Rao and C. F. J. Wu, JASA 83, 1988), and goes by the square root of
    1 - m_h / M_h of the way from the whole sample; a fully searched stratum is known. The standard error is taken to
    the logit scale, divided by R (1 - R), and goes with Student's t of m - H degrees of freedom: the interval stays in
    [0, 1] and is skewed as recall near 1 is, where plain percentiles are too narrow on the lower side.

    Without a miss, or without a find, the bootstrap has no width; then the bound is Clopper and Pearson's with the
    images that have objects as trials, as if the objects of an image were copies of each other.

    Args:
        searched: What was found.
        sizes: (H,) images of each stratum in the batch.
        delta: Chance that the interval misses the truth.
        seed: Seed of the bootstrap.
        bootstraps: Resamples.

    Returns:
        The estimate; NaN with [0, 1] where no object was seen.

    Raises:
        UserError: A stratum has images, and none of them was searched.
    """
    drawn = np.bincount(searched.strata, minlength=len(sizes))
    if ((sizes > 0) & (drawn == 0)).any():
        raise UserError("recall needs searched images of every stratum; search two of each at least")
    weights = (sizes / np.maximum(drawn, 1))[searched.strata]
    found, objects = float(weights @ searched.found), float(weights @ searched.objects)
    if objects == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    if found in (0.0, objects):
        bound = float(lower_bound(np.sum(searched.objects > 0), np.sum(searched.objects > 0), delta / 2))
        return Estimate(found / objects, bound, 1.0) if found else Estimate(0.0, 0.0, 1 - bound)
    value = found / objects
    error = _standard_error(searched, sizes, drawn, generator(seed, IMAGES, 1), bootstraps) / (value * (1 - value))
    freedom = max(1, len(weights) - int((drawn > 0).sum()))
    width = error * float(stats.t.ppf(1 - delta / 2, freedom))
    low, high = expit(logit(value) + np.array([-width, width])).tolist()
    return Estimate(value, low, high)


def _standard_error(
    searched: SearchedImages, sizes: Ints, drawn: Ints, rng: np.random.Generator, bootstraps: int
) -> float:
    """Standard deviation of resampled recalls."""
    found, objects = np.zeros(bootstraps), np.zeros(bootstraps)
    for stratum in np.flatnonzero(drawn):
        inside = np.flatnonzero(searched.strata == stratum)
        count, weight = len(inside), float(sizes[stratum] / drawn[stratum])
        sums = np.stack([searched.found[inside], searched.objects[inside]]).astype(np.float64)
        total = sums.sum(axis=1)
        if count > 1:
            times = rng.multinomial(count - 1, np.full(count, 1 / count), bootstraps) * (count / (count - 1))
            # Shrunk towards the whole by what of the stratum was searched: nothing is unknown of a full one.
            kept = np.sqrt(max(0.0, 1 - weight**-1))
            found += weight * (total[0] + kept * (times @ sums[0] - total[0]))
            objects += weight * (total[1] + kept * (times @ sums[1] - total[1]))
        else:
            found, objects = found + weight * total[0], objects + weight * total[1]
    return float(np.std(found / np.maximum(objects, 1e-12)))
