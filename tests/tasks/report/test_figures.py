"""What the report finds, also where a certified policy decided."""

import json
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Covered
from vouch_labels.schemas.reviews import TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.monitor import reference
from vouch_labels.tasks.labels.arrays import read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import keep_population, write_policy
from vouch_labels.tasks.report.figures import collect, keep_report
from vouch_labels.tasks.report.render import make_report, write_page
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.open import open_store

VERSION, SHARE = "certified-1-test", 0.4


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


# What the report finds where a certified policy decided.


@pytest.fixture
def applied(tmp_path, make_images, make_campaign, label, certified):
    """A campaign whose cats were certified and whose dogs were not; labels of 40% of its images are not covered.

    earlier: by a version that kept no coverage, and kept these images for fitting; whole: all labels are covered.
    """

    def go(*, earlier=False, whole=False, **changes):
        make_images(tmp_path / "images", 24)
        campaign = make_campaign(routing={"gate": changes.get("gate", "delivered")})
        label(campaign)
        workspace = open_store(campaign.workspace)
        current = read_current(workspace, "main")
        labels = read(campaign)
        outside = outside_of(labels) & ~np.array(whole)
        known: dict[str, Any] = {"inputs": current.inputs, "gate": "delivered"}
        now = {"covers": (covering(workspace, labels, ~outside, 1),), "reviewers": {"assumed": 0.05}}
        known |= {"fit_share": SHARE} if earlier else now
        of_now = ~outside if earlier or whole else outside
        known["reference"] = reference(labels, np.full(labels.count, 0.5), of_now)
        write_policy(workspace, certified({"cat": 0.0, "dog": None}, version=VERSION, **(known | changes)))
        apply_policy(campaign, VERSION, export=False)
        return campaign

    return go


def outside_of(labels):
    """Labels of 40% of the images, (N,)."""
    return labels.fit_side(SHARE, 0)


