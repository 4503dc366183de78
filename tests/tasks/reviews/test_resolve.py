import math

import numpy as np
import pyarrow as pa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vouch_labels.schemas.reviews import LABEL_VERDICTS, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve, second_readings


def test_later_word_of_one_reviewer_replaces_the_earlier(verdicts):
    found = resolve(
        verdicts(
            {"label_id": "a", "verdict": "bad_box", "at": 9},
            {"label_id": "a", "verdict": "correct", "at": 1},
            {"label_id": "b", "verdict": "correct", "at": None},
            {"label_id": "b", "verdict": "not_an_object", "at": None},
            {"label_id": "c", "verdict": "correct", "at": 0},
            {"label_id": "c", "verdict": "wrong_class", "at": None},
        )
    )
    answer = dict(zip(found.label_ids, found.verdict, strict=True))
    assert answer == {"a": "bad_box", "b": "not_an_object", "c": "correct"}
    assert found.wrong_of(["c", "?", "a", "b"]).tolist() == [0, -1, 1, 1]
    assert found.reviewers.tolist() == [1, 1, 1]


def test_reviewers_agree_or_dispute(verdicts):
    found = resolve(
        verdicts(
            {"label_id": "a", "verdict": "correct"},
            {"label_id": "a", "verdict": "correct", "reviewer": "bob", "simulated": True, "seconds": 2},
            {"label_id": "b", "verdict": "bad_box", "seconds": 1},
            {"label_id": "b", "verdict": "not_an_object", "reviewer": "bob", "seconds": 2},
            {"label_id": "c", "verdict": "correct"},
            {"label_id": "c", "verdict": "bad_box", "reviewer": "bob"},
            {"label_id": "c", "verdict": "correct", "reviewer": "bob", "at": 1},
            {"label_id": "d", "verdict": "correct", "reviewer": "bob", "simulated": True},
        )
    )
    assert found.wrong_of(pa.array(["a", "b", "c"])).tolist() == [0, 2, 0]
    assert found.simulated_of(["a", "b", "d", "?"]).tolist() == [False, False, True, False]
    assert np.array_equal(found.seconds_of(["a", "b", "c", "?"]), [np.nan, 3, np.nan, np.nan], equal_nan=True)


def test_the_third_of_two_who_differ_decides_and_the_outvoted_box_is_no_correction(verdicts):
    rows = [
        {"label_id": "a", "verdict": "correct"},
        {"label_id": "a", "verdict": "bad_box", "box": (1, 2, 3, 4), "reviewer": "bob", "at": 1},
        {"label_id": "a", "verdict": "correct", "reviewer": "cem", "at": 2},
    ]
    assert resolve(verdicts(*rows[:2])).verdict == ["disputed"]
    found = resolve(verdicts(*rows))
    assert (found.verdict, found.reviewers.tolist()) == (["correct"], [3])
    assert np.isnan(found.boxes).all()
    fourth = {"label_id": "a", "verdict": "not_an_object", "reviewer": "dan", "at": 3}
    assert resolve(verdicts(*rows, fourth)).verdict == ["disputed"]
    assert resolve(verdicts(rows[0], rows[1], fourth)).verdict == ["disputed"]


def test_people_replace_a_simulated_reviewer(verdicts):
    found = resolve(
        verdicts(
            {"label_id": "a", "verdict": "correct", "at": 1},
            {"label_id": "a", "verdict": "bad_box", "reviewer": "simulated", "simulated": True, "at": 9},
        )
    )
    assert found.verdict == ["correct"]
    assert found.simulated.tolist() == [False]


