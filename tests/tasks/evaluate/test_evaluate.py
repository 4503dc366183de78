"""A run against ground truth.

Did the contract hold?
"""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import TruthFile
from vouch_labels.schemas.policy import Certification, Covered, Group, GroupCertificate, Policy, Reviewers
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.evaluate.evaluate import (
    contract_truth,
    evaluate_campaign,
    is_kept,
    true_precision,
    write_evaluation,
)
from vouch_labels.tasks.evaluate.plots import accepted_share
from vouch_labels.tasks.evaluate.run_truth import CORRECT, NOT_AN_OBJECT, UNKNOWN, RunTruth, truth_of_campaign
from vouch_labels.tasks.labels.arrays import RunLabels, current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import Coverage, keep_population, label_numbers, write_policy
from vouch_labels.tasks.reviews.resolve import NO_ANSWER
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.sampling import on_fit_side
from vouch_labels.tasks.store.open import open_store

INCLUDE = {"undecided": "include"}


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label):
    """Six labelled images; some labels accepted, some not; all exported as plain annotations."""
    make_images(tmp_path / "images", 6)
    campaign = make_campaign(export=INCLUDE, routing={"accept": {"detector_score": 0.9}, "precision": 0.9})
    label(campaign)
    return campaign


def problem(campaign, path, *signals) -> str:
    with pytest.raises(UserError) as caught:
        evaluate_campaign(campaign, path, signals)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_its_own_labels_are_perfect(campaign, own_truth):
    seen: list[int] = []
    found = evaluate_campaign(campaign, own_truth(), ["sam_iou", "clip_margin"], seen.append)
    assert seen == [1, 2, 3, 4, 5, 6]
    assert (found.images.rule, found.images.evaluated, found.images.examples) == ("file_name", 6, {})
    assert (found.classes.common, found.classes.not_labelled) == (("cat", "dog"), {})
    assert (found.boxes.map, found.masks.map) == pytest.approx((1, 1))
    every, accepted = found.accepted_and_review, found.accepted
    assert every.labels == every.correct == every.objects > accepted.labels > 0
    assert (every.precision, every.recall, accepted.precision) == (1, 1, 1)
    assert accepted.recall == accepted.labels / every.objects == accepted_share(accepted, every)
    assert list(found.signals) == ["detector_score", "sam_iou", "clip_margin"]
    assert all(curves.aurc == 0 for curves in found.signals.values())
    counts = found.confusion_accepted_and_review.counts
    assert sum(counts[place][place] for place in range(2)) == every.labels == sum(map(sum, counts))


def test_what_is_left_out_is_counted(campaign, own_truth):
    def change(document):
        document["images"][0]["width"] += 1
        document["images"][1]["file_name"] = "elsewhere.png"
        document["categories"][1]["name"] = "wolf"

    found = evaluate_campaign(campaign, own_truth(change))
    images, classes = found.images, found.classes
    assert (images.evaluated, images.other_size, images.without_truth, images.not_labelled) == (4, 1, 1, 1)
    assert images.examples == {
        "other_size": ("000.png",),
        "without_truth": ("001.png",),
        "not_labelled": ("elsewhere.png",),
    }
    assert classes.common == ("cat",)
    assert classes.without_truth.keys() == {"dog"}
    assert classes.not_labelled.keys() == {"wolf"}
    assert found.boxes.map == pytest.approx(1)


def test_annotations_that_point_nowhere_are_counted(campaign, own_truth):
    def change(document):
        for annotation in document["annotations"][::2]:
            annotation["image_id"] = "nowhere"

    found = evaluate_campaign(campaign, own_truth(change))
    left = found.file.unknown_image
    assert left == found.file.annotations - found.accepted_and_review.objects > 0
    assert f"left out: {left} of {found.file.annotations} annotations: an image_id" in "\n".join(_lines(found))
    assert f"left out: {left} of" in "\n".join(found.remarks())


