"""Objects of searched images: found, mended, missed, each once."""

import numpy as np
import pyarrow as pa
import pytest

from schemas.reviews import VERDICTS
from tasks.contract.run_labels import SIGNALS, RunLabels
from tasks.contract.searched import images_of, searched_images
from tasks.reviews.resolve import missed_and_checked, resolve


def make_labels(images: list[int], accepted: list[bool], keys: int = 3) -> RunLabels:
    count = len(images)
    return RunLabels(
        label_ids=pa.array([f"l{row}" for row in range(count)], pa.string()),
        class_index=np.zeros(count, np.int64),
        class_names=("cat", "dog"),
        image_index=np.array(images, np.int64),
        boxes=np.tile(np.array([0, 0, 9, 9], np.float32), (count, 1)),
        signals=np.zeros((count, len(SIGNALS)), np.float32),
        p_correct=np.full(count, np.nan),
        accepted=np.array(accepted, np.bool_),
        keys=pa.array([f"{image}.jpg" for image in range(keys)]),
        contents=pa.array([f"{image:064d}" for image in range(keys)]),
    )


def said(*rows: dict[str, object]) -> pa.Table:
    return pa.Table.from_pylist([{"reviewer": "ann", "simulated": False} | row for row in rows], schema=VERDICTS)


def checked(key: str, class_name: str | None = None, **more: object) -> dict[str, object]:
    return {"key": key, "verdict": "checked", "class_name": class_name} | more


def missed(key: str, class_name: str = "cat", left: float = 50, **more: object) -> dict[str, object]:
    box = {"x0": left, "y0": 0, "x1": left + 10, "y1": 10}
    return {"key": key, "verdict": "missed", "class_name": class_name} | box | more


def search(labels: RunLabels, verdicts: pa.Table, images: tuple[int, ...] = (0,)):
    return searched_images(labels, missed_and_checked(verdicts), resolve(verdicts), np.array(images))


BOX = {"x0": 1.0, "y0": 1.0, "x1": 5.0, "y1": 5.0}


@pytest.mark.parametrize(
    ("verdict", "accepted", "expected"),
    [
        ({"verdict": "correct"}, False, (1, 0, 1)),
        ({"verdict": "correct"}, True, (1, 1, 1)),
        ({"verdict": "not_an_object"}, True, (0, 0, 0)),
        ({"verdict": "not_an_object"}, False, (0, 0, 0)),
        ({"verdict": "wrong_class", "class_name": "dog"}, True, (1, 0, 1)),
        ({"verdict": "wrong_class"}, False, (1, 0, 0)),
        ({"verdict": "wrong_class", "class_name": "zebra"}, False, (0, 0, 0)),
        ({"verdict": "bad_box", **BOX}, True, (1, 0, 1)),
        ({"verdict": "bad_box"}, False, (1, 0, 0)),
        ({"verdict": "bad_box", "class_name": "dog", **BOX}, False, (1, 0, 1)),
    ],
)
def test_what_a_label_counts_for(verdict, accepted, expected) -> None:
    rows = [checked("0.jpg"), {"label_id": "l0"} | verdict]
    found = search(make_labels([0], [accepted]), said(*rows))
    assert found.complete.tolist() == [True]
    assert (found.objects[0], found.accepted[0], found.delivered[0]) == expected


def test_an_undecided_or_disputed_label_keeps_its_image_from_counting() -> None:
    labels = make_labels([0, 1, 2, 3], [False, True, False, True], keys=4)
    rows = [checked(f"{image}.jpg") for image in range(4)]
    rows += [{"label_id": "l1", "verdict": "correct"}, {"label_id": "l1", "verdict": "bad_box", "reviewer": "bob"}]
    rows += [{"label_id": "l2", "verdict": "correct"}]
    found = search(labels, said(*rows), (0, 1, 2, 3))
    assert found.checked.tolist() == [True] * 4
    assert found.complete.tolist() == [False, False, True, False]


