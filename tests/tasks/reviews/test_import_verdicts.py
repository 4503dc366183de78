import csv
import json
import os
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as mask_utils

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import MOST_RLE_BYTES, VERDICTS
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews import import_verdicts, read_file
from vouch_labels.tasks.reviews.import_verdicts import import_files
from vouch_labels.tasks.reviews.read_file import COLUMNS, read_rows, write_table
from vouch_labels.tasks.reviews.row_checks import RowChecker, RowError
from vouch_labels.tasks.reviews.verdicts import read_verdicts, trouble, verdict_tables
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    campaign = make_campaign()
    label(campaign)
    return campaign


@pytest.fixture
def labels(campaign):
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        return read_run_labels(workspace, "main", ledger, current_of(workspace, "main"))


@pytest.fixture
def write(tmp_path):
    def make(rows, name="verdicts.jsonl"):
        path = tmp_path / name
        path.write_text("\n".join(json.dumps(row) for row in rows))
        return path

    return make


def rle(width, height, side=3):
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[1 : 1 + side, 1 : 1 + side] = 1
    return mask_utils.encode(mask)["counts"]


def kept(campaign):
    return read_verdicts(open_store(campaign.workspace)).to_pylist()


def test_exactly_once(campaign, labels, write):
    ids = labels.label_ids.to_pylist()[:3]
    path = write([{"label_id": name, "verdict": "correct"} for name in ids])
    (first,) = import_files(campaign, [path], "ann")
    assert (first.rows, first.imported, first.known, first.refused, first.unknown_labels) == (3, 3, 0, 0, 0)
    rows = kept(campaign)
    assert {row["label_id"] for row in rows} == set(ids)
    assert {row["reviewer"] for row in rows} == {"ann"}
    assert {row["reviewed_at"].timestamp() for row in rows} == {int(path.stat().st_mtime)}
    (again,) = import_files(campaign, [path], "ann")
    assert (again.imported, again.known) == (0, 3)
    path.write_text(path.read_text() + '\n{"label_id": "new", "verdict": "bad box"}')
    os.utime(path, (rows[0]["reviewed_at"].timestamp(),) * 2)
    (more,) = import_files(campaign, [path], "ann")
    assert (more.imported, more.known, more.unknown_labels) == (1, 3, 1)
    assert len(kept(campaign)) == 4


def test_files_that_come_together_are_held_against_each_other(campaign, labels, write, monkeypatch):
    ids = labels.label_ids.to_pylist()[:3]
    rows = [{"label_id": name, "verdict": "correct", "reviewed_at": "2026-03-04T05:06:07Z"} for name in ids]
    reads = []

    def counted(workspace):
        reads.append(1)
        return verdict_tables(workspace)

    monkeypatch.setattr("vouch_labels.tasks.reviews.import_verdicts.verdict_tables", counted)
    paths = [write(rows[:2], "a.jsonl"), write(rows, "b.jsonl"), write(rows[2:], "c.jsonl")]
    outcomes = import_files(campaign, paths, "ann")
    assert [(one.imported, one.known) for one in outcomes] == [(2, 0), (1, 2), (0, 1)]
    assert len(kept(campaign)) == 3
    assert len(reads) == 1, "however many files, those that are there are read once"


def test_bad_rows_stop_everything_unless_they_are_skipped(campaign, labels, write, tmp_path):
    one, two = labels.label_ids.to_pylist()[:2]
    good = write([{"label_id": one, "verdict": "correct"}], "good.jsonl")
    bad = write(
        [
            {"label_id": one, "verdict": "ok"},
            {"label_id": two, "verdict": "not an object"},
            {"label_id": one, "verdict": ""},
            {"label_id": two, "verdict": "bad_box", "x0": 1},
        ]
    )
    with pytest.raises(UserError) as caught:
        import_files(campaign, [good, bad], "ann")
    assert str(caught.value).split("\n") == [
        f"nothing was imported: 2 of 4 rows of {bad} are invalid: fix them, or leave them out by --skip-bad",
        f"{bad}: row 1: 'ok' is no verdict; use correct, wrong_class, bad_box, not_an_object, checked, missed",
        f"{bad}: row 4: the box lacks y0, x1, y1",
    ]
    assert kept(campaign) == []
    _, outcome = import_files(campaign, [good, bad], "ann", skip_bad=True)
    assert (outcome.rows, outcome.imported, outcome.unanswered, outcome.refused) == (4, 1, 1, 2)
    with (tmp_path / "verdicts-refused.csv").open(newline="") as file:
        refused = list(csv.DictReader(file))
    assert [(row["row"], row["label_id"], row["verdict"], row["x0"]) for row in refused] == [
        ("1", one, "ok", ""),
        ("4", two, "bad_box", "1"),
    ]
    assert refused[1]["reason"] == "the box lacks y0, x1, y1"


