"""Counts what the verdicts of a workspace say of a run."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.campaign import Campaign
from schemas.reviews import IMAGE_VERDICTS, ReviewerFigures, ReviewPlan, VerdictFigures
from tasks.arrow import distinct
from tasks.labels.arrays import RunLabels, current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.reviews.plans import read_plans
from tasks.reviews.resolve import ANSWERS, DISPUTED, Answers, counting, missed_and_checked, resolve, standing
from tasks.reviews.verdicts import read_verdicts
from tasks.store.open import open_store

MOST_NAMED: Final = 100


def campaign_figures(campaign: Campaign) -> VerdictFigures:
    """Read all verdicts of a campaign's workspace and count them.

    Raises:
        UserError: The campaign has no labels yet.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
    return verdict_figures(run, read_verdicts(workspace), labels, read_plans(workspace, run))


def verdict_figures(
    run: str, verdicts: pa.Table, labels: RunLabels, plans: list[tuple[ReviewPlan, pa.Table]]
) -> VerdictFigures:
    """Count verdicts.

    Args:
        run: Name of the run.
        verdicts: Rows of schemas.reviews.VERDICTS.
        labels: The labels of the run.
        plans: Its review plans, which tell planted labels from unknown ones.
    """
    once = distinct(verdicts, verdicts.column_names)
    answers, images = resolve(once), missed_and_checked(once)
    place = labels.places(answers.label_ids)
    asked = [tasks["label_id"].drop_null().combine_chunks() for _, tasks in plans]
    planted = pc.is_in(answers.ids, value_set=pa.concat_arrays([pa.array([], pa.string()), *asked])).to_numpy(
        zero_copy_only=False
    )
    doubly, agreement = _agreement(once)
    disputed = np.array([name == DISPUTED for name in answers.verdict], np.bool_)
    ours = np.flatnonzero(place >= 0).tolist()
    return VerdictFigures(
        run=run,
        verdicts=verdicts.num_rows,
        labels=len(ours),
        answers=_counts(answers.verdict[row] for row in ours),
        classes=_by_class(answers, labels, place, ours),
        reviewers=_by_reviewer(once),
        doubly_reviewed=doubly,
        agreement=agreement,
        disputed=[answers.label_ids[row] for row in ours if disputed[row]][:MOST_NAMED],
        images_checked=len(set(images.checked.filter(pc.is_null(images.checked["class_name"]))["key"].to_pylist())),
        missed_objects=images.missed.num_rows,
        planted=int((planted & (place < 0)).sum()),
        unknown_labels=int((~planted & (place < 0)).sum()),
        simulated=int(pc.sum(verdicts["simulated"]).as_py() or 0),
        seconds=float(pc.sum(once["seconds"]).as_py() or 0),
    )


def _agreement(verdicts: pa.Table) -> tuple[int, float | None]:
    """Labels that several have answered, and the share of them on which all gave the same verdict and class."""
    rows = counting(verdicts)
    # In other verdicts the label's own class may stand, or nothing.
    named = pc.if_else(pc.equal(rows["verdict"], "wrong_class"), rows["class_name"].fill_null(""), "")
    rows = rows.set_column(rows.schema.get_field_index("class_name"), "class_name", named)
    counts = rows.group_by("label_id").aggregate(
        [("reviewer", "count"), ("verdict", "count_distinct"), ("class_name", "count_distinct")]
    )
    several = counts.filter(pc.greater(counts["reviewer_count"], 1))
    same = pc.and_(pc.equal(several["verdict_count_distinct"], 1), pc.equal(several["class_name_count_distinct"], 1))
    return several.num_rows, pc.mean(same).as_py()


def _by_class(
    answers: Answers, labels: RunLabels, place: NDArray[np.int64], ours: list[int]
) -> dict[str, dict[str, int]]:
    classes = labels.class_index[place]
    pairs = Counter((int(classes[row]), answers.verdict[row]) for row in ours)
    return {
        name: {answer: pairs[number, answer] for answer in ANSWERS if pairs[number, answer]}
        for number, name in enumerate(labels.class_names)
    }


def _by_reviewer(verdicts: pa.Table) -> dict[str, ReviewerFigures]:
    last = standing(verdicts)
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


def _counts(answers: Iterable[str]) -> dict[str, int]:
    found = Counter(answers)
    return {name: found[name] for name in ANSWERS if found[name]}
