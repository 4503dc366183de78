"""Writes and reads review plans: what people were asked, and the seconds that each kind of answer costs.

The first four costs are published figures for crowd workers (D. Papadopoulos et al., CVPR 2016 and ICCV 2017; H. Su, J.
Deng and L. Fei-Fei, AAAI workshops 2012), the others are assumptions; none was measured with Vouch.
"""

import hashlib
from collections import Counter
from collections.abc import Sequence
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError

from vouch_labels.schemas.errors import ObjectMissingError, StoreError
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.reviews.log import PLANS, log_plan, newest_entry, record_numbers
from vouch_labels.tasks.reviews.moved import FOLDER as MOVED_FOLDER
from vouch_labels.tasks.reviews.moved import read_moved, with_moved_tasks
from vouch_labels.tasks.store.store import Store, map_ordered

Plans = Sequence[tuple[ReviewPlan, pa.Table]]
"""Plans with their tasks, rows of schemas.reviews.TASKS, in the order of their numbers."""

_THREADS: Final = 4

VERIFY_S: Final = 1.6
"""To say whether one labelled box is right."""
CLICK_BOX_S: Final = 7.0
"""To draw a box by its four extreme points."""
DRAW_BOX_S: Final = 25.5
"""To draw a box in the usual way."""
CHECK_CLASS_S: Final = 7.8
"""To say of one image and one class whether all of its objects are labelled."""
FURTHER_CLASS_S: Final = 0.5
"""The same of each further class in the same pass: an image is looked through once, its objects held against a list."""
CHANGE_CLASS_S: Final = 3.0
"""To name the right class of a box."""


def write_plan(workspace: Store, run: str, plan: ReviewPlan, tasks: pa.Table) -> ReviewPlan:
    """Write a plan under the next free number: its tasks first, then its record, then its entry in the log.

    Of two planners that write at once each gets a number of its own. An interrupted planner leaves tasks without a
    record: such a plan does not exist, and its number is skipped unless the same tasks are planned again. Set here are
    run, number, counts, seconds, tasks_sha256 and log of the plan.

    Raises:
        StoreError: The workspace cannot be written.
        ValueError: The tasks do not have the schema.
    """
    ordered = pa.table({name: tasks[name] for name in TASKS.names}).cast(TASKS).sort_by("place")
    sink = pa.BufferOutputStream()
    pq.write_table(ordered.combine_chunks(), sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    changes = {
        "run": run,
        "counts": dict(Counter(ordered["purpose"].to_pylist())),
        "seconds": float(pc.sum(ordered["seconds"]).as_py() or 0),
        "tasks_sha256": hashlib.sha256(data).hexdigest(),
        "log": newest_entry(workspace),
    }
    number = max(record_numbers(workspace, f"{PLANS}{run}/"), default=0)
    while True:
        number += 1
        # Tasks of another planner must stay as they are: its record, written or about to be, names their hash.
        if not workspace.put(_tasks_key(run, number), data, if_absent=True) and not _is_there(
            workspace, _tasks_key(run, number), changes["tasks_sha256"]
        ):
            continue
        written = ReviewPlan.model_validate(plan.model_dump() | changes | {"number": number})
        record = written.model_dump_json(indent=1).encode()
        if workspace.put(_record_key(run, number), record, if_absent=True):
            log_plan(workspace, run, number, record)
            return written


def read_plans(workspace: Store, run: str) -> list[tuple[ReviewPlan, pa.Table]]:
    """Read every plan of a run with its tasks, in the order of their numbers.

    Tasks about images that have moved since are about them at their new place.

    Raises:
        StoreError: A plan is damaged, or its tasks are missing or not those that were planned.
    """
    numbers = record_numbers(workspace, f"{PLANS}{run}/")
    plans = map_ordered(lambda number: _read(workspace, run, number), numbers, _THREADS)
    moves = read_moved(workspace, [info.key for info in workspace.list(f"{MOVED_FOLDER}{run}/")]) if numbers else []
    return [(plan, with_moved_tasks(tasks, plan.number, moves)) for plan, tasks in plans]


def runs_with_plans(workspace: Store) -> list[str]:
    """Names of the runs of which something was asked, ascending."""
    return sorted({info.key.removeprefix(PLANS).rpartition("/")[0] for info in workspace.list(PLANS)})


def _read(workspace: Store, run: str, number: int) -> tuple[ReviewPlan, pa.Table]:
    key, tasks_key = _record_key(run, number), _tasks_key(run, number)
    try:
        plan = ReviewPlan.model_validate_json(workspace.get(key).data)
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is no review plan of this version; restore it") from None
    try:
        data = workspace.get(tasks_key).data
    except ObjectMissingError:
        raise StoreError(f"{workspace.uri}/{tasks_key} is missing; restore it") from None
    if hashlib.sha256(data).hexdigest() != plan.tasks_sha256:
        raise StoreError(f"{workspace.uri}/{tasks_key} is not the file that was planned; restore it")
    table = pq.read_table(pa.BufferReader(data))
    if not table.schema.equals(TASKS):
        raise StoreError(f"{workspace.uri}/{tasks_key} is of another version of Vouch; use that version")
    return plan, table


def _is_there(workspace: Store, key: str, sha256: object) -> bool:
    try:
        return hashlib.sha256(workspace.get(key).data).hexdigest() == sha256
    except ObjectMissingError:
        return False


def _record_key(run: str, number: int) -> str:
    return f"{PLANS}{run}/{number:04d}.json"


def _tasks_key(run: str, number: int) -> str:
    return f"{PLANS}{run}/{number:04d}-tasks.parquet"


def labels_within(seconds: float) -> int:
    """How many labels can be verified in a time."""
    return int(seconds / VERIFY_S + 1e-9)


def image_check_s(classes: int) -> float:
    """Seconds to search one image for the objects of some classes, without drawing what is missing."""
    return CHECK_CLASS_S + FURTHER_CLASS_S * max(0, classes - 1)


def minutes_for(labels: int) -> int:
    """Whole minutes in which so many labels can be verified."""
    return max(1, -int(-labels * VERIFY_S // 60))
