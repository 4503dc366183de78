"""The right answers, from ground truth, and a reviewer simulated by them."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.campaign import RoutingConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import LABEL_VERDICTS, TASKS, VERDICTS
from vouch_labels.tasks.evaluate.evaluate import evaluate_campaign
from vouch_labels.tasks.evaluate.run_truth import (
    BAD_BOX,
    CORRECT,
    NOT_AN_OBJECT,
    UNKNOWN,
    WRONG_CLASS,
    answer_image,
    truth_of_campaign,
)
from vouch_labels.tasks.matching import ImageLabels, ImageObjects, xywh_of
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


# The right answers, from ground truth.
#
# The right answers about one image.


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label):
    """Seven labelled images in two shards."""
    make_images(tmp_path / "images", 7)
    campaign = make_campaign(export={"undecided": "include"})
    label(campaign)
    return campaign


def test_its_own_labels_are_right(campaign, own_truth):
    seen: list[int] = []
    labels, truth = truth_of_campaign(campaign, own_truth(), seen.append)
    assert seen == [1, 2, 3, 4, 5, 6, 7]
    assert (truth.correct.all(), truth.known.all(), len(truth.missed_image), truth.left_out) == (True, True, 0, {})
    assert (truth.class_index == labels.class_index).all()
    np.testing.assert_allclose(truth.boxes, labels.boxes, atol=0.01)


def test_agrees_with_evaluate(campaign, own_truth):
    """Half of the objects gone, some of another class, some moved: the same count of right labels."""

    def change(document):
        document["annotations"] = document["annotations"][::2]
        for place, item in enumerate(document["annotations"]):
            item["category_id"] = 1 if place % 3 == 0 else item["category_id"]
            item["bbox"][0] += 3 * (place % 4)

    path = own_truth(change)
    labels, truth = truth_of_campaign(campaign, path)
    evaluated = evaluate_campaign(campaign, path).accepted_and_review
    assert 0 < truth.correct.sum() == evaluated.correct < labels.count
    assert len(truth.missed_image) + (truth.class_index >= 0).sum() == evaluated.objects
    assert np.isnan(truth.boxes[truth.class_index < 0]).all()


def test_what_has_no_truth_is_left_out_and_counted(campaign, own_truth):
    def change(document):
        gone = document["images"].pop(0)["id"]
        document["images"][0]["width"] += 1
        kept = {image["id"] for image in document["images"]} - {gone}
        document["annotations"] = [item for item in document["annotations"] if item["image_id"] in kept]
        document["categories"] = [entry for entry in document["categories"] if entry["name"] != "dog"]

    labels, truth = truth_of_campaign(campaign, own_truth(change))
    assert truth.known.tolist() == [False, False, *[True] * 5]
    dogs = labels.class_index == labels.class_names.index("dog")
    assert (truth.counted == (truth.known[labels.image_index] & ~dogs)).all()
    assert sum(truth.left_out.values()) == (~truth.counted).sum()
    assert set(truth.left_out) == {
        "no truth for the image",
        "image of another size in the truth",
        "class that the truth does not have",
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda document: document.update(images=[{"id": 1, "file_name": "other.png"}]), "shares no image"),
        (lambda document: document.update(categories=[{"id": 1, "name": "owl"}]), "shares no class"),
        (lambda document: [image.update(width=5) for image in document["images"]], "fits none"),
    ],
)
def test_nothing_in_common(campaign, own_truth, change, message):
    with pytest.raises(UserError, match=message):
        truth_of_campaign(campaign, own_truth(change))


def labels_of(*rows: tuple[int, tuple[float, ...], float]) -> ImageLabels:
    """Class, box, score of each."""
    return ImageLabels(
        class_index=np.array([row[0] for row in rows], np.int64),
        xyxy=np.array([row[1] for row in rows], np.float32).reshape(-1, 4),
        accepted=np.zeros(len(rows), bool),
        signals={"detector_score": np.array([row[2] for row in rows], np.float32)},
    )


def objects_of(*rows: tuple[int, tuple[float, ...]], crowd: tuple[int, ...] = ()) -> ImageObjects:
    """Class and box of each."""
    return ImageObjects(
        class_index=np.array([row[0] for row in rows], np.int64),
        xywh=xywh_of(np.array([row[1] for row in rows], np.float32)),
        crowd=np.isin(np.arange(len(rows)), crowd),
    )


CAT, DOG = (10, 10, 30, 30), (50, 50, 70, 70)


@pytest.mark.parametrize(
    ("label", "verdict"),
    [
        ((0, (11, 11, 31, 31), 0.9), CORRECT),
        ((1, (11, 11, 31, 31), 0.9), WRONG_CLASS),
        ((0, (20, 10, 40, 30), 0.9), BAD_BOX),
        ((1, (20, 10, 40, 30), 0.9), NOT_AN_OBJECT),
        ((0, (80, 80, 90, 90), 0.9), NOT_AN_OBJECT),
        ((0, (28, 28, 48, 48), 0.9), NOT_AN_OBJECT),
    ],
)
def test_each_answer(label, verdict):
    answer = answer_image(labels_of(label), objects_of((0, CAT)))
    assert answer.verdict.tolist() == [verdict]
    assert answer.object.tolist() == ([-1] if verdict == NOT_AN_OBJECT else [0])
    assert answer.missed.tolist() == ([0] if verdict == NOT_AN_OBJECT else [])


def test_of_two_boxes_on_one_object_the_better_score_is_right():
    """Also when the other one fits better."""
    answer = answer_image(labels_of((0, CAT, 0.5), (0, (12, 12, 32, 32), 0.8)), objects_of((0, CAT)))
    assert answer.verdict.tolist() == [NOT_AN_OBJECT, CORRECT]


def test_an_object_is_mended_to_once():
    """Two bad boxes of one object, and one of another class on an object that a right label has."""
    rows = ((0, (20, 10, 40, 30), 0.9), (0, (0, 10, 20, 30), 0.8), (1, DOG, 0.9), (0, DOG, 0.7))
    answer = answer_image(labels_of(*rows), objects_of((0, CAT), (1, DOG)))
    assert answer.verdict.tolist() == [BAD_BOX, NOT_AN_OBJECT, CORRECT, NOT_AN_OBJECT]


def test_crowds_answer_nothing_and_are_not_missed():
    objects = objects_of((0, (0, 0, 60, 60)), (1, DOG), crowd=(0,))
    answer = answer_image(labels_of((0, CAT, 0.9), (1, CAT, 0.9)), objects)
    assert answer.verdict.tolist() == [UNKNOWN, NOT_AN_OBJECT]
    assert answer.missed.tolist() == [1]


def test_an_image_without_labels_or_without_objects():
    assert answer_image(labels_of(), objects_of((0, CAT))).missed.tolist() == [0]
    assert answer_image(labels_of((0, CAT, 0.4)), objects_of()).verdict.tolist() == [NOT_AN_OBJECT]
