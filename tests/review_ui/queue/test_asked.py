"""What plans ask, as items."""

import numpy as np
import pyarrow as pa
import pytest

from review_ui.queue.asked import asked_by, reviews_wanted
from schemas.reviews import TASKS, VERDICTS, ReviewPlan
from tasks.reviews.resolve import missed_and_checked, resolve


def make_plan(number, *tasks):
    fields = {
        "number": number, "run": "main", "created": "2026-01-01T00:00:00+00:00", "inputs": {}, "precision": 0.95,
        "confidence": 0.9, "gate": "delivered", "seed": 0, "fit_share": 0.3, "counts": {}, "seconds": 0,
        "tasks_sha256": "",
    }  # fmt: skip
    rows = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "fit", "key": "a.jpg", "seconds": 1.6} | task
        for place, task in enumerate(tasks)
    ]
    return ReviewPlan.model_validate(fields), pa.Table.from_pylist(rows, schema=TASKS)


def make_label(name, **task):
    return {"label_id": name, "class_name": "cat", "x0": 1, "y0": 2, "x1": 3, "y1": 4} | task


def nothing_accepted(label_ids):
    return np.zeros(len(label_ids), np.bool_)


def ask(*plans, classes=("cat", "dog"), said=()):
    rows = [dict.fromkeys(VERDICTS.names) | {"simulated": False, "reviewer": "eve"} | row for row in said]
    verdicts = pa.Table.from_pylist(rows, schema=VERDICTS)
    return asked_by(plans, resolve(verdicts), missed_and_checked(verdicts), nothing_accepted, classes)


def test_questions_have_ids_kinds_and_an_order_over_all_plans():
    asked = ask(
        make_plan(2, make_label("c")),
        make_plan(
            7, make_label("a"), {"purpose": "image"}, {"purpose": "possible_miss", "class_name": "dog"}, make_label("b")
        ),
    )
    assert list(asked.open) == ["c", "a", "a.jpg\t", "a.jpg\tdog", "b"]
    assert [task.kind for task in asked.open.values()] == ["label", "label", "image", "possible_miss", "label"]
    places = [task.place for task in asked.open.values()]
    assert places == sorted(set(places))
    assert asked.open["c"].box == (1, 2, 3, 4)
    assert asked.open["a.jpg\t"].box is None


def test_a_question_that_several_plans_ask_stands_where_it_was_asked_first():
    asked = ask(make_plan(1, make_label("a"), make_label("b")), make_plan(2, make_label("b", purpose="doubtful")))
    assert [(task.item, task.plan, task.purpose) for task in asked.open.values()] == [("a", 1, "fit"), ("b", 1, "fit")]


def test_a_disputed_label_is_open_where_it_is_doubtful():
    said = [{"label_id": "a", "verdict": verdict, "reviewer": name} for verdict, name in
            (("correct", "ann"), ("bad_box", "bob"))]  # fmt: skip
    asked = ask(make_plan(1, make_label("a")), make_plan(2, make_label("a", purpose="doubtful")), said=said)
    assert asked.open["a"].plan == 2
    assert ask(make_plan(1, make_label("a")), said=said).open == {}


def test_answered_questions_are_asked_but_not_open():
    said = [{"label_id": "a", "verdict": "correct"}, {"key": "a.jpg", "verdict": "checked"}]
    asked = ask(make_plan(1, make_label("a"), make_label("b"), {"purpose": "image"}), said=said)
    assert list(asked.open) == ["b"]
    assert asked.items == {"a", "b", "a.jpg\t"}


def test_a_class_that_the_campaign_does_not_have_is_counted_once_a_question():
    plan = (make_label("a", class_name="van"), make_label("b"), {"purpose": "image"})
    asked = ask(make_plan(1, *plan), make_plan(2, *plan))
    assert asked.items == {"b", "a.jpg\t"}
    assert asked.strange == {"van": 1}


def test_the_share_asked_twice_is_as_asked_for_and_grows_with_it():
    names = [f"{number:032x}" for number in range(5000)]

    def twice(share, seed=0, kind="label"):
        return {name for name in names if reviews_wanted(name, kind, seed, share) == 2}

    assert twice(0.0) == set()
    assert twice(1.0) == set(names)
    assert len(twice(0.1)) == pytest.approx(500, abs=100)
    assert twice(0.1) < twice(0.3)
    assert twice(0.1, seed=1) != twice(0.1)
    assert twice(1.0, kind="image") == set()
