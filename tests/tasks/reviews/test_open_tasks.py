"""Plans of reviews, and the tasks of them that wait."""

import threading

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.labels.arrays import SIGNALS, RunLabels
from vouch_labels.tasks.reviews.open_tasks import open_tasks, task_sheet, verdict_figures
from vouch_labels.tasks.reviews.plans import CHECK_CLASS_S, image_check_s, labels_within, read_plans, write_plan
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store

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


@pytest.fixture
def waits(verdicts, asked_about):
    """Says of each of some tasks whether it waits, given some verdicts."""

    def ask(tasks, *answers, accepted=()):
        rows = [
            dict.fromkeys(TASKS.names) | {"place": place, "purpose": "certify", "key": "a.png", "seconds": 1.0} | task
            for place, task in enumerate(tasks)
        ]
        table, given = pa.Table.from_pylist(rows, schema=TASKS), verdicts(*answers)

        def accepts(label_ids):
            asked_about.update(label_ids.to_pylist())
            return np.isin(label_ids.to_pylist(), accepted)

        places = open_tasks(table, resolve(given), missed_and_checked(given), accepts)["place"].to_pylist()
        return [place in places for place in range(len(tasks))]

    return ask


@pytest.fixture
def asked_about():
    """Labels whose decision was looked up."""
    return set()


def test_no_tasks_and_no_verdicts(waits):
    assert waits([]) == []
    assert waits([{"label_id": "1"}, {"purpose": "image"}]) == [True, True]


def test_a_dispute_is_answered_but_where_it_is_to_be_settled(waits):
    tasks = [{"label_id": "1", "purpose": purpose} for purpose in ("fit", "certify", "audit", "plant", "doubtful")]
    disputed = ({"label_id": "1"}, {"label_id": "1", "verdict": "bad_box", "reviewer": "bob"})
    assert waits(tasks, *disputed) == [False] * 4 + [True]
    assert waits(tasks, *disputed, {"label_id": "1", "reviewer": "bob", "at": 1}) == [False] * 5


def test_a_doubtful_label_that_is_accepted_now_waits_no_more(waits, asked_about):
    tasks = [{"label_id": "1", "purpose": purpose} for purpose in ("fit", "certify", "audit", "plant", "doubtful")]
    assert waits(tasks) == [True] * 5
    assert waits(tasks, accepted=["1"]) == [True] * 4 + [False]
    assert asked_about == {"1"}
    disputed = ({"label_id": "1"}, {"label_id": "1", "verdict": "bad_box", "reviewer": "bob"})
    assert waits(tasks, *disputed, accepted=["1"]) == [False] * 4 + [True]  # people's word goes before the policy's


def test_all_labels_of_an_image_that_is_searched_wait(waits):
    tasks = [
        {"label_id": "1", "purpose": "doubtful"},
        {"purpose": "image"},
        {"label_id": "2", "purpose": "doubtful", "key": "b.png"},
        {"purpose": "possible_miss", "key": "b.png", "class_name": "cat"},
    ]
    assert waits(tasks, accepted=["1", "2"]) == [True, True, False, True]
    assert waits(tasks, {"key": "a.png", "verdict": "checked"}, accepted=["1", "2"]) == [True, False, False, True]


def test_decisions_are_looked_up_only_for_doubtful_labels_without_an_answer(waits, asked_about):
    tasks = [{"label_id": "1", "purpose": "audit"}, {"label_id": "2", "purpose": "doubtful"}, {"purpose": "image"}]
    assert waits(tasks, {"label_id": "2"}) == [True, False, True]
    assert asked_about == set()


def test_images_are_answered_by_their_class_or_by_every_class(waits):
    tasks = [
        {"purpose": "image"},
        {"purpose": "possible_miss", "class_name": "cat"},
        {"purpose": "possible_miss", "class_name": "dog"},
        {"purpose": "image", "key": "b.png"},
    ]
    assert waits(tasks, {"key": "a.png", "verdict": "checked"}) == [False, False, False, True]
    assert waits(tasks, {"key": "a.png", "verdict": "checked", "class_name": "cat"}) == [True, False, True, True]