def test_rows_against_each_other_and_against_the_labels(campaign, labels, write):
    one, two, three = labels.label_ids.to_pylist()[:3]
    own = [labels.class_names[number] for number in labels.class_index[:3]]
    other = {"cat": "dog", "dog": "cat"}
    path = write(
        [
            {"label_id": one, "verdict": "correct", "class_name": own[0], "x0": 1, "y0": 1, "x1": 5, "y1": 5},
            {"label_id": one, "verdict": "bad_box"},
            {"label_id": one, "verdict": "correct", "reviewer": "bob"},
            {"label_id": two, "verdict": "correct", "class_name": other[own[1]]},
            {"label_id": three, "verdict": "wrong_class", "class_name": own[2]},
            {"label_id": three, "verdict": "wrong_class", "class_name": other[own[2]], "reviewer": "bob"},
            {"key": "000.png", "verdict": "checked"},
            {"key": "nowhere.png", "verdict": "missed", "class_name": "cat", "x0": 1, "y0": 1, "x1": 5, "y1": 5},
        ]
    )
    (outcome,) = import_files(campaign, [path], "ann", skip_bad=True)
    assert (outcome.imported, outcome.refused, outcome.unknown_images) == (5, 3, 1)
    with path.with_name("verdicts-refused.csv").open(newline="") as file:
        reasons = {row["row"]: row["reason"] for row in csv.DictReader(file)}
    assert reasons == {
        "2": "says otherwise than row 1 of the same label, reviewer and time",
        "4": f"correct, but with another class than the label's, {own[1]!r}; that is wrong_class",
        "5": f"wrong_class, but the label is {own[2]!r} already",
    }
    (confirmed,) = [row for row in kept(campaign) if row["label_id"] == one and row["reviewer"] == "ann"]
    assert (confirmed["class_name"], confirmed["x0"]) == (None, None)


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_masks_go_out_and_come_in(campaign, labels, tmp_path, suffix):
    one, two, three = labels.label_ids.to_pylist()[:3]
    mask, at = rle(96, 64), {"reviewed_at": datetime(2026, 3, 4, tzinfo=UTC), "reviewer": "ann", "simulated": False}
    rows = [
        {"label_id": one, "verdict": "correct", "rle_counts": mask},
        {"label_id": two, "verdict": "not_an_object", "rle_counts": b"any"},
        {"label_id": "elsewhere", "verdict": "correct", "rle_counts": rle(7, 5)},
        {"label_id": three, "verdict": "bad_box"},
    ]
    path = tmp_path / f"masks.{suffix}"
    write_table(path, pa.Table.from_pylist([at | row for row in rows], schema=VERDICTS))
    (outcome,) = import_files(campaign, [path], "bob")
    assert (outcome.imported, outcome.refused) == (4, 0)
    assert {row["label_id"]: row["rle_counts"] for row in kept(campaign)} == {
        one: mask,
        two: None,
        "elsewhere": rle(7, 5),
        three: None,
    }
    write_table(path, read_verdicts(open_store(campaign.workspace)))
    (again,) = import_files(campaign, [path], "bob")
    assert (again.imported, again.known) == (0, 4)