def _lines(found):
    return [block for block in found.blocks() if isinstance(block, str)]


def test_ids_as_text_are_the_same_ids(campaign, own_truth):
    def change(document):
        for annotation in document["annotations"]:
            annotation["image_id"] = str(annotation["image_id"])
            annotation["category_id"] = float(annotation["category_id"])

    found = evaluate_campaign(campaign, own_truth(change))
    assert (found.boxes.map, found.file.left_out) == (pytest.approx(1), 0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda document: document["annotations"].clear(),
            "the truth has no objects: its list of annotations is empty",
        ),
        (
            lambda document: [one.update(image_id="nowhere") for one in document["annotations"]],
            "the truth has no objects: all of its ",
        ),
    ],
)
def test_a_truth_without_objects(campaign, own_truth, change, words):
    path = own_truth(change)
    assert words in problem(campaign, path)
    with pytest.raises(UserError, match=words):
        truth_of_campaign(campaign, path)


def test_boxes_that_look_like_something_else(campaign, own_truth):
    def corners(document):
        for annotation in document["annotations"]:
            x, y, width, height = annotation["bbox"]
            annotation["bbox"] = [x, y, x + width, y + height]

    def shares(document):
        for annotation in document["annotations"]:
            annotation["bbox"] = [side / 100 for side in annotation["bbox"]]

    for change, words in ((corners, "as x0, y0, x1, y1"), (shares, "not a share from 0 to 1")):
        path = own_truth(change)
        (hint,) = evaluate_campaign(campaign, path).file.hints
        assert words in hint
        _, truth = truth_of_campaign(campaign, path)
        assert truth.file.hints == (hint,)


def test_few_images_are_said_first(campaign, own_truth):
    def change(document):
        del document["images"][2:]
        kept = {image["id"] for image in document["images"]}
        document["annotations"] = [one for one in document["annotations"] if one["image_id"] in kept]

    found = evaluate_campaign(campaign, own_truth(change))
    first = "ONLY 2 of 6 labelled images compared; the figures say nothing of the others"
    assert (_lines(found)[0], next(found.remarks())) == (first, first)
    whole = evaluate_campaign(campaign, own_truth())
    assert not list(whole.remarks())


def test_some_names_with_folders_before_them(campaign, own_truth):
    def change(document):
        for image, folder in zip(document["images"], ("..\\label\\", "train/", "", "", "", ""), strict=True):
            image["file_name"] = folder + image["file_name"]

    found = evaluate_campaign(campaign, own_truth(change))
    assert (found.images.rule, found.images.evaluated) == ("both", 6)
    assert "6 images compared, paired by file_name, and some by the last parts of their paths" in _lines(found)[1]


def test_labels_of_other_classes_are_left_out_and_counted(campaign, own_truth):
    whole = evaluate_campaign(campaign, own_truth())
    found = evaluate_campaign(campaign, own_truth(lambda document: document["categories"].pop(0)))
    assert found.classes.common == ("dog",)
    cats = whole.accepted_and_review.classes["cat"].labels
    assert found.classes.without_truth == {"cat": cats}
    assert found.accepted_and_review.labels == whole.accepted_and_review.labels - cats > 0


def test_crowds_are_neither_right_nor_wrong(campaign, own_truth):
    def change(document):
        for annotation in document["annotations"]:
            annotation["iscrowd"] = 1

    found = evaluate_campaign(campaign, own_truth(change))
    every = found.accepted_and_review
    assert (every.ignored, every.objects, every.precision, every.recall) == (every.labels, 0, None, None)
    assert (found.crowds, found.boxes.map) == (every.labels, None)
    assert found.signals["detector_score"].sweep == ()


def test_truth_without_masks_compares_boxes_alone(campaign, own_truth):
    def change(document):
        document["annotations"][0]["segmentation"] = []

    found = evaluate_campaign(campaign, own_truth(change))
    assert (found.masks, found.masks_missing) == (None, 1)
    assert found.boxes.map == pytest.approx(1)