def test_a_search_for_some_classes_is_no_search_for_all() -> None:
    labels = make_labels([], [])
    found = search(labels, said(checked("0.jpg", "cat"), checked("1.jpg", "cat"), checked("1.jpg", "dog")), (0, 1, 2))
    assert found.complete.tolist() == [False, True, False]


def test_each_missed_object_counts_once() -> None:
    rows = [
        checked("0.jpg"),
        {"label_id": "l0", "verdict": "correct"},
        missed("0.jpg"),
        missed("0.jpg"),
        missed("0.jpg", left=51, reviewer="bob"),
        missed("0.jpg", "dog", left=51),
        missed("0.jpg", left=80),
        missed("0.jpg", "zebra"),
        missed("gone.jpg"),
    ]
    found = search(make_labels([0], [True]), said(*rows))
    assert (found.objects[0], found.accepted[0]) == (4, 1)


HERE = {"left": 0, "x1": 9.0, "y1": 9.0}
"""A missed box where the labels are."""
THERE = {"x0": 50.0, "y0": 0.0, "x1": 60.0, "y1": 10.0}


@pytest.mark.parametrize(
    ("verdict", "drawn", "objects"),
    [
        ({"verdict": "correct"}, missed("0.jpg", **HERE), 1),
        ({"verdict": "correct"}, missed("0.jpg", left=1), 1),
        ({"verdict": "correct"}, missed("0.jpg", left=8), 2),
        ({"verdict": "correct"}, missed("0.jpg", "dog", **HERE), 2),
        ({"verdict": "not_an_object"}, missed("0.jpg", **HERE), 1),
        ({"verdict": "wrong_class", "class_name": "dog"}, missed("0.jpg", "dog", **HERE), 1),
        ({"verdict": "wrong_class", "class_name": "dog"}, missed("0.jpg", **HERE), 2),
        ({"verdict": "wrong_class"}, missed("0.jpg", "dog", **HERE), 1),
        ({"verdict": "bad_box"}, missed("0.jpg", **HERE), 1),
        ({"verdict": "bad_box", **THERE}, missed("0.jpg"), 1),
        ({"verdict": "bad_box", **THERE}, missed("0.jpg", **HERE), 2),
    ],
)
def test_an_object_that_a_label_shows_is_not_missed(verdict, drawn, objects) -> None:
    found = search(make_labels([0], [True]), said(checked("0.jpg"), {"label_id": "l0"} | verdict, drawn))
    assert found.objects.tolist() == [objects]


def test_who_draws_every_object_says_nothing_of_those_with_labels() -> None:
    labels = make_labels([0, 1], [True, True])
    rows = [{"label_id": f"l{row}", "verdict": "correct"} for row in range(2)]
    rows += [row for key in ("0.jpg", "1.jpg") for row in (checked(key), missed(key, **HERE), missed(key))]
    found = search(labels, said(*rows), (0, 1))
    assert (found.objects.tolist(), found.delivered.tolist()) == ([2, 2], [1, 1])


def test_images_come_in_the_order_asked_for() -> None:
    labels = make_labels([0, 2, 2], [True, True, True])
    right = [{"label_id": f"l{row}", "verdict": "correct"} for row in range(3)]
    found = search(labels, said(checked("2.jpg"), missed("2.jpg"), *right), (2, 1, 0))
    assert found.objects.tolist() == [3, 0, 1]
    assert found.complete.tolist() == [True, False, False]


def test_simulated_answers_about_these_images_are_told() -> None:
    labels = make_labels([0, 1], [True, True])
    verdicts = said(checked("0.jpg"), checked("1.jpg", simulated=True))
    assert not search(labels, verdicts, (0,)).simulated
    assert search(labels, verdicts, (0, 1)).simulated
    of_label = said(checked("0.jpg"), {"label_id": "l0", "verdict": "correct", "simulated": True})
    assert search(labels, of_label, (0,)).simulated


def test_images_are_found_by_key() -> None:
    assert images_of(make_labels([], []), pa.chunked_array([["2.jpg", "none.jpg"]])).tolist() == [2, -1]
