"""Draws the labels of each review stage: calibration set, validation sample, low-confidence labels, options.

The validation sample is either a new one, with groups declared again, or more of the present one. Options are asked for
beside a stage's own draw: control items, whole images, false-negative candidates. Low-confidence labels are ordered by
how much expected error each second of review removes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.campaign import Undecided
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Covered
from vouch_labels.schemas.reviews import TASKS, AuditPlan, GroupPlan, Stratum
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.certify.data import (
    BLOCK,
    Candidates,
    Guarantee,
    RunReviews,
    declare_groups,
    draw_counts,
    parts_of,
    region_of,
    reviews_to_start,
)
from vouch_labels.tasks.certify.fit import fit_run
from vouch_labels.tasks.certify.judge import drawing_as_test
from vouch_labels.tasks.certify.monitor import (
    would_accept,
)
from vouch_labels.tasks.certify.questions import label_tasks, make_honeypots, possible_misses, read_presence
from vouch_labels.tasks.certify.recall import draw_image_checks, image_strata
from vouch_labels.tasks.certify.rounds import (
    Round,
    candidates_of,
    continues,
    count_tests,
    keep_calibrator,
    labels_of_round,
    last_round,
    policy_of_run,
)
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.log import CertificationTest
from vouch_labels.tasks.reviews.plans import CHANGE_CLASS_S, DRAW_BOX_S, VERIFY_S, labels_within
from vouch_labels.tasks.reviews.resolve import IN_DISPUTE, NO_ANSWER, ImageAnswers
from vouch_labels.tasks.statistics.betting import PART, grid_of, tested_any_time
from vouch_labels.tasks.statistics.bounds import Floats, Ints
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.fit_calibrator import FEWEST_LABELS
from vouch_labels.tasks.statistics.planning import fewest_labels
from vouch_labels.tasks.statistics.sampling import first_sample, generator
from vouch_labels.tasks.statistics.threshold_tests import Population, delta_of_test

MOST_TO_FIT: Final = 400
"""Reviewed labels above which a calibrator of these signals gains little."""
FEW_TO_FIT: Final = 40
PART_TO_FIT: Final = 20
"""Labels of a run for each that is reviewed to fit, where they are few: what is reviewed is not automated, and reviews
are worth more in the validation sample (`python -m benchmarks certificate`)."""
_HONEYPOTS: Final = 98
"""Purpose of the generator that makes honeypots."""
# Measured on drawn scenes; docs/design.md has the whole of it.
_WEAK: Final = (
    "a weak hint, chosen and not drawn, so the answers tell nothing of the recall: with the bundled CLIP, on drawn "
    "scenes of two styles, 1.9% and 16.4% of such pairs held an overlooked object, of all pairs without a box 1.1% and "
    "11.0%"
)

WORTH_VERIFYING: Final = VERIFY_S / DRAW_BOX_S
"""Below this p(correct) it is quicker to draw the objects than to look through proposals for them."""
UNKNOWN_P_OF_WAITING: Final = 0.5


def labels_to_fit(labels: int, affordable: int) -> int:
    """How many labels to fit to, of a run with so many and with time for so many."""
    return min(MOST_TO_FIT, max(FEW_TO_FIT, labels // PART_TO_FIT), affordable)


@dataclass(frozen=True)
class Draw:
    """What is asked, and what the plan says of it."""

    tables: tuple[pa.Table, ...]
    """Rows of TASKS in any order of `place`."""
    notes: tuple[str, ...]
    scores: Floats
    """(N,) p(correct) that the draw went by."""
    calibrator: str | None = None
    groups: tuple[GroupPlan, ...] = ()
    round: int = 0
    tests: tuple[CertificationTest, ...] = ()
    """What the drawing amounts to; to be taken before the plan is written."""
    audit: AuditPlan | None = None
    population: Covered | None = None
    """The labels that a validation sample or an audit was drawn from."""
    any_time_delta: float = 0.0
    """What the test after any answer may spend; 0: there is none. The rows are in the order drawn."""
    nothing: str = "nothing is left to ask"
    """Why there is nothing to ask, where there is nothing."""

    @property
    def seconds(self) -> float:
        """Expected time."""
        return float(sum(pc.sum(table["seconds"]).as_py() or 0 for table in self.tables))

    def beside(self, other: "Draw") -> "Draw":
        """Ask both; what the plan says of draws is this one's."""
        return replace(self, tables=(*self.tables, *other.tables), notes=(*self.notes, *other.notes))