def test_files_below_another_folder(campaign, own_truth):
    def change(document):
        for image in document["images"]:
            image["file_name"] = f"images/{image['file_name']}"

    found = evaluate_campaign(campaign, own_truth(change))
    assert (found.images.rule, found.images.evaluated) == ("path_end", 6)


def test_images_that_wait_are_not_labelled(campaign, own_truth, tmp_path):
    path = own_truth(lambda document: document["images"].append({"id": 99, "file_name": "x.png"}))
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "x.png")
    found = evaluate_campaign(campaign, path)
    assert (found.images.evaluated, found.images.not_labelled) == (6, 1)


def test_a_run_that_finds_nothing(campaign, own_truth, make_campaign, label):
    path = own_truth()
    nothing = make_campaign(models={"detector": {"backend": "fake", "min_score": 0.999999}, **_fakes()})
    summary, _ = label(nothing)
    assert summary.labels == 0
    found = evaluate_campaign(nothing, path)
    assert (found.boxes.map, found.accepted.labels, found.accepted.precision, found.accepted.recall) == (0, 0, None, 0)
    assert (found.signals["detector_score"].sweep, list(found.signals)) == ((), ["detector_score"])


def _fakes():
    return {"device": "cpu", "segmenter": {"backend": "fake"}, "scorer": {"backend": "fake"}}


def test_what_cannot_be_compared(campaign, own_truth, make_campaign):
    def named(name):
        return lambda document: [image.update(file_name=f"{name}{image['id']}") for image in document["images"]]

    def sized(document):
        for image in document["images"]:
            image["height"] = 7

    path = own_truth(lambda document: [one.update(name=f"no {one['name']}") for one in document["categories"]])
    message = "truth.json: shares no class with the run; it has no cat, no dog, the run cat, dog; classes are paired"
    assert message in problem(campaign, path)
    message = "truth.json: shares no image with the run; it names 'z1', say, and the run '000.png'"
    assert message in problem(campaign, own_truth(named("z")))
    assert "truth.json: names no image" in problem(campaign, own_truth(lambda document: document["images"].clear()))
    assert "gives every image another width or height" in problem(campaign, own_truth(sized))
    assert "there is no signal 'speed'; choose among detector_score," in problem(campaign, path, "speed")
    assert "run 'other' in" in problem(make_campaign(run={"name": "other"}), own_truth())


def test_images_that_cannot_be_told_apart(tmp_path, make_images, make_campaign, label):
    for folder in ("x", "y"):
        make_images(tmp_path / "images" / folder, 1)
    campaign = make_campaign(export=INCLUDE)
    label(campaign)
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    document["images"] = [{"id": 1, "file_name": "000.png"}]
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(document))
    assert "its file names do not tell the run's images apart: 'x/000.png', say" in problem(campaign, path)


def test_only_failed_images_are_common(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 1)
    (tmp_path / "images" / "x.png").touch()
    campaign = make_campaign()
    label(campaign)
    path = tmp_path / "truth.json"
    path.write_text(
        json.dumps(
            {
                "images": [{"id": 1, "file_name": "x.png"}],
                "annotations": [],
                "categories": [{"id": 1, "name": "cat"}],
            }
        )
    )
    assert "run 'main' has labelled none of its images yet" in problem(campaign, path)


def test_figures_and_plots_are_written(campaign, own_truth, tmp_path):
    def change(document):
        document["annotations"] = document["annotations"][::2]
        document["categories"][0]["name"] = "CAT"

    found = evaluate_campaign(campaign, own_truth(change), ["detector_margin"])
    assert found.accepted_and_review.precision < 1
    folder = tmp_path / "deep" / "evaluation"
    written = write_evaluation(found, folder)
    assert json.loads((folder / "evaluation.json").read_text()) == found.model_dump(mode="json")
    assert {path.name for path in written[1:]} >= {
        "precision_recall.png",
        "sweep_detector_score.png",
        "risk_coverage_detector_margin.png",
        "reliability_detector_score.png",
        "confusion_accepted.png",
        "confusion_accepted_and_review.png",
    }
    for path in written[1:]:
        with Image.open(path) as picture:
            # Something is drawn on the white.
            assert picture.convert("L").getextrema() <= (80, 255)
            assert min(picture.size) > 300
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"--out: .* is no folder"):
        write_evaluation(found, tmp_path / "file")