def test_masks_are_held_against_their_images(campaign, labels, write):
    one, two, three = labels.label_ids.to_pylist()[:3]
    box = {"x0": 1, "y0": 1, "x1": 5, "y1": 5}
    path = write(
        [
            {"label_id": one, "verdict": "correct", "rle_counts": rle(64, 95).decode()},
            {"label_id": two, "verdict": "correct", "rle_counts": "1" * (MOST_RLE_BYTES + 1)},
            {"key": "000.png", "verdict": "missed", "class_name": "cat", "rle_counts": rle(97, 64).decode()} | box,
            {"key": "gone.png", "verdict": "missed", "class_name": "cat", "rle_counts": rle(97, 64).decode()} | box,
            {"label_id": three, "verdict": "correct", "rle_counts": rle(96, 64).decode()},
            {"label_id": three, "verdict": "correct", "rle_counts": rle(96, 64, 4).decode()},
        ]
    )
    (outcome,) = import_files(campaign, [path], "ann", skip_bad=True)
    assert (outcome.imported, outcome.refused, outcome.unknown_images) == (2, 4, 1)
    corrected = path.with_name("verdicts-refused.csv")
    refused = [row for _, row in read_rows(corrected)]
    wrong_size = "rle_counts: the mask is of {} pixels, its image of 96 x 64; draw it in the size of the image"
    assert [row["reason"] for row in refused] == [
        wrong_size.format("6,080"),
        "rle_counts: the mask has 1,048,577 bytes; smooth its edge until it has up to 1,048,576",
        wrong_size.format("6,208"),
        "says otherwise than row 5 of the same label, reviewer and time",
    ]
    assert refused[0]["rle_counts"] == rle(64, 95).decode()
    corrected.write_text(corrected.read_text().replace(rle(64, 95).decode(), rle(96, 64, 5).decode()))
    (outcome,) = import_files(campaign, [corrected], "bob", skip_bad=True)
    assert (outcome.imported, outcome.refused) == (2, 2)


def test_boxes_are_held_against_their_images(campaign, labels, write):
    """Images of 96 x 64 pixels; a box that reaches out is one, of an image that is unknown all are."""
    one, two, three = labels.label_ids.to_pylist()[:3]
    missed = {"verdict": "missed", "class_name": "cat"}
    rows = [
        {"label_id": one, "verdict": "bad_box", "x0": 96, "y0": 1, "x1": 99, "y1": 9},
        {"label_id": two, "verdict": "correct", "x0": 96, "y0": 1, "x1": 99, "y1": 9},
        {"label_id": three, "verdict": "bad_box", "x0": 90, "y0": 60, "x1": 99, "y1": 99},
        {"key": "000.png", "x0": 5, "y0": -9, "x1": 9, "y1": 0} | missed,
        {"key": "gone.png", "x0": 500, "y0": 1, "x1": 600, "y1": 9} | missed,
        {"key": "gone.png", "x0": -9, "y0": 1, "x1": -5, "y1": 9} | missed,
    ]
    for suffix in ("jsonl", "parquet"):
        path = write(rows)
        if suffix == "parquet":
            path = path.with_suffix(".parquet")
            full = [dict.fromkeys(COLUMNS) | {"simulated": False} | row for row in rows]
            pq.write_table(pa.Table.from_pylist(full), path)
            os.utime(path, (path.with_suffix(".jsonl").stat().st_mtime,) * 2)
        (outcome,) = import_files(campaign, [path], "ann", skip_bad=True)
        with path.with_name("verdicts-refused.csv").open(newline="") as file:
            assert [row["reason"] for row in csv.DictReader(file)] == [
                "the box 96, 1, 99, 9 lies outside its image of 96 x 64",
                "the box 5, -9, 9, 0 lies outside its image of 96 x 64",
                "the box -9, 1, -5, 9 lies outside its image",
            ]
        assert (outcome.imported + outcome.known, outcome.refused) == (3, 3)


def test_a_file_that_goes_by_in_parts(campaign, labels, tmp_path, monkeypatch):
    """Repeated and contradicting rows find each other across parts; nothing depends on how many there are."""
    ids = labels.label_ids.to_pylist()[:6]
    at = {"reviewed_at": datetime(2026, 3, 4, tzinfo=UTC), "reviewer": "ann"}
    rows = [{"label_id": name, "verdict": "correct"} | at for name in ids]
    rows += [
        rows[0],
        {**rows[1], "verdict": "bad_box"},
        {**rows[2], "verdict": "nonsense"},
        {**rows[3], "verdict": None},
    ]
    path = tmp_path / "verdicts.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    monkeypatch.setattr(import_verdicts, "_CHUNK_ROWS", 2)
    monkeypatch.setattr(import_verdicts, "_IN_MEMORY", 1)
    monkeypatch.setattr(read_file, "_PARQUET_ROWS", 2)
    seen = []
    (outcome,) = import_files(
        campaign, [path], "bob", skip_bad=True, progress=lambda done, total: seen.append((done, total))
    )
    assert (outcome.rows, outcome.imported, outcome.known, outcome.unanswered, outcome.refused) == (10, 6, 1, 1, 2)
    assert seen == [(done, 10) for done in (2, 4, 6, 8, 10)]
    with path.with_name("verdicts-refused.csv").open(newline="") as file:
        assert [(row["row"], row["reason"].split(";")[0]) for row in csv.DictReader(file)] == [
            ("8", "says otherwise than row 2 of the same label, reviewer and time"),
            ("9", "'nonsense' is no verdict"),
        ]
    assert sorted(row["label_id"] for row in kept(campaign)) == sorted(ids)
    (again,) = import_files(campaign, [path], "bob", skip_bad=True)
    assert (again.imported, again.known) == (0, 7)


