"""Workspaces that earlier versions wrote stay readable: every command takes one as if it had written it itself.

tests/workspaces/ holds one archive a format: 60 drawn images, labelled by the fake models, with review plans (labels to
fit to, a certification sample with known-wrong labels and searched images, an audit), their verdicts, a certified
policy that is applied, an export and a report.

The policy of 2026-11 was certified for delivered labels, which was the default then and which its campaign does not
say. It decides as it did; but it does not say which labels it covers, so nothing is guaranteed by it any more.
"""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from vouch_labels.schemas.policy import Certification, Policy

ARCHIVES = sorted((Path(__file__).parents[2] / "workspaces").glob("*.tar.xz"))
POLICY = "certified-1-388da7da"
DEFAULT_EXPIRY = Certification.model_fields["audit_expiry"].default


@pytest.fixture(scope="module", params=ARCHIVES, ids=lambda path: path.name.removesuffix(".tar.xz"))
def unpacked(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("workspace")
    with tarfile.open(request.param) as archive:
        # Python 3.11 before 3.11.4 knows no filters.
        archive.extraction_filter = getattr(tarfile, "data_filter", None) or (lambda member, path: member)
        archive.extractall(folder)
    return folder


@pytest.fixture
def campaign(unpacked, tmp_path):
    """The campaign file of a copy of this test's own, with the images' times, by which changed ones are noticed."""
    shutil.copytree(unpacked, tmp_path / "old")
    return tmp_path / "old" / "campaign.yaml"


def told(answer):
    assert answer.code == 0, answer.err
    return json.loads(answer.out)


def test_status(vouch, campaign):
    status = told(vouch("status", campaign, "--json"))
    assert (status["images"], status["done"], status["shards_done"]) == (60, 60, 3)
    assert (status["labels"], status["accepted"], status["review"]) == (184, 70, 114)
    assert status["in_force"]["version"] == POLICY
    assert status["in_force"]["certified"]
    assert not status["in_force"]["problem"]
    assert status["reviews"] == {"plans": 3, "open": 0, "open_of": {}, "verdicts": 192, "simulated": 0}
    assert status["export"]["annotations"] == 177


def test_run_labels_nothing_again(vouch, campaign):
    summary = told(vouch("run", campaign, "--json"))
    assert (summary["shards"], summary["shards_processed"], summary["new_images"]) == (3, 0, 0)
    assert (summary["labels"], summary["accepted"], summary["policy"]) == (184, 70, POLICY)


def test_export_is_what_it_was(vouch, campaign):
    file = campaign.parent / "workspace/exports/coco/annotations.json"
    before = json.loads(file.read_text())
    assert vouch("export", campaign).code == 0
    after = json.loads(file.read_text())
    assert len(after["annotations"]) == 177
    assert {part: after[part] for part in ("images", "annotations", "categories")} == {
        part: before[part] for part in ("images", "annotations", "categories")
    }


def test_reviews_and_plans(vouch, campaign, tmp_path):
    figures = told(vouch("verdicts", campaign, "--json"))
    assert (figures["verdicts"], figures["labels"], figures["planted"], figures["images_checked"]) == (192, 184, 4, 4)
    assert figures["unknown_labels"] == 0
    assert vouch("verdicts", campaign, "--export", tmp_path / "verdicts.csv").code == 0
    assert len((tmp_path / "verdicts.csv").read_text().splitlines()) == 193


def test_the_way_to_a_guarantee_of_today(vouch, campaign):
    """Each command names it: a new sample, to which earlier answers serve to fit."""
    certify = vouch("certify", campaign)
    assert certify.code == 2
    assert certify.err.startswith(
        "vouch: the validation sample of review plan 2 was drawn by an earlier version of Vouch"
    )
    audit = vouch("plan-reviews", campaign, "--stage", "audit")
    assert audit.code == 2
    assert f"policy {POLICY} was certified by an earlier version of Vouch" in audit.err
    assert all("vouch plan-reviews CAMPAIGN --stage certify" in answer.err for answer in (certify, audit))
    # People have looked at all of its labels, so there are new images to certify.
    assert "nothing to certify; label more images first" in vouch("plan-reviews", campaign).err
    images = sorted((campaign.parent / "images").iterdir())
    for image in images[:30]:
        with Image.open(image) as picture:
            picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(image.with_stem(f"new-{image.stem}"))
    summary = told(vouch("run", campaign, "--json"))
    assert (summary["new_images"], summary["policy"]) == (30, POLICY)
    planned = told(vouch("plan-reviews", campaign, "--minutes", "1", "--json"))
    assert (planned["stage"], planned["plan"]["gate"]) == ("certify", "accepted")
    assert planned["plan"]["population"]["labels"] == summary["labels"] - 184
    assert list((campaign.parent / "workspace/populations").iterdir())


def test_the_data_set_says_that_nothing_is_guaranteed_any_more(vouch, campaign):
    answer = vouch("export", campaign)
    assert answer.code == 0
    dataset = json.loads((campaign.parent / "workspace/datasets/coco.json").read_text())
    assert dataset["guarantee"] is None
    why = f"policy {POLICY} was certified by an earlier version of Vouch, which did not keep which labels it covers"
    assert dataset["not_guaranteed"].startswith(why)


def test_a_policy_that_is_asked_for_another_gate_is_refused(vouch, campaign):
    """The campaign that says what it wants gets that, and no less."""
    text = campaign.read_text()
    campaign.write_text(text.replace("  confidence: 0.8\n", "  confidence: 0.8\n  gate: accepted\n"))
    assert campaign.read_text() != text
    answer = vouch("run", campaign)
    assert answer.code == 2
    assert "certifies gate delivered, not accepted; change routing to what it certifies" in answer.err


def test_apply(vouch, campaign):
    answer = vouch("apply", campaign, "--policy", POLICY)
    assert answer.code == 0, answer.err
    assert told(vouch("status", campaign, "--json"))["accepted"] == 70


def test_evaluate_simulate_and_report(vouch, campaign, tmp_path):
    truth = tmp_path / "truth.json"
    shutil.copy(campaign.parent / "workspace/exports/coco/annotations.json", truth)
    result = told(vouch("evaluate", campaign, "--truth", truth, "--json"))
    assert result["images"]["evaluated"] == 60
    few = ("--reviews", "60", "--draws", "2", "--json")
    assert told(vouch("simulate", campaign, "--truth", truth, *few))
    assert vouch("report", campaign, "--out", tmp_path / "report.html").code == 0
    assert "since" in (tmp_path / "report.html").read_text().lower()


def test_the_policy_would_have_the_same_name_today(campaign):
    """Certifying again with nothing new finds the policy that is there, instead of writing another one."""
    policy = Policy.model_validate_json((campaign.parent / f"workspace/policies/{POLICY}.json").read_bytes())
    fields = policy.certification.model_fields_set
    assert policy.certification.model_copy(update={"audit_expiry": DEFAULT_EXPIRY}) == policy.certification
    assert "audit_expiry" in fields