def draw_first(reviews: RunReviews, seconds: float) -> Draw:
    """Draw labels to fit to, of all images: half over the range of the detector score, half uniformly.

    Later more labels are drawn from those that have no answer and were not drawn before.

    Raises:
        UserError: The time is too short, or every label was drawn or answered.
    """
    labels = reviews.labels
    wanted = labels_to_fit(labels.count, labels_within(seconds))
    if wanted < FEWEST_LABELS:
        raise UserError(
            f"a calibrator needs {FEWEST_LABELS} reviewed labels at least, "
            f"about {np.ceil(FEWEST_LABELS * VERIFY_S / 60):.0f} minutes; raise --minutes"
        )
    asked = [tasks.filter(pc.equal(tasks["purpose"], "fit"))["label_id"].to_pylist() for _, tasks in reviews.plans]
    drawn_before = labels.places([label for part in asked for label in part])
    free = reviews.unknown
    free[drawn_before[drawn_before >= 0]] = False
    among = np.flatnonzero(free)
    if not len(among):
        raise UserError("every label was drawn or answered already; use vouch plan-reviews CAMPAIGN --stage certify")
    scores = labels.signal("detector_score")[among].astype(np.float64)
    drawn = first_sample(scores, wanted, reviews.seed + len(reviews.plans))
    rows = among[drawn.rows]
    p = labels.p_correct
    return Draw(
        tables=(label_tasks(labels, rows, "fit", p, reviews.answers, drawn.inclusion),),
        notes=(
            f"{plural(len(rows), 'label')} to fit the calibrator to, half spread over the detector's scores, half at "
            "random: they teach how far each signal is to be trusted, and certify nothing",
        ),
        scores=p,
    )


def draw_queue(reviews: RunReviews, seconds: float) -> Draw:
    """Choose the labels that wait for people and are worth most a second."""
    scores = _known_scores(reviews)
    rows, waiting = low_confidence_rows(reviews, scores, labels_within(seconds))
    nothing = nothing_worth_asking(waiting, reviews.campaign.export.undecided)
    note = f"{len(rows):,} of {plural(waiting, 'label')} waiting for people, those first that fix most a second"
    return Draw(
        tables=(label_tasks(reviews.labels, rows, "doubtful", scores, reviews.answers),),
        notes=(note if len(rows) else nothing,),
        scores=scores,
        nothing=nothing,
    )


def _known_scores(reviews: RunReviews) -> Floats:
    """p(correct) as routed, or by the active policy for what has none, else by the last certification round."""
    labels = reviews.labels
    if not np.isnan(labels.p_correct).all():
        return labels.p_correct
    policy = policy_of_run(reviews)
    if policy is not None and policy.certification is not None:
        calibrator = Calibrator.from_dict(policy.certification.calibrator)
        return labels.probabilities(calibrator)
    last = last_round(reviews.plans)
    return labels.p_correct if last is None else labels_of_round(reviews, last).candidates.scores


def draw_certification(reviews: RunReviews, seconds: float, fresh: bool, honeypots: bool = False) -> Draw:
    """Draw labels that certify: more of the sample that is there, or a new one with groups declared again.

    A new sample of `FEWEST` labels or more is tested after any answer as well, unless honeypots are asked for: what
    they show is known once all are answered.

    Raises:
        UserError: Too few verdicts to fit, too little time, or nothing left to draw.
    """
    last = last_round(reviews.plans)
    if last is not None and not fresh and continues(reviews, last):
        return _extended(reviews, last, labels_within(seconds))
    return _declared(reviews, labels_within(seconds), 1 if last is None else last.plan.round + 1, honeypots)


