"""Lists the review tasks that still wait for an answer, exports them blind, and counts the verdicts of a workspace.

Blind: nothing that is exported shows why something is asked.
"""

from collections import Counter
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, VERDICTS, Purpose, ReviewerFigures, ReviewPlan, VerdictFigures
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import distinct, numbers, with_names
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.labels.read import Accepts, Decisions
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.resolve import (
    ANSWERS,
    DISPUTED,
    IN_DISPUTE,
    NO_ANSWER,
    Answers,
    ImageAnswers,
    effective_verdicts,
    last_verdicts,
    missed_and_checked,
    resolve,
    second_readings,
)
from vouch_labels.tasks.reviews.verdicts import present_verdicts, read_verdicts
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store, open_workspace

_SETTLES: Final[Purpose] = "doubtful"
_LOOKS_FOR_ONE: Final[Purpose] = "possible_miss"
_SEARCHES: Final[Purpose] = "image"

_EMPTY: Final = ("verdict", "class_name", *BOX, "rle_counts", "reviewer", "seconds")
"""Columns to fill in."""

MOST_NAMED: Final = 100


def open_tasks(tasks: pa.Table, answers: Answers, images: ImageAnswers, accepts: Accepts) -> pa.Table:
    """Keep the tasks without an answer, in their order.

    A label is answered by any verdict on it, but a low-confidence one not while reviewers disagree, for that is what it
    is asked for. A low-confidence label that the active policy accepts needs no answer, but in an image that is
    searched for recall, which counts only once all its labels are decided. An image is answered by `checked`, of its
    class or of every class; where one class was looked for because CLIP sees it, a `missed` object of that class says
    enough. tasks are those of whole plans.
    """
    about_image = numbers(tasks["label_id"].is_null(), np.bool_)
    codes = answers.wrong_of(tasks["label_id"])
    settles = numbers(pc.equal(tasks["purpose"], _SETTLES), np.bool_)
    waits = (codes == NO_ANSWER) | ((codes == IN_DISPUTE) & settles)
    exhaustive = tasks.filter(pc.equal(tasks["purpose"], _SEARCHES))["key"]
    searched = numbers(pc.is_in(tasks["key"], value_set=exhaustive), np.bool_)
    doubted = np.flatnonzero((codes == NO_ANSWER) & settles & ~searched)
    if len(doubted):
        waits[doubted] = ~accepts(tasks["label_id"].take(pa.array(doubted)))
    return tasks.filter(pa.array(np.where(about_image, ~_looked_at(tasks, images), waits)))


def _looked_at(tasks: pa.Table, images: ImageAnswers) -> NDArray[np.bool_]:
    """Which tasks, taken as tasks about images, are answered."""
    checked, missed = (set(_pairs(table)) for table in (images.checked, images.missed))
    one_class = pc.equal(tasks["purpose"], _LOOKS_FOR_ONE).to_pylist()
    return np.array(
        [
            pair in checked or (pair[0], None) in checked or (hinted and pair in missed)
            for pair, hinted in zip(_pairs(tasks), one_class, strict=True)
        ],
        np.bool_,
    )


def _pairs(table: pa.Table) -> list[tuple[str, str | None]]:
    return list(zip(table["key"].to_pylist(), table["class_name"].to_pylist(), strict=True))


def task_sheet(campaign: Campaign, number: int | None = None) -> pa.Table:
    """List the tasks of a plan (None: the last) that have no answer yet, in the order in which to ask them.

    Columns image, shown_class and shown_x0 ... shown_y1 say what is asked, label_id and key what it is about. The
    others are to be filled in, and the whole is a verdict file then. Without a label the whole image is to be
    searched, for objects of class_name where it is given (which must stay), and is `checked` in the end.

    Raises:
        UserError: There is no such plan.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    plans = {plan.number: tasks for plan, tasks in read_plans(workspace, run)}
    if not plans:
        raise UserError(f"run {run!r} has no review plan yet; use `vouch plan-reviews` first")
    wanted = max(plans) if number is None else number
    if wanted not in plans:
        raise UserError(f"run {run!r} has no review plan {wanted}; it has {', '.join(map(str, plans))}")
    current = read_current(workspace, run)
    verdicts = present_verdicts(workspace, current)
    decisions = Decisions(workspace, run)
    waiting = open_tasks(plans[wanted], resolve(verdicts), missed_and_checked(verdicts), decisions.accepts)
    waiting = waiting if current is None else with_names(waiting, current.names)
    return _sheet(waiting, open_store(campaign.source).uri.rstrip("/"))


def _sheet(tasks: pa.Table, source: str) -> pa.Table:
    columns = {
        "label_id": tasks["label_id"],
        "key": tasks["key"],
        "image": pc.binary_join_element_wise(pa.scalar(source), tasks["key"], "/"),
        "shown_class": tasks["class_name"],
        **{f"shown_{side}": tasks[side] for side in BOX},
    }
    empty = {name: pa.nulls(tasks.num_rows, VERDICTS.field(name).type) for name in _EMPTY}
    # "checked" on a task about one class must not say that every class was looked for.
    empty["class_name"] = pc.if_else(tasks["label_id"].is_null(), tasks["class_name"], pa.scalar(None, pa.string()))
    return pa.table(columns | empty)


def campaign_figures(campaign: Campaign) -> VerdictFigures:
    """Read all verdicts of a campaign's workspace and count them.

    Raises:
        UserError: The campaign has no labels yet.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
    return verdict_figures(run, read_verdicts(workspace), labels, read_plans(workspace, run))


