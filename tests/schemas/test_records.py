"""What the results of labelling say."""

import pytest

from vouch_labels.schemas.records import ClassCounts, ExportOutcome, RunSummary
from vouch_labels.schemas.text import Table, policy_with_basis

EXPORT = {"uri": "/w/exports/coco", "annotations_file": "/w/exports/coco/annotations.json", "images": 8,
          "annotations": 20, "accepted": 12}  # fmt: skip


def summary(**changes) -> RunSummary:
    values = {
        "run": "main", "workspace": "/w", "images": 1234, "done": 8, "failed": 2, "pending": 0, "new_images": 10,
        "removed_images": 1, "shards": 3, "shards_processed": 2, "labels": 20, "accepted": 12, "review": 8,
        "classes": {"cat": ClassCounts(accepted=12, review=8)}, "reasons": {"acquire: truncated": 2},
        "policy": "user-36c20f", "policy_basis": "user thresholds, not certified", "accepts": True, "shard_errors": {},
        "seconds": 65.0, "images_per_second": 0.2,
        "export": ExportOutcome.model_validate({"images_missed": 0, **EXPORT}),
    }  # fmt: skip
    return RunSummary.model_validate({**values, **changes})


def test_figures_classes_reasons_and_places(lines):
    figures, classes = (block for block in summary().blocks() if isinstance(block, Table))
    values = {name: value for name, value in figures.rows}  # noqa: C416
    assert values["images"] == "1,234 (10 new or changed, 1 removed)"
    assert values["time"] == "1 min 5 s"
    assert values["policy"] == "manual thresholds, not certified"
    assert "pending" not in values
    assert classes.rows == [("cat", 12, 8)]
    assert lines(summary()) == [
        "2 images failed: acquire: truncated",
        "vouch status CAMPAIGN --failed names every image that failed",
        "data set: /w/exports/coco/annotations.json",
        "workspace: /w",
    ]


def test_nothing_accepted_says_what_comes_next(lines):
    (line,) = (line for line in lines(summary(accepts=False)) if "Nothing was accepted" in line)
    assert "vouch plan-reviews CAMPAIGN" in line
    assert "routing.accept" in line


def test_an_expired_policy_is_told_loudly(lines):
    told = lines(summary(accepts=False, policy_expired="audits found 9 of 30 wrong"))
    start = "The policy has EXPIRED: audits found 9 of 30 wrong. Every label waits for review"
    assert [line.startswith(start) for line in told].count(True) == 1
    assert not any("Nothing was accepted" in line for line in told)


def test_what_could_not_be_finished_is_named(lines):
    found = summary(pending=5, shard_errors={"abc": "no space left"}, export=None)
    assert "shard abc could not be finished: no space left" in lines(found)
    assert ("pending", "5") in next(iter(found.blocks())).rows
    assert not any("data set" in line for line in lines(found))


def test_many_reasons_are_cut(lines):
    told = lines(summary(reasons={f"acquire: {i}": 20 - i for i in range(15)}))
    assert told[0] == "20 images failed: acquire: 0"
    assert "21 more images failed, for other reasons" in told


def test_splits_and_turned_images_are_told(lines):
    export = ExportOutcome.model_validate({**EXPORT, "split_files": ["/w/a_train.json"], "images_rotated": 2})
    told = lines(summary(export=export))
    assert "    split: /w/a_train.json" in told
    assert any(line.startswith("2 of its images carry an EXIF orientation") for line in told)


def test_images_that_are_missing_beside_the_annotations_are_told(lines):
    missed = ExportOutcome.model_validate({**EXPORT, "images_missed": 3})
    start = "3 of its images could not be put beside the annotations"
    assert any(line.startswith(start) for line in lines(summary(export=missed)))
    assert not any("beside the annotations" in line for line in lines(summary()))


@pytest.mark.parametrize(
    ("version", "basis", "text"),
    [
        ("user-36c20f11", "user thresholds, not certified", "manual thresholds, not certified"),
        ("user-36c20f11", "no thresholds: everything goes to review", "no thresholds: everything goes to review"),
        ("certified-1-a", "certified: at least 0.9", "certified-1-a (certified: at least 0.9)"),
    ],
)
def test_only_certified_policies_have_a_name(version, basis, text):
    assert policy_with_basis(version, basis) == text