def test_a_file_of_nothing_but_faults_is_another_file(campaign, write, monkeypatch):
    monkeypatch.setattr(import_verdicts, "MOST_REFUSED", 2)
    path = write([{"label_id": "1", "verdict": "ok"}] * 3)
    with pytest.raises(UserError, match="more than 2 rows are invalid, the first of them row 1: 'ok' is no verdict"):
        import_files(campaign, [path], "ann", skip_bad=True)


def test_refused_rows_come_back_mended(campaign, labels, write):
    one = labels.label_ids[0].as_py()
    import_files(campaign, [write([{"label_id": one, "verdict": "corect"}])], "ann", skip_bad=True)
    path = write([]).with_name("verdicts-refused.csv")
    header, row = path.read_text().splitlines()
    path.write_text(f"{header}\n{row.replace(',corect,', ',correct,')}\n")
    assert import_files(campaign, [path], "ann")[0].imported == 1


def test_before_a_run(tmp_path, make_images, make_campaign, write):
    make_images(tmp_path / "images", 1)
    with pytest.raises(UserError, match="has no labels yet; use `vouch run` first"):
        import_files(make_campaign(), [write([])], "ann")
    with pytest.raises(UserError, match="needs a reviewer"):
        import_files(make_campaign(), [write([])], " ")


NOW = datetime(2026, 3, 4, tzinfo=UTC)
CHANGED = NOW - timedelta(days=7)
CHECKER = RowChecker(("cat", "Überwurf 螺母"), "ann", CHANGED, NOW)


def test_a_full_row():
    row = {
        "label_id": 12,
        "verdict": " Wrong-Class ",
        "class_name": "ÜBERWURF 螺母",
        "x0": "1",
        "y0": 2,
        "x1": 3.5,
        "y1": "4e1",
        "reviewer": "bob",
        "seconds": "2.5",
        "reviewed_at": "2026-03-01T12:00:00+02:00",
        "simulated": "True",
        "rle_counts": "52203",
    }
    assert CHECKER.check(row) == {
        "label_id": "12",
        "key": None,
        "verdict": "wrong_class",
        "class_name": "Überwurf 螺母",
        "x0": 1,
        "y0": 2,
        "x1": 3.5,
        "y1": 40,
        "reviewer": "bob",
        "seconds": 2.5,
        "reviewed_at": datetime(2026, 3, 1, 12, tzinfo=timezone(timedelta(hours=2))),
        "simulated": True,
        "rle_counts": b"52203",
    }


