"""What the report finds where a certified policy decided."""

import numpy as np
import pyarrow as pa
import pytest

from vouch_labels.schemas.reviews import TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.monitor import reference
from vouch_labels.tasks.labels.arrays import read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import write_policy
from vouch_labels.tasks.report.figures import collect
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store

VERSION, SHARE = "certified-1-test", 0.4


@pytest.fixture
def applied(tmp_path, make_images, make_campaign, label, certified):
    """A campaign whose cats were certified and whose dogs were not; 40% of its images were kept for fitting."""

    def go(**changes):
        make_images(tmp_path / "images", 24)
        campaign = make_campaign(routing={"gate": changes.get("gate", "delivered")})
        label(campaign)
        workspace = open_store(campaign.workspace)
        current = read_current(workspace, "main")
        labels = read(campaign)
        known = {"inputs": current.inputs, "fit_share": SHARE}
        known["reference"] = reference(labels, np.full(labels.count, 0.5), ~labels.fit_side(SHARE, 0))
        write_policy(workspace, certified({"cat": 0.0, "dog": None}, version=VERSION, **(known | changes)))
        apply_policy(campaign, VERSION, export=False)
        return campaign

    return go


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
    tasks |= {"key": ["a.png"] * count, "inclusion": [0.5] * count, "stratum": [0] * count, "p_correct": [0.9] * count}
    about = {"number": 1, "run": "main", "created": "2026-01-02T00:00:00+00:00", "inputs": {}, "precision": 0.95,
             "confidence": 0.9, "gate": "delivered", "seed": 0, "fit_share": SHARE, "counts": {}, "seconds": 0,
             "tasks_sha256": ""}  # fmt: skip
    write_plan(workspace, "main", ReviewPlan.model_validate(about | plan), pa.table(tasks, TASKS))
    said = {name: [None] * count for name in VERDICTS.names}
    said |= {"label_id": ids, "verdict": ["bad_box" if one else "correct" for one in wrong], "seconds": [2.0] * count}
    said |= {"reviewer": ["ann"] * count, "simulated": [simulated] * count}
    write_verdicts(workspace, pa.table(said, VERDICTS))


def test_the_guarantee_and_what_it_is_about(applied):
    campaign = applied()
    report, labels = collect(campaign)[0], read(campaign)
    fit = labels.fit_side(SHARE, 0)
    assert report.policy.standing == "certified"
    assert report.guarantee.startswith("At least 95% of the labels that are delivered")
    assert (report.certify_side.labels, report.fit_side.labels) == (int((~fit).sum()), int(fit.sum()))
    assert report.certify_side.accepted == report.automation.accepted > 0
    assert report.fit_side.accepted == 0
    assert report.histogram.signal == "p_correct"


def test_a_simulated_reviewer_certifies_nothing(applied):
    report = collect(applied(simulated=True))[0]
    assert report.policy.standing == "simulated"
    assert "nothing is certified" in report.guarantee


def test_labels_kept_for_fitting_are_shown_last(applied):
    campaign = applied()
    routed = [picture for picture in collect(campaign)[0].pictures if picture.kind == "routed"]
    kept = ["kept for fitting" in picture.reason for picture in routed]
    assert kept == sorted(kept)


def test_drift_is_told_of_the_certified_images(applied):
    report = collect(applied())[0]
    moved = {one.signal: one for one in report.drift.signals}
    assert moved["detector_score"].distance < 0.1
    assert not moved["detector_score"].drifted
    assert moved["p_correct"].distance > 0.3  # the reference was made with another calibrator
    assert all(len(one.before) == len(one.now) == 101 for one in report.drift.signals)


def test_reviewed_labels_show_reliability_and_classes(applied):
    campaign = applied()
    labels = read(campaign)
    rows = np.flatnonzero(~labels.fit_side(SHARE, 0))
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
    accepted, waiting = np.flatnonzero(labels.accepted), np.flatnonzero(~labels.accepted)
    ask_and_answer(campaign, "certify", [*accepted[:2], waiting[0]], [False, True, False])
    report = collect(campaign)[0]
    assert (report.automation.accepted, report.automation.answered) == (len(accepted), 2)
    assert (report.certify_side.answered, report.fit_side.answered) == (2, 0)
    assert report.time.unseen == len(accepted) - 2
    assert report.time.saved == pytest.approx((len(accepted) - 2) * report.time.verify_s)


def test_labels_drawn_for_fitting_say_nothing_of_reliability(applied):
    campaign = applied()
    rows = np.flatnonzero(read(campaign).fit_side(SHARE, 0))
    ask_and_answer(campaign, "fit", rows, np.zeros(len(rows), bool))
    report = collect(campaign)[0]
    assert report.reliability.labels == 0
    assert "only 0 reviewed labels" in report.reliability.missing


@pytest.mark.parametrize("wrong", [False, True])
def test_audits_are_told_and_can_end_the_guarantee(applied, wrong):
    campaign = applied(gate="accepted")
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