def _declared(reviews: RunReviews, count: int, number: int, honeypots: bool) -> Draw:
    """Fit, declare groups and threshold grids, and draw the first sample of a round."""
    labels, guarantee = reviews.labels, reviews.guarantee
    fit = fit_run(labels, reviews.plans, reviews.answers, reviews.seed)
    candidates = candidates_of(reviews, fit.scores, reviews.unknown)
    if not candidates.population.any():
        raise UserError("people have looked at every label, so there is nothing to certify; label more images first")
    drawing = drawing_as_test(reviews)
    test_number = 1 + count_tests(reviews, reviews.numbers[candidates.population]) + len(drawing)
    classes = labels.class_index[fit.rows]
    any_time = tested_any_time(count, int(candidates.population.sum()), honeypots) and not guarantee.leaves_out
    spent = delta_of_test(1 - guarantee.confidence, test_number)
    delta, any_time_delta = (spent * (1 - PART), spent * PART) if any_time else (spent, 0.0)
    groups = declare_groups(candidates, fit.labels, classes, guarantee, count, delta)
    if any_time:
        groups = tuple(_with_grid(candidates, group) for group in groups)
    counts = parts_of(candidates, groups, guarantee.gate, count)
    drawn = draw_counts(candidates, groups, guarantee.gate, counts, reviews.seed, number)
    if not len(drawn.rows):
        needed = reviews_to_start(candidates, fit.labels, classes, guarantee, max(1, count), delta)
        raise UserError(_too_little(count, needed))
    least = _least(candidates, groups, guarantee, delta / len(groups))
    notes = [
        f"{len(drawn.rows):,} of {int(candidates.population.sum()):,} labels that may be accepted, drawn at random, "
        f"to certify {guarantee.precision:.4g} of the {guarantee.gate} labels at confidence {guarantee.confidence:.4g}",
        f"certified on their own: {', '.join(group.name for group in groups)}",
    ]
    if len(drawn.rows) == candidates.population.sum() > 2 * sum(least):
        notes.append(
            "that is every label there is, so none would be accepted unseen: fewer do, see `vouch simulate`; ask for "
            "them by --stage certify --fresh with less --minutes, before the first is answered"
        )
    missing = [need for group, need in zip(groups, least, strict=True) if candidates.of(group)[drawn.rows].sum() < need]
    if missing:
        notes.append(
            f"even without an error a group needs about {max(missing):,} reviewed labels: ask for more by --stage "
            "certify --fresh with more --minutes, before the first is answered"
        )
    notes.append(
        f"the calibrator was fitted to {fit.fitted.labels:,} verdicts: held-out Brier score {fit.fitted.brier:.4f}, of "
        f"the constant share of correct ones {fit.fitted.brier_of_rate:.4f}"
    )
    if any_time:
        notes.append(
            f"`vouch certify` may be used after any answers: they come in the order drawn, {BLOCK} at a time class by "
            "class, and each look at them is the same test"
        )
    return Draw(
        tables=(label_tasks(labels, drawn.rows, "certify", fit.scores, reviews.answers, drawn.inclusion),),
        any_time_delta=any_time_delta,
        notes=tuple(notes),
        scores=fit.scores,
        calibrator=keep_calibrator(reviews.workspace, reviews.run, fit),
        groups=groups,
        population=reviews.covered(candidates.population),
        round=number,
        tests=drawing,
    )


def _least(candidates: Candidates, groups: Sequence[GroupPlan], guarantee: Guarantee, delta: float) -> list[int]:
    """Fewest sampled labels of each group that certify it without an error; all of them where none do."""
    found = []
    for group in groups:
        labels = int(region_of(candidates, group).sum())
        population = Population(labels, group.known_correct, group.known_wrong)
        few = fewest_labels(guarantee.gate, population, guarantee.precision, delta, guarantee.missed)
        found.append(labels if few is None else few)
    return found


def _extended(reviews: RunReviews, last: Round, count: int) -> Draw:
    """Draw the next labels of the random order that a round began with."""
    plan, labels = last.plan, reviews.labels
    candidates = labels_of_round(reviews, last).candidates
    before = last.counts()
    counts = [had + part for had, part in zip(before, parts_of(candidates, plan.groups, plan.gate, count), strict=True)]
    drawn = draw_counts(candidates, plan.groups, plan.gate, counts, plan.seed, plan.round)
    new = ~np.isin(drawn.rows, labels.places(last.certify["label_id"]))
    if not new.any():
        raise UserError(
            "every label that could certify has been drawn; ask for a lower routing.precision, or review more to fit "
            "(--stage first) and draw again (--stage certify --fresh)"
        )
    tasks = label_tasks(labels, drawn.rows[new], "certify", candidates.scores, reviews.answers, drawn.inclusion[new])
    return Draw(
        tables=(tasks,),
        notes=(
            f"{plural(int(new.sum()), 'label')} more for the certification sample of {sum(before):,}, next in the same "
            "random order; certifying again is another test, with a part of the confidence that is left",
        ),
        scores=candidates.scores,
        calibrator=plan.calibrator,
        groups=plan.groups,
        population=plan.population,
        round=plan.round,
        any_time_delta=plan.any_time_delta,
        tests=drawing_as_test(reviews),
    )


