"""Gives the open tasks of a review plan to another tool, blind: nothing tells why something is asked."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from schemas.campaign import Campaign
from schemas.errors import UserError
from schemas.reviews import VERDICTS
from schemas.tables import BOX
from tasks.reviews.decisions import Decisions
from tasks.reviews.open_tasks import open_tasks
from tasks.reviews.plans import read_plans
from tasks.reviews.resolve import missed_and_checked, resolve
from tasks.reviews.verdicts import read_verdicts
from tasks.store.open import open_store

_EMPTY: Final = ("verdict", "class_name", *BOX, "rle_counts", "reviewer", "seconds")
"""Columns to fill in."""


def task_sheet(campaign: Campaign, number: int | None = None) -> pa.Table:
    """List the tasks of a plan that have no answer yet, in the order in which to ask them.

    Columns image, shown_class and shown_x0 ... shown_y1 say what is asked, label_id and key what it is about. The
    others are to be filled in, and the whole is a verdict file then. Without a label the whole image is to be
    searched, for objects of class_name where it is given (which must stay), and is `checked` in the end.

    Args:
        campaign: Whose plan it is.
        number: Of the plan; None: the last.

    Raises:
        UserError: There is no such plan.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    plans = {plan.number: tasks for plan, tasks in read_plans(workspace, run)}
    if not plans:
        raise UserError(f"run {run!r} has no review plan yet; use `vouch plan-reviews` first")
    wanted = max(plans) if number is None else number
    if wanted not in plans:
        raise UserError(f"run {run!r} has no review plan {wanted}; it has {', '.join(map(str, plans))}")
    verdicts = read_verdicts(workspace)
    decisions = Decisions(workspace, run)
    waiting = open_tasks(plans[wanted], resolve(verdicts), missed_and_checked(verdicts), decisions.accepts)
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