def covering(workspace, labels, chosen, plan):
    return Covered(
        population=keep_population(workspace, labels.label_ids.filter(pa.array(chosen))), labels=int(chosen.sum()),
        images=len(np.unique(labels.image_index[chosen])), plan=plan, created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip


def read(campaign):
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        return read_run_labels(workspace, "main", ledger, read_current(workspace, "main"))


def ask_and_answer(campaign, purpose, rows, wrong, simulated=False, **plan):
    labels, workspace = read(campaign), open_store(campaign.workspace)
    ids = [labels.label_ids[row].as_py() for row in rows]
    count = len(ids)
    tasks = {name: [None] * count for name in TASKS.names}
    tasks |= {"place": range(count), "purpose": [purpose] * count, "label_id": ids, "seconds": [1.6] * count}
    tasks["class_name"] = [labels.class_names[labels.class_index[row]] for row in rows]
    tasks |= {"key": ["a.png"] * count, "inclusion": [0.5] * count, "stratum": [0] * count, "p_correct": [0.9] * count}
    about = {"number": 1, "run": "main", "created": "2026-01-02T00:00:00+00:00", "inputs": {}, "precision": 0.95,
             "confidence": 0.9, "gate": "delivered", "seed": 0, "counts": {}, "seconds": 0,
             "tasks_sha256": ""}  # fmt: skip
    write_plan(workspace, "main", ReviewPlan.model_validate(about | plan), pa.table(tasks, TASKS))
    columns = {name: [None] * count for name in VERDICTS.names}
    columns |= {
        "label_id": ids,
        "verdict": ["bad_box" if one else "correct" for one in wrong],
        "seconds": [2.0] * count,
    }
    columns |= {"reviewer": ["ann"] * count, "simulated": [simulated] * count}
    write_verdicts(workspace, pa.table(columns, VERDICTS))


@pytest.mark.parametrize("earlier", [False, True])
def test_the_guarantee_and_what_it_covers(applied, earlier):
    campaign = applied(earlier=earlier)
    report, labels = collect(campaign)[0], read(campaign)
    outside = outside_of(labels)
    assert report.policy.standing == "certified"
    assert report.guarantee.startswith("At least 95% of the labels that are delivered")
    assert (report.covered.labels, report.outside) == (int((~outside).sum()), int(outside.sum()))
    assert report.covered.accepted == report.automation.accepted > 0
    assert report.histogram.signal == "p_correct"
    images = len(np.unique(labels.image_index[~outside]))
    covers = f"it covers {int((~outside).sum())} labels of {images} images, as of 2026-01-01"
    assert (covers in report.guarantee) != earlier


def test_a_guarantee_of_every_label_leaves_none_outside(applied):
    campaign = applied(whole=True)
    report, labels = collect(campaign)[0], read(campaign)
    assert (report.covered.labels, report.outside) == (labels.count, 0)
    # The reference was made of them all.
    assert max(one.distance for one in report.drift.signals if one.signal != "p_correct") < 0.05


def test_what_reviewers_are_assumed_to_miss_is_part_of_the_sentence(applied):
    report = collect(applied(reviewers={"assumed": 0.05}))[0]
    assert report.policy.assumed_missed == 0.05
    assert "if reviewers miss at most 5% of the wrong labels" in report.guarantee


def test_nothing_is_assumed_where_it_was_measured(applied):
    report = collect(applied(reviewers={"planted": 50, "missed": 1, "accepted": 0.1, "routed": 0.1, "spent": 0.02}))[0]
    assert (report.policy.assumed_missed, report.policy.planted) == (0, 50)
    assert "if reviewers miss" not in report.guarantee


def test_the_page_says_what_waits_outside(applied, tmp_path):
    campaign = applied()
    outside = int(outside_of(read(campaign)).sum())
    make_report(campaign, tmp_path / "report.html")
    page = " ".join((tmp_path / "report.html").read_text().split())
    assert f"; {outside} more came later and wait for a top-up sample." in page
    assert "of those that the guarantee covers" in page


def test_a_simulated_reviewer_certifies_nothing(applied):
    report = collect(applied(simulated=True))[0]
    assert report.policy.standing == "simulated"
    assert "nothing is certified" in report.guarantee


@pytest.mark.parametrize(("earlier", "reason"), [(False, "outside the certificate"), (True, "kept for fitting")])
def test_labels_that_wait_for_a_sample_are_shown_last(applied, earlier, reason):
    campaign = applied(earlier=earlier)
    reasons = [picture.reason for picture in collect(campaign)[0].pictures if picture.kind == "routed"]
    kept = [reason in one for one in reasons]
    assert kept == sorted(kept)


@pytest.mark.parametrize("earlier", [False, True])
def test_drift_is_told_of_the_labels_that_are_new(applied, earlier):
    """Of an earlier version's policy it is told of those that it certified, which new ones joined."""
    report = collect(applied(earlier=earlier))[0]
    moved = {one.signal: one for one in report.drift.signals}
    assert moved["detector_score"].distance < 0.1
    assert not moved["detector_score"].drifted
    assert moved["p_correct"].distance > 0.3  # the reference was made with another calibrator
    assert all(len(one.before) == len(one.now) == 101 for one in report.drift.signals)


def test_reviewed_labels_show_reliability_and_classes(applied):
    campaign = applied()
    labels = read(campaign)
    rows = np.flatnonzero(~outside_of(labels))
    wrong = np.arange(len(rows)) % 5 == 0
    ask_and_answer(campaign, "certify", rows, wrong)
    report = collect(campaign)[0]
    assert report.reliability.labels == len(rows)
    assert sum(one.labels for one in report.reliability.found.bins) == len(rows)
    cat = next(one for one in report.classes if one.name == "cat")
    cats = labels.accepted[rows]
    assert (cat.reviewed, cat.wrong) == (int(cats.sum()), int((cats & wrong).sum()))
    assert 0.6 < cat.precision < 1


def test_accepted_labels_that_people_looked_at_saved_nothing(applied):
    campaign = applied()
    labels = read(campaign)
    accepted, outside = np.flatnonzero(labels.accepted), np.flatnonzero(outside_of(labels))
    ask_and_answer(campaign, "certify", [*accepted[:2], outside[0]], [False, True, False])
    report = collect(campaign)[0]
    assert (report.automation.accepted, report.automation.answered) == (len(accepted), 2)
    assert report.covered.answered == 2
    # A label outside that people have looked at waits for nothing any more.
    assert (report.covered.labels, report.outside) == (labels.count - len(outside) + 1, len(outside) - 1)
    assert report.time.unseen == len(accepted) - 2
    assert report.time.saved == pytest.approx((len(accepted) - 2) * report.time.verify_s)


def test_labels_drawn_for_fitting_say_nothing_of_reliability(applied):
    campaign = applied()
    rows = np.flatnonzero(outside_of(read(campaign)))
    ask_and_answer(campaign, "fit", rows, np.zeros(len(rows), bool))
    report = collect(campaign)[0]
    assert report.reliability.labels == 0
    assert "only 0 reviewed labels" in report.reliability.missing


@pytest.mark.parametrize("wrong", [False, True])
def test_audits_end_the_guarantee_of_an_earlier_version(applied, wrong):
    """It covers whatever comes, so what audits find of new labels is said of it."""
    campaign = applied(gate="accepted", earlier=True)
    rows = np.flatnonzero(read(campaign).accepted)
    audit = {"policy": VERSION, "labels": 2 * len(rows), "mean_p_correct": 0.9,
             "strata": [{"name": "all", "size": 2 * len(rows), "drawn": len(rows)}]}  # fmt: skip
    ask_and_answer(campaign, "audit", rows, np.full(len(rows), wrong), audit=audit)
    report = collect(campaign)[0]
    [found] = report.audits
    assert (found.answered, found.asked, found.wrong) == (len(rows), len(rows), wrong * len(rows))
    assert found.precision.low <= found.precision.value <= found.precision.high
    assert report.expiry.expired == wrong
    assert report.policy.standing == ("expired" if wrong else "certified")
    assert ("expired" in report.guarantee) == wrong


@pytest.mark.parametrize("wrong", [False, True])
def test_audits_of_new_labels_leave_the_guarantee_of_the_others(applied, tmp_path, wrong):
    campaign = applied(gate="accepted")
    workspace, labels = open_store(campaign.workspace), read(campaign)
    outside = outside_of(labels)
    new = outside & (labels.class_index == labels.class_names.index("cat"))
    rows = np.flatnonzero(new)
    assert len(rows) >= 5
    audit = {"policy": VERSION, "labels": len(rows), "mean_p_correct": 0.9,
             "strata": [{"name": "new labels", "size": len(rows), "drawn": len(rows)}]}  # fmt: skip
    population = covering(workspace, labels, new, 1)
    answers = np.full(len(rows), wrong)
    ask_and_answer(campaign, "audit", rows, answers, audit=audit, population=population)
    report = collect(campaign)[0]
    [found] = report.audits
    assert (found.labels, found.answered, found.wrong) == (len(rows), len(rows), wrong * len(rows))
    # Certain enough that new labels are worse; but none of them was accepted.
    assert report.expiry.expired == wrong
    assert report.policy.standing == "certified"
    assert "expired" not in report.guarantee
    make_report(campaign, tmp_path / "report.html")
    assert ("draw a new sample of all labels" in (tmp_path / "report.html").read_text()) == wrong
