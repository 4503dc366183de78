"""The simulated reviewer.

What is asked for, checked.
"""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.campaign import RoutingConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import LABEL_VERDICTS, TASKS, VERDICTS
from vouch_labels.tasks.evaluate.run_truth import BAD_BOX, CORRECT, NOT_AN_OBJECT, UNKNOWN, WRONG_CLASS
from vouch_labels.tasks.reviews.plans import (
    CHANGE_CLASS_S,
    CHECK_CLASS_S,
    CLICK_BOX_S,
    DRAW_BOX_S,
    VERIFY_S,
    image_check_s,
)
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.simulate.reviewer import Errors, answer, ask, called
from vouch_labels.tasks.store.local import LocalStore

AT = datetime(2026, 1, 1, tzinfo=UTC)


def tasks_of(*rows: dict) -> pa.Table:
    return pa.Table.from_pylist([{"place": place, "seconds": 1.6} | row for place, row in enumerate(rows)], TASKS)


def about(labels, rows, purpose="fit") -> pa.Table:
    keys = labels.keys.to_pylist()
    return tasks_of(
        *(
            {
                "purpose": purpose,
                "label_id": labels.label_ids[int(row)].as_py(),
                "key": keys[int(labels.image_index[row])],
                "class_name": labels.class_names[int(labels.class_index[row])],
            }
            for row in rows
        )
    )


def test_every_label_gets_its_right_answer(make_run, tmp_path):
    labels, truth = make_run(images=20)
    found = answer(about(labels, np.arange(labels.count)), labels, truth, AT)
    assert found.schema.equals(VERDICTS)
    assert [LABEL_VERDICTS.index(name) for name in found["verdict"].to_pylist()] == truth.verdict.tolist()
    seconds = dict(zip(found["verdict"].to_pylist(), found["seconds"].to_pylist(), strict=True))
    assert seconds == pytest.approx(
        {"correct": VERIFY_S, "wrong_class": VERIFY_S + CHANGE_CLASS_S, "bad_box": VERIFY_S + CLICK_BOX_S}
        | {"not_an_object": VERIFY_S}
    )
    assert all(found["simulated"].to_pylist())
    times = found["reviewed_at"].to_pylist()
    assert times[0] > AT
    assert times == sorted(times)
    for row, right in zip(found.to_pylist(), range(labels.count), strict=True):
        wrong_class = truth.verdict[right] == WRONG_CLASS
        name = labels.class_names[truth.class_index[right]]
        assert row["class_name"] == (name if truth.verdict[right] in (WRONG_CLASS, BAD_BOX) else None)
        assert not wrong_class or name != labels.class_names[labels.class_index[right]]
        assert row["x0"] == (2 if truth.verdict[right] == BAD_BOX else None)
    store = LocalStore(tmp_path)
    write_verdicts(store, found)
    assert resolve(read_verdicts(store)).wrong_of(labels.label_ids).tolist() == (truth.verdict != CORRECT).tolist()


def test_errors_come_at_their_rates_and_stay(make_run):
    labels, truth = make_run(images=600)
    asked, errors = about(labels, np.arange(labels.count)), Errors(missed=0.3, false_alarms=0.1)
    found = answer(asked, labels, truth, AT, errors, seed=1)
    given = np.array([LABEL_VERDICTS.index(name) for name in found["verdict"].to_pylist()])
    assert (given[~truth.correct] == CORRECT).mean() == pytest.approx(0.3, abs=0.05)
    assert (given[truth.correct] == NOT_AN_OBJECT).mean() == pytest.approx(0.1, abs=0.03)
    turned = about(labels, np.arange(labels.count)[::-1])
    again = answer(turned, labels, truth, AT, errors, seed=1)
    assert again["verdict"].to_pylist() == found["verdict"].to_pylist()[::-1]
    other = answer(asked, labels, truth, AT, errors, seed=2)
    assert other["verdict"].to_pylist() != found["verdict"].to_pylist()