def test_corrections(verdicts):
    found = resolve(
        verdicts(
            {"label_id": "a", "verdict": "wrong_class", "class_name": "cat"},
            {"label_id": "a", "verdict": "wrong_class", "class_name": "cat", "reviewer": "bob"},
            {"label_id": "b", "verdict": "wrong_class", "class_name": "cat"},
            {"label_id": "b", "verdict": "wrong_class", "class_name": "dog", "reviewer": "bob"},
            {"label_id": "c", "verdict": "wrong_class", "class_name": "cat"},
            {"label_id": "c", "verdict": "wrong_class", "reviewer": "bob"},
            {"label_id": "d", "verdict": "bad_box", "box": (1, 2, 3, 4), "at": 5},
            {"label_id": "d", "verdict": "bad_box", "box": (5, 6, 7, 8), "reviewer": "bob"},
            {"label_id": "d", "verdict": "bad_box", "reviewer": "eve", "at": 9},
        )
    )
    assert dict(zip(found.label_ids, found.class_name, strict=True)) == {"a": "cat", "b": None, "c": "cat", "d": None}
    assert found.boxes[found.places(["d"])[0]].tolist() == [1, 2, 3, 4]
    assert np.isnan(found.boxes[found.places(["a", "b", "c"])]).all()


def test_what_readers_miss_is_taken_from_their_first_word(verdicts):
    rows = []
    for label_id, *said in (
        ("both", "not_an_object", "bad_box"),
        ("missed", "correct", "not_an_object"),
        ("settled", "correct", "not_an_object", "not_an_object"),
        ("false alarm", "bad_box", "correct", "correct"),
        ("right", "correct", "correct"),
        ("found later", "correct", "correct", "bad_box", "bad_box", "bad_box"),
        ("once", "not_an_object"),
    ):
        for place, (name, verdict) in enumerate(zip(("ann", "bob", "cem", "dan", "eve"), said, strict=False)):
            rows.append({"label_id": label_id, "verdict": verdict, "reviewer": name, "at": place})
    # Somebody who sees it again knows better, and a program is passed over.
    rows += [
        {"label_id": "corrected", "verdict": "correct", "reviewer": "ann", "at": 1},
        {"label_id": "corrected", "verdict": "bad_box", "reviewer": "bob", "at": 2},
        {"label_id": "corrected", "verdict": "bad_box", "reviewer": "ann", "at": 3},
        {"label_id": "once", "verdict": "correct", "reviewer": "simulated", "simulated": True},
    ]
    table = verdicts(*rows)
    found = second_readings(table, resolve(table))
    assert (found.labels, found.wrong, found.missed) == (7, 4, 3)
    assert math.isclose(found.share, 0.75 / 1.25)
    assert 0 < found.low < found.share < found.high < 1
    assert found.to_line().startswith("two people read 7 labels, 4 of them wrong: one of the two missed 3; about 60% ")
    none = second_readings(table.slice(0, 0), resolve(table))
    assert (none.labels, none.share) == (0, None)
    alike = verdicts({"label_id": "a"}, {"label_id": "a", "reviewer": "bob"})
    assert "found none of them wrong" in second_readings(alike, resolve(alike)).to_line()


def test_the_bounds_of_what_is_missed_hold_as_often_as_they_say():
    rng, covered = np.random.default_rng(7), {0.02: 0, 0.1: 0, 0.4: 0}
    draws = 300
    for share in covered:
        for _ in range(draws):
            wrong = rng.random(400) < 0.2
            said = [np.where(wrong & (rng.random(400) >= share), "bad_box", "correct") for _ in range(2)]
            rows = pa.Table.from_pylist(
                [
                    dict.fromkeys(VERDICTS.names)
                    | {"label_id": str(one), "verdict": str(said[who][one]), "reviewer": name, "simulated": False}
                    for who, name in enumerate(("ann", "bob"))
                    for one in range(400)
                ],
                schema=VERDICTS,
            )
            found = second_readings(rows, resolve(rows))
            covered[share] += found.low <= share <= found.high
    # Four standard errors below the nominal .90.
    assert min(covered.values()) >= draws * 0.83, covered


