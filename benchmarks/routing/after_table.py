"""What stands beside the gates: whole-image samples, audits, expiry and recall, each against its nominal rate."""

from typing import TYPE_CHECKING, Final, NamedTuple

from benchmarks.campaigns import Options
from benchmarks.harness import Table

if TYPE_CHECKING:
    import numpy as np

DRAWS: Final = 2_000
RECALL_DRAWS: Final = 1_000
DELAY_DRAWS: Final = 500
DELTA: Final = 0.1
BATCHES: Final = 365
AUDITED: Final = 40
LABELS: Final = 2_000
"""Accepted labels of an audited batch."""
BOOTSTRAPS: Final = 400
SPARSE: Final = {
    "90% empty": (0.1, 1.0, 0.9),
    "95% empty": (0.05, 1.0, 0.9),
    "98% empty": (0.02, 1.0, 0.9),
    "95% empty, recall .70": (0.05, 1.0, 0.7),
    "one object in 1%, recall .90": (0.01, 0.0, 0.9),
    "one object in 1%, recall .70": (0.01, 0.0, 0.7),
    "one object in 1%, recall .50": (0.01, 0.0, 0.5),
}
"""Share of images with objects, mean of a Poisson number of objects beyond the first, share found, each by itself."""
RECALLS: Final = (
    *(
        (kind, searched)
        for kind in ("independent misses", "misses by image", "whole images missed")
        for searched in (90, 300)
    ),
    *((kind, 200) for kind in (*SPARSE, "3% crowds of 60", "misses by image, unfinished")),
)
"""World and images searched."""


class Row(NamedTuple):
    """One measured rate."""

    name: str
    rate: float
    bound: str
    """What the rate should be."""
    naive: float | None
    """The rate of the naive way."""
    detail: str
    draws: int


def measure(options: Options) -> Table:
    """Measure every rate."""
    import numpy as np

    draws = 4 if options.quick else DRAWS
    rows = [*_whole_images(draws), *_audits(draws), *_expiries(draws), *_delays(draws)]
    rows += _recalls(min(draws, RECALL_DRAWS))
    errors = [float(np.sqrt(row.rate * (1 - row.rate) / row.draws)) for row in rows]
    cells = [
        [
            row.name,
            f"{row.rate:.3f} ± {error:.3f}",
            row.bound,
            "" if row.naive is None else f"{row.naive:.3f}",
            row.detail,
        ]
        for row, error in zip(rows, errors, strict=True)
    ]
    for kind, pick in (("broken", max), ("covered", min), ("falsely expired", max)):
        worst = pick(row.rate for row in rows if row.name.endswith(kind))
        others = [row.naive for row in rows if row.name.endswith(kind) and row.naive is not None]
        cells.append([f"worst {kind}", f"{worst:.3f}", "", f"{pick(others):.3f}" if others else "", ""])
    return Table(
        title=f"audits, expiry, recall and whole-image samples, {draws:,} draws, delta {DELTA:.2f}",
        columns=["", "rate ± SE", "should be", "naive", ""],
        rows=cells,
        notes=[
            "Whole images: 200 images, every label reviewed, exactly 1 - T of all labels wrong, correlated within "
            "images; broken: the bound is below the truth. Naive: the binomial bound.",
            "Audit: 150 of 4,000 accepted labels; the interval holds the truth. 'Off': the calibrator is. Naive: "
            "the normal interval of the unweighted share.",
            f"Expiry: {AUDITED} audited labels a batch, {BATCHES} batches at exactly the guaranteed precision. Naive: "
            "a binomial test of all audits so far, at delta, after every batch.",
            f"Noticed: expired within 60 batches after precision fell; delays in batches of audited labels; "
            f"{min(draws, DELAY_DRAWS):,} draws.",
            f"Recall: 3,000 images in strata, equally many searched of each; the 90% interval holds the truth; "
            f"{min(draws, RECALL_DRAWS):,} draws. Naive: bootstrap-t over images within strata, images left unfinished "
            "left out. Ends are medians, the naive ones in brackets. Unfinished: undecided labels in images with "
            "six or more found objects.",
            "Other work ran on the machine meanwhile; no figure of this table is a time.",
        ],
        figures={f"{row.name}: rate": row.rate for row in rows}
        | {f"{row.name}: naive": row.naive for row in rows if row.naive is not None},
    )


