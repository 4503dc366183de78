import threading

import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.reviews.plans import CHECK_CLASS_S, image_check_s, labels_within, read_plans, write_plan
from vouch_labels.tasks.store.local import LocalStore

PLAN = ReviewPlan(
    number=1,
    run="",
    created="2026-03-04T05:06:07+00:00",
    inputs={"prompts": "1"},
    precision=0.95,
    confidence=0.9,
    gate="delivered",
    seed=7,
    fit_share=0.5,
    counts={},
    seconds=0,
    tasks_sha256="",
)


def tasks(count: int, purpose: str = "fit") -> pa.Table:
    rows = [
        {"place": count - 1 - number, "purpose": purpose, "label_id": f"{number}", "key": "a.png", "seconds": 1.5}
        for number in range(count)
    ]
    return pa.Table.from_pylist([dict.fromkeys(TASKS.names) | row for row in rows], schema=TASKS)


@pytest.fixture
def workspace(tmp_path):
    return LocalStore(tmp_path / "workspace")


def test_plans_come_back_in_the_order_of_their_numbers(store):
    assert read_plans(store, "main") == []
    for count in (3, 1, 2):
        write_plan(store, "main", PLAN, tasks(count))
    write_plan(store, "other", PLAN, tasks(9))
    found = read_plans(store, "main")
    assert [(plan.number, plan.run, plan.counts, plan.seconds) for plan, _ in found] == [
        (1, "main", {"fit": 3}, 4.5),
        (2, "main", {"fit": 1}, 1.5),
        (3, "main", {"fit": 2}, 3.0),
    ]
    assert found[0][1]["place"].to_pylist() == [0, 1, 2]
    assert found[0][1]["label_id"].to_pylist() == ["2", "1", "0"]
    assert found[0][1].schema.equals(TASKS)


def test_planners_at_once_get_numbers_of_their_own(workspace):
    start = threading.Barrier(6)
    written = []

    def plan(count: int) -> None:
        start.wait()
        written.append(write_plan(workspace, "main", PLAN, tasks(count)))

    # Two of each: equal plans are plans of their own as well.
    threads = [threading.Thread(target=plan, args=(1 + number // 2,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [plan for plan, _ in read_plans(workspace, "main")]
    assert len({plan.number for plan in found}) == 6
    assert found == sorted(written, key=lambda plan: plan.number)


def test_tasks_of_an_interrupted_planner_are_no_plan(workspace):
    write_plan(workspace, "main", PLAN, tasks(1))
    write_plan(workspace, "main", PLAN, tasks(2))
    workspace.delete("reviews/plans/main/0002.json")
    assert [plan.number for plan, _ in read_plans(workspace, "main")] == [1]
    assert write_plan(workspace, "main", PLAN, tasks(3)).number == 3
    workspace.delete("reviews/plans/main/0003.json")
    assert write_plan(workspace, "main", PLAN, tasks(2)).number == 2, "the same tasks again take their place"


@pytest.mark.parametrize(
    ("key", "data", "problem"),
    [
        ("0001.json", b"{}", r"0001\.json is no review plan of this version; restore it"),
        ("0001-tasks.parquet", b"other", "is not the file that was planned; restore it"),
        ("0001-tasks.parquet", None, r"is missing; restore it"),
    ],
)
def test_damaged_plans_are_named(workspace, key, data, problem):
    write_plan(workspace, "main", PLAN, tasks(2))
    if data is None:
        workspace.delete(f"reviews/plans/main/{key}")
    else:
        workspace.put(f"reviews/plans/main/{key}", data)
    with pytest.raises(StoreError, match=problem) as caught:
        read_plans(workspace, "main")
    assert "\n" not in str(caught.value)


def test_a_plan_without_tasks(workspace):
    plan = write_plan(workspace, "main", PLAN, TASKS.empty_table())
    assert (plan.counts, plan.seconds) == ({}, 0)
    assert read_plans(workspace, "main")[0][1].num_rows == 0


def test_labels_of_a_budget():
    assert labels_within(30 * 60) == 1125
    assert labels_within(16) == 10
    assert labels_within(0) == 0


def test_a_pass_over_an_image_costs_less_than_a_pass_for_each_class():
    assert image_check_s(1) == CHECK_CLASS_S
    assert CHECK_CLASS_S < image_check_s(28) < 28 * CHECK_CLASS_S
