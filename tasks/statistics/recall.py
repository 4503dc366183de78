"""Estimates recall from images that people have annotated exhaustively."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.statistics.bounds import Floats, Ints, lower_bound
from vouch_labels.tasks.statistics.monitoring import Estimate
from vouch_labels.tasks.statistics.sampling import IMAGES, Drawn, allocate, generator

BOOTSTRAPS: Final = 1_000
WIDEST: Final = 6.0
"""Standard errors on either side that an interval has at most."""


@dataclass(frozen=True)
class ExhaustiveImages:
    """m images that were drawn by strata and annotated exhaustively."""

    strata: Ints
    """(m,) stratum, such as "no boxes", "boxes", "CLIP says present, but no box"."""
    found: Ints
    """(m,) objects that the labels in question have found."""
    objects: Ints
    """(m,) objects that are there, found or not."""


def image_sample(strata: Ints, count: int, seed: int, batch: int = 0) -> Drawn:
    """Draw images to be searched, equally many of each stratum as far as it goes, with probabilities m_h / M_h.

    batch numbers the draw, from 0, where more is drawn later of what is left.
    """
    # Stream 1 is the bootstrap's.
    rng, sizes = generator(seed, IMAGES, batch + (batch > 0)), np.bincount(strata)
    taken = allocate(sizes, count, least=2)
    parts = [rng.permutation(np.flatnonzero(strata == stratum))[:share] for stratum, share in enumerate(taken)]
    rows = rng.permutation(np.concatenate([np.zeros(0, np.int64), *parts]))
    return Drawn(rows, (taken / np.maximum(sizes, 1))[strata[rows]])


def recall(images: ExhaustiveImages, sizes: Ints, delta: float, seed: int, bootstraps: int = BOOTSTRAPS) -> Estimate:
    """Estimate the share of objects that were found: R = sum(found / pi) / sum(objects / pi).

    The interval is a bootstrap-t over images within strata (B. Efron, Canadian Journal of Statistics 9, 1981), so
    clustering of misses within an image is in it: images are resampled within their strata, each resample's R is taken
    to the logit scale and divided by its own standard error (a ratio's, by linearisation), and the quantiles of these,
    never below those of Student's t for the smallest stratum of which a part was searched, stand beside the sample's
    own standard error. Plain percentiles missed the truth too often: a few images with many objects of large weight
    make R and its spread go together. A stratum of which only a few searched images have objects is still too few for
    any of them.

    Without a miss, or without a find, the bootstrap has no width; then the bound is Clopper and Pearson's with the
    images that have objects as trials, as if the objects of an image were copies of each other. Where no object was
    seen the estimate is NaN with [0, 1].

    Raises:
        UserError: A stratum has images, and none of them was searched.
    """
    drawn = np.bincount(images.strata, minlength=len(sizes))
    if ((sizes > 0) & (drawn == 0)).any():
        raise UserError("recall needs searched images of every stratum; search two of each at least")
    weights = (sizes / np.maximum(drawn, 1))[images.strata]
    found, objects = float(weights @ images.found), float(weights @ images.objects)
    if objects == 0:
        return Estimate(float("nan"), 0.0, 1.0)
    if found in (0.0, objects):
        bound = float(lower_bound(np.sum(images.objects > 0), np.sum(images.objects > 0), delta / 2))
        return Estimate(found / objects, bound, 1.0) if found else Estimate(0.0, 0.0, 1 - bound)
    value = found / objects
    moments = _moments(images)
    own = [part.sum(axis=1)[None] for part in _by_stratum(moments, images.strata, drawn)]
    error = float(_logit_error(own, sizes, drawn, value, complete=True)[0])
    low, high = _quantiles(moments, images.strata, sizes, drawn, value, generator(seed, IMAGES, 1), bootstraps, delta)
    lowest, highest = scipy.special.expit(scipy.special.logit(value) - error * np.array([high, low])).tolist()
    return Estimate(value, lowest, highest)


def _moments(images: ExhaustiveImages) -> Floats:
    """Found f, objects o, f^2, f o and o^2 of each image, (5, m): what ratios and their variances are made of."""
    found, objects = images.found.astype(np.float64), images.objects.astype(np.float64)
    return np.stack([found, objects, found**2, found * objects, objects**2])


def _by_stratum(moments: Floats, strata: Ints, drawn: Ints) -> list[Floats]:
    return [moments[:, strata == stratum] for stratum in range(len(drawn))]


def _logit_error(sums: list[Floats], sizes: Ints, drawn: Ints, value: Floats | float, *, complete: bool) -> Floats:
    """Standard error of logit R by linearisation, (B,).

    v = sum_h w_h^2 (1 - m_h/M_h) m_h/(m_h - 1) (sum e^2 - (sum e)^2 / m_h) / O^2 with e = f - R o, over R (1 - R). sums
    holds the (B, 5) sums of the moments of each stratum. `complete` counts what of a stratum was searched as known;
    resamples are drawn with replacement, so not there.
    """
    variance, objects = np.zeros(len(sums[0])), np.zeros(len(sums[0]))
    for part, size, count in zip(sums, sizes, drawn, strict=True):
        if not count:
            continue
        weight = size / count
        residual = part[:, 0] - value * part[:, 1]
        squares = part[:, 2] - 2 * value * part[:, 3] + value**2 * part[:, 4]
        open_share = 1 - 1 / weight if complete else 1.0
        spread = np.maximum(squares - residual**2 / count, 0) * count / max(1, count - 1)
        variance += weight**2 * open_share * spread
        objects += weight * part[:, 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(np.sqrt(variance) / objects / (value * (1 - value)), np.float64)


def _quantiles(
    moments: Floats,
    strata: Ints,
    sizes: Ints,
    drawn: Ints,
    value: float,
    rng: np.random.Generator,
    bootstraps: int,
    delta: float,
) -> tuple[float, float]:
    """The delta/2 and 1 - delta/2 quantiles of (logit R* - logit R) / error* over resamples."""
    sums, found, objects = [], np.zeros(bootstraps), np.zeros(bootstraps)
    for part, size, count in zip(_by_stratum(moments, strata, drawn), sizes, drawn, strict=True):
        times = rng.multinomial(count, np.full(count, 1 / count), bootstraps) if count else np.zeros((bootstraps, 0))
        sums.append(times @ part.T)
        found += size / max(1, count) * sums[-1][:, 0]
        objects += size / max(1, count) * sums[-1][:, 1]
    resampled = found / np.maximum(objects, 1e-12)
    error = _logit_error(sums, sizes, drawn, resampled, complete=False)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (scipy.special.logit(resampled) - scipy.special.logit(value)) / error
    # A resample without a miss, or without a find, lies as far out as can be.
    ratio = np.where((resampled > 0) & (resampled < 1), ratio, np.where(resampled >= value, np.inf, -np.inf))
    low, high = np.quantile(ratio, [delta / 2, 1 - delta / 2], method="inverted_cdf")
    # A stratum that was searched whole leaves nothing to chance, however small it is.
    partly = drawn[(drawn > 0) & (drawn < sizes)]
    least = float(scipy.stats.t.ppf(1 - delta / 2, max(1, int(partly.min(initial=sizes.max())) - 1)))
    least = min(least, WIDEST)
    return float(np.clip(low, -WIDEST, -least)), float(np.clip(high, least, WIDEST))
