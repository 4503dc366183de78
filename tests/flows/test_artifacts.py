from vouch_labels.flows.artifacts import summary_markdown
from vouch_labels.schemas.records import RunSummary


def summary(**changes) -> RunSummary:
    values = {
        "run": "main", "workspace": "/w", "images": 10, "done": 10, "failed": 0, "pending": 0, "new_images": 10,
        "removed_images": 0, "shards": 1, "shards_processed": 1, "labels": 20, "accepted": 0, "review": 20,
        "classes": {}, "reasons": {}, "policy": "certified-1-a", "policy_basis": "certified: at least 0.95",
        "accepts": True, "shard_errors": {}, "seconds": 1.0, "images_per_second": 10.0, "export": None,
    }  # fmt: skip
    return RunSummary.model_validate(values | changes)


def test_it_says_who_decided_and_when_that_has_ended():
    text = summary_markdown(summary())
    assert "| policy | certified-1-a |" in text
    assert "| accepted by | certified: at least 0.95 |" in text
    assert "expired" not in text
    assert "| policy expired | audits (2) say so |" in summary_markdown(summary(policy_expired="audits (2) say so"))