def verdict_figures(
    run: str, verdicts: pa.Table, labels: RunLabels, plans: list[tuple[ReviewPlan, pa.Table]]
) -> VerdictFigures:
    """Count verdicts."""
    once = distinct(verdicts, verdicts.column_names)
    answers, images = resolve(once), missed_and_checked(once)
    place = labels.places(answers.label_ids)
    asked = [tasks["label_id"].drop_null().combine_chunks() for _, tasks in plans]
    honeypots = pc.is_in(answers.ids, value_set=pa.concat_arrays([pa.array([], pa.string()), *asked])).to_numpy(
        zero_copy_only=False
    )
    doubly, agreement = _agreement(once)
    own = once.filter(pc.is_in(once["label_id"], value_set=answers.ids.filter(pa.array(place >= 0))))
    readings = second_readings(own, answers)
    disputed = np.array([name == DISPUTED for name in answers.verdict], np.bool_)
    ours = np.flatnonzero(place >= 0).tolist()
    given = Counter(answers.verdict[row] for row in ours)
    pairs = Counter((int(labels.class_index[place[row]]), answers.verdict[row]) for row in ours)
    return VerdictFigures(
        run=run,
        verdicts=verdicts.num_rows,
        labels=len(ours),
        answers={name: given[name] for name in ANSWERS if given[name]},
        classes={
            name: {answer: pairs[number, answer] for answer in ANSWERS if pairs[number, answer]}
            for number, name in enumerate(labels.shown)
        },
        reviewers=_by_reviewer(once),
        doubly_reviewed=doubly,
        agreement=agreement,
        second_readings=readings if readings.labels else None,
        disputed=[answers.label_ids[row] for row in ours if disputed[row]][:MOST_NAMED],
        images_checked=len(set(images.checked.filter(pc.is_null(images.checked["class_name"]))["key"].to_pylist())),
        missed_objects=images.missed.num_rows,
        planted=int((honeypots & (place < 0)).sum()),
        unknown_labels=int((~honeypots & (place < 0)).sum()),
        simulated=int(pc.sum(verdicts["simulated"]).as_py() or 0),
        seconds=float(pc.sum(once["seconds"]).as_py() or 0),
    )


def _agreement(verdicts: pa.Table) -> tuple[int, float | None]:
    """Labels that several have answered, and the share of them on which all gave the same verdict and class."""
    rows = effective_verdicts(verdicts)
    # In other verdicts the label's own class may stand, or nothing.
    named = pc.if_else(pc.equal(rows["verdict"], "wrong_class"), rows["class_name"].fill_null(""), "")
    rows = rows.set_column(rows.schema.get_field_index("class_name"), "class_name", named)
    counts = rows.group_by("label_id").aggregate(
        [("reviewer", "count"), ("verdict", "count_distinct"), ("class_name", "count_distinct")]
    )
    several = counts.filter(pc.greater(counts["reviewer_count"], 1))
    same = pc.and_(pc.equal(several["verdict_count_distinct"], 1), pc.equal(several["class_name_count_distinct"], 1))
    return several.num_rows, pc.mean(same).as_py()


def _by_reviewer(verdicts: pa.Table) -> dict[str, ReviewerFigures]:
    last = last_verdicts(verdicts)
    about_images = verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(IMAGE_VERDICTS)))
    labels, images = Counter(last["reviewer"].to_pylist()), Counter(about_images["reviewer"].to_pylist())
    correct = Counter(last.filter(pc.equal(last["verdict"], "correct"))["reviewer"].to_pylist())
    time = verdicts.group_by("reviewer").aggregate([("seconds", "sum")])
    seconds = dict(zip(time["reviewer"].to_pylist(), time["seconds_sum"].to_pylist(), strict=True))
    return {
        name: ReviewerFigures(
            labels=labels[name], correct=correct[name], images=images[name], seconds=seconds[name] or 0
        )
        for name in sorted(seconds)
    }
