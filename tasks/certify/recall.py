"""Estimates recall: draws images to be annotated exhaustively, and counts which of their objects labels have found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import TASKS, ReviewPlan, Stratum
from vouch_labels.tasks.arrow import boxes_of, numbers
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.certify.questions import image_tasks, label_tasks, numbered
from vouch_labels.tasks.labels.arrays import RunLabels
from vouch_labels.tasks.reviews.plans import Plans, image_check_s
from vouch_labels.tasks.reviews.resolve import DISPUTED, NO_ANSWER, Answers, ImageAnswers
from vouch_labels.tasks.statistics.bounds import Bools, Ints
from vouch_labels.tasks.statistics.recall import ExhaustiveImages, Recall, image_sample, most_missed, recall

IMAGE: Final = "image"
DOUBTFUL: Final = "doubtful"
SEEN: Final = 0.5
"""Presence from which on an image counts as one in which CLIP sees a class without a box."""
STRATA: Final = ("no boxes", "boxes", "CLIP sees a class without a box")
LEAST: Final = 2
"""Searched images that a stratum needs."""

SAME_IOU: Final = 0.5
"""Boxes of one class that overlap so much show one object."""
_ANY_CLASS: Final = -1
"""Stands for the class of an object whose verdict says only that its label names the wrong one."""


@dataclass(frozen=True)
class StratumRecall:
    """What was seen of one stratum."""

    name: str
    images: int
    drawn: int
    searched: int
    """Of the drawn images those that were finished: searched for every class, all their labels decided."""
    objects: int
    """In the finished images, as the next two."""
    accepted: int
    delivered: int


@dataclass(frozen=True)
class RunRecall:
    """Recall of a run, estimated from the images that were drawn and searched."""

    accepted: Recall
    """Share of all objects that accepted labels have found: what is there without a person."""
    delivered: Recall
    """The same of all labels once every routed one is decided: what is left of the detector's."""
    strata: tuple[StratumRecall, ...]
    incomplete: int
    """Drawn images that were searched, but have labels still to be decided."""
    passed_over: int
    """Drawn images that were not searched, though one that was drawn after them was."""
    simulated: bool
    """Whether a simulated reviewer answered any of it."""


def image_strata(labels: RunLabels, presence: pa.Table, seen: float = SEEN) -> Ints:
    """Stratum of every image, (M,) places in STRATA.

    From a presence of `seen` on an image is of the last stratum, whether it has boxes of other classes or not.
    """
    strata = (np.bincount(labels.image_index, minlength=labels.images) > 0).astype(np.int64)
    sure = pc.greater_equal(presence["clip_presence"], pa.scalar(seen, pa.float32()))
    images = images_of(labels, presence.filter(sure)["key"])
    strata[images[images >= 0]] = STRATA.index("CLIP sees a class without a box")
    return strata


def draw_image_checks(
    labels: RunLabels,
    strata: Ints,
    count: int,
    seed: int,
    *,
    plans: Plans = (),
    inputs: Mapping[str, str],
    answers: Answers,
) -> tuple[pa.Table, tuple[Stratum, ...]]:
    """Draw images to be annotated exhaustively, none twice while the labels stay the same.

    What is found can be counted only where the labels of the image are decided, so those without an answer, accepted or
    not, are asked just before their image. A search is computed as one pass over the image (costs.image_check_s); boxes
    that have to be drawn come on top.
    """
    sizes = np.bincount(strata, minlength=len(STRATA))
    batch = sum(bool(plan.image_strata) for plan, _ in plans)
    free = np.ones(len(strata), np.bool_)
    for plan, tasks in plans:
        # A search says something of the labels that it was made with alone. Where images came since, all are drawn
        # from again, so that old and new have equal chances; answers to old ones still count.
        if plan.inputs != dict(inputs) or _same_draw(plan, inputs, sizes):
            places = images_of(labels, _image_rows(tasks)["key"])
            free[places[places >= 0]] = False
    candidates = np.flatnonzero(free)
    if not len(candidates):
        return TASKS.empty_table(), _strata(sizes, np.zeros_like(sizes))
    drawn = image_sample(strata[candidates], count, seed, batch)
    rows = candidates[drawn.rows]
    searches = image_tasks(
        IMAGE,
        labels.keys.take(pa.array(rows)),
        [None] * len(rows),
        image_check_s(len(labels.class_names)),
        stratum=strata[rows],
        inclusion=drawn.inclusion,
    )
    tasks = _with_labels(labels, searches, rows, answers)
    return tasks, _strata(sizes, np.bincount(strata[rows], minlength=len(STRATA)))


