import numpy as np
import pyarrow as pa

from schemas.reviews import TASKS
from tasks.labels.arrays import SIGNALS, RunLabels
from tasks.reviews.figures import verdict_figures

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
    def said(label, verdict, ann, bob):
        row = {"label_id": label, "verdict": verdict}
        return row | {"class_name": ann}, row | {"class_name": bob, "reviewer": "bob"}

    table = verdicts(
        *said("1", "wrong_class", "dog", "owl"),
        *said("2", "wrong_class", "cat", "cat"),
        *said("3", "correct", "dog", None),
    )
    found = verdict_figures("main", table, LABELS, [])
    assert (found.doubly_reviewed, found.agreement, found.disputed) == (3, 2 / 3, [])