IMAGES = 40
SHARE, SEED = 0.5, 3
CONTENTS = [hashlib.sha256(str(image).encode()).hexdigest() for image in range(IMAGES)]
FITTING = on_fit_side(CONTENTS, SHARE, SEED)
COVERED = ~FITTING


def world(accepted, verdict, classes) -> tuple[RunLabels, RunTruth]:
    """One label an image."""
    count = len(accepted)
    labels = RunLabels(
        label_ids=pa.array([f"l{number}" for number in range(count)]),
        class_index=np.asarray(classes, np.int64),
        class_names=("cat", "dog"),
        image_index=np.arange(count),
        boxes=np.zeros((count, 4), np.float32),
        signals=np.zeros((count, len(SIGNALS)), np.float32),
        p_correct=np.full(count, 0.9),
        accepted=np.asarray(accepted, bool),
        keys=pa.array([f"{number}.jpg" for number in range(count)]),
        contents=pa.array(CONTENTS),
    )
    truth = RunTruth(
        verdict=np.asarray(verdict, np.int8),
        class_index=np.zeros(count, np.int64),
        boxes=np.zeros((count, 4), np.float32),
        known=np.ones(count, bool),
        missed_image=np.zeros(0, np.int64),
        missed_class=np.zeros(0, np.int64),
        missed_boxes=np.zeros((0, 4), np.float32),
        left_out={"on a crowd region": int((np.asarray(verdict) == UNKNOWN).sum())},
        dropped=np.zeros(count, bool),
        file=TruthFile(annotations=count),
    )
    return labels, truth


def certified(gate="delivered", precision=0.9, earlier=False) -> Policy:
    """One group each; the cats' is certified at 0.5, the dogs' is not. earlier: of a version that kept no coverage."""
    certificate = GroupCertificate(
        labels=20, accepted=10, reviewed=10, errors=0, limit=0.1, bound=0.08, p_value=0.05, delta=0.1, tested=(0.5,)
    )
    certification = Certification(
        precision=precision, confidence=0.9, gate=gate, look=1, inputs={}, calibrator={}, fit_labels=50, brier=0.1,
        brier_of_rate=0.2, fit_share=SHARE if earlier else 0, seed=SEED, plans=(1, 2), verdicts="0",
        created="2026-01-01T00:00:00+00:00", simulated=True,
    )  # fmt: skip
    groups = (
        Group(name="cats", classes=("cat",), p_correct=0.5, certificate=certificate),
        Group(name="dogs", classes=("dog",)),
    )
    return Policy(version="certified-1-test", basis="certified", groups=groups, certification=certification)


