"""Reads what the words of items are made of from the tables of a run."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from review_ui.queue.asked import Task
from review_ui.queue.words import presence_words, words_of
from schemas.records import Marker
from tasks.certify.questions import planted_id
from tasks.shard.files import read_part
from tasks.store.store import Store, map_ordered

_THREADS: Final = 4
_COLUMNS: Final = {
    "detect": ["label_id", "key", "class_name", "runner_up", "detector_score", "detector_margin", "relative_area",
               "crowding"],
    "segment": ["sam_iou", "mask_stability", "mask_box_iou"],
    "score": ["clip_probability", "clip_margin", "clip_other", "clip_other_probability"],
}  # fmt: skip


class Source(NamedTuple):
    """The label that a plant was made from."""

    label_id: str
    class_name: str


@dataclass
class Told:
    """What the signals say of the questions that are new."""

    words: dict[str, str] = field(default_factory=dict)
    """Id of the item -> words; items without any are left out."""
    sources: dict[str, Source] = field(default_factory=dict)
    """Id of a planted item -> the label that it was made from."""
    inputs: str = ""
    """Names what the labels were made by, see review_ui.queue.fill."""


def read_words(workspace: Store, markers: Iterable[Marker], tasks: Iterable[Task], run: str, seed: int) -> Told:
    """Word the signals behind questions, a shard at a time.

    A plant has the words of the label that it was made from, with its shown class in the place of the one named: so
    it says what a label of the shown class would that the models hold for the other.

    Args:
        workspace: The workspace.
        markers: Those that count.
        tasks: The questions.
        run: Name of the run.
        seed: Of its first plan.

    Raises:
        StoreError: A table is missing or damaged.
    """
    wanted = _Wanted(list(tasks), run, seed)
    told = Told()
    if wanted.tasks:
        for labels, presence in map_ordered(lambda marker: _tables(workspace, marker, wanted), markers, _THREADS):
            for row in labels:
                wanted.word(row, told)
            for key, class_name, value in presence:
                told.words[f"{key}\t{class_name}"] = presence_words(class_name, value)
    return told


class _Wanted:
    """Which rows of the tables matter."""

    def __init__(self, tasks: list[Task], run: str, seed: int) -> None:
        self.tasks, self.run, self.seed = tasks, run, seed
        self.plants: dict[str, list[Task]] = {}
        for task in tasks:
            if task.purpose == "plant":
                self.plants.setdefault(task.key, []).append(task)
        own = [task.label_id for task in tasks if task.label_id is not None and task.purpose != "plant"]
        self.label_ids = frozenset(own)
        self.ids = pa.array(own, pa.string())
        self.keys_with_plants = pa.array(list(self.plants), pa.string())
        looked_for = [task for task in tasks if task.kind == "possible_miss"]
        self.pairs = frozenset(task.item for task in looked_for)
        self.keys_looked_at = pa.array(list({task.key for task in looked_for}), pa.string())

    def word(self, row: Mapping[str, Any], told: Told) -> None:
        """Word a label that is asked about, and the plants made from it."""
        label_id, class_name = row["label_id"], row["class_name"]
        if label_id in self.label_ids:
            told.words[label_id] = words_of(row)
        for task in self.plants.get(row["key"], ()):
            if self._made_from(task, label_id):
                told.sources[task.item] = Source(label_id, class_name)
                told.words[task.item] = words_of(row, {task.class_name or "": class_name})

    def _made_from(self, task: Task, label_id: str) -> bool:
        # A plan whose writing was cut short leaves a gap in the numbers, not in the count that the id was made with.
        return any(planted_id(self.run, self.seed, plans, label_id) == task.item for plans in range(task.plan))


def _tables(
    workspace: Store, marker: Marker, wanted: _Wanted
) -> tuple[list[dict[str, Any]], list[tuple[str, str, float]]]:
    """The rows of a shard that matter: of labels, and of what CLIP sees in images."""
    return _labels(workspace, marker, wanted), list(_presence(workspace, marker, wanted))


def _labels(workspace: Store, marker: Marker, wanted: _Wanted) -> list[dict[str, Any]]:
    detect = read_part(workspace, marker.parts["detect"], "detect", _COLUMNS["detect"])
    matter = pc.or_(
        pc.is_in(detect["label_id"], value_set=wanted.ids), pc.is_in(detect["key"], value_set=wanted.keys_with_plants)
    )
    if not pc.any(matter, min_count=0).as_py():
        return []
    tables = {"detect": detect} | {
        stage: read_part(workspace, marker.parts[stage], stage, _COLUMNS[stage]) for stage in ("segment", "score")
    }
    columns = {name: tables[stage][name].filter(matter) for stage, names in _COLUMNS.items() for name in names}
    rows: list[dict[str, Any]] = pa.table(columns).to_pylist()
    return rows


def _presence(workspace: Store, marker: Marker, wanted: _Wanted) -> Iterator[tuple[str, str, float]]:
    if not len(wanted.keys_looked_at) or "presence" not in marker.parts:
        return
    table = read_part(workspace, marker.parts["presence"], "presence")
    table = table.filter(pc.is_in(table["key"], value_set=wanted.keys_looked_at))
    columns = (table[name].to_pylist() for name in ("key", "class_name", "clip_presence"))
    for key, class_name, value in zip(*columns, strict=True):
        if f"{key}\t{class_name}" in wanted.pairs:
            yield key, class_name, value