def recall_of_run(
    labels: RunLabels,
    plans: Plans,
    image_answers: ImageAnswers,
    answers: Answers,
    *,
    inputs: Mapping[str, str],
    delta: float,
) -> RunRecall:
    """Estimate recall from the images that plans have drawn and people have annotated exhaustively.

    The images of a plan are in random order, so those before the last that was searched are a random sample, however
    far people have come. Of these every one counts: what was left unfinished or passed over, maybe because there is
    much to draw, widens the interval by the most that it may hold.

    Draws of one batch (same inputs, same strata) are pooled: each is a uniform draw of what the earlier ones left, so
    together they are one of all. Of the accepted labels those that people called correct count, so wrong ones that a
    policy lets through make recall no better. Plans made for other inputs do not count.

    Raises:
        UserError: No image was drawn, or too few were annotated.
    """
    batch = _last_batch(plans, inputs)
    if not batch:
        raise UserError(
            "recall is unknown: no image of this run was drawn to be searched with its present labels; use "
            "`vouch plan-reviews`"
        )
    sizes = np.array([stratum.size for stratum in batch[-1][0].image_strata], np.int64)
    of_plans = [_image_rows(tasks) for _, tasks in batch]
    drawn, plan = pa.concat_tables(of_plans), np.repeat(np.arange(len(batch)), [len(rows) for rows in of_plans])
    places, strata = images_of(labels, drawn["key"]), numbers(drawn["stratum"], np.int64)
    # Images that have left the source since are neither drawn nor searched.
    here = places >= 0
    places, strata, plan = places[here], strata[here], plan[here]
    found = exhaustive_images(labels, image_answers, answers, places)
    reached = _reached(found.checked, plan)
    counts = tuple(
        StratumRecall(
            name=stratum.name,
            images=stratum.size,
            drawn=int(here.sum()),
            searched=int((here & found.complete).sum()),
            objects=int(found.objects[here & found.complete].sum()),
            accepted=int(found.accepted[here & found.complete].sum()),
            delivered=int(found.delivered[here & found.complete].sum()),
        )
        for index, stratum in enumerate(batch[-1][0].image_strata)
        for here in [strata == index]
    )
    incomplete = int((found.checked & ~found.complete).sum())
    _check_enough(counts, incomplete)
    every = np.bincount(labels.image_index, minlength=labels.images)
    accepted = np.bincount(labels.image_index[labels.accepted], minlength=labels.images)

    def estimate(values: Ints, shown: Ints) -> Recall:
        # An image finds no more than it has labels.
        most = np.full(len(sizes), shown.max(initial=0))
        most[STRATA.index("no boxes")] = 0
        images = ExhaustiveImages(
            strata[reached], values[reached], found.objects[reached], found.undecided[reached], found.checked[reached]
        )
        return recall(images, sizes, most, most_missed(every), delta)

    return RunRecall(
        accepted=estimate(found.accepted, accepted),
        delivered=estimate(found.delivered, every),
        strata=counts,
        incomplete=incomplete,
        passed_over=int((reached & ~found.checked).sum()),
        simulated=found.simulated,
    )


def _reached(checked: Bools, plan: Ints) -> Bools:
    """Images up to the last that was searched, (m,), in the order in which each plan asks for them."""
    reached = np.zeros(len(checked), np.bool_)
    for number in np.unique(plan[checked]):
        rows = np.flatnonzero(plan == number)
        reached[rows[: np.flatnonzero(checked[rows])[-1] + 1]] = True
    return reached


def _check_enough(counts: Sequence[StratumRecall], incomplete: int) -> None:
    short = [one for one in counts if one.searched < min(LEAST, one.images)]
    if not short:
        return
    found = "; ".join(f"{one.name}: {one.searched} of {one.drawn} drawn" for one in short)
    more = "" if not incomplete else f" {incomplete} searched images have labels that are still to be decided."
    planned = all(one.drawn >= min(LEAST, one.images) for one in short)
    what = "answer the image tasks of the plan" if planned else "use `vouch plan-reviews` to draw more images"
    raise UserError(f"recall is unknown: too few images were searched ({found}).{more} To know it, {what}")