def hold(labels, truth, policy, earlier=False, answers=None):
    """Hold the guarantee against the truth: it covers COVERED; answers are places of labels -> what people said."""
    codes = np.full(labels.count, NO_ANSWER)
    for place, code in (answers or {}).items():
        codes[place] = code
    inside = np.sort(label_numbers(labels.label_ids.filter(pa.array(COVERED))))
    covered = None if earlier else Coverage(inside, np.zeros(0, np.uint64))
    return contract_truth(labels, truth, policy, covered, codes)


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize("gate", ["accepted", "delivered"])
def test_the_guarantee_is_about_what_it_covers_alone(gate, earlier):
    """Wrong labels that were accepted outside break nothing, but show in the whole run."""
    verdict = np.where(COVERED, CORRECT, NOT_AN_OBJECT)
    policy = certified(gate, earlier=earlier)
    found = hold(*world(np.ones(IMAGES), verdict, np.zeros(IMAGES)), policy, earlier)
    assert found.held is True
    assert found.covered.accepted_precision == found.covered.delivered_precision == 1
    assert found.covered.labels == COVERED.sum()
    assert found.whole_run.accepted_precision == pytest.approx(COVERED.mean())
    assert found.simulated


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("gate", "held"), [("accepted", False), ("delivered", True)])
def test_both_precisions(gate, held, earlier):
    """Of the cats that are covered ten are accepted, two of them wrong; the others are right, one on a crowd."""
    side = np.flatnonzero(COVERED)
    assert len(side) >= 15
    accepted, verdict = np.zeros(IMAGES, bool), np.full(IMAGES, CORRECT)
    accepted[side[:10]] = True
    verdict[side[:2]], verdict[side[-1]] = NOT_AN_OBJECT, UNKNOWN
    policy = certified(gate, precision=0.85, earlier=earlier)
    found = hold(*world(accepted, verdict, np.zeros(IMAGES)), policy, earlier)
    cats, dogs = found.groups
    labels = len(side) - 1
    assert (cats.labels, cats.accepted, cats.automation) == (labels, 10, 10 / labels)
    assert (cats.accepted_precision, cats.delivered_precision) == (0.8, (labels - 2) / labels)
    assert (cats.kept, found.held, cats.certified) == (held, held, 0.92)
    assert (dogs.labels, dogs.kept, dogs.accepted_precision, dogs.certified) == (0, None, None, None)
    assert found.without_truth == {"on a crowd region": 1}


def test_what_people_corrected_breaks_nothing():
    """Two of ten accepted labels are wrong: the guarantee is kept once people who were shown them said so."""
    side = np.flatnonzero(COVERED)
    accepted, verdict = np.zeros(IMAGES, bool), np.full(IMAGES, CORRECT)
    accepted[side[:10]] = True
    verdict[side[:2]] = NOT_AN_OBJECT
    run = world(accepted, verdict, np.zeros(IMAGES))
    for answers, held in (({}, False), ({side[0]: 0, side[1]: 0}, False), ({side[0]: 1, side[1]: 1}, True)):
        assert hold(*run, certified("accepted"), answers=answers).held is held
    assert hold(*run, certified("accepted"), answers={side[0]: 1, side[1]: 1}).covered.accepted == 8


def test_delivered_labels_that_were_known_before_count_as_delivered():
    """The guarantee of delivered labels is about them as well; that of accepted ones is not."""
    side, outside = np.flatnonzero(COVERED), np.flatnonzero(~COVERED)
    accepted, verdict = COVERED.copy(), np.full(IMAGES, CORRECT)
    verdict[side[:3]] = NOT_AN_OBJECT
    run, known = world(accepted, verdict, np.zeros(IMAGES)), dict.fromkeys(outside.tolist(), 0)
    least = 1 - 3 / (len(side) + len(outside))
    for gate, answers, held in (("delivered", {}, False), ("delivered", known, True), ("accepted", known, False)):
        found = hold(*run, certified(gate, precision=least), answers=answers)
        assert found.held is held, (gate, len(answers))
        counted = IMAGES if gate == "delivered" and answers else len(side)
        assert found.covered.labels == counted


def test_the_coverage_is_read_from_the_workspace(campaign, own_truth, certified_of):
    """Whatever was accepted: labels that no certificate covers are told apart, with what people said of them."""
    policy, labels = certified_of(campaign, half=True)
    found = evaluate_campaign(campaign, own_truth()).contract
    assert found.policy == policy.version
    assert found.covered.labels == labels.count // 2
    assert found.whole_run.labels == labels.count
    assert found.covered.accepted == found.whole_run.accepted == int(labels.accepted.sum()) > 0
    assert found.held is True


