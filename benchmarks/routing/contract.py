"""One simulated campaign in one drawn batch whose truth is known: fit, certify, and compare with the truth.

An image j has a difficulty u_j ~ Normal(0, s^2); a label of class c in it is correct with probability
sigmoid(b + o_c + u_j), so labels of one image err together (on the logit scale the intra-image correlation is
s^2 / (s^2 + pi^2/3)). A wrong label has one of four reasons, each with its own mean of the six signals; all kinds share
one covariance. Units of the signals are standard deviations.
"""

from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from scipy.special import expit, logsumexp
from threadpoolctl import threadpool_limits

from benchmarks.campaigns import Options
from benchmarks.harness import Table
from vouch_labels.tasks.statistics.bounds import TRUSTED, Bools, Floats, Ints, ReviewerError, reviewer_error
from vouch_labels.tasks.statistics.fit_calibrator import fit_calibrator
from vouch_labels.tasks.statistics.planning import FitLabels, plan_gate_a
from vouch_labels.tasks.statistics.sampling import certification_sample, first_sample, generator
from vouch_labels.tasks.statistics.threshold_tests import (
    Evidence,
    Population,
    Sample,
    accepted_counts,
    binomial_gate_b,
    certified_groups,
    certified_step,
    gate_a,
    gate_b,
    threshold_grid,
)

DELTA: Final = 0.1
PRECISIONS: Final = (0.95, 0.98, 0.99)
REVIEWS: Final = 1_600
FIT_REVIEWS: Final = 400
PLANTED: Final = 300
FALSE_ALARMS: Final = 0.01
LEAST: Final = 0.98
"""Labels of a batch, over how many a world has on average."""

SIGNALS: Final = ("detector_score", "detector_margin", "clip_probability", "sam_iou", "mask_box_iou", "crowding")
KINDS: Final = ("background", "absent class", "part", "duplicate")

SHARED: Final = 0.15
"""Covariance of any two signals of one label."""
IMAGE_SHIFT: Final = 0.25
"""How much an image's difficulty moves the signals of its labels, per unit of it."""
CLASS_SPREAD: Final = 0.5


class Kept(NamedTuple):
    """What came of one rule in one draw."""

    automated: float
    """Share of all labels of the batch that it accepted; those reviewed for fitting count as not accepted."""
    broken: bool
    """It accepted something, and the true precision is below T, in any group."""


@dataclass(frozen=True)
class Campaign:
    """A batch of N labels with a calibrator: what is known, and the truth; (N,) each."""

    scores: Floats
    wrong: Bools
    called_wrong: Bools
    """What a reviewer says, or would say."""
    fitted_to: Bools
    """Reviewed for fitting; the others are the population."""
    groups: list[Bools]
    fit: FitLabels
    fit_groups: list[Bools]
    """The groups among the labels fitted to."""
    reviewers: dict[str, ReviewerError]
    """For each gate."""
    seed: int

    @property
    def population(self) -> Bools:
        """What the guarantee is about, and may be accepted."""
        return ~self.fitted_to


@dataclass(frozen=True)
class World:
    """What is different in a world."""

    name: str
    images: int = 2_000
    labels_an_image: float = 5.0
    spread: float = 0.0
    """Standard deviation s of the images' difficulty."""
    base: float = 1.1
    """Logit b of a correct label in an average image."""
    kinds: tuple[float, float, float, float] = (0.55, 0.2, 0.15, 0.1)
    """Shares of the reasons among wrong labels."""
    absent_images: float = 0.0
    """Share of images in which a class is looked for that is not there: all their labels are wrong."""
    classes: int = 12
    separation: float = 1.0
    """How far apart signals of wrong and right labels lie, times `SHIFTS`."""
    informative: bool = True
    """False: signals that say nothing, so every threshold has the precision of the whole batch."""
    tired: bool = False
    """Reviewers miss more wrong labels the rarer these are in their queue, and call 1% of correct ones wrong."""
    grouped: bool = False
    """Frequent classes are guaranteed on their own, the others together."""
    only: float | None = None
    """The one precision that this world is about; None: all."""


