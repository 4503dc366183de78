"""Looks up what the policy in force decided about labels; nothing is read until somebody asks."""

from collections.abc import Callable
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from schemas.tables import DECISIONS
from tasks.arrow import flags_of, flat, numbers
from tasks.collect.markers import current_markers
from tasks.plan.ledger import Ledger
from tasks.shard.files import read_current, read_part
from tasks.store.store import Store, map_ordered

Accepts = Callable[[pa.ChunkedArray], NDArray[np.bool_]]
"""Ids of n labels -> (n,) whether the policy in force accepts them; not those that the run does not have."""

_THREADS: Final = 4
_COLUMNS: Final = ["label_id", "decision"]


class Decisions:
    """The present decisions of a run, read from the tables of its router when first asked for, and kept."""

    def __init__(self, workspace: Store, run: str) -> None:
        """Read nothing yet.

        Args:
            workspace: The workspace.
            run: Name of the run; it need not have been run.
        """
        self._workspace, self._run = workspace, run

    def accepts(self, label_ids: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Say of labels whether they are accepted, see `Accepts`.

        Raises:
            StoreError: A table is missing or damaged.
        """
        ids, accepted = self._read
        return flags_of(label_ids, ids, accepted)

    @cached_property
    def _read(self) -> tuple[pa.StringArray, NDArray[np.bool_]]:
        tables = [DECISIONS.empty_table().select(_COLUMNS)]
        current = read_current(self._workspace, self._run)
        if current is not None:
            with Ledger.load(self._workspace, self._run) as ledger:
                markers = current_markers(self._workspace, self._run, ledger, current.fingerprint)
                parts = (marker.parts["route"] for marker in markers)
                tables += map_ordered(lambda part: read_part(self._workspace, part, "route", _COLUMNS), parts, _THREADS)
        # Latest first: of an image that several shards had, the last one counts.
        table = pa.concat_tables(tables[::-1])
        return flat(table["label_id"]), numbers(pc.equal(table["decision"], "accept"), np.bool_)
