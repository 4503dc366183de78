import csv
import json

import numpy as np
import pyarrow as pa
import pytest
from pycocotools import mask as mask_utils

from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def labelled(tmp_path, make_images, write_campaign, make_campaign, label):
    make_images(tmp_path / "images", 6)
    label(make_campaign())
    return write_campaign()


@pytest.fixture
def ids(labelled, make_campaign):
    workspace = open_store(make_campaign().workspace)
    with Ledger.load(workspace, "main") as ledger:
        return read_run_labels(workspace, "main", ledger, current_of(workspace, "main")).label_ids.to_pylist()


@pytest.fixture
def answered(tmp_path, ids):
    path = tmp_path / "answered.csv"
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["label_id", "verdict", "reviewer", "seconds"])
        rows.writerow([ids[0], "correct", "ann", 2])
        rows.writerow([ids[0], "Bad Box", "bob", 3])
        rows.writerow([ids[1], "correct", "ann", 1])
        rows.writerow([ids[1], "correct", "bob", 1])
        rows.writerow(["elsewhere", "not-an-object", "", ""])
    return path


def test_in_and_told(vouch, labelled, answered, ids):
    answer = vouch("verdicts", labelled, answered, "--reviewer", "eve")
    assert answer.code == 0, answer.err
    assert f"{answered}: 5 of 5 rows imported\n" in answer.out
    assert "on labels that this run does not have (other models, or another run)" in answer.out
    assert (
        "0 of 5 rows imported, 5 were there already" in vouch("verdicts", labelled, answered, "--reviewer", "eve").out
    )
    found = json.loads(vouch("verdicts", labelled, "--json").out)
    assert (found["verdicts"], found["labels"], found["unknown_labels"]) == (5, 2, 1)
    assert found["answers"] == {"correct": 1, "disputed": 1}
    assert found["disputed"] == [ids[0]]
    assert (found["doubly_reviewed"], found["agreement"], found["seconds"]) == (2, 0.5, 7)
    assert found["reviewers"]["ann"] == {"labels": 2, "correct": 2, "images": 0, "seconds": 3}
    assert sorted(found["reviewers"]) == ["ann", "bob", "eve"]
    text = vouch("verdicts", labelled).out
    assert found["second_readings"] == {
        "labels": 2, "wrong": 1, "missed": 1, "confidence": 0.9,
        "share": 1.0, "low": pytest.approx(0.05 / 1.95), "high": 1.0,
    }  # fmt: skip
    for words in (
        "2 labels reviewed",
        "50% agreement",
        "two people read 2 labels, 1 of them wrong: one of the two missed 1;",
        "1 label disputed",
        ids[0],
        "bob",
    ):
        assert words in text


@pytest.mark.parametrize("suffix", ["csv", "parquet", "json", "jsonl"])
def test_out_and_in_again_changes_nothing(vouch, labelled, answered, tmp_path, suffix):
    vouch("verdicts", labelled, answered)
    path = tmp_path / f"all.{suffix}"
    assert json.loads(vouch("verdicts", labelled, "--export", path, "--json").out) == {"file": str(path), "rows": 5}
    (again,) = json.loads(vouch("verdicts", labelled, path, "--json").out)["files"]
    assert (again["imported"], again["known"]) == (0, 5)


def test_bad_rows(vouch, labelled, tmp_path, ids):
    path = tmp_path / "bad.csv"
    path.write_text(f"label_id,verdict\n{ids[0]},corect\n{ids[1]},correct\n")
    answer = vouch("verdicts", labelled, path)
    assert answer.code == 2
    assert answer.err.startswith(f"vouch: nothing was imported: 1 of 2 rows of {path} is invalid: fix them")
    assert f"{path}: row 2: 'corect' is no verdict; did you mean correct?" in answer.err
    assert "there are no verdicts yet" in vouch("verdicts", labelled).out
    answer = vouch("verdicts", labelled, path, "--skip-bad")
    assert "1 invalid row left out, with reasons: " in answer.out
    assert (tmp_path / "bad-refused.csv").is_file()


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["x.csv", "--export", "y.csv"], "ask for one at a time"),
        (["--plan", "1"], "--plan says whose tasks to write; add --tasks FILE"),
        (["--skip-bad"], "are about importing; name the FILE to import"),
        (["--export", "y.txt"], "cannot tell the format"),
        (["--tasks", "y.csv"], "has no review plan yet; use `vouch plan-reviews` first"),
        (["none.csv"], "cannot read none.csv"),
    ],
)
def test_what_is_asked_wrong(vouch, labelled, words, problem):
    answer = vouch("verdicts", labelled, *words)
    assert answer.code == 2
    assert problem in answer.err
    assert answer.err.count("\n") == 1


def test_tasks_filled_in_come_back(vouch, labelled, make_campaign, ids, tmp_path):
    rows = [
        {"label_id": ids[0], "class_name": "cat", "x0": 1.0, "y0": 2.0, "x1": 30.0, "y1": 40.0, "purpose": "audit"},
        {"label_id": ids[1], "class_name": "cat", "x0": 1.0, "y0": 2.0, "x1": 30.0, "y1": 40.0, "purpose": "fit"},
        {"class_name": "dog", "purpose": "possible_miss"},
    ]
    full = [
        dict.fromkeys(TASKS.names) | {"place": place, "key": "000.png", "seconds": 1.0} | row
        for place, row in enumerate(rows)
    ]
    plan = ReviewPlan(
        number=1, run="main", created="2026-03-04T05:06:07+00:00", inputs={}, precision=0.95, confidence=0.9,
        gate="delivered", seed=0, fit_share=0.5, counts={}, seconds=0, tasks_sha256="",
    )  # fmt: skip
    workspace = open_store(make_campaign().workspace)
    write_plan(workspace, "main", plan, pa.Table.from_pylist(full, schema=TASKS))
    path = tmp_path / "tasks.csv"
    assert vouch("verdicts", labelled, "--tasks", path).out == f"3 open tasks in {path}\n"
    text = path.read_text()
    assert "audit" not in text
    with path.open(newline="") as file:
        sheet = list(csv.DictReader(file))
    mask = np.zeros((64, 96), np.uint8, order="F")
    mask[2:9, 3:7] = 1
    counts = mask_utils.encode(mask)["counts"]
    sheet[0] |= {"verdict": "Bad Box", "x0": 3, "y0": 2, "x1": 7, "y1": 9, "rle_counts": counts.decode()}
    sheet[2]["verdict"] = "checked"
    with path.open("w", newline="") as file:
        out = csv.DictWriter(file, list(sheet[0]))
        out.writeheader()
        out.writerows(sheet)
    answer = vouch("verdicts", labelled, path)
    assert "2 of 3 rows imported, 1 without a verdict" in answer.out, answer.err
    said = read_verdicts(workspace).to_pylist()
    assert {(row["verdict"], row["class_name"], row["x0"], row["rle_counts"]) for row in said} == {
        ("bad_box", None, 3, counts),
        ("checked", "dog", None, None),
    }
    assert vouch("verdicts", labelled, "--tasks", path).out == f"1 open tasks in {path}\n"