def _last_batch(plans: Plans, inputs: Mapping[str, str]) -> Plans:
    """The plans whose image checks belong with those of the last."""
    drawn = [(plan, tasks) for plan, tasks in plans if plan.image_strata and plan.inputs == dict(inputs)]
    if not drawn:
        return []
    sizes = np.array([stratum.size for stratum in drawn[-1][0].image_strata], np.int64)
    return [(plan, tasks) for plan, tasks in drawn if _same_draw(plan, inputs, sizes)]


def _same_draw(plan: ReviewPlan, inputs: Mapping[str, str], sizes: Ints) -> bool:
    return plan.inputs == dict(inputs) and [stratum.size for stratum in plan.image_strata] == sizes.tolist()


def _image_rows(tasks: pa.Table) -> pa.Table:
    return tasks.filter(pc.and_(pc.equal(tasks["purpose"], IMAGE), pc.is_null(tasks["label_id"])))


def _strata(sizes: Ints, drawn: Ints) -> tuple[Stratum, ...]:
    return tuple(
        Stratum(name=name, size=int(size), drawn=int(taken))
        for name, size, taken in zip(STRATA, sizes, drawn, strict=True)
    )


def _with_labels(labels: RunLabels, searches: pa.Table, images: Ints, answers: Answers) -> pa.Table:
    """Put the labels of each image that have no answer before its search."""
    order = np.full(labels.images, -1, np.int64)
    order[images] = np.arange(len(images))
    rows = np.flatnonzero(order[labels.image_index] >= 0)
    rows = rows[answers.wrong_of(labels.table_of(rows)["label_id"]) == NO_ANSWER]
    rows = rows[np.argsort(order[labels.image_index[rows]], kind="stable")]
    doubtful = label_tasks(labels, rows, DOUBTFUL, labels.p_correct, answers)
    both = pa.concat_tables([doubtful, searches])
    turn = np.concatenate([order[labels.image_index[rows]], np.arange(len(images))])
    return numbered(both.take(pa.array(np.argsort(turn, kind="stable"))))


@dataclass(frozen=True)
class ExhaustiveRows:
    """What is known of m images."""

    checked: Bools
    """(m,) searched for every class."""
    complete: Bools
    """(m,) and every label decided."""
    undecided: Ints
    """(m,) labels still to be decided; what they show is in none of the next three."""
    objects: Ints
    """(m,) that are there."""
    accepted: Ints
    """(m,) found by accepted labels that are correct."""
    delivered: Ints
    """(m,) found by labels that are correct, accepted or not, or corrected."""
    simulated: bool
    """Whether a simulated reviewer answered any of it."""


def images_of(labels: RunLabels, keys: pa.ChunkedArray) -> Ints:
    """Find images by their keys: (n,) places in labels.keys, -1 for those that the run does not have."""
    return numbers(pc.index_in(keys, value_set=labels.keys).fill_null(-1), np.int64)


def exhaustive_images(labels: RunLabels, image_answers: ImageAnswers, answers: Answers, images: Ints) -> ExhaustiveRows:
    """Count the objects of images, (m,) places in labels.keys.

    A label shows an object if it is correct, or wrong in its class or box alone; an object of a class that the campaign
    does not have counts for nothing. A wrong label counts as delivered where its verdict says what is right. Each
    missed object counts once, however many people drew it, and not at all where a label shows it: some people draw
    every object of an image, and not only those without a label.
    """
    total = labels.images
    mine = np.zeros(total, np.bool_)
    mine[images] = True
    rows = np.flatnonzero(mine[labels.image_index])
    shown = _shown(labels, answers, rows)

    def counted(of_rows: Bools) -> Ints:
        return np.bincount(labels.image_index[rows[of_rows]], minlength=total)[images]

    missed, missed_simulated = _missed(labels, image_answers.missed, rows, shown)
    checked, checked_simulated = _checked(labels, image_answers.checked)
    simulated = answers.simulated_of(labels.table_of(rows)["label_id"]).any()
    undecided = counted(shown.unreviewed)
    return ExhaustiveRows(
        checked=checked[images],
        complete=checked[images] & (undecided == 0),
        undecided=undecided,
        objects=counted(shown.there) + missed[images],
        accepted=counted(shown.found & labels.accepted[rows]),
        delivered=counted(shown.found | shown.corrected),
        simulated=bool(simulated or (mine & (missed_simulated | checked_simulated)).any()),
    )


