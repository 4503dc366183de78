"""What people answered, and the time that it took and saved."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.report import TimeReport, Verdicts
from tasks.labels.arrays import RunLabels
from tasks.reviews.plans import DRAW_BOX_S, VERIFY_S
from tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers, ImageAnswers


def of_this_run(verdicts: pa.Table, labels: RunLabels, asked: set[str]) -> pa.Table:
    """Keep the verdicts about a run, each once: those on its labels, on its plants and on its images.

    Args:
        verdicts: Of the whole workspace, rows of schemas.reviews.VERDICTS.
        labels: All labels of the run.
        asked: Ids that its plans asked about.
    """
    known = pa.concat_arrays([labels.label_ids.cast(pa.string()), pa.array(sorted(asked), pa.string())])
    on_label = pc.is_in(verdicts["label_id"], value_set=known, skip_nulls=True)
    on_image = pc.and_(pc.is_null(verdicts["label_id"]), pc.is_in(verdicts["key"], value_set=labels.keys))
    chosen = verdicts.filter(pc.or_(on_label, on_image))
    return chosen.group_by(chosen.column_names).aggregate([])


def verdicts_report(
    mine: pa.Table, everything: pa.Table, labels: RunLabels, answers: Answers, images: ImageAnswers
) -> Verdicts:
    """Count what people answered; of reviewers nothing but their number is told.

    Args:
        mine: Verdicts about the run, as `of_this_run` gives them.
        everything: All verdicts of the workspace.
        labels: All labels of the run.
        answers: The verdicts resolved.
        images: Those about images.
    """
    ours = np.flatnonzero(labels.places(answers.label_ids) >= 0)
    keys = set(labels.keys.to_pylist())
    people = mine.filter(pc.invert(mine["simulated"]))
    ids = everything["label_id"].drop_null()
    foreign = pc.invert(pc.is_in(ids, value_set=mine["label_id"].combine_chunks()))
    return Verdicts(
        labels=len(ours),
        answers=dict(Counter(answers.verdict[place] for place in ours.tolist()).most_common()),
        images=len(keys & set(images.checked["key"].to_pylist())),
        missed=sum(key in keys for key in images.missed["key"].to_pylist()),
        reviewers=len(pc.unique(people["reviewer"])),
        simulated=int(answers.simulated[ours].sum()),
        foreign=int(pc.sum(foreign).as_py() or 0),
    )


def time_report(mine: pa.Table, labels: RunLabels, answers: Answers) -> TimeReport:
    """Add up the time that people spent, and what the accepted labels that nobody looked at saved them.

    Args:
        mine: Verdicts about the run, as `of_this_run` gives them.
        labels: All labels of the run.
        answers: The verdicts resolved.
    """
    accepted = int(labels.accepted.sum())
    answered = answers.wrong_of(labels.label_ids)
    unseen = int((labels.accepted & (answered == NO_ANSWER)).sum())
    delivered = accepted + int((~labels.accepted & (answered == CORRECT)).sum())
    spent = float(pc.sum(mine["seconds"]).as_py() or 0)
    return TimeReport(
        spent=spent,
        simulated=bool(pc.any(mine["simulated"], min_count=0).as_py()),
        untimed=mine["seconds"].null_count,
        verify_s=VERIFY_S,
        draw_s=DRAW_BOX_S,
        saved=unseen * VERIFY_S,
        unseen=unseen,
        waiting=int((~labels.accepted & (answered == NO_ANSWER)).sum()) * VERIFY_S,
        delivered=delivered,
        per_box=spent / delivered if delivered and spent else None,
    )
