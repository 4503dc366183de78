"""What the report finds in a workspace, at every stage of a campaign.

Reports know the ones before them.
"""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.labels.arrays import read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.report.figures import collect, keep_report
from vouch_labels.tasks.report.render import make_report, write_page
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def run(tmp_path, make_images, make_campaign, label):
    """A campaign that has been run on so many images."""

    def go(count=6, **sections):
        make_images(tmp_path / "images", count)
        campaign = make_campaign(**sections)
        label(campaign)
        return campaign

    return go


def labels_of(campaign):
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        return read_run_labels(workspace, "main", ledger, read_current(workspace, "main"))


def answer(campaign, verdicts, reviewer="ann", **columns):
    rows: dict[str, Any] = {name: [None] * len(verdicts) for name in VERDICTS.names}
    rows |= {"label_id": list(verdicts), "verdict": list(verdicts.values()), "reviewer": [reviewer] * len(verdicts)}
    rows |= {"seconds": [2.0] * len(verdicts), "simulated": [False] * len(verdicts)} | columns
    write_verdicts(open_store(campaign.workspace), pa.table(rows, VERDICTS))


def test_a_campaign_that_was_not_run_is_told_so(make_campaign):
    with pytest.raises(UserError, match="use `vouch run` first"):
        collect(make_campaign())


def test_user_thresholds_guarantee_nothing(run):
    campaign = run()
    report, labels = collect(campaign)[0], labels_of(campaign)
    assert report.policy.standing == "user_thresholds"
    assert "no precision is guaranteed" in report.guarantee
    assert (report.automation.labels, report.automation.accepted) == (labels.count, int(labels.accepted.sum()))
    assert sum(one.labels for one in report.classes) == labels.count
    assert sum(report.histogram.accepted) + sum(report.histogram.review) == labels.count
    assert report.histogram.thresholds == (0.5,)
    assert (report.covered, report.outside) == (None, None)
    assert report.recall.delivered is None
    assert "vouch plan-reviews" in report.recall.advice
    assert report.reliability.found is None


def test_without_a_rule_nothing_is_accepted(run):
    report = collect(run(routing={}))[0]
    assert report.policy.standing == "nothing_accepted"
    assert report.automation.accepted == 0
    assert {picture.kind for picture in report.pictures} == {"routed"}


def test_a_run_without_a_label_has_a_report(tmp_path, make_campaign, label):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"no image")
    campaign, out = make_campaign(), tmp_path / "report.html"
    label(campaign)
    report = make_report(campaign, out)
    assert report.policy.standing == "empty"
    assert (report.images.failed, sum(report.images.reasons.values())) == (1, 1)
    assert (report.histogram, report.pictures) == (None, ())
    page = out.read_text()
    assert "No labels" in page
    assert "Images that failed" in page


def test_pictures_say_why_and_are_the_same_every_time(run):
    campaign = run()
    first, again = collect(campaign)[0], collect(campaign)[0]
    assert first.pictures == again.pictures
    assert all(picture.reason for picture in first.pictures)
    labels = labels_of(campaign)
    places = labels.places([picture.label_id for picture in first.pictures])
    assert [bool(flag) for flag in labels.accepted[places]] == [picture.accepted for picture in first.pictures]


def test_verdicts_are_counted_and_people_stay_unnamed(run):
    campaign = run()
    labels = labels_of(campaign)
    ids = labels.label_ids.to_pylist()
    answer(campaign, {ids[0]: "correct", ids[1]: "wrong_class", "unknown": "correct"})
    answer(campaign, {ids[0]: "correct"}, reviewer="bea")
    report = collect(campaign)[0]
    assert report.verdicts.labels == 2
    assert report.verdicts.answers == {"correct": 1, "wrong_class": 1}
    assert (report.verdicts.reviewers, report.verdicts.simulated, report.verdicts.foreign) == (2, 0, 1)
    assert report.time.spent == pytest.approx(6.0)
    wrong = [picture for picture in report.pictures if picture.kind == "wrong"]
    assert [(picture.label_id, picture.answer) for picture in wrong] == [(ids[1], "wrong_class")]
    assert "ann" not in json.dumps(report.model_dump(mode="json")["verdicts"])


def test_a_simulated_reviewer_is_no_person(run):
    campaign = run()
    ids = labels_of(campaign).label_ids.to_pylist()
    answer(campaign, {ids[0]: "correct"}, simulated=[True])
    report = collect(campaign)[0]
    assert (report.verdicts.reviewers, report.verdicts.simulated) == (0, 1)
    assert report.time.simulated


