from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from vouch_labels.schemas.records import Generation, ImageRef
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import plan
from vouch_labels.tasks.store.local import LocalStore


@pytest.fixture
def workspace(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "workspace")


class Planner:
    """Plans as separate processes do: each time from what the workspace says."""

    def __init__(self, workspace: LocalStore) -> None:
        self.workspace = workspace

    def __call__(self, source: Iterable[ImageRef], size: int = 3, **more: Any) -> Generation | None:
        with Ledger.load(self.workspace, "r") as ledger:
            generation = plan(source, self.workspace, "r", ledger, size, **more)
            after = state(ledger)
        with Ledger.load(self.workspace, "r") as ledger:
            assert state(ledger) == after
        return generation


def state(ledger: Ledger) -> tuple[object, ...]:
    rows = ledger.database.execute("SELECT * FROM images ORDER BY key").fetchall()
    shards = ledger.shards()
    return ledger.generation, ledger.count(), rows, [(shard, ledger.keys_of(shard.id)) for shard in shards]


@pytest.fixture
def planner(workspace: LocalStore) -> Planner:
    return Planner(workspace)