def test_an_object_that_was_missed_answers_the_question_for_its_class(waits):
    tasks = [
        {"purpose": "image"},
        {"purpose": "possible_miss", "class_name": "cat"},
        {"purpose": "possible_miss", "class_name": "dog"},
    ]
    missed = {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": [1, 2, 3, 4]}
    assert waits(tasks, missed) == [True, False, True]


SMALL_PLAN = ReviewPlan(
    number=1, run="", created="2026-03-04T05:06:07+00:00", inputs={}, precision=0.95, confidence=0.9,
    gate="delivered", seed=7, fit_share=0.5, counts={}, seconds=0, tasks_sha256="",
)  # fmt: skip


def plan(campaign, *rows):
    filled = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "fit", "key": "a.png", "seconds": 1.0} | row
        for place, row in enumerate(rows)
    ]
    write_plan(open_store(campaign.workspace), "main", SMALL_PLAN, pa.Table.from_pylist(filled, schema=TASKS))


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


LABELS = RunLabels(
    label_ids=pa.array(["1", "2", "3"]),
    class_index=np.array([0, 1, 1]),
    class_names=("cat", "dog", "owl"),
    image_index=np.zeros(3, np.int64),
    boxes=np.zeros((3, 4), np.float32),
    signals=np.zeros((3, len(SIGNALS)), np.float32),
    p_correct=np.full(3, np.nan),
    accepted=np.zeros(3, np.bool_),
    keys=pa.array(["a.png"]),
    contents=pa.array(["0"]),
)


def test_figures(verdicts):
    table = verdicts(
        {"label_id": "1", "seconds": 2},
        {"label_id": "1", "seconds": 2},
        {"label_id": "2", "verdict": "bad_box", "seconds": 3},
        {"label_id": "2", "verdict": "correct", "seconds": 1, "at": 1},
        {"label_id": "2", "verdict": "wrong_class", "reviewer": "bob"},
        {"label_id": "plant", "verdict": "not_an_object"},
        {"label_id": "unknown", "simulated": True},
        {"key": "a.png", "verdict": "checked", "reviewer": "bob", "seconds": 4},
        {"key": "a.png", "verdict": "checked", "class_name": "cat"},
        {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": (1, 2, 3, 4)},
    )
    rows = [{"place": 0, "purpose": "plant", "label_id": "plant", "key": "a.png", "seconds": 1.0}]
    tasks = pa.Table.from_pylist([dict.fromkeys(TASKS.names) | row for row in rows], schema=TASKS)
    found = verdict_figures("main", table, LABELS, [(None, tasks)])
    assert (found.verdicts, found.labels, found.simulated, found.seconds) == (10, 2, 1, 10)
    assert found.answers == {"correct": 1, "disputed": 1}
    assert found.classes == {"cat": {"correct": 1}, "dog": {"disputed": 1}, "owl": {}}
    assert (found.doubly_reviewed, found.agreement, found.disputed) == (1, 0, ["2"])
    assert (found.images_checked, found.missed_objects, found.planted, found.unknown_labels) == (1, 1, 1, 1)
    assert found.reviewers["ann"].model_dump() == {"labels": 4, "correct": 3, "images": 2, "seconds": 6}
    assert found.reviewers["bob"].model_dump() == {"labels": 1, "correct": 0, "images": 1, "seconds": 4}


def test_no_verdicts(verdicts):
    found = verdict_figures("main", verdicts(), LABELS, [])
    assert (found.verdicts, found.agreement, found.reviewers, found.answers) == (0, None, {}, {})


def test_reviewers_who_name_different_classes_do_not_agree(verdicts):
    def two_answers(label, verdict, ann, bob):
        row = {"label_id": label, "verdict": verdict}
        return row | {"class_name": ann}, row | {"class_name": bob, "reviewer": "bob"}

    table = verdicts(
        *two_answers("1", "wrong_class", "dog", "owl"),
        *two_answers("2", "wrong_class", "cat", "cat"),
        *two_answers("3", "correct", "dog", None),
    )
    found = verdict_figures("main", table, LABELS, [])
    assert (found.doubly_reviewed, found.agreement, found.disputed) == (3, 2 / 3, [])