def _with_grid(candidates: Candidates, group: GroupPlan) -> GroupPlan:
    """What the test after any answer knows of a group's thresholds before anything is answered."""
    scores = candidates.scores[candidates.of(group)]
    grid = grid_of(scores, np.array(group.thresholds, np.float64))
    wrong_share = np.nan_to_num(1 - scores, copy=False, nan=0)
    most_wrong = float(wrong_share.sum())
    accepted, wrong = tuple(grid.accepted.tolist()), tuple(grid.wrong.tolist())
    found = {"labels": len(scores), "accepted": accepted, "wrong": wrong, "most_wrong": most_wrong}
    return group.model_copy(update=found)


def _too_little(count: int, needed: int | None) -> str:
    if needed is None:
        return (
            "no number of reviews is likely to certify this precision: too many labels with the best scores are wrong; "
            "ask for a lower routing.precision, or review more to fit (--stage first)"
        )
    return (
        f"{plural(count, 'review is', 'reviews are')} too few to certify anything; about {needed:,} may do: "
        f"vouch plan-reviews CAMPAIGN --minutes {np.ceil(needed * VERIFY_S / 60):.0f}"
    )


def add_honeypots(reviews: RunReviews, draw: Draw, count: int) -> tuple[pa.Table, tuple[str, ...]]:
    """Make known-wrong labels with the scores of what is asked: rows of TASKS, and notes for the user.

    Gate "delivered" needs them with the scores of routed labels as well, for reviewers who miss wrong ones leave these
    in the data set; gate "accepted" does not.

    Raises:
        UserError: There is nothing to make them of, or no probability to choose them by.
    """
    if not count:
        return TASKS.empty_table(), ()
    if np.isnan(draw.scores).all():
        raise UserError("--honeypots needs a fitted calibrator; ask for honeypots from the certification sample on")
    cuts = [group.region for group in draw.groups if group.region is not None]
    cut = min(cuts) if cuts else expected_threshold(draw.scores[reviews.unknown], reviews.guarantee)
    rng = generator(reviews.seed, _HONEYPOTS, len(reviews.plans))
    tasks = make_honeypots(reviews, draw.scores, cut, count, rng, routed=reviews.guarantee.gate == "delivered")
    if not tasks.num_rows:
        raise UserError("--honeypots needs labels that reviewers found correct, and there are none")
    note = f"{plural(tasks.num_rows, 'known-wrong label')} among them, to show how many wrong ones reviewers miss"
    if tasks.num_rows < count:
        note += f" ({count:,} were asked for; there are no more labels to make them of)"
    return tasks, (note,)


def expected_threshold(scores: Floats, guarantee: Guarantee) -> float:
    """The loosest threshold that the probabilities themselves allow, were they exact; infinite where none is.

    scores: (N,) p(correct) of the population.
    """
    p = np.sort(scores[np.isfinite(scores)])[::-1]
    wrong = np.cumsum(1 - p)
    kept = np.arange(1, len(p) + 1) + (p.sum() - np.cumsum(p) if guarantee.gate == "delivered" else 0)
    good = np.flatnonzero(wrong <= (1 - guarantee.precision) * kept)
    return float(p[good[-1]]) if len(good) else float("inf")


@dataclass(frozen=True)
class AboutImages:
    """What is asked about images."""

    tasks: pa.Table
    strata: tuple[Stratum, ...] = ()
    """For the plan."""
    notes: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """Expected time."""
        return float(pc.sum(self.tasks["seconds"]).as_py() or 0)


def ask_about_images(reviews: RunReviews, answers: ImageAnswers, searches: int, misses: int) -> AboutImages:
    """Draw images to be searched for every object, and choose possible misses, which are asked last.

    Raises:
        UserError: The run did not look at whole images.
    """
    if not searches and not misses:
        return AboutImages(TASKS.empty_table())
    with Ledger.load(reviews.workspace, reviews.run) as ledger:
        presence = read_presence(reviews.workspace, reviews.run, ledger, reviews.current)
    if misses and not presence.num_rows and not reviews.campaign.models.scorer.presence:
        raise UserError(
            "--misses asks about what CLIP sees in whole images, and models.scorer.presence is false, so it did not "
            "look; set it to true and use `vouch run`, which keeps the labels, or leave --misses out"
        )
    searched = _searches(reviews, presence, searches) if searches else AboutImages(TASKS.empty_table())
    missed = _misses(reviews, presence, answers, searched.tasks, misses) if misses else AboutImages(TASKS.empty_table())
    return AboutImages(
        pa.concat_tables([searched.tasks, missed.tasks]), searched.strata, (*searched.notes, *missed.notes)
    )


