import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vouch_labels.schemas.errors import ObjectMissingError, StoreError
from vouch_labels.schemas.records import ImageRef
from vouch_labels.schemas.tables import PLAN, REMOVED
from vouch_labels.tasks.plan.ledger import Ledger, read_plan, removed_key, shard_key
from vouch_labels.tasks.plan.plan import plan
from vouch_labels.tasks.store.local import LocalStore


def test_the_tables_have_their_schemas(workspace: LocalStore) -> None:
    refs = [ImageRef("ä.jpg", "x", 1), ImageRef("b.jpg", "", -1)]
    with Ledger.load(workspace, "r") as ledger:
        generation = plan(refs, workspace, "r", ledger, 10)
        shard = generation.shards[0].id
        assert read_plan(workspace, "r", shard) == refs[::-1]
        assert pq.read_table(pa.BufferReader(workspace.get(shard_key("r", shard)).data)).schema == PLAN
        generation = plan(refs[:1], workspace, "r", ledger, 10)
    key = removed_key("r", 2, generation.removed_id)
    table = pq.read_table(pa.BufferReader(workspace.get(key).data))
    assert (table.schema, table.to_pylist()) == (REMOVED, [{"key": "b.jpg"}])


def test_an_unknown_shard_is_missing(workspace: LocalStore) -> None:
    with pytest.raises(ObjectMissingError):
        read_plan(workspace, "r", "0" * 16)


@pytest.mark.parametrize("data", [b"", b"PAR1 and then nothing of use"])
def test_damaged_files_are_named(workspace: LocalStore, data: bytes) -> None:
    with Ledger.load(workspace, "r") as ledger:
        shard = plan([ImageRef("a", "", 1)], workspace, "r", ledger, 1).shards[0].id
    workspace.put(shard_key("r", shard), data)
    with pytest.raises(StoreError, match=rf"{shard}\.parquet is damaged .*; restore it") as raised:
        Ledger.load(workspace, "r")
    assert "\n" not in str(raised.value)
    workspace.put("runs/r/plan/000001.json", data)
    with pytest.raises(StoreError, match=r"000001\.json is no plan of this version .*; restore it") as raised:
        Ledger.load(workspace, "r")
    assert "\n" not in str(raised.value)