def play(world: World, number: int, reviews: int = REVIEWS) -> dict[tuple[str, float], Kept]:
    """Play one campaign.

    Args:
        world: Where.
        number: Which draw: equal numbers give equal results.
        reviews: Labels that people look at, those for fitting included, honeypots not.

    Returns:
        Rule and precision -> result. Rules: gates A and B; "oracle", the best threshold on the same score for one who
        knows the truth; "ideal", the same on the true posterior; "naive", the loosest threshold at which the reviewed
        certification labels look good enough; "score", the gate with the detector score alone; "trusting", the gate
        without correction where reviewers are tired.
    """
    rng = np.random.default_rng([2026, number])
    batch = cut(draw(world, rng), int(LEAST * world.images * world.labels_an_image))
    fit_reviews = min(FIT_REVIEWS, reviews // 2)
    asked = PRECISIONS if world.only is None else (world.only,)
    found: dict[tuple[str, float], Kept] = {}
    campaign = _campaign(world, batch, fit_reviews, np.arange(len(SIGNALS)), number)
    for precision in asked:
        found |= {(rule, precision): kept for rule, kept in _rules(campaign, precision, reviews - fit_reviews).items()}
        found |= {(f"{gate} ideal", precision): kept for gate, kept in _oracle(batch.ideal, ~batch.correct, precision)}
    if 0.95 in asked and world.informative and not world.grouped and not world.tired:
        alone = _campaign(world, batch, fit_reviews, np.zeros(1, np.int64), number)
        for gate, tested in _tested(alone, 0.95, reviews - fit_reviews, corrected=True).items():
            found[f"{gate} score", 0.95] = _kept(alone, gate, tested, 0.95)
    return found


@dataclass(frozen=True)
class Batch:
    """A drawn batch of N labels."""

    signals: Floats
    """(N, 6)."""
    classes: Ints
    images: Ints
    """(N,) index of the image."""
    correct: Bools
    ideal: Floats
    """(N,) probability of being correct given signals and class: the best score there is without looking."""


def cut(batch: Batch, labels: int) -> Batch:
    """Keep its first labels: where all batches have equally many, a test is calibrated once for many of them."""
    return Batch(
        batch.signals[:labels], batch.classes[:labels], batch.images[:labels], batch.correct[:labels],
        batch.ideal[:labels],
    )  # fmt: skip


def _campaign(world: World, batch: Batch, reviews: int, columns: Ints, seed: int) -> Campaign:
    """Draw and review labels to fit to, fit, and score all labels."""
    rng = generator(seed, 99)
    names, signals = tuple(map(str, range(world.classes))), batch.signals[:, columns]
    # One signal alone is to be ranked as it is, without offsets of classes.
    classes = batch.classes if len(columns) > 1 else np.zeros_like(batch.classes)
    first = first_sample(batch.signals[:, 0], reviews, seed)
    rows, wrong = first.rows, ~batch.correct
    # The queue of gate A is mostly right labels, so honeypots are what makes wrong ones less rare; that of B is mixed.
    eta = _missed_share(0.25)
    called_wrong = _called_wrong(wrong, eta if world.tired else 0.0, world, rng)
    prevalence = float(wrong[rows].mean())
    called_wrong[rows] = _called_wrong(wrong[rows], _missed_share(prevalence) if world.tired else 0.0, world, rng)
    fitted = fit_calibrator(
        signals[rows],
        tuple(SIGNALS[column] for column in columns),
        classes[rows],
        names,
        ~called_wrong[rows],
        batch.images[rows],
        seed,
    )
    fitted_to = np.zeros(len(wrong), np.bool_)
    fitted_to[rows] = True
    members = [np.arange(world.classes)]
    if world.grouped:
        counts = np.bincount(batch.classes[~fitted_to], minlength=world.classes)
        members = certified_groups(counts, REVIEWS, 0.95, DELTA)
    reviewers = {"A": TRUSTED, "B": TRUSTED}
    if world.tired:
        missed = rng.binomial(PLANTED, eta, 2).tolist()
        reviewers["A"] = reviewer_error(PLANTED, missed[0], DELTA)
        reviewers["B"] = reviewer_error(PLANTED, missed[0], DELTA, PLANTED, missed[1])
    return Campaign(
        scores=fitted.calibrator.probabilities(signals, classes, names),
        wrong=wrong,
        called_wrong=called_wrong,
        fitted_to=fitted_to,
        groups=[np.isin(batch.classes, group) for group in members],
        fit=FitLabels(fitted.held_out, called_wrong[rows], 1 / first.inclusion),
        fit_groups=[np.isin(batch.classes[rows], group) for group in members],
        reviewers=reviewers,
        seed=seed,
    )


def _missed_share(prevalence: float) -> float:
    """Share of wrong labels that tired reviewers miss, by the share of wrong labels in their queue."""
    return float(np.clip(0.2 - 0.5 * prevalence, 0.02, 0.2))


def _called_wrong(wrong: Bools, missed: float, world: World, rng: np.random.Generator) -> Bools:
    if not world.tired:
        return wrong.copy()
    chance = rng.random(len(wrong))
    return np.where(wrong, chance >= missed, chance < FALSE_ALARMS)


def _rules(campaign: Campaign, precision: float, reviews: int) -> dict[str, Kept]:
    found = {}
    for gate, tested in _tested(campaign, precision, reviews, corrected=True).items():
        found[gate] = _kept(campaign, gate, tested, precision)
    if campaign.reviewers["A"].spent:
        for gate, tested in _tested(campaign, precision, reviews, corrected=False).items():
            found[f"{gate} trusting"] = _kept(campaign, gate, tested, precision)
    rows = certification_sample(campaign.population, reviews, campaign.seed, number=3).rows
    steps = threshold_grid(campaign.scores[campaign.population])
    for gate, threshold in _naive(campaign.scores[rows], campaign.called_wrong[rows], steps, precision).items():
        found[f"{gate} naive"] = _truth(campaign, gate, [threshold] * len(campaign.groups), rows, precision)
    found |= {f"{gate} oracle": kept for gate, kept in _oracle(campaign.scores, campaign.wrong, precision)}
    return found


class _Tested(NamedTuple):
    """A gate's evidence for every group, and all that was reviewed for it."""

    evidence: list[Evidence]
    rows: Ints


def _tested(campaign: Campaign, precision: float, reviews: int, *, corrected: bool) -> dict[str, _Tested]:
    delta = DELTA / len(campaign.groups)
    rows = certification_sample(campaign.population, reviews, campaign.seed).rows
    found, guided = {"A": _Tested([], rows[:0]), "B": _Tested([], rows)}, []
    for group, fit_group in zip(campaign.groups, campaign.fit_groups, strict=True):
        inside, drawn = group & campaign.population, rows[group[rows]]
        scores = campaign.scores[inside]
        reviewers = campaign.reviewers if corrected else {"A": TRUSTED, "B": TRUSTED}
        found["B"].evidence.append(_gate_b(campaign, group, drawn, precision, delta, reviewers["B"]))
        fit = FitLabels(campaign.fit.scores[fit_group], campaign.fit.wrong[fit_group], campaign.fit.weights[fit_group])
        share = int(reviews * inside.sum() / campaign.population.sum())
        tested = 1 - (1 - precision) * (1 - reviewers["A"].accepted)
        plan = plan_gate_a(scores, fit, share, tested, delta - reviewers["A"].spent)
        region = inside & (campaign.scores >= plan.region)
        chosen = certification_sample(region, share, campaign.seed, number=1).rows
        guided.append(chosen)
        sample = Sample(campaign.scores[chosen], campaign.called_wrong[chosen])
        counts = accepted_counts(scores, plan.thresholds)
        found["A"].evidence.append(gate_a(sample, plan.thresholds, counts, precision, delta, reviewers["A"]))
    found["A"] = found["A"]._replace(rows=np.concatenate(guided))
    return found


def _gate_b(
    campaign: Campaign, group: Bools, rows: Ints, precision: float, delta: float, reviewers: ReviewerError
) -> Evidence:
    """The exact test; with honeypots, the one that takes their measurement."""
    sample = Sample(campaign.scores[rows], campaign.called_wrong[rows])
    steps = threshold_grid(campaign.scores[group & campaign.population])
    if reviewers.spent:
        return binomial_gate_b(sample, steps, precision, delta, reviewers)
    wrong = int((group & campaign.fitted_to & campaign.called_wrong).sum())
    known = int((group & campaign.fitted_to).sum())
    population = Population(int(group.sum()) - known, known - wrong, wrong)
    return gate_b(sample, steps, precision, delta, population)


def _kept(campaign: Campaign, gate: str, tested: _Tested, precision: float) -> Kept:
    steps = [(one, certified_step(one)) for one in tested.evidence]
    thresholds = [np.inf if step is None else float(one.thresholds[step]) for one, step in steps]
    return _truth(campaign, gate, thresholds, tested.rows, precision)


def _truth(campaign: Campaign, gate: str, thresholds: list[float], rows: Ints, precision: float) -> Kept:
    """Hold the truth against thresholds, one a group; what was reviewed (rows) and called wrong is removed."""
    automated, broken, called_wrong = 0, False, campaign.called_wrong
    stays = np.ones(len(called_wrong), np.bool_)
    stays[rows] = ~called_wrong[rows]
    for group, threshold in zip(campaign.groups, thresholds, strict=True):
        accepted = group & campaign.population & (campaign.scores >= threshold)
        kept = accepted & stays if gate == "A" else (accepted & stays) | (group & ~called_wrong)
        automated += int(accepted.sum())
        errors = int((kept & campaign.wrong).sum())
        broken |= bool(accepted.any()) and errors > (1 - precision) * int(kept.sum()) + 1e-9
    return Kept(automated / len(called_wrong), broken)


def _naive(scores: Floats, wrong: Bools, steps: Floats, precision: float) -> dict[str, float]:
    """The loosest thresholds at which the reviewed labels look good enough, infinite without any."""
    evidence = {
        "A": gate_a(Sample(scores, wrong), steps, np.ones(len(steps), np.int64), precision, DELTA),
        "B": binomial_gate_b(Sample(scores, wrong), steps, precision, DELTA),
    }
    found = {}
    for gate, one in evidence.items():
        good = np.flatnonzero((one.reviewed > 0) & (one.errors <= (1 - precision) * one.reviewed))
        found[gate] = float(steps[good[-1]]) if len(good) else float("inf")
    return found


def _oracle(scores: Floats, wrong: Bools, precision: float) -> list[tuple[str, Kept]]:
    """The most labels that any threshold may accept under each gate, reviewers making no mistakes."""
    errors = np.cumsum(wrong[np.argsort(-scores, kind="stable")])
    accepted = np.arange(1, len(errors) + 1)
    found = []
    for gate, size in (("A", accepted), ("B", errors + int((~wrong).sum()))):
        good = np.flatnonzero(errors <= (1 - precision) * size + 1e-9)
        found.append((gate, Kept(float(good[-1] + 1) / len(errors) if len(good) else 0.0, False)))
    return found


SHIFTS: Final = np.array(
    [
        [-1.1, -0.8, -1.5, -0.7, -0.6, -0.1],
        [-0.8, -1.0, -1.3, -0.1, -0.1, 0.0],
        [-0.7, -0.2, -0.7, -0.4, -1.5, 0.4],
        [-0.6, -0.3, -0.2, -0.2, -0.7, 1.9],
    ]
)
"""(kinds, signals) means of wrong labels; correct ones have mean 0."""


def draw(world: World, rng: np.random.Generator, *, ideal: bool = True) -> Batch:
    """Draw a batch; without the ideal score, which takes half of the time, that is 0."""
    counts = 1 + rng.poisson(world.labels_an_image - 1, world.images)
    images = np.repeat(np.arange(world.images), counts)
    count = len(images)
    weights = 1 / np.arange(1, world.classes + 1)
    classes = np.searchsorted(np.cumsum(weights / weights.sum()), rng.random(count)).clip(max=world.classes - 1)
    offsets = rng.normal(0, CLASS_SPREAD * world.informative, world.classes)
    offsets -= offsets @ (weights / weights.sum())
    difficulty = world.spread * rng.standard_normal(world.images)
    # The mean over images stays where it is for any spread, roughly (logistic-normal, MacKay 1992).
    slope = np.sqrt(1 + np.pi * world.spread**2 / 8)
    correct = rng.random(count) < expit(world.base * slope + offsets[classes] + difficulty[images])
    absent = rng.random(world.images) < world.absent_images
    correct &= ~absent[images]
    kind = np.searchsorted(np.cumsum(world.kinds), rng.random(count)).clip(max=len(KINDS) - 1)
    kind[absent[images]] = 1
    signals = rng.standard_normal((count, len(SIGNALS))) * np.sqrt(1 - SHARED)
    signals += np.sqrt(SHARED) * rng.standard_normal((count, 1))
    if not world.informative:
        return Batch(signals, classes, images, correct, rng.random(count))
    signals[~correct] += world.separation * SHIFTS[kind[~correct]]
    signals += IMAGE_SHIFT * difficulty[images][:, None]
    best = _ideal(signals, classes, correct, kind, world) if ideal else np.zeros(count)
    return Batch(signals, classes, images, correct, best)


def _ideal(signals: Floats, classes: Ints, correct: Bools, kind: Ints, world: World) -> Floats:
    """Posterior of "correct", from the true densities and the shares that this batch has."""
    size = len(SIGNALS)
    covariance = (1 - SHARED) * np.eye(size) + SHARED + (IMAGE_SHIFT * world.spread) ** 2
    whiten = np.linalg.inv(np.linalg.cholesky(covariance)).T
    points, means = signals @ whiten, world.separation * SHIFTS @ whiten
    shares = np.bincount(kind[~correct], minlength=len(KINDS)) / max(1, int((~correct).sum()))
    logs = points @ means.T - (means**2).sum(axis=1) / 2 + np.log(np.maximum(shares, 1e-12))
    rate = (np.bincount(classes, correct, world.classes) + 0.5) / (np.bincount(classes, minlength=world.classes) + 1)
    return np.asarray(expit(np.log(rate / (1 - rate))[classes] - logsumexp(logs, axis=1)), np.float64)


DRAWS: Final = 1_000
GATES: Final = ("A", "B")
FLOORS: Final = {"A": 0.80, "B": 0.85}
"""Least automation at T = .95 in the plain world, as a share of the ideal one."""
SCORE_FLOOR: Final = 1.25


def measure(options: Options) -> Table:
    """Play campaigns in every world, and hold each against the truth."""
    draws = 3 if options.quick else DRAWS
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for world in _worlds():
        with threadpool_limits(1, user_api="blas"):  # the arrays are small: threads would wait for each other
            found = _summary(world, draws)
        for (precision, gate), cells in found.items():
            name = f"{world.name}, T {precision:.2f}, {gate}"
            rows.append([name, *_cells(cells, draws)])
            figures |= {f"{name}: {key}": value for key, value in cells.items()}
    limit = DELTA + 2 * float(np.sqrt(DELTA * (1 - DELTA) / draws))
    rows += [_worst(gate, figures, draws) for gate in GATES]
    rows += [_floor(gate, limit) for gate in GATES]
    figures["violations_limit"] = limit
    return Table(
        title=f"the contract in made-up worlds, {draws:,} draws each, delta {DELTA:.2f}",
        columns=[
            "world, T, gate",
            "broken ± SE",
            "accepted",
            "of ideal",
            "of same score",
            ": score alone",
            "naive broken",
            "naive accepted",
            "trusting broken",
        ],
        rows=rows,
        notes=[
            f"A draw is a batch of 9,800 labels with {REVIEWS:,} reviews, {FIT_REVIEWS} of them for fitting; others "
            "are drawn uniformly for B, guided for A.",
            "Broken: share of draws in which something was accepted and its true precision (B: that of what is "
            "delivered) is below T, sampled labels that were called wrong removed; grouped: in any group. Accepted: "
            "mean share of all labels of the batch, nothing accepted counted as 0, and so are the labels fitted to.",
            "Ideal: the best threshold for one who knows every label and ranks by the true posterior; of same score: "
            "for one who knows every label and ranks as we do.",
            "Score alone: our share accepted over that of the same gate with the detector score as its only signal; "
            "'none' where that one accepts nothing.",
            "Naive: the loosest threshold at which the certification reviews look good enough.",
            f"Tired: reviewers miss a share of wrong labels that grows as these get rarer, and {PLANTED} known-wrong "
            "labels (for B twice as many) measure it, on top of the reviews; trusting: the same gate without that.",
            "Worst: over all rows for what is broken; over the informative worlds with trusted reviewers and one "
            "guarantee, at T = .95, for the rest. Floors for what is accepted are those of the plain world.",
            "Just below T: all labels alike, 5% more of them wrong than allowed; just above: 40% fewer.",
            "Other work ran on the machine meanwhile; no figure of this table is a time.",
        ],
        figures=figures,
    )


def _worlds() -> list[World]:
    from scipy.special import logit

    one_kind = (1.0, 0.0, 0.0, 0.0)
    found = [
        World("plain", kinds=one_kind),
        World("four kinds of errors"),
        World("ICC .15", spread=0.76),
        World("ICC .30", spread=1.19),
        World("absent classes, ICC .15", spread=0.76, absent_images=0.08, base=1.3),
        World("duplicates and parts", kinds=(0.2, 0.1, 0.25, 0.45)),
        World("grouped, 40 Zipf classes", classes=40, grouped=True),
        World("tired reviewers", tired=True),
    ]
    for precision in PRECISIONS:
        for name, factor in (("just below T", 1.05), ("just above T", 0.6)):
            base = float(logit(1 - factor * (1 - precision)))
            found.append(World(name, base=base, kinds=one_kind, informative=False, only=precision))
    return found


def _summary(world: World, draws: int) -> dict[tuple[float, str], dict[str, float]]:
    """Figures of a world by T and gate."""
    played = [play(world, number) for number in range(draws)]
    found = {}
    for precision in sorted({precision for _, precision in played[0]}):
        for gate in GATES:
            cells = _figures("", _results(gate, precision, played))
            for rule in ("ideal", "oracle", "score", "naive", "trusting"):
                cells |= _figures(f"{rule} ", _results(f"{gate} {rule}", precision, played))
            found[precision, gate] = cells
    return found


def _results(rule: str, precision: float, played: list[dict[tuple[str, float], Kept]]) -> list[Kept]:
    return [one[rule, precision] for one in played if (rule, precision) in one]


def _figures(name: str, results: list[Kept]) -> dict[str, float]:
    if not results:
        return {}
    automated, broken = np.array(results, np.float64).T
    return {f"{name}accepted": float(automated.mean()), f"{name}broken": float(broken.mean())}


def _cells(cells: dict[str, float], draws: int) -> list[str]:
    broken, accepted = cells["broken"], cells["accepted"]
    error = float(np.sqrt(broken * (1 - broken) / draws))
    alone = cells.get("score accepted")
    return [
        f"{broken:.3f} ± {error:.3f}",
        f"{accepted:.3f}",
        _ratio(accepted, cells["ideal accepted"]),
        _ratio(accepted, cells["oracle accepted"]),
        "" if alone is None else f"{accepted / alone:.2f}" if alone >= 0.0005 else "none",
        f"{cells['naive broken']:.3f}",
        f"{cells['naive accepted']:.3f}",
        f"{cells['trusting broken']:.3f}" if "trusting broken" in cells else "",
    ]


def _ratio(part: float, whole: float) -> str:
    return f"{part / whole:.0%}" if whole >= 0.0005 else ""


def _worst(gate: str, figures: dict[str, float], draws: int) -> list[str]:
    """The worst of every column."""
    ours = [name.removesuffix(": broken") for name in figures if name.endswith(f", {gate}: broken")]
    broken = max(figures[f"{name}: broken"] for name in ours)
    error = float(np.sqrt(broken * (1 - broken) / draws))
    compared = [name for name in ours if f"{name}: score accepted" in figures]

    def least(other: str) -> float:
        return min(
            figures[f"{name}: accepted"] / max(figures[f"{name}: {other} accepted"], 0.0005) for name in compared
        )

    return [
        f"worst, {gate}",
        f"{broken:.3f} ± {error:.3f}",
        f"{min(figures[f'{name}: accepted'] for name in compared):.3f}",
        f"{least('ideal'):.0%}",
        f"{least('oracle'):.0%}",
        f"{least('score'):.2f}",
        f"{max(figures[f'{name}: naive broken'] for name in ours):.3f}",
        "",
        "",
    ]


def _floor(gate: str, limit: float) -> list[str]:
    return [f"floor, {gate}", f"≤ {limit:.3f}", "", f"{FLOORS[gate]:.0%}", "", f"{SCORE_FLOOR:.2f}", "", "", ""]