def _searches(reviews: RunReviews, presence: pa.Table, count: int) -> AboutImages:
    tasks, strata = draw_image_checks(
        reviews.labels,
        image_strata(reviews.labels, presence),
        count,
        reviews.seed,
        plans=reviews.plans,
        inputs=reviews.current.inputs,
        answers=reviews.answers,
    )
    drawn = sum(stratum.drawn for stratum in strata)
    images = plural(drawn, "image")
    note = f"{images} to be searched for every object, with the unreviewed labels there: that tells the recall"
    return AboutImages(tasks, strata, (note,))


def _misses(
    reviews: RunReviews, presence: pa.Table, answers: ImageAnswers, searches: pa.Table, count: int
) -> AboutImages:
    # What was asked about labels of other models was about other boxes.
    asked = [tasks for plan, tasks in reviews.plans if plan.inputs == reviews.current.inputs]
    tasks = possible_misses(reviews.labels, presence, answers, pa.concat_tables([searches, *asked]), count)
    pairs = plural(tasks.num_rows, "class", "classes")
    note = f"{pairs} that CLIP sees in an image and no box shows, the last to be asked"
    if tasks.num_rows < count:
        note += f" ({count:,} were asked for; there are no more that were not asked about)"
    return AboutImages(tasks, notes=(note, _WEAK) if tasks.num_rows else (note,))


def low_confidence_rows(reviews: RunReviews, scores: Floats, count: int) -> tuple[Ints, int]:
    """Choose (n,) rows of the labels that wait for people, disputed ones first, then by errors removed per second.

    Labels that an earlier plan asks about already are left out. NaN among scores, (N,) p(correct), counts as
    `UNKNOWN_P_OF_WAITING`. Returned is also how many wait in all.
    """
    labels = reviews.labels
    codes = reviews.codes
    disputed = np.flatnonzero(codes == IN_DISPUTE)
    asked = np.zeros(labels.count, np.bool_)
    for _, tasks in reviews.plans:
        places = labels.places(tasks["label_id"])
        asked[places[places >= 0]] = True
    policy = policy_of_run(reviews)
    # Labels that a top-up sample may cover are no business of one by one.
    to_cover = would_accept(policy, labels) if policy is not None and policy.certification else labels.accepted
    waiting = np.flatnonzero((codes == NO_ANSWER) & ~labels.accepted & ~to_cover & ~asked)
    p = np.where(np.isnan(scores[waiting]), UNKNOWN_P_OF_WAITING, scores[waiting])
    rate = removed_per_second(p, reviews.campaign.export.undecided)
    order = np.argsort(-rate, kind="stable")
    worth = waiting[order][p[order] > WORTH_VERIFYING]
    return np.concatenate([disputed, worth])[:count], len(disputed) + len(waiting)


def nothing_worth_asking(waiting: int, undecided: Undecided | None) -> str:
    """Say why none of the labels that wait is worth asking about."""
    if not waiting:
        return "nothing is left to ask: every label that waits has been asked about"
    stay = {
        "ignore": "they stay out of the data set as ignore regions",
        "drop_image": "their images stay out of the data set",
        "blank": "they are filled with grey in the data set",
        "drop": "they stay out of the data set",
        "include": "they are in the data set as they are",
    }
    return (
        f"{plural(waiting, 'label waits', 'labels wait')}; all have p_correct below "
        f"{WORTH_VERIFYING:.3f}, where drawing is quicker than looking ({stay[undecided or 'ignore']})"
    )


def removed_per_second(p: Floats, undecided: Undecided | None) -> Floats:
    """Errors of the data set that a second spent on a label removes, on average.

    A label that waits is left out of the data set, alone or with its image: deciding it brings an object back
    with chance p.
    Where it is included, deciding it takes a wrong one out with chance 1 - p. Looking takes `VERIFY_S`, naming what is
    wrong `CHANGE_CLASS_S` more.
    """
    removed = 1 - p if undecided == "include" else p
    return np.asarray(removed / (VERIFY_S + (1 - p) * CHANGE_CLASS_S), np.float64)
