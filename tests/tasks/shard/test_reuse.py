import hashlib

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vouch_labels.schemas.campaign import Thresholds
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.tasks.shard.files import read_marker, read_part
from vouch_labels.tasks.shard.numbers import read_numbers
from vouch_labels.tasks.shard.pipeline import load_pipeline, stages_fingerprint
from vouch_labels.tasks.shard.reuse import reroute_shard
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def labelled(make_images, make_campaign, label, tmp_path):
    """A workspace, a campaign and the marker of its only shard."""
    make_images(tmp_path / "images", 4)
    (tmp_path / "images" / "broken.png").write_bytes(b"x")
    campaign = make_campaign(run={"shard_size": 8})
    _, (marker,) = label(campaign)
    return open_store(campaign.workspace), campaign, marker


def decisions(workspace, marker):
    return read_part(workspace, marker.parts["route"], "route")


def test_only_decisions_are_new_and_the_old_ones_stay(labelled, certified):
    workspace, _, older = labelled
    before = decisions(workspace, older)
    policy = certified({"cat": 0.0, "dog": None})
    marker = reroute_shard(workspace, "main", older, policy)
    assert [stage for stage in marker.parts if marker.parts[stage] != older.parts[stage]] == ["route"]
    found = decisions(workspace, marker)
    assert set(found["policy"].to_pylist()) == {policy.version}
    assert found["p_correct"].null_count == 0
    names = read_part(workspace, older.parts["detect"], "detect")["class_name"].to_pylist()
    assert found["decision"].to_pylist() == ["accept" if name == "cat" else "review" for name in names]
    assert marker.counts.accepted == names.count("cat") > 0
    assert marker.counts.classes["dog"].review == names.count("dog")
    assert (marker.counts.images, marker.counts.reasons) == (older.counts.images, older.counts.reasons)
    assert decisions(workspace, older).equals(before)
    assert read_marker(workspace, "main", older.shard, older.fingerprint) == older


def test_a_run_under_that_policy_would_give_the_same(labelled, certified):
    workspace, campaign, older = labelled
    policy = certified({"cat": 0.5, "dog": 0.2})
    marker = reroute_shard(workspace, "main", older, policy)
    assert marker.stages == load_pipeline(campaign).stages(policy)
    assert marker.fingerprint == stages_fingerprint(marker.stages)
    assert reroute_shard(workspace, "main", marker, policy) == marker


def test_thresholds_of_users(labelled, certified):
    workspace, _, older = labelled
    policy = certified({"cat": None, "dog": None})
    groups = tuple(group.model_copy(update={"accept": Thresholds(clip_probability=0.0)}) for group in policy.groups)
    by_user = policy.model_copy(update={"certification": None, "basis": "user_thresholds", "groups": groups})
    marker = reroute_shard(workspace, "main", older, by_user)
    assert marker.counts.accepted == marker.counts.labels > 0


def test_a_class_without_a_rule_and_a_table_that_is_gone(labelled, certified, tmp_path):
    workspace, _, older = labelled
    with pytest.raises(UserError, match="has no rule for"):
        reroute_shard(workspace, "main", older, certified({"bird": 0.5}))
    for part in (older.numbers, older.parts["score"]):
        (tmp_path / "workspace" / part.name).unlink()
    with pytest.raises(StoreError, match="is missing; delete"):
        reroute_shard(workspace, "main", older, certified({"cat": 0.5, "dog": 0.5}))


def test_numbers_of_other_labels_are_refused(labelled, certified):
    """Their file is whole, and has as many rows; but it is not of these labels."""
    workspace, _, older = labelled
    table = read_numbers(workspace, older.numbers)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(
            table.set_column(0, table.schema.field(0), pc.add(table["number"], pa.scalar(1, pa.uint64())))
        )
    data = sink.getvalue().to_pybytes()
    part = older.numbers.model_copy(update={"name": "other.arrow", "sha256": hashlib.sha256(data).hexdigest()})
    workspace.put(part.name, data)
    other = older.model_copy(update={"numbers": part})
    with pytest.raises(StoreError, match="are not of the same labels; delete its markers"):
        reroute_shard(workspace, "main", other, certified({"cat": 0.5, "dog": 0.5}))