@dataclass(frozen=True)
class _Shown:
    """What n labels show, (n,) each."""

    there: Bools
    """An object."""
    found: Bools
    """And they are right as they are."""
    corrected: Bools
    """Or a person has corrected them."""
    unreviewed: Bools
    class_index: Ints
    """The object's class as people left it, or `_ANY_CLASS`."""
    boxes: NDArray[np.float32]
    """(n, 4) the object's box as people left it, xyxy, pixels of the EXIF-oriented original."""


def _shown(labels: RunLabels, answers: Answers, rows: Ints) -> _Shown:
    table = labels.table_of(rows)
    places = answers.places(table["label_id"])
    # Each with one entry more, which -1 finds.
    verdict = np.array([*answers.verdict, ""], np.str_)[places]
    place_of = {name: place for place, name in enumerate(labels.class_names)}
    right_class = np.array([place_of.get(name or "", -1) for name in [*answers.class_name, None]], np.int64)[places]
    named = right_class >= 0
    nameless = np.array([name is None for name in [*answers.class_name, None]], np.bool_)[places]
    given = np.concatenate([answers.boxes, np.full((1, 4), np.nan, np.float32)])[places]
    boxed = np.isfinite(given).all(axis=1)
    found = verdict == "correct"
    wrong_class, bad_box = verdict == "wrong_class", (verdict == "bad_box") & (named | nameless)
    return _Shown(
        there=found | bad_box | (wrong_class & (named | nameless)),
        found=found,
        corrected=(wrong_class & named) | (bad_box & boxed),
        unreviewed=(verdict == "") | (verdict == DISPUTED),
        class_index=np.select(
            [found, named, wrong_class], [labels.class_index[rows], right_class, _ANY_CLASS], labels.class_index[rows]
        ),
        boxes=np.where((~found & boxed)[:, None], given, boxes_of(table)),
    )


def _missed(labels: RunLabels, rows: pa.Table, label_rows: Ints, shown: _Shown) -> tuple[Ints, Bools]:
    """Missed objects of every image, each once and none that a label shows, and whether one is simulated."""
    count, simulated = np.zeros(labels.images, np.int64), np.zeros(labels.images, np.bool_)
    images = images_of(labels, rows["key"])
    boxes = boxes_of(rows)
    place_of = {name: place for place, name in enumerate(labels.class_names)}
    names = [place_of.get(name, -1) for name in rows["class_name"].to_pylist()]
    labelled = _by_image(labels.image_index[label_rows], shown.there, images)
    kept: dict[tuple[int, int], list[int]] = {}
    for row, (image, name) in enumerate(zip(images.tolist(), names, strict=True)):
        if image < 0 or name < 0:
            continue
        same = kept.setdefault((image, name), [])
        mine = [place for place in labelled.get(image, ()) if shown.class_index[place] in (name, _ANY_CLASS)]
        known = np.concatenate([boxes[same], shown.boxes[mine]])
        if not (box_iou(boxes[[row]], known) >= SAME_IOU).any():
            same.append(row)
            count[image] += 1
    theirs = images[numbers(rows["simulated"], np.bool_)]
    simulated[theirs[theirs >= 0]] = True
    return count, simulated


def _by_image(image_index: Ints, use: Bools, images: Ints) -> dict[int, list[int]]:
    """Places of the labels in use, image by image, of some images."""
    found: dict[int, list[int]] = {}
    for place in np.flatnonzero(use & np.isin(image_index, images)).tolist():
        found.setdefault(int(image_index[place]), []).append(place)
    return found


def _checked(labels: RunLabels, rows: pa.Table) -> tuple[Bools, Bools]:
    """Which images were searched for every class, at once or class by class, and whether a simulated reviewer did."""
    frame = pl.DataFrame(rows.select(["class_name", "simulated"]))
    name = pl.col("class_name")
    every_class = name.filter(name.is_in(labels.class_names)).n_unique() == len(labels.class_names)
    found = (
        frame.with_columns(image=images_of(labels, rows["key"]))
        .filter(pl.col("image") >= 0)
        .group_by("image")
        .agg(pl.col("simulated").any(), whole=name.is_null().any() | every_class)
    )
    whole, simulated = np.zeros((2, labels.images), np.bool_)
    whole[found["image"]], simulated[found["image"]] = found["whole"], found["simulated"]
    return whole, simulated
