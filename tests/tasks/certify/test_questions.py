"""Possible misses: what CLIP sees and no box shows."""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import TASKS, VERDICTS
from vouch_labels.schemas.tables import PRESENCE
from vouch_labels.tasks.certify.questions import MIXED, class_by_class, possible_misses, read_presence, task_table
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.resolve import missed_and_checked
from vouch_labels.tasks.store.open import open_store


def presence(*rows: tuple[str, str, float]) -> pa.Table:
    keys, names, values = zip(*rows, strict=True)
    return pa.table([pa.array(keys), pa.array(names), pa.array(values, pa.float32())], schema=PRESENCE)


SEEN = presence(
    ("00000.jpg", "class 0", 0.3),
    ("00000.jpg", "class 1", 0.9),
    ("00001.jpg", "class 0", 0.8),
    ("00002.jpg", "class 1", 0.5),
    ("00003.jpg", "class 0", 0.2),
    ("gone.jpg", "class 0", 1.0),
    ("00004.jpg", "gone", 1.0),
)


def ask(world, count=10, checked=(), missed=(), asked=None):
    rows = [
        {"key": key, "class_name": name, "verdict": verdict, "reviewer": "ann", "simulated": False}
        for verdict, pairs in (("checked", checked), ("missed", missed))
        for key, name in pairs
    ]
    answers = missed_and_checked(pa.Table.from_pylist(rows, schema=VERDICTS))
    tasks = possible_misses(world.labels, SEEN, answers, TASKS.empty_table() if asked is None else asked, count)
    assert tasks.schema.equals(TASKS)
    return tasks


def pairs(tasks: pa.Table) -> list[tuple[str, str]]:
    return [(row["key"][4], row["class_name"][-1]) for row in tasks.to_pylist()]


def test_class_by_class_the_surest_first(make_world):
    tasks = ask(make_world(images=5))
    assert pairs(tasks) == [("1", "0"), ("0", "0"), ("3", "0"), ("0", "1"), ("2", "1")]
    assert tasks["place"].to_pylist() == [0, 1, 2, 3, 4]
    assert set(tasks["purpose"].to_pylist()) == {"possible_miss"}
    assert tasks["inclusion"].null_count == tasks["label_id"].null_count == 5


def test_the_surest_of_all_classes_are_taken(make_world):
    assert pairs(ask(make_world(images=5), 3)) == [("1", "0"), ("0", "1"), ("2", "1")]
    assert pairs(ask(make_world(images=5), 0)) == []


def test_what_was_checked_or_asked_is_not_asked_again(make_world):
    world = make_world(images=5)
    assert pairs(ask(world, checked=[("00000.jpg", None), ("00002.jpg", "class 0")])) == [
        ("1", "0"),
        ("3", "0"),
        ("2", "1"),
    ]
    assert pairs(ask(world, missed=[("00000.jpg", "class 1"), ("00001.jpg", "class 1")])) == [
        ("1", "0"),
        ("0", "0"),
        ("3", "0"),
        ("2", "1"),
    ]
    once = ask(world, 2)
    assert pairs(ask(world, asked=once)) == [("0", "0"), ("3", "0"), ("2", "1")]


def read(campaign):
    workspace, run = open_store(campaign.workspace), campaign.run.name
    with Ledger.load(workspace, run) as ledger:
        return read_presence(workspace, run, ledger, current_of(workspace, run))


def test_rows_of_all_shards_without_images_that_left(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign(run={"shard_size": 2})
    label(campaign)
    before = read(campaign)
    assert before.schema.equals(PRESENCE)
    gone = before["key"][0].as_py()
    (tmp_path / "images" / gone).unlink()
    label(campaign)
    assert read(campaign).to_pylist() == [row for row in before.to_pylist() if row["key"] != gone]


def test_a_run_made_before_there_was_presence_says_what_to_do(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 2)
    campaign = make_campaign()
    _, (marker,) = label(campaign)
    path = tmp_path / "workspace/runs/main/done" / marker.shard / f"{marker.fingerprint}.json"
    parts = {stage: part for stage, part in marker.parts.items() if stage != "presence"}
    path.write_text(marker.model_copy(update={"parts": parts}).model_dump_json())
    with pytest.raises(UserError, match="use `vouch run` once more"):
        read(campaign)


def test_neither_place_nor_score_tells_a_chosen_label_from_a_drawn_one():
    """Best first holds among every twenty chosen ones; within these each order is as likely as any other."""
    scores = np.linspace(0.9, 0.1, 60)
    chosen = task_table(60, purpose=["doubtful"] * 60, class_name=["cat"] * 60, p_correct=scores)
    drawn = task_table(60, purpose=["audit"] * 60, class_name=["cat"] * 60, p_correct=scores)
    falls, ahead, draws = 0, 0.0, 200
    for seed in range(draws):
        asked = class_by_class([chosen, drawn], np.random.default_rng(seed))
        is_chosen = pc.equal(asked["purpose"], "doubtful").to_numpy()
        p = asked["p_correct"].to_numpy()[is_chosen]
        parts = p.reshape(3, MIXED)
        assert (parts[:-1].min(axis=1) > parts[1:].max(axis=1)).all()
        falls += int((np.diff(parts, axis=1) < 0).sum())
        places = np.arange(120)
        ahead += float((places[is_chosen][:, None] < places[~is_chosen][None, :]).mean())
    pairs = draws * 3 * (MIXED - 1)
    assert abs(falls / pairs - 0.5) < 4 * np.sqrt(0.25 / pairs)
    assert abs(ahead / draws - 0.5) < 0.03