def test_plants_are_wrong_or_missed(make_run):
    labels, truth = make_run(images=2)
    honeypots = [{"purpose": "plant", "label_id": f"honeypot-{number}", "key": "00000.jpg"} for number in range(200)]
    assert set(answer(tasks_of(*honeypots), labels, truth, AT)["verdict"].to_pylist()) == {"not_an_object"}
    given = answer(tasks_of(*honeypots), labels, truth, AT, Errors(missed=0.4))["verdict"].to_pylist()
    assert given.count("correct") / 200 == pytest.approx(0.4, abs=0.12)


def test_images_are_searched(make_run):
    labels, truth = make_run(images=21)
    found = answer(
        tasks_of(
            {"purpose": "image", "key": "00000.jpg"},
            {"purpose": "possible_miss", "key": "00010.jpg", "class_name": "cat"},
            {"purpose": "possible_miss", "key": "00010.jpg", "class_name": "dog"},
            {"purpose": "image", "key": "00001.jpg"},
            {"purpose": "image", "key": "unknown.jpg"},
        ),
        labels,
        truth,
        AT,
    )
    rows = [(row["verdict"], row["key"], row["class_name"], row["seconds"]) for row in found.to_pylist()]
    assert rows == [
        ("missed", "00000.jpg", "cat", pytest.approx(DRAW_BOX_S)),
        ("checked", "00000.jpg", None, pytest.approx(image_check_s(2))),
        ("checked", "00010.jpg", "cat", pytest.approx(CHECK_CLASS_S)),
        ("missed", "00010.jpg", "dog", pytest.approx(DRAW_BOX_S)),
        ("checked", "00010.jpg", "dog", pytest.approx(CHECK_CLASS_S)),
        ("checked", "00001.jpg", None, pytest.approx(image_check_s(2))),
    ]
    assert missed_and_checked(found).missed.num_rows == 2


def test_what_has_no_truth_is_not_answered(make_run):
    labels, truth = make_run(images=2)
    verdict = truth.verdict.copy()
    verdict[3] = UNKNOWN
    found = answer(about(labels, range(10)), labels, replace(truth, verdict=verdict), AT)
    assert "label-3" not in found["label_id"].to_pylist()
    assert found.num_rows == 9
    unknown = tasks_of({"purpose": "certify", "label_id": "another", "key": "00000.jpg"})
    assert answer(unknown, labels, truth, AT).num_rows == 0


def test_called_leaves_unknown_alone():
    verdict = np.array([CORRECT, BAD_BOX, UNKNOWN])
    assert called(verdict, np.zeros(3), Errors(1.0, 1.0)).tolist() == [NOT_AN_OBJECT, CORRECT, UNKNOWN]


PLAIN: dict[str, Any] = {
    "precisions": None,
    "reviews": "200,400",
    "draws": 10,
    "gate": None,
    "missed": 0.0,
    "automate": 0.5,
}


def test_the_campaign_says_the_rest():
    found = ask(RoutingConfig(precision=0.97, confidence=0.8, gate="accepted"), **PLAIN)
    assert (found.precisions, found.confidence, found.gate, found.reviews) == ((0.97,), 0.8, "accepted", (200, 400))


def test_lists_are_sorted_and_each_number_is_once():
    found = ask(RoutingConfig(), **PLAIN | {"precisions": "0.98, .95 0.95", "reviews": "400,200,400"})
    assert (found.precisions, found.reviews) == ((0.95, 0.98), (200, 400))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"precisions": "95"}, "--precision: 95 is not between 0.5 and 1"),
        ({"precisions": ""}, "--precision: '' is no list of numbers; write 0.95,0.98"),
        ({"precisions": "nan"}, "--precision: nan is not between"),
        ({"reviews": "1e3"}, "--reviews: '1e3' is no list of numbers"),
        ({"reviews": "0,5"}, "--reviews: 0 is no number of labels"),
        ({"draws": 0}, "--draws: 0 is not between 1 and 100,000"),
        ({"gate": "B"}, "--gate: 'B' is none; choose delivered or accepted"),
        ({"missed": 1.5}, "--missed: 1.5 is no share"),
        ({"honeypots": -1}, "--honeypots: -1 is no number of labels"),
        ({"automate": float("nan")}, "--automate: nan is no share"),
    ],
)
def test_nonsense_is_told_in_one_line(change, message):
    with pytest.raises(UserError, match=message):
        ask(RoutingConfig(), **PLAIN | change)