def test_what_is_left_out_is_filled_in():
    nan = float("nan")
    row = CHECKER.check({"label_id": "1", "verdict": "CORRECT", "x0": nan, "reviewer": "", "seconds": nan, "key": nan})
    assert row is not None
    assert list(row) == VERDICTS.names
    assert {name: value for name, value in row.items() if value is not None} == {
        "label_id": "1",
        "verdict": "correct",
        "reviewer": "ann",
        "reviewed_at": CHANGED,
        "simulated": False,
    }
    assert CHECKER.check({"label_id": "1", "verdict": " ", "seconds": "what"}) is None


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"verdict": "wrong_clas"}, "'wrong_clas' is no verdict; did you mean wrong_class?"),
        ({"verdict": "7"}, "'7' is no verdict; use correct, wrong_class"),
        ({"verdict": True}, "verdict: 'True' is no text"),
        ({"label_id": ""}, "correct needs a label_id"),
        ({"label_id": "\ud800"}, "is not valid Unicode"),
        ({"class_name": "cta"}, "'cta' is no class of the campaign; did you mean 'cat'?"),
        ({"class_name": "zebra"}, "name one of them"),
        ({"x0": 1, "y0": 1}, "the box lacks x1, y1"),
        ({"x0": 1, "y0": 1, "x1": 1, "y1": 2}, "the box 1, 1, 1, 2 is empty or inside out"),
        ({"x0": 3, "y0": 1, "x1": 1, "y1": 2}, "inside out"),
        ({"x0": 1e8, "y0": 1, "x1": 1e8 + 1, "y1": 2}, "is empty"),
        ({"x0": "inf", "y0": 1, "x1": 1, "y1": 2}, "x0: 'inf' is no number"),
        ({"x0": "nan", "y0": 1, "x1": 1, "y1": 2}, "x0: 'nan' is no number"),
        ({"x0": [1], "y0": 1, "x1": 1, "y1": 2}, r"x0: '\[1\]' is no number"),
        ({"seconds": -1}, "seconds: -1 is less than 0"),
        ({"seconds": True}, "seconds: 'True' is no number"),
        ({"seconds": 10**400}, "is no number"),
        ({"reviewed_at": "yesterday"}, "'yesterday' is no time; write it as 2026"),
        ({"reviewed_at": 7}, "'7' is no time"),
        ({"reviewed_at": "0001-01-01"}, "is no time"),
        ({"reviewed_at": "2026-03-09"}, "is yet to come"),
        ({"simulated": "maybe"}, "simulated: 'maybe' is neither true nor false"),
        ({"verdict": "checked", "key": "a"}, "checked is about an image: leave label_id empty"),
        ({"verdict": "checked", "label_id": None}, "checked needs the image's key"),
        ({"verdict": "missed", "label_id": None, "key": "a", "class_name": "cat"}, "missed needs the object's"),
        ({"rle_counts": "abc"}, "rle_counts: the mask is no compressed COCO RLE; write the counts"),
        ({"rle_counts": b"\xff"}, "rle_counts: the mask is no compressed COCO RLE"),
        ({"rle_counts": "é"}, "rle_counts: the mask is no compressed COCO RLE"),
        ({"rle_counts": "n0"}, "rle_counts: the mask has no pixel"),
        ({"rle_counts": 6230}, "rle_counts: '6230' is no text"),
        ({"rle_counts": {"size": [5, 6], "counts": "6230>"}}, "is no text; write the counts of a compressed COCO RLE"),
        ({"verdict": "wrong_class", "rle_counts": "6230>"}, "wrong_class with a mask needs the right class_name"),
        ({"verdict": "bad_box", "rle_counts": "6230>"}, "bad_box with a mask needs the right box"),
        ({"verdict": "checked", "label_id": None, "key": "a", "rle_counts": "6230>"}, "checked has no mask"),
        (
            {"verdict": "checked", "label_id": None, "key": "a", "x0": 1, "y0": 1, "x1": 2, "y1": 2},
            "checked has no box",
        ),
    ],
)
def test_what_is_no_verdict(row, problem):
    with pytest.raises(RowError, match=problem):
        CHECKER.check({"label_id": "1", "verdict": "correct"} | row)


def test_masks():
    box = {"x0": 1, "y0": 1, "x1": 3, "y1": 3}
    rows = [
        {"verdict": "correct"},
        {"verdict": "wrong_class", "class_name": "cat"},
        {"verdict": "wrong_class", "class_name": "cat"} | box,
        {"verdict": "bad_box"} | box,
        {"verdict": "missed", "label_id": None, "key": "a.png", "class_name": "cat"} | box,
    ]
    for row in rows:
        found = [
            CHECKER.check({"label_id": "1", "rle_counts": mask} | row) for mask in (" 6230>\n", b"6230>", "", None)
        ]
        assert [one["rle_counts"] for one in found] == [b"6230>", b"6230>", None, None]
    # Tools repeat what the label has.
    assert CHECKER.check({"label_id": "1", "verdict": "not_an_object", "rle_counts": "what"})["verdict"]


VALUE = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.integers(), max_size=1)
)


@given(
    st.dictionaries(
        st.sampled_from(COLUMNS), VALUE | st.sampled_from(["missed", "checked", "correct", "cat", 1, 2, "6230>", b"62"])
    )
)
def test_any_row_is_a_verdict_or_refused(row):
    try:
        found = CHECKER.check(row)
    except RowError:
        return
    if found is not None:
        assert not trouble(pa.Table.from_pylist([found], schema=VERDICTS))