def test_masks(verdicts):
    first, second, moved = (1, 2, 3, 4), (5, 6, 7, 8), {"verdict": "bad_box"}
    found = resolve(
        verdicts(
            {"label_id": "a", "rle_counts": b"62", "at": 5},
            {"label_id": "a", "rle_counts": b"30", "reviewer": "bob"},
            {"label_id": "a", "reviewer": "eve", "at": 9},
            {"label_id": "b", "rle_counts": b"62"},
            {"label_id": "b", "at": 1},
            {"label_id": "c", "box": first, "rle_counts": b"62"} | moved,
            {"label_id": "c", "box": second, "reviewer": "bob", "at": 1} | moved,
            {"label_id": "d", "box": first, "rle_counts": b"62"} | moved,
            {"label_id": "d", "box": first, "reviewer": "bob", "at": 1} | moved,
            {"label_id": "e", "box": first} | moved,
            {"label_id": "e", "box": second, "rle_counts": b"62", "reviewer": "bob", "at": 1} | moved,
            {"label_id": "f", "verdict": "wrong_class", "class_name": "cat"},
        )
    )
    masks = dict(zip(found.label_ids, found.masks.to_pylist(), strict=True))
    # b: taken back by the same reviewer; c: another box came later, and the mask was drawn for the first one.
    assert masks == {"a": b"62", "b": None, "c": None, "d": b"62", "e": b"62", "f": None}
    assert found.boxes[found.places(["c", "e"])].tolist() == [list(second), list(second)]
    assert found.wrong_of(["a", "b"]).tolist() == [0, 0], "another mask alone is no error of the label"


