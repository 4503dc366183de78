import numpy as np
import pyarrow as pa
import pytest

from schemas.reviews import TASKS
from tasks.reviews.open_tasks import open_tasks
from tasks.reviews.resolve import missed_and_checked, resolve


@pytest.fixture
def waits(verdicts, asked_about):
    """Says of each of some tasks whether it waits, given some verdicts."""

    def ask(tasks, *answers, accepted=()):
        rows = [
            dict.fromkeys(TASKS.names) | {"place": place, "purpose": "certify", "key": "a.png", "seconds": 1.0} | task
            for place, task in enumerate(tasks)
        ]
        table, said = pa.Table.from_pylist(rows, schema=TASKS), verdicts(*answers)

        def accepts(label_ids):
            asked_about.update(label_ids.to_pylist())
            return np.isin(label_ids.to_pylist(), accepted)

        places = open_tasks(table, resolve(said), missed_and_checked(said), accepts)["place"].to_pylist()
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