def _whole_images(draws: int) -> list[Row]:
    import numpy as np

    from vouch_labels.tasks.statistics.bounds import korn_graubard, upper_bound

    found = []
    for precision in (0.95, 0.98, 0.99):
        for correlation in (0.0, 0.15, 0.3):
            rng = np.random.default_rng([6, int(100 * precision), int(100 * correlation)])
            share, images = 1 - precision, 200
            labels = 1 + rng.poisson(4, (draws, images))
            spread = (1 - correlation) / max(correlation, 1e-9)
            chance = rng.beta(share * spread, (1 - share) * spread, (draws, images)) if correlation else share
            wrong = rng.binomial(labels, chance)
            bounds = [korn_graubard(k, n, DELTA) for k, n in zip(wrong, labels, strict=True)]
            plain = upper_bound(wrong.sum(axis=1), labels.sum(axis=1), DELTA)
            name = f"whole images, T {precision:.2f}, ICC {correlation:.2f}, broken"
            rate = float((np.array(bounds) < share).mean())
            found.append(Row(name, rate, f"≤ {DELTA:.2f}", float((plain < share).mean()), "", draws))
    return found


def _audits(draws: int) -> list[Row]:
    import numpy as np
    from scipy import stats

    from vouch_labels.tasks.statistics.monitoring import Audited, audited_precision
    from vouch_labels.tasks.statistics.sampling import AUDIT, certification_sample

    found = []
    for precision, off in ((0.9, 0.0), (0.96, 0.0), (0.96, -0.1), (0.99, 0.0), (0.99, 0.01)):
        covered, plain, widths = [], [], []
        for seed in range(draws):
            rng = np.random.default_rng([2, seed])
            chance = 1 - (1 - precision) * 2 * rng.random(4_000)
            correct = rng.random(4_000) < chance
            said, sizes = np.clip(chance + off, 0, 1), np.array([4_000])
            drawn = certification_sample(np.ones(4_000, np.bool_), 150, seed, purpose=AUDIT)
            verdicts = correct[drawn.rows]
            audited = Audited(said[drawn.rows], np.zeros(150, np.int64), verdicts, drawn.inclusion)
            estimate = audited_precision(float(said.mean()), sizes, audited, DELTA)
            covered.append(estimate.low <= correct.mean() <= estimate.high)
            widths.append(estimate.high - estimate.low)
            share = verdicts.mean()
            half = stats.norm.ppf(1 - DELTA / 2) * np.sqrt(share * (1 - share) / 150)
            plain.append(abs(share - correct.mean()) <= half)
        name = f"audit, precision {precision:.2f}{', off by ' + format(off, '.2f') if off else ''}, covered"
        detail = f"mean width {np.mean(widths):.3f}"
        found.append(Row(name, float(np.mean(covered)), f"≥ {1 - DELTA:.2f}", float(np.mean(plain)), detail, draws))
    return found


def _expiries(draws: int) -> list[Row]:
    import numpy as np

    from vouch_labels.tasks.statistics.bounds import binomial_p

    found = []
    for precision in (0.95, 0.98, 0.99):
        rng = np.random.default_rng([3, int(100 * precision)])
        errors = rng.binomial(AUDITED, 1 - precision, (draws, BATCHES))
        when = _expired_at(errors, precision)
        total = np.cumsum(errors, axis=1)
        upper = 1 - binomial_p(total - 1, AUDITED * np.arange(1, BATCHES + 1), 1 - precision)
        name = f"expiry, T {precision:.2f}, falsely expired"
        rate, plain = float((when < BATCHES).mean()), float((upper <= DELTA).any(axis=1).mean())
        found.append(Row(name, rate, f"≤ {DELTA:.2f}", plain, f"within {BATCHES} batches", draws))
    return found


