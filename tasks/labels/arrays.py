"""Loads all labels of a run as numpy arrays, for sampling, calibration, certification and routing."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import boxes_of, flags_of, flat, numbers, places_in
from vouch_labels.tasks.labels.read import SIGNAL_STAGES
from vouch_labels.tasks.labels.scan import THREADS, Shard, shards
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints
from vouch_labels.tasks.statistics.sampling import on_fit_side
from vouch_labels.tasks.store.store import Store, map_ordered

SIGNALS: Final = tuple(name for name in SIGNAL_STAGES if name not in ("p_correct", "mask_area"))
"""What a calibrator may look at, in column order; pixels of a mask say little but how large the image is."""


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

    @cached_property
    def draw_order(self) -> Ints:
        """(N,) the order that samples are drawn in: by key, then as they are.

        It does not change with what else the run has, nor with ids, which follow how a processor rounds a box.
        """
        ranks = numbers(pc.rank(self.keys, tiebreaker="dense"), np.int64)
        return np.asarray(np.argsort(ranks[self.image_index], kind="stable"), np.int64)

    def fit_side(self, share: float, seed: int) -> Bools:
        """Say of each label whether a policy of before 2026-12 kept its image for fitting, (N,)."""
        return on_fit_side(self.contents.to_pylist(), share, seed)[self.image_index]

    def accepts(self, label_ids: pa.ChunkedArray) -> Bools:
        """Say of labels whether the policy of the run accepted them, (n,); not those that the run does not have."""
        return flags_of(label_ids, self.label_ids, self.accepted)

    def places(self, label_ids: Sequence[str]) -> Ints:
        """Find labels by their ids: (n,) rows, -1 for those that the run does not have."""
        return places_in(pa.array(label_ids, pa.string()), self.label_ids)


def current_of(workspace: Store, run: str) -> Current:
    """Read which settings a run used last.

    Raises:
        UserError: It has not been run yet.
    """
    current = read_current(workspace, run)
    if current is None:
        raise UserError(f"run {run!r} in {workspace.uri} has no labels yet; use `vouch run` first")
    return current


def read_run_labels(workspace: Store, run: str, ledger: Ledger, current: Current) -> RunLabels:
    """Read every label of a run; a million of them take some 250 MiB.

    Raises:
        StoreError: A table is missing or damaged.
    """
    tables = list(map_ordered(_tables, shards(workspace, run, ledger, current.fingerprint), THREADS))
    images = [images for images, _ in tables]
    starts = np.cumsum([0, *(table.num_rows for table in images)])
    labels = pa.concat_tables(
        [_EMPTY, *(_renumbered(table, int(start)) for (_, table), start in zip(tables, starts, strict=False))]
    )
    place_of = {name: place for place, name in enumerate(current.classes)}
    names = flat(labels["class_name"]).dictionary_encode()
    class_table = np.array([place_of[name] for name in names.dictionary.to_pylist()], np.int64)
    return RunLabels(
        label_ids=flat(labels["label_id"]),
        class_index=class_table[names.indices.to_numpy(zero_copy_only=False)] if len(names) else np.zeros(0, np.int64),
        class_names=current.classes,
        shown_names=current.shown,
        former=current.former,
        image_index=numbers(labels["image"], np.int64),
        boxes=boxes_of(labels),
        signals=np.stack([numbers(labels[name], np.float32) for name in SIGNALS], axis=1),
        p_correct=numbers(labels["p_correct"], np.float64),
        accepted=numbers(labels["accepted"], np.bool_),
        keys=flat(pa.chunked_array([table["key"].combine_chunks() for table in images], pa.string())),
        contents=flat(pa.chunked_array([table["sha256"].combine_chunks() for table in images], pa.string())),
    )


_EMPTY: Final = pa.schema(
    [("label_id", pa.string()), ("class_name", pa.string()), *((side, pa.float32()) for side in BOX)]
    + [(name, pa.float32()) for name in (*SIGNALS, "p_correct")]
    + [("accepted", pa.bool_()), ("image", pa.int64())]
).empty_table()


def _tables(shard: Shard) -> tuple[pa.Table, pa.Table]:
    """The images of a shard, and its labels with the place of their image among these."""
    images = shard.images(["key", "sha256"])
    labels = shard.labels(["label_id", "key", "class_name", *BOX, *SIGNALS, "p_correct", "decision"])
    place = pc.index_in(flat(labels["key"]), value_set=flat(images["key"]))
    accepted = pc.equal(labels["decision"], "accept")
    table = labels.append_column("accepted", accepted).append_column("image", place)
    return images, table.select(_EMPTY.column_names).cast(_EMPTY.schema)


def _renumbered(table: pa.Table, start: int) -> pa.Table:
    return table.set_column(table.column_names.index("image"), "image", pc.add(table["image"], start))