def test_ground_truth_tells_right_from_wrong(run, tmp_path):
    campaign = run()
    labels = labels_of(campaign)
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps(_truth(labels)))
    report = collect(campaign, truth)[0]
    everything = report.truth.everything
    assert (everything.correct, everything.wrong) == (labels.count - len(_odd(labels)), len(_odd(labels)))
    wrong = {picture.label_id for picture in report.pictures if picture.kind == "wrong"}
    assert wrong
    assert wrong <= {labels.label_ids[row].as_py() for row in _odd(labels)}


def test_time_saved_follows_from_what_was_accepted(run):
    report = collect(run())[0]
    assert report.automation.answered == 0
    assert report.time.unseen == report.automation.accepted
    assert report.time.saved == pytest.approx(report.automation.accepted * report.time.verify_s)
    assert report.time.waiting == pytest.approx(
        (report.automation.labels - report.automation.accepted) * report.time.verify_s
    )


def test_a_page_that_cannot_be_written_is_the_users_mistake(tmp_path):
    with pytest.raises(UserError, match="choose another place"):
        write_page(tmp_path / "none" / "report.html", "page")
    assert list(tmp_path.iterdir()) == []


def _odd(labels):
    """Labels that the truth below does not have: every third one."""
    return np.arange(0, labels.count, 3)


def _truth(labels):
    categories = [{"id": place, "name": name} for place, name in enumerate(labels.class_names)]
    keys = labels.keys.to_pylist()
    odd = set(_odd(labels).tolist())
    annotations = [
        {"id": row, "image_id": int(labels.image_index[row]), "category_id": int(labels.class_index[row]), "iscrowd": 0,
         "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)], "area": 1.0}
        for row, (x0, y0, x1, y1) in enumerate(labels.boxes.tolist()) if row not in odd
    ]  # fmt: skip
    images = [{"id": place, "file_name": key, "width": 96, "height": 64} for place, key in enumerate(keys)]
    return {"images": images, "annotations": annotations, "categories": categories}


@pytest.fixture
def store(tmp_path):
    (tmp_path / "workspace").mkdir()
    return LocalStore(tmp_path / "workspace")


def with_accepted(report, accepted, created="2026-05-01T00:00:00+00:00"):
    automation = report.automation.model_copy(update={"accepted": accepted})
    return report.model_copy(update={"automation": automation, "created": created})


def test_the_first_has_nothing_to_compare_with(store, certified_report):
    found = keep_report(store, certified_report.model_copy(update={"changes": type(certified_report.changes)()}))
    assert found.number == 1
    assert found.changes.since is None


def test_what_changed_is_said_with_its_direction(store, certified_report):
    keep_report(store, certified_report)
    found = keep_report(store, with_accepted(certified_report, 650))
    assert (found.number, found.changes.number, found.changes.since) == (2, 1, certified_report.created)
    assert {(one.name, one.before, one.now, one.direction, one.words) for one in found.changes.changes} == {
        ("labels accepted", "610", "650", "up", "40 more"),
        ("automation", "61.0%", "65.0%", "up", "4.0 points"),
    }


def test_the_same_again_is_no_new_report_and_says_the_same(store, certified_report):
    keep_report(store, certified_report)
    first = keep_report(store, with_accepted(certified_report, 650))
    again = keep_report(store, with_accepted(certified_report, 650, created="2026-06-01T00:00:00+00:00"))
    assert again.number == first.number
    assert again.changes == first.changes
    assert len(list(store.list("reports/"))) == 2


def test_a_record_of_another_version_is_passed_over(store, certified_report):
    keep_report(store, certified_report)
    store.put(f"reports/{certified_report.run}/0002.json", b'{"number": 2}')
    found = keep_report(store, with_accepted(certified_report, 600))
    assert (found.number, found.changes.number) == (3, 1)


def test_a_record_that_tells_of_images_kept_for_fitting_is_compared_with(store, certified_report):
    """As versions of before 2026-12 wrote it."""
    kept = keep_report(store, certified_report)
    document = json.loads(kept.model_dump_json())
    del document["outside"]
    document["certify_side"] = document.pop("covered") | {"accepted": 450}
    document["fit_side"] = {"labels": 100, "accepted": 0, "answered": 0}
    for part in ("covers", "assumed_missed"):
        del document["policy"][part]
    store.put(f"reports/{certified_report.run}/0001.json", json.dumps(document).encode())
    found = keep_report(store, certified_report)
    assert found.changes.number == 1
    changed = {one.name: (one.before, one.now) for one in found.changes.changes}
    assert changed["automation of the covered labels"] == ("50.0%", "67.8%")


def test_a_figure_that_is_new_has_no_direction(store, certified_report):
    keep_report(store, certified_report.model_copy(update={"audits": ()}))
    found = keep_report(store, certified_report)
    assert [(one.name, one.before, one.now, one.direction) for one in found.changes.changes] == [
        ("audited precision", "none", "97.3%", "other")
    ]