def _delays(draws: int) -> list[Row]:
    import numpy as np

    found, precision = [], 0.95
    for good in (0, 50, 200):
        for after in (0.10, 0.20):
            rng = np.random.default_rng([4, good, int(100 * after)])
            chances = np.repeat([0.03, after], [good, 60])
            when = _expired_at(rng.binomial(AUDITED, chances, (min(draws, DELAY_DRAWS), len(chances))), precision)
            late = np.where(when >= good, when - good + 1.0, np.nan)
            noticed = float((late <= 60).mean())
            times = np.nanpercentile(np.where(late <= 60, late, np.inf), [50, 90])
            said = " and ".join(f"{time:.0f}" if np.isfinite(time) else "more than 60" for time in times)
            name = f"expiry, T 0.95, wrong from .03 to {after:.2f} after {good} batches, noticed"
            detail = f"median and 90% of delays: {said}"
            found.append(Row(name, noticed, "", None, detail, min(draws, DELAY_DRAWS)))
    return found


def _expired_at(errors: "np.ndarray", precision: float) -> "np.ndarray":
    """Batch at which each run of batches expires, their number where it never does."""
    import numpy as np

    from vouch_labels.tasks.statistics.monitoring import Monitor

    when = np.full(len(errors), errors.shape[1])
    inclusion, places = np.full(AUDITED, AUDITED / LABELS), np.arange(AUDITED)
    for run, counts in enumerate(errors):
        monitor = Monitor(precision, DELTA)
        for batch, count in enumerate(counts):
            monitor = monitor.after(places < count, inclusion, LABELS)
            if monitor.expired:
                when[run] = batch
                break
    return when


def _recalls(draws: int) -> list[Row]:
    import numpy as np

    from vouch_labels.tasks.statistics.recall import ExhaustiveImages, image_sample, most_missed, recall

    found = []
    for kind, searched in RECALLS:
        covered, plain, ends, plain_ends, truths = [], [], [], [], []
        for seed in range(draws):
            strata, hits, objects = _searched_world(kind, seed)
            sizes, truth = np.bincount(strata), hits.sum() / objects.sum()
            most = np.array([hits[strata == stratum].max(initial=0) for stratum in range(len(sizes))])
            rows = image_sample(strata, searched, seed).rows
            waits = (hits[rows] >= 6) & kind.endswith("unfinished")
            known = np.where(waits, 0, hits[rows])
            sample = ExhaustiveImages(
                strata[rows], known, known + (objects - hits)[rows], np.where(waits, hits[rows], 0)
            )
            estimate = recall(sample, sizes, most, most_missed(hits), DELTA)
            naive = _bootstrap_t(strata[rows[~waits]], hits[rows[~waits]], objects[rows[~waits]], sizes, seed)
            covered.append(estimate.low <= truth <= estimate.high)
            plain.append(naive[0] <= truth <= naive[1])
            ends.append((estimate.low, estimate.high))
            plain_ends.append(naive)
            truths.append(truth)
        (low, high), naive_ends = np.median(ends, axis=0), np.median(plain_ends, axis=0)
        detail = (
            f"{low:.2f} to {high:.2f} ({naive_ends[0]:.2f} to {naive_ends[1]:.2f}), true recall {np.mean(truths):.2f}"
        )
        name, rate = f"recall, {kind}, {searched} images, covered", float(np.mean(covered))
        found.append(Row(name, rate, f"≥ {1 - DELTA:.2f}", float(np.mean(plain)), detail, draws))
    return found


