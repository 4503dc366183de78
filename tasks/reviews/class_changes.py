"""Follows what changes about the classes of a run: new names, and answers that no label fits any more."""

from collections import Counter
from collections.abc import Mapping, Sequence, Set
from datetime import UTC, datetime
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute as pc

from vouch_labels.schemas.campaign import ClassConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import LABEL_VERDICTS, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.schemas.text import some
from vouch_labels.tasks.arrow import boxes_of, first_rows
from vouch_labels.tasks.detect import label_ids
from vouch_labels.tasks.labels.scan import Shard, scan, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import read_plans, runs_with_plans
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.store import Store

_FEW: Final = 5
"""Classes that a message names at most."""
_DOCS: Final = "see the page Change the classes of a campaign"


def check_names(classes: Sequence[ClassConfig], before: Current | None) -> None:
    """Refuse names that the labels of a run would not be found by any more, though they are there.

    Raises:
        UserError: `was` names no class of the run while one has gone, or a later name of one; or a renamed class has
            lost its `was`; or it took a name whose own class is gone.
    """
    if before is None:
        return
    carried = dict(zip(before.shown, before.classes, strict=True))
    declared = {entry.key for entry in classes} | {name for entry in classes for name in entry.was}
    gone = [name for name in before.classes if name not in declared]
    for entry in classes:
        old = entry.was[0] if len(entry.was) == 1 else None
        if old is None and not entry.was and entry.name not in before.classes and entry.name in carried:
            raise UserError(
                f"class {entry.name!r} is the class {carried[entry.name]!r} renamed, and its labels and reviews carry "
                f"that name; keep was: {carried[entry.name]} ({_DOCS})"
            )
        if old is not None and old not in before.classes and old in carried:
            raise UserError(
                f"class {entry.name!r}: was: {old} is a later name of the class {carried[old]!r}, which its labels and "
                f"reviews carry; write was: {carried[old]} ({_DOCS})"
            )
        if old is not None and old not in before.classes and gone:
            raise UserError(
                f"class {entry.name!r}: was: {old} names no class of the run, whose {', '.join(map(repr, gone))} "
                f"{'is' if len(gone) == 1 else 'are'} gone; correct it, or remove it ({_DOCS})"
            )
        if old is not None and entry.name in gone:
            raise UserError(
                f"class {entry.name!r} was {old!r}, but the run has labels of both; to make them one class write was: "
                f"[{entry.name}, {old}] ({_DOCS})"
            )


def added_classes(classes: Sequence[ClassConfig], before: Current | None) -> dict[str, datetime]:
    """Classes that come to a run that had others -> when; a class made of classes that were there is none of them."""
    if before is None:
        return {}
    now = datetime.now(UTC)
    made = {entry.key for entry in classes if entry.was and set(entry.was) <= set(before.classes)}
    known = {*before.classes, *made} - before.added.keys()
    return {entry.key: before.added.get(entry.key, now) for entry in classes if entry.key not in known}


def class_changes(classes: Sequence[ClassConfig], before: Current) -> str:
    """Say what classes were added or made of others since the labels of a run were made, or have gone; empty: none."""
    known = {*before.classes, *before.merged}
    kept = {name for entry in classes for name in (entry.key, *entry.was)}
    new = [entry for entry in classes if entry.key not in before.classes]
    changes = {
        "added": [entry.name for entry in new if not known & set(entry.was)],
        "made of others": [entry.name for entry in new if known & set(entry.was)],
        "removed": [shown for name, shown in zip(before.classes, before.shown, strict=True) if name not in kept],
    }
    return " and ".join(
        f"{'class' if len(names) == 1 else 'classes'} {some(names, _FEW)} {'was' if len(names) == 1 else 'were'} {what}"
        for what, names in changes.items()
        if names
    )


