"""The whole round with its workspace in a bucket: plan, answer, certify, apply, report."""

import pyarrow as pa
import pytest

from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.report.render import make_report
from vouch_labels.tasks.reviews.import_verdicts import import_files
from vouch_labels.tasks.reviews.open_tasks import task_sheet
from vouch_labels.tasks.reviews.read_file import write_table
from vouch_labels.tasks.status import read_status


@pytest.fixture
def in_bucket(tmp_path, make_images, make_campaign, label, s3_store):
    """A campaign of fake models, labelled, whose workspace lies in a bucket."""
    make_images(tmp_path / "images", 60)
    workspace = {"uri": f"{s3_store.uri.rstrip('/')}/out", "s3": s3_store.options.model_dump()}
    campaign = make_campaign(
        workspace=workspace, routing={"precision": 0.7, "confidence": 0.8}, run={"shard_size": 60, "retry_delay_s": 0}
    )
    label(campaign)
    return campaign


def answer(campaign, folder, wrong_each=9):
    """Fill the sheet of the last plan in, and import it as another tool's file."""
    rows = task_sheet(campaign).to_pylist()
    for place, row in enumerate(rows, 1):
        about_label = "not_an_object" if place % wrong_each == 0 else "correct"
        row["verdict"] = "checked" if row["label_id"] is None else about_label
    path = folder / "answered.csv"
    write_table(path, pa.Table.from_pylist(rows))
    (outcome,) = import_files(campaign, [path], "ann")
    assert (outcome.imported, outcome.unknown_labels, outcome.unknown_images) == (len(rows), 0, 0)
    assert task_sheet(campaign).num_rows == 0


def test_the_round_in_a_bucket(in_bucket, s3_store, tmp_path):
    campaign = in_bucket
    assert plan_reviews(campaign).stage == "first"
    answer(campaign, tmp_path)
    planned = plan_reviews(campaign, ReviewRequest(images=6, misses=3))
    assert planned.stage == "certify"
    assert planned.plan.counts["image"] == 6
    assert planned.plan.counts["possible_miss"] == 3
    answer(campaign, tmp_path)
    assert read_status(campaign).next == "the certification sample is answered: vouch certify CAMPAIGN"
    certified = certify_campaign(campaign)
    assert certified.accepted > 0
    assert certify_campaign(campaign).version == certified.version
    assert read_status(campaign).in_force.waiting == certified.version
    applied = apply_policy(campaign)
    assert (applied.policy, applied.accepted) == (certified.version, certified.accepted)
    assert applied.export.uri.startswith("s3://")
    report = make_report(campaign, tmp_path / "report.html")
    assert report.policy.standing == "certified"
    assert report.recall is not None
    assert report.automation.accepted == certified.accepted
    assert plan_reviews(campaign, ReviewRequest(minutes=2, images=2)).stage == "queue"
    keys = {info.key.removeprefix("out/") for info in s3_store.list("out/")}
    assert keys >= {
        f"policies/{certified.version}.json",
        "runs/main/policy.json",
        f"populations/{certified.covers[0].population}.parquet",
        "reviews/log/000001.json",
        "reviews/plans/main/0001.json",
        "reviews/plans/main/0003-tasks.parquet",
        "exports/coco/annotations.json",
    }
    assert sum(key.startswith("reviews/") and key.count("/") == 1 for key in keys) == 2
    assert any(key.startswith("reports/main/") for key in keys)