def _searched_world(kind: str, seed: int) -> "tuple[np.ndarray, np.ndarray, np.ndarray]":
    """Stratum, found objects and objects of 3,000 images.

    Strata: no boxes, boxes, CLIP says present but no box; in sparse worlds the first two alone.
    """
    import numpy as np

    rng, images = np.random.default_rng([5, seed]), 3_000
    if kind in SPARSE:
        share, mean, each = SPARSE[kind]
        objects = np.where(rng.random(images) < share, 1 + rng.poisson(mean, images), 0)
        hits = rng.binomial(objects, each)
        return (hits > 0).astype(np.int64), hits, objects
    if kind == "3% crowds of 60":
        crowd = rng.random(images) < 0.03
        objects = np.where(crowd, 60, rng.poisson(1, images))
        hits = np.where(crowd, 60 * (rng.random(images) < 0.7), rng.binomial(objects, 0.9))
        return (hits > 0).astype(np.int64), hits, objects
    strata = rng.choice(3, images, p=[0.3, 0.6, 0.1])
    objects = np.where(strata == 0, rng.poisson(0.15, images), 1 + rng.poisson(3, images))
    rate = np.array([0.3, 0.92, 0.5])[strata]
    if kind == "independent misses":
        return strata, rng.binomial(objects, rate), objects
    # Beta of the same mean: correlation .3 within an image, or an image is found or missed as a whole.
    whole = kind == "whole images missed"
    chance = rng.random(images) < rate if whole else rng.beta(rate * 7 / 3, (1 - rate) * 7 / 3)
    return strata, rng.binomial(objects, chance), objects


def _bootstrap_t(
    strata: "np.ndarray", found: "np.ndarray", objects: "np.ndarray", sizes: "np.ndarray", seed: int
) -> tuple[float, float]:
    """Interval of a ratio by bootstrap-t on the logit scale (B. Efron, Canadian Journal of Statistics 9, 1981)."""
    import numpy as np
    from scipy import special, stats

    rng, drawn = np.random.default_rng([seed, 1]), np.bincount(strata, minlength=len(sizes))
    hits, there = (np.bincount(strata, values, len(sizes)) @ (sizes / drawn) for values in (found, objects))
    if hits in (0, there):
        # Clopper and Pearson's, with the images that have objects as trials.
        bound = (DELTA / 2) ** (1 / max(1, int((objects > 0).sum())))
        return (0.0, 1.0) if there == 0 else (bound, 1.0) if hits else (0.0, 1 - bound)

    def logit_and_error(times: "list[np.ndarray]", left: "np.ndarray") -> "tuple[np.ndarray, np.ndarray]":
        pairs = [(found[strata == stratum], objects[strata == stratum]) for stratum in range(len(sizes))]
        weights = sizes / drawn
        hits, there = (
            sum(w * (n @ pair[side]) for w, n, pair in zip(weights, times, pairs, strict=True)) for side in (0, 1)
        )
        ratio, variance = hits / there, np.zeros(len(hits))
        for weight, count, number, share, (f, o) in zip(weights, times, drawn, left, pairs, strict=True):
            rest = f - ratio[:, None] * o
            spread = (count * rest**2).sum(axis=1) - (count * rest).sum(axis=1) ** 2 / number
            variance = variance + weight**2 * share * np.maximum(spread, 0) * number / max(1, number - 1)
        return special.logit(ratio), np.sqrt(variance) / there / (ratio * (1 - ratio))

    with np.errstate(all="ignore"):
        (value,), (error,) = logit_and_error([np.ones((1, number)) for number in drawn], 1 - drawn / sizes)
        times = [rng.multinomial(number, np.full(number, 1 / number), BOOTSTRAPS) for number in drawn]
        others, errors = logit_and_error(times, np.ones(len(sizes)))
        score = np.where(np.isfinite(others), (others - value) / errors, np.copysign(np.inf, others - value))
    low, high = np.quantile(score, [DELTA / 2, 1 - DELTA / 2], method="inverted_cdf")
    smallest = drawn[drawn < sizes].min(initial=sizes.max())
    least = min(6.0, float(stats.t.ppf(1 - DELTA / 2, max(1, smallest - 1))))
    ends = value - error * np.array([np.clip(high, least, 6), np.clip(low, -6, -least)])
    return float(special.expit(ends[0])), float(special.expit(ends[1]))