def test_masks_of_missed_objects(verdicts):
    row = {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": (1, 2, 3, 4)}
    later = row | {"box": (1, 2, 3, 5), "at": 1}
    found = missed_and_checked(
        verdicts(
            row, later, row | {"rle_counts": b"30", "at": 2}, row | {"rle_counts": b"62", "at": 3}, row | {"at": 4}
        )
    )
    assert found.missed.select(["y1", "rle_counts"]).to_pylist() == [
        {"y1": 4, "rle_counts": b"62"},
        {"y1": 5, "rle_counts": None},
    ]


def test_images_count_once(verdicts):
    table = verdicts(
        {"key": "a.png", "verdict": "checked", "seconds": 4},
        {"key": "a.png", "verdict": "checked", "seconds": 4},
        {"key": "a.png", "verdict": "checked", "class_name": "cat", "reviewer": "bob"},
        {"key": "a.png", "verdict": "checked", "reviewer": "bob"},
        {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": (1, 2, 3, 4), "seconds": 2},
        {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": (1, 2, 3, 4), "at": 3},
        {"key": "a.png", "verdict": "missed", "class_name": "cat", "box": (1, 2, 3, 5)},
        {"label_id": "a", "key": "a.png"},
    )
    found = missed_and_checked(table)
    assert found.checked.select(["key", "class_name"]).to_pylist() == [
        {"key": "a.png", "class_name": None},
        {"key": "a.png", "class_name": "cat"},
    ]
    assert found.missed["y1"].to_pylist() == [4, 5]
    assert found.seconds == 6
    assert resolve(table).label_ids == ("a",)


def test_no_verdicts(verdicts):
    found = resolve(verdicts())
    assert found.label_ids == ()
    assert found.boxes.shape == (0, 4)
    assert found.wrong_of(["x"]).tolist() == [-1]
    assert found.wrong_of([]).tolist() == []
    assert missed_and_checked(verdicts()).missed.num_rows == 0


ROW = st.fixed_dictionaries(
    {
        "label_id": st.sampled_from("abc"),
        "verdict": st.sampled_from(LABEL_VERDICTS),
        "class_name": st.sampled_from([None, "cat", "dog"]),
        "reviewer": st.sampled_from(["ann", "bob", "eve"]),
        "reviewed_at": st.none() | st.integers(0, 4),
        "seconds": st.none() | st.integers(0, 3).map(float),
        "simulated": st.booleans(),
    }
)
SHAPES = st.lists(
    st.fixed_dictionaries(
        {
            "reviewer": st.sampled_from(["ann", "bob", "eve"]),
            "box": st.sampled_from([None, (1, 2, 3, 4), (1, 2, 3, 5)]),
            "rle_counts": st.sampled_from([None, b"62", b"30"]),
        }
    ),
    max_size=9,
)


def table(rows):
    return pa.Table.from_pylist([dict.fromkeys(VERDICTS.names) | row for row in rows], schema=VERDICTS)


def summary(found):
    values = (found.verdict, found.class_name, found.seconds.tolist(), found.simulated.tolist())
    rows = {
        name: [None if isinstance(value, float) and math.isnan(value) else value for value in row]
        for name, *row in zip(found.label_ids, *values, strict=True)
    }
    return dict(sorted(rows.items()))


@given(st.lists(ROW, max_size=20))
def test_as_a_plain_loop_says(rows):
    by_label: dict[str, dict[str, dict]] = {}
    by_people = {row["label_id"] for row in rows if not row["simulated"]}
    rows = [row for row in rows if not (row["simulated"] and row["label_id"] in by_people)]
    for row in sorted(rows, key=lambda row: -1 if row["reviewed_at"] is None else row["reviewed_at"]):
        by_label.setdefault(row["label_id"], {})[row["reviewer"]] = row
    expected = {}
    for label_id, by_reviewer in sorted(by_label.items()):
        every = last = list(by_reviewer.values())
        names = [row["verdict"] for row in last]
        most = max(names, key=names.count)
        if 2 * names.count(most) > len(names):
            last = [row for row in last if row["verdict"] == most]
        kinds, classes = {row["verdict"] for row in last}, {row["class_name"] for row in last} - {None}
        seconds = [row["seconds"] for row in every if row["seconds"] is not None]
        expected[label_id] = [
            kinds.pop() if len(kinds) == 1 else "disputed",
            classes.pop() if len(classes) == 1 else None,
            sum(seconds) if seconds else None,
            any(row["simulated"] for row in every),
        ]
    assert summary(resolve(table(rows))) == expected


@given(st.lists(ROW, max_size=12))
def test_rows_that_come_again_change_nothing(rows):
    once = summary(resolve(table(rows)))
    assert summary(resolve(table([row for row in rows for _ in range(2)]))) == once
    timed = [row for row in rows if row["reviewed_at"] is not None]
    if len({(row["label_id"], row["reviewer"], row["reviewed_at"]) for row in timed}) == len(timed) == len(rows):
        assert summary(resolve(table(rows + rows[::-1]))) == once


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=300)
@given(SHAPES)
def test_boxes_and_masks_as_a_plain_loop_says(verdicts, shapes):
    found = resolve(verdicts(*(_row(shape, label_id="a") for shape in shapes)))
    last = {}
    for shape in shapes:
        last.pop(shape["reviewer"], None)
        last[shape["reviewer"]] = shape
    box = mask = own = None
    later = False
    for shape in last.values():
        if shape["box"]:
            box, later = shape["box"], True
        if shape["rle_counts"]:
            mask, own, later = shape["rle_counts"], shape["box"], False
    assert found.boxes.tolist() == [list(box)] if box else np.isnan(found.boxes).all()
    assert found.masks.to_pylist() == [mask if not later or own == box else None][: len(last)]
    assert found.boxes.dtype == np.float32


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(SHAPES)
def test_missed_objects_as_a_plain_loop_says(verdicts, shapes):
    shapes = [shape for shape in shapes if shape["box"]]
    rows = [_row(shape, key="a.png", verdict="missed", class_name="cat") for shape in shapes]
    # Of rows that are equal as a whole, the first counts.
    seen, objects = set(), {}
    for shape in shapes:
        # Not the values in their order: dictionaries that are equal may have another one.
        if (content := frozenset(shape.items())) not in seen:
            seen.add(content)
            thing = (shape["box"], shape["reviewer"])
            objects[thing] = shape["rle_counts"] or objects.get(thing)
    found = missed_and_checked(verdicts(*rows)).missed
    found_objects = [
        ((tuple(row[side] for side in BOX), row["reviewer"]), row["rle_counts"]) for row in found.to_pylist()
    ]
    assert found_objects == list(objects.items())


def _row(shape, **others):
    return others | {name: value for name, value in shape.items() if value is not None}