@pytest.fixture
def certified_of():
    """Apply a policy that accepts every label that it covers: the first half of the run's, or all."""

    def go(campaign, *, half):
        workspace = open_store(campaign.workspace)
        labels = run_labels(campaign)
        chosen = labels.label_ids.slice(0, labels.count // 2 if half else labels.count)
        covered = Covered(
            population=keep_population(workspace, chosen), labels=len(chosen), images=1, plan=2,
            created="2026-01-01T00:00:00+00:00",
        )  # fmt: skip
        old = certified("accepted")
        calibrator = Calibrator(("detector_score",), (0.0,), (1.0,), (1.0,), (None,), 9.0, {}).to_dict()
        certification = old.certification.model_copy(
            update={
                "calibrator": calibrator,
                "inputs": current_of(workspace, campaign.run.name).inputs,
                "covers": (covered,),
                "reviewers": Reviewers(assumed=0.05),
            }
        )
        groups = (Group(name="all", classes=("cat", "dog"), p_correct=0.5, certificate=old.groups[0].certificate),)
        policy = old.model_copy(update={"groups": groups, "certification": certification})
        write_policy(workspace, policy)
        apply_policy(campaign, policy.version)
        return policy, run_labels(campaign)

    return go


def run_labels(campaign):
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, campaign.run.name) as ledger:
        return read_run_labels(workspace, campaign.run.name, ledger, current_of(workspace, campaign.run.name))


@pytest.mark.parametrize(
    ("file", "gone", "words"),
    [
        (TruthFile(annotations=100, unknown_image=1, unknown_category=1), 0, "2% of the annotations name an image or"),
        (TruthFile(annotations=100, hints=("every box is small",)), 0, "every box is small"),
        (TruthFile(annotations=100), 1, "labels that it is about have no truth for their image or class"),
    ],
)
def test_no_verdict_on_dropped_input(file, gone, words):
    """Neither held nor broken, in the groups neither; and the figures stay."""
    labels, truth = world(np.ones(IMAGES), np.full(IMAGES, NOT_AN_OBJECT), np.zeros(IMAGES))
    assert hold(labels, truth, certified()).held is False
    dropped = np.zeros(IMAGES, bool)
    dropped[np.flatnonzero(COVERED)[:gone]] = True
    found = hold(labels, replace(truth, file=file, dropped=dropped), certified())
    assert (found.held, [group.kept for group in found.groups], found.groups[0].accepted_precision) == (
        None,
        [None] * 2,
        0,
    )
    (why,) = found.no_verdict
    assert words in why
    lines = [block for block in found.blocks() if isinstance(block, str)]
    assert lines[0] == f"NO VERDICT on the guarantee is given: {why}"
    assert not [line for line in lines if "held" in line or "BROKEN" in line]


def test_a_small_share_is_no_matter():
    labels, truth = world(np.ones(IMAGES), np.full(IMAGES, CORRECT), np.zeros(IMAGES))
    dropped = np.zeros(IMAGES, bool)
    dropped[np.flatnonzero(~COVERED)] = True
    found = hold(labels, replace(truth, file=TruthFile(annotations=100, unknown_image=1), dropped=dropped), certified())
    assert (found.held, found.no_verdict) == (True, ())


def test_nothing_accepted_promises_nothing():
    found = hold(*world(np.zeros(IMAGES), np.full(IMAGES, NOT_AN_OBJECT), np.ones(IMAGES)), certified())
    assert found.held is None
    assert found.whole_run.delivered_precision is None


def test_a_policy_of_the_users_thresholds_promises_nothing():
    policy = Policy(version="user-1", groups=(Group(name="all", classes=("cat", "dog")),))
    assert hold(*world(np.ones(IMAGES), np.zeros(IMAGES), np.zeros(IMAGES)), policy) is None


def test_nineteen_of_twenty_are_95_percent():
    correct = np.arange(20) > 0
    found = true_precision(np.ones(20, bool), correct, np.ones(20, bool))
    assert is_kept(found, "accepted", 0.95) is True
    assert is_kept(found, "accepted", 0.951) is False