def answers_without_label(workspace: Store, run: str, ledger: Ledger, current: Current) -> dict[str, int]:
    """Count the labels that people have answered about and that a run does not have any more, by class.

    Planted wrong labels and what other runs have asked do not count. The class is the one that was asked about, by its
    present name; '' where none of the run's plans has asked.

    Raises:
        StoreError: A table, plan or file of verdicts is damaged.
    """
    verdicts = read_verdicts(workspace)
    about_labels = verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(LABEL_VERDICTS)))
    ids = about_labels["label_id"].drop_null().unique()
    if not len(ids):
        return {}
    columns, sought = ["label_id"], {"label_id": ids}
    found = scan(workspace, run, ledger, current.fingerprint, columns, sought)
    there = {name for table in found for name in table["label_id"].to_pylist()}
    missing = [name for name in ids.to_pylist() if name not in there]
    if not missing:
        return {}
    class_of: dict[str, str | None] = {}
    for other in runs_with_plans(workspace):
        for _, tasks in read_plans(workspace, other):
            asked = tasks.filter(tasks["label_id"].is_valid())
            rows = zip(*(asked[name].to_pylist() for name in ("label_id", "class_name", "purpose")), strict=True)
            for label_id, class_name, purpose in rows:
                if other != run or purpose == "plant":
                    class_of.setdefault(label_id, None)
                else:
                    class_of[label_id] = current.names.get(class_name, class_name)
    counts = Counter(class_of.get(name, "") for name in missing)
    return {name: count for name, count in sorted(counts.items(), key=lambda one: one[0] or "") if name is not None}


def carry_answers(workspace: Store, run: str, ledger: Ledger, current: Current) -> dict[str, int]:
    """Write what people answered about labels of former classes as answers about the same boxes of the class of now.

    A label's id holds its class, so the box has another id now. Answers are added once; of those that call the class
    wrong, only such count that name the right one, which may be the class of now.

    Returns:
        Class, by its present name -> answers that were added.

    Raises:
        StoreError: A table or file of verdicts is damaged, or the workspace cannot be written.
    """
    if not current.merged:
        return {}
    known = read_verdicts(workspace)
    answered = set(known["label_id"].drop_null().to_pylist())
    present: dict[str, tuple[str, str]] = {}
    for shard in shards(workspace, run, ledger, current.fingerprint):
        present |= _former_ids(shard, current.merged, answered)
    if not present:
        return {}
    rows = known.filter(pc.is_in(known["label_id"], value_set=pa.array(list(present), pa.string())))
    carried = [
        row for one in rows.to_pylist() if (row := _carried(one, *present[one["label_id"]], current)) is not None
    ]
    table = pa.Table.from_pylist(carried, schema=VERDICTS)
    first = first_rows(pa.concat_tables([known, table]), VERDICTS.names) - known.num_rows
    new = table.take(pa.array(first[first >= 0], pa.int64()))
    write_verdicts(workspace, new)
    class_of = dict(present.values())
    counts = Counter(class_of[label_id] for label_id in new["label_id"].to_pylist())
    return {current.names.get(name, name): number for name, number in sorted(counts.items())}


def _former_ids(shard: Shard, merged: Mapping[str, str], answered: Set[str]) -> dict[str, tuple[str, str]]:
    """Id that a label of a merged class had as one of a former class -> its id and class now; of those answered."""
    sought = {"class_name": pa.array(sorted(set(merged.values())), pa.string())}
    labels = shard.labels(["label_id", "key", "class_name", *BOX], sought)
    content = {row["key"]: row["sha256"] for row in shard.images(["key", "sha256"]).to_pylist()}
    columns = (labels[name].to_pylist() for name in ("label_id", "key", "class_name"))
    found = {}
    for label_id, key, name, box in zip(*columns, boxes_of(labels), strict=True):
        for former in (one for one, present in merged.items() if present == name):
            (former_id,) = label_ids(key, content[key], [former], box[None])
            if former_id in answered:
                found[former_id] = (label_id, name)
    return found


def _carried(row: dict[str, Any], label_id: str, name: str, current: Current) -> dict[str, Any] | None:
    """A verdict on a label of a former class as one on the label of now; None where it does not say enough."""
    given = row["class_name"]
    right = None if given is None else current.merged.get(given, given)
    verdict = row["verdict"]
    if verdict == "wrong_class":
        if right is None:
            return None
        if right == name:
            right, verdict = None, "correct" if row[BOX[0]] is None else "bad_box"
    # The time was spent once, on the former label.
    return row | {"label_id": label_id, "class_name": right, "verdict": verdict, "seconds": None}
