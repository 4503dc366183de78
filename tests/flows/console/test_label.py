import io

import pytest
from rich.console import Console

from vouch_labels.flows.console.label import print_summary
from vouch_labels.flows.console.output import Terminal
from vouch_labels.schemas.records import ClassCounts, ExportOutcome, RunSummary

EXPORT = {"uri": "/w/exports/coco", "annotations_file": "/w/exports/coco/annotations.json", "images": 8,
          "annotations": 20, "accepted": 12}  # fmt: skip


def summary(**changes) -> RunSummary:
    values = {
        "run": "main", "workspace": "/w", "images": 1234, "done": 8, "failed": 2, "pending": 0, "new_images": 10,
        "removed_images": 1, "shards": 3, "shards_processed": 2, "labels": 20, "accepted": 12, "review": 8,
        "classes": {"cat": ClassCounts(accepted=12, review=8)}, "reasons": {"acquire: truncated": 2}, "policy": "user",
        "policy_basis": "user thresholds, not certified", "accepts": True, "shard_errors": {}, "seconds": 65.0,
        "images_per_second": 0.2,
        "export": ExportOutcome.model_validate({"images_missed": 0, **EXPORT}),
    }  # fmt: skip
    return RunSummary.model_validate({**values, **changes})


def text(value: RunSummary) -> str:
    out = io.StringIO()
    print_summary(Console(file=out, width=100), value)
    return out.getvalue()


def test_figures_classes_reasons_and_places():
    words = text(summary())
    for part in ("1,234 (10 new or changed, 1 removed)", "1 min 5 s", "cat", "2 images failed: acquire: truncated",
                 "data set: /w/exports/coco/annotations.json", "workspace: /w",
                 "user thresholds, not certified"):  # fmt: skip
        assert part in words
    assert "pending" not in words
    assert "Nothing was accepted" not in words


def test_nothing_accepted_is_explained():
    assert "Nothing was accepted: no threshold allows it." in text(summary(accepts=False))


def test_an_expired_policy_is_told_loudly():
    words = text(summary(accepts=False, policy_expired="audits found 9 of 30 wrong"))
    assert "The policy has EXPIRED: audits found 9 of 30 wrong. Every label waits for review" in words
    assert "Nothing was accepted" not in words


def test_what_could_not_be_finished_is_named():
    words = text(summary(pending=5, shard_errors={"abc": "no space left"}, export=None))
    assert "shard abc could not be finished: no space left" in words
    assert "pending" in words
    assert "data set" not in words


def test_many_reasons_are_cut():
    words = text(summary(reasons={f"acquire: [bold]{i}": 20 - i for i in range(15)}))
    assert "20 images failed: acquire: [bold]0" in words
    assert "21 more images failed, for other reasons" in words
    assert "`vouch status CAMPAIGN --failed` names every image that failed" in words


def test_splits_and_turned_images_are_told():
    export = ExportOutcome.model_validate({**EXPORT, "split_files": ["/w/a_train.json"], "images_rotated": 2})
    words = text(summary(export=export))
    assert "split: /w/a_train.json" in words
    assert "2 of its images carry an EXIF orientation" in words


def test_images_that_are_missing_beside_the_annotations_are_told():
    missed = ExportOutcome.model_validate({**EXPORT, "images_missed": 3})
    assert "3 of its images could not be put beside the annotations" in text(summary(export=missed))
    assert "beside the annotations" not in text(summary())


@pytest.mark.parametrize("name", ["car [small]", "[/x]", ":smile:"])
def test_names_are_no_markup(name):
    out = io.StringIO()
    print_summary(Terminal(out, out).results(), summary(classes={name: ClassCounts(accepted=12, review=8)}))
    assert name in out.getvalue()


def test_reasons_cannot_command_the_terminal():
    assert "\x1b" not in text(summary(reasons={"acquire: cannot read \x1b[2J\x9b31m.png": 1}))
