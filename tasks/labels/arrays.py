"""Loads all labels of a run as numpy arrays, for sampling, calibration, certification and routing."""

from collections.abc import Iterator, Sequence
from copy import copy
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import DTypeLike, NDArray

from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.records import Current, Part
from vouch_labels.schemas.tables import BOX, STAGES
from vouch_labels.tasks.arrow import boxes_of, flat, numbers, places_in
from vouch_labels.tasks.labels.scan import TABLE_OF, THREADS, Shard, Values, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import LabelNumbers, label_numbers
from vouch_labels.tasks.shard.files import read_current, read_marker
from vouch_labels.tasks.shard.numbers import SIGNALS as STORED
from vouch_labels.tasks.shard.numbers import numbers_of, read_numbers
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.calibrator import ROWS, Calibrator
from vouch_labels.tasks.statistics.sampling import on_fit_side
from vouch_labels.tasks.store.store import Store, map_ordered

SIGNALS: Final = STORED
"""What a calibrator may look at, in column order."""


@dataclass(frozen=True)
class RunLabels:
    """N labels of M images, in the order of the run's shards; images that failed are left out."""

    label_ids: pa.StringArray
    """(N,)"""
    class_index: Ints
    """(N,) place in class_names."""
    class_names: tuple[str, ...]
    image_index: Ints
    """(N,) place in keys."""
    boxes: NDArray[np.float32]
    """(N, 4) xyxy, pixels of the EXIF-oriented original."""
    signals: NDArray[np.float32]
    """(N, S) columns as in SIGNALS, NaN where missing."""
    p_correct: Floats
    """(N,) as the router stored it, NaN where there is none."""
    accepted: Bools
    """(N,) whether the policy of the run accepted it."""
    keys: pa.StringArray
    """(M,) of the images, relative to the source."""
    contents: pa.StringArray
    """(M,) SHA-256 of their contents."""
    shown_names: tuple[str, ...] = ()
    """(K,) present names of the classes; empty: those of class_names."""
    former: dict[str, str] = field(default_factory=dict)
    """Former name of a class -> its present name."""

    @property
    def shown(self) -> tuple[str, ...]:
        """Present names of the classes, in the order of class_names."""
        return self.shown_names or self.class_names

    @property
    def count(self) -> int:
        """N."""
        return len(self.label_ids)

    @property
    def images(self) -> int:
        """M."""
        return len(self.keys)

    @cached_property
    def draw_order(self) -> Ints:
        """(N,) the order that samples are drawn in: by key, then as they are.

        It does not change with what else the run has, nor with ids, which follow how a processor rounds a box.
        """
        if pc.all(pc.less_equal(self.keys[:-1], self.keys[1:]), min_count=0).as_py():
            ranks = np.arange(len(self.keys), dtype=np.int64)
        else:
            ranks = numbers(pc.rank(self.keys, tiebreaker="dense"), np.int64)
        of_label = ranks[self.image_index]
        if (of_label[:-1] <= of_label[1:]).all():
            return np.arange(self.count, dtype=np.int64)
        return np.asarray(np.argsort(of_label, kind="stable"), np.int64)

    @cached_property
    def numbers(self) -> LabelNumbers:
        """Numbers that stand for the ids, (N,)."""
        return label_numbers(self.label_ids)

    def signals_of(self, rows: Ints) -> NDArray[np.float32]:
        """Signals of some labels, (n, S)."""
        return self.signals[rows]

    def each_signal(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Yield each of SIGNALS with its values, (N,)."""
        for place, name in enumerate(SIGNALS):
            yield name, self.signals[:, place]

    def signal(self, name: str) -> NDArray[np.float32]:
        """One of SIGNALS, (N,)."""
        return self.signals[:, SIGNALS.index(name)]

    def probabilities(self, calibrator: Calibrator) -> Floats:
        """p(correct) of every label by a calibrator, (N,)."""
        return calibrator.probabilities(self.signals, self.class_index, self.class_names)

    def table_of(self, rows: Ints) -> pa.Table:
        """label_id, key and BOX of some labels, n rows in the order of theirs."""
        places = pa.array(rows, pa.int64())
        columns = {
            "label_id": self.label_ids.take(places),
            "key": self.keys.take(pa.array(self.image_index[rows], pa.int64())),
        }
        sides = {side: pa.array(self.boxes[rows, column]) for column, side in enumerate(BOX)}
        return pa.table(columns | sides)

    def with_accepted(self, accepted: Bools) -> "RunLabels":
        """The same labels, (N,) of which are accepted."""
        found = copy(self)
        found.__dict__["accepted"] = accepted
        return found

    def fit_side(self, share: float, seed: int) -> Bools:
        """Say of each label whether a policy of before 2026-12 kept its image for fitting, (N,)."""
        return on_fit_side(self.contents.to_pylist(), share, seed)[self.image_index]

    def said(self, answers: pa.StringArray, codes: NDArray[np.int8], missing: int) -> NDArray[np.int8]:
        """Codes of the answers about n labels, spread over the run's, (N,)."""
        found = np.full(self.count, missing, np.int8)
        places = self.places(answers)
        found[places[places >= 0]] = codes[places >= 0]
        return found

    def accepts(self, label_ids: pa.ChunkedArray) -> Bools:
        """Say of labels whether the policy of the run accepted them, (n,); not those that the run does not have."""
        return np.append(self.accepted, False)[self.places(label_ids)]

    def places(self, label_ids: Sequence[str] | pa.Array | pa.ChunkedArray) -> Ints:
        """Find labels by their ids: (n,) rows, -1 for those that the run does not have, and for null."""
        given = isinstance(label_ids, pa.Array | pa.ChunkedArray)
        return self._places(flat(label_ids) if given else pa.array(label_ids, pa.string()))

    def _places(self, label_ids: pa.StringArray) -> Ints:
        return places_in(label_ids, self.label_ids)


def current_of(workspace: Store, run: str) -> Current:
    """Read which settings a run used last.

    Raises:
        UserError: It has not been run yet.
    """
    current = read_current(workspace, run)
    if current is None:
        raise UserError(f"run {run!r} in {workspace.uri} has no labels yet; use `vouch run` first")
    return current


@dataclass(frozen=True)
class _Kept:
    """A shard of a run, as its labels are found again."""

    id: str
    numbers: Part | None
    """File of its numbers, unless some of its rows are left out."""
    held: Ints | None
    """Rows of its tables about images that it holds still; None: all."""
    images: Ints | None
    """Of its images that are done, those that it holds still; None: all."""


class _Column:
    """A column that grows by the labels of one shard after the other, where it is: never twice in memory."""

    def __init__(self, dtype: DTypeLike) -> None:
        self._values, self._count = np.empty(1 << 16, dtype), 0

    def add(self, values: NDArray[Any]) -> None:
        end = self._count + len(values)
        if end > len(self._values):
            self._values.resize(max(end, len(self._values) * 3 // 2), refcheck=False)
        self._values[self._count : end] = values
        self._count = end

    def values(self) -> NDArray[Any]:
        self._values.resize(self._count, refcheck=False)
        return self._values


class StoredLabels(RunLabels):
    """Labels of which only the numbers that all are needed for stay in memory, some 30 bytes each.

    Signals pass by a shard at a time; ids and boxes of some labels are read where they are asked for. The fields of
    RunLabels that are not among those numbers are read whole when they are first looked at.
    """

    _workspace: Store
    _run: str
    _ledger: Ledger
    _fingerprint: str
    _shards: list[_Kept]
    _starts: Ints
    """(shards + 1,) first label of each, and their number."""
    _images: int
    _made: dict[int, pa.Table]
    """Place of a shard -> its numbers, where there is no file of just these."""

    def __init__(self, workspace: Store, run: str, ledger: Ledger, current: Current) -> None:
        """Read the numbers of every shard, and what its policy decided."""
        place_of = {name: place for place, name in enumerate(current.classes)}
        kept: list[_Kept] = []
        made: dict[int, pa.Table] = {}
        columns = [_Column(dtype) for dtype in _IN_MEMORY.values()]
        starts, images = [0], 0
        found = shards(workspace, run, ledger, current.fingerprint)
        for shard, table, done, p_correct, accepted in map_ordered(_read_shard, found, THREADS):
            if shard.numbers is None:
                made[len(kept)] = table
            classes = flat(table["class_name"])
            index = np.array([place_of[name] for name in classes.dictionary.to_pylist()], np.int16)
            values = (
                numbers(table["number"], np.uint64),
                index[numbers(classes.indices, np.int64)] if len(classes) else index[:0],
                numbers(table["image"], np.int32) + np.int32(images),
                p_correct,
                accepted,
            )
            for column, value in zip(columns, values, strict=True):
                column.add(value)
            kept.append(shard)
            starts.append(starts[-1] + table.num_rows)
            images += done
        self.__dict__ |= {name: column.values() for name, column in zip(_IN_MEMORY, columns, strict=True)}
        pa.default_memory_pool().release_unused()
        self.__dict__ |= {
            "class_names": current.classes,
            "shown_names": current.shown,
            "former": current.former,
            "_images": images,
            "_workspace": workspace,
            "_run": run,
            "_ledger": ledger,
            "_fingerprint": current.fingerprint,
            "_shards": kept,
            "_starts": np.array(starts, np.int64),
            "_made": made,
        }

    @property
    def count(self) -> int:
        """N."""
        return len(self.numbers)

    @property
    def images(self) -> int:
        """M."""
        return self._images

    @cached_property
    def label_ids(self) -> pa.StringArray:
        """As in RunLabels."""
        return flat(self._whole(["label_id"])["label_id"])

    @cached_property
    def boxes(self) -> NDArray[np.float32]:
        """As in RunLabels."""
        return boxes_of(self._whole(BOX))

    @cached_property
    def signals(self) -> NDArray[np.float32]:
        """As in RunLabels."""
        found = np.empty((self.count, len(SIGNALS)), np.float32)
        for start, block in self._blocks():
            found[start : start + len(block)] = block
        return found

    @cached_property
    def keys(self) -> pa.StringArray:
        """As in RunLabels."""
        return self._of_images("key")

    @cached_property
    def contents(self) -> pa.StringArray:
        """As in RunLabels."""
        return self._of_images("sha256")

    def signals_of(self, rows: Ints) -> NDArray[np.float32]:
        """As in RunLabels."""
        found = np.empty((len(rows), len(SIGNALS)), np.float32)
        for place, mine, inside in self._by_shard(rows):
            found[mine] = _matrix(self._numbers(place))[inside]
        return found

    def each_signal(self) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """As in RunLabels; a few are held at a time."""
        for names in (SIGNALS[first : first + _AT_ONCE] for first in range(0, len(SIGNALS), _AT_ONCE)):
            found = {name: np.empty(self.count, np.float32) for name in names}
            for place, table in self._each():
                for name, values in found.items():
                    values[self._starts[place] : self._starts[place + 1]] = numbers(table[name], np.float32)
            while found:
                yield next(iter(found)), found.pop(next(iter(found)))

    def signal(self, name: str) -> NDArray[np.float32]:
        """As in RunLabels."""
        found = np.empty(self.count, np.float32)
        for place, table in self._each():
            found[self._starts[place] : self._starts[place + 1]] = numbers(table[name], np.float32)
        return found

    def probabilities(self, calibrator: Calibrator) -> Floats:
        """As in RunLabels, in blocks of as many labels, so that the sums are the same to the last bit."""
        found = np.empty(self.count)
        for start, block in self._blocks():
            rows = slice(start, start + len(block))
            found[rows] = calibrator.probabilities(block, self.class_index[rows], self.class_names)
        return found

    def table_of(self, rows: Ints) -> pa.Table:
        """As in RunLabels."""
        return self.columns(rows, ["label_id", "key", *BOX])

    def columns(self, rows: Ints, names: Sequence[str]) -> pa.Table:
        """Columns of DETECTIONS, MASKS, SCORES and DECISIONS of some labels, n rows in the order of theirs."""

        def read(one: tuple[int, Ints, Ints]) -> pa.Table:
            place, _, inside = one
            return self._labels(place, names).take(pa.array(inside))

        found = list(self._by_shard(np.asarray(rows, np.int64)))
        schema = pa.schema([STAGES[TABLE_OF[name]].field(name) for name in names])
        table = pa.concat_tables([schema.empty_table(), *map_ordered(read, found, THREADS)])
        order = np.concatenate([np.zeros(0, np.int64), *(mine for _, mine, _ in found)])
        return table.take(pa.array(np.argsort(order, kind="stable")))

    def images_of(self, rows: Ints, sought: Values) -> pa.Table:
        """`key` and `sha256` of the images sought, as `Shard.images` has them, in the shards that have some labels."""
        tables = [self._shard(place).images(["key", "sha256"], sought) for place, _, _ in self._by_shard(rows)]
        schema = pa.schema([STAGES["images"].field(name) for name in ("key", "sha256")])
        return pa.concat_tables([schema.empty_table(), *tables])

    def _places(self, label_ids: pa.StringArray) -> Ints:
        wanted = pa.array(label_numbers(label_ids.fill_null("")), mask=numbers(label_ids.is_null(), np.bool_))
        return places_in(wanted, pa.array(self.numbers))

    def _shard(self, place: int) -> Shard:
        """A shard whose rows are asked for with those of images that it does not hold any more."""
        shard = self._shards[place].id
        marker = read_marker(self._workspace, self._run, shard, self._fingerprint)
        if marker is None:
            raise StoreError(f"shard {shard} has lost its marker meanwhile; start the command again")
        return Shard(self._workspace, marker, self._ledger)

    def _labels(self, place: int, columns: Sequence[str]) -> pa.Table:
        table, held = self._shard(place).labels(columns, gone=True), self._shards[place].held
        return table if held is None else table.take(pa.array(held))

    def _by_shard(self, rows: Ints) -> Iterator[tuple[int, Ints, Ints]]:
        """Place of each shard that has some of n labels, which of the n these are, and their rows in it."""
        places = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(places, kind="stable")
        ends = np.flatnonzero(np.diff(places[order], append=-1)) + 1
        for start, end in zip([0, *ends[:-1].tolist()], ends.tolist(), strict=True) if len(rows) else ():
            mine = order[start:end]
            place = int(places[mine[0]])
            yield place, mine, rows[mine] - self._starts[place]

    def _whole(self, columns: Sequence[str]) -> pa.Table:
        tables = map_ordered(lambda place: self._labels(place, columns), range(len(self._shards)), THREADS)
        schema = pa.schema([STAGES[TABLE_OF[name]].field(name) for name in columns])
        return pa.concat_tables([schema.empty_table(), *tables])

    def _of_images(self, column: str) -> pa.StringArray:
        def read(place: int) -> pa.Array:
            images = flat(self._shard(place).images([column], gone=True)[column])
            held = self._shards[place].images
            return images if held is None else images.take(pa.array(held))

        columns = map_ordered(read, range(len(self._shards)), THREADS)
        return flat(pa.chunked_array(list(columns), pa.string()))

    def _numbers(self, place: int) -> pa.Table:
        part = self._shards[place].numbers
        found = self._made.get(place) if part is None else read_numbers(self._workspace, part)
        if found is None:
            raise StoreError(f"the numbers of shard {self._shards[place].id} have gone; start the command again")
        return found

    def _each(self) -> Iterator[tuple[int, pa.Table]]:
        places = range(len(self._shards))
        return zip(places, map_ordered(self._numbers, places, THREADS), strict=True)

    def _blocks(self) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """The signals of all labels, (N, S), as many rows at a time as a calibrator works on at once."""
        start, filled = 0, 0
        block = np.empty((min(self.count, ROWS), len(SIGNALS)), np.float32)
        for _, table in self._each():
            matrix = _matrix(table)
            while len(matrix):
                part = matrix[: len(block) - filled]
                block[filled : filled + len(part)] = part
                filled, matrix = filled + len(part), matrix[len(part) :]
                if filled == len(block):
                    yield start, block
                    start, filled = start + filled, 0
        if filled:
            yield start, block[:filled]


_IN_MEMORY: Final = {
    "numbers": np.uint64, "class_index": np.int16, "image_index": np.int32, "p_correct": np.float64,
    "accepted": np.bool_,
}  # fmt: skip
_AT_ONCE: Final = 4
"""Signals of all labels that are in memory together."""


def read_run_labels(workspace: Store, run: str, ledger: Ledger, current: Current) -> StoredLabels:
    """Read the labels of a run.

    Raises:
        StoreError: A table is missing or damaged.
    """
    return StoredLabels(workspace, run, ledger, current)


def _matrix(table: pa.Table) -> NDArray[np.float32]:
    return np.stack([numbers(table[name], np.float32) for name in SIGNALS], axis=1)


def _read_shard(shard: Shard) -> tuple[_Kept, pa.Table, int, Floats, Bools]:
    """A shard with its numbers, its images, and what was decided of its labels: p(correct), and which are accepted."""
    part = shard.marker.numbers
    table = read_numbers(shard.workspace, part) if part is not None and shard.whole else None
    images = shard.marker.counts.done
    held, held_images = None, None
    if table is None:
        part = None
        if not shard.whole:
            keys = pa.array(list(shard.keys), pa.string())
            held = _rows(shard.labels(["key"], gone=True)["key"], keys)
            held_images = _rows(shard.images(["key"], gone=True)["key"], keys)
        of_images = shard.images(["key"])
        images = of_images.num_rows
        table = numbers_of(of_images, shard.labels(["label_id", "key", "class_name", *SIGNALS]))
    elif table.num_rows != shard.marker.counts.labels:
        raise StoreError(f"the tables of shard {shard.marker.shard} differ in length; delete its markers")
    decided = shard.labels(["p_correct", "decision"])
    p_correct = numbers(decided["p_correct"], np.float64)
    accepted = numbers(pc.equal(decided["decision"], "accept"), np.bool_)
    return _Kept(shard.marker.shard, part, held, held_images), table, images, p_correct, accepted


def _rows(column: pa.ChunkedArray, among: pa.StringArray) -> Ints:
    return np.flatnonzero(numbers(pc.is_in(column, value_set=among), np.bool_))
