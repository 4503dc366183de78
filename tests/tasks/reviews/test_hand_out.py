import pyarrow as pa
import pytest

from schemas.errors import UserError
from schemas.reviews import TASKS, ReviewPlan
from tasks.reviews.hand_out import task_sheet
from tasks.reviews.plans import write_plan
from tasks.reviews.verdicts import write_verdicts
from tasks.store.open import open_store

PLAN = ReviewPlan(
    number=1, run="", created="2026-03-04T05:06:07+00:00", inputs={}, precision=0.95, confidence=0.9,
    gate="delivered", seed=7, fit_share=0.5, counts={}, seconds=0, tasks_sha256="",
)  # fmt: skip


def plan(campaign, *rows):
    filled = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "fit", "key": "a.png", "seconds": 1.0} | row
        for place, row in enumerate(rows)
    ]
    write_plan(open_store(campaign.workspace), "main", PLAN, pa.Table.from_pylist(filled, schema=TASKS))


BOX = {"x0": 1.0, "y0": 2.0, "x1": 3.0, "y1": 4.0}


def test_open_tasks_are_blind_and_in_order(make_campaign, verdicts):
    campaign = make_campaign()
    plan(
        campaign,
        {"label_id": "3", "class_name": "cat", "purpose": "audit", "p_correct": 0.5, "stratum": 1, "inclusion": 0.1}
        | BOX,
        {"label_id": "1", "class_name": "dog", "purpose": "plant"} | BOX,
        {"purpose": "image", "key": "b.png"},
        {"purpose": "possible_miss", "key": "b.png", "class_name": "cat"},
    )
    table = task_sheet(campaign)
    assert not set(table.column_names) & {"purpose", "p_correct", "stratum", "inclusion", "place"}
    assert table["label_id"].to_pylist() == ["3", "1", None, None]
    assert table["image"].to_pylist()[0] == f"{campaign.source.uri}/a.png"
    assert table["shown_x1"].to_pylist() == [3, 3, None, None]
    assert table["class_name"].to_pylist() == [None, None, None, "cat"]
    assert table["verdict"].null_count == 4
    first, second = table.slice(0, 1).to_pylist()[0], table.slice(1, 1).to_pylist()[0]
    assert {name for name in first if (first[name] is None) != (second[name] is None)} == set()


def test_answered_tasks_are_left_out(make_campaign, verdicts):
    campaign = make_campaign()
    plan(
        campaign,
        *({"label_id": f"{number}", "class_name": "cat"} for number in range(3)),
        {"label_id": "1", "class_name": "cat", "purpose": "doubtful"},
        *({"purpose": "image", "key": key} for key in ("a.png", "b.png")),
        *({"purpose": "possible_miss", "class_name": name, "key": "c.png"} for name in ("cat", "dog")),
        {"purpose": "possible_miss", "class_name": "cat", "key": "b.png"},
    )
    write_verdicts(
        open_store(campaign.workspace),
        verdicts(
            {"label_id": "0"},
            {"label_id": "1"},
            {"label_id": "1", "verdict": "bad_box", "reviewer": "bob"},
            {"key": "b.png", "verdict": "checked"},
            {"key": "c.png", "verdict": "checked", "class_name": "dog"},
        ),
    )
    table = task_sheet(campaign)
    assert table["label_id"].to_pylist() == ["2", "1", None, None]
    assert table["key"].to_pylist()[2:] == ["a.png", "c.png"]


def test_plans_by_number(make_campaign):
    campaign = make_campaign()
    with pytest.raises(UserError, match="has no review plan yet; use `vouch plan-reviews` first"):
        task_sheet(campaign)
    for name in "ab":
        plan(campaign, {"label_id": name})
    assert task_sheet(campaign)["label_id"].to_pylist() == ["b"]
    assert task_sheet(campaign, 1)["label_id"].to_pylist() == ["a"]
    with pytest.raises(UserError, match="has no review plan 3; it has 1, 2"):
        task_sheet(campaign, 3)
