"""Made-up labels whose truth is known, and a labelled campaign with a reviewer."""

import hashlib
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import expit

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.schemas.reviews import TASKS, VERDICTS, ReviewPlan
from vouch_labels.tasks.certify.data import read_run_reviews
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.labels.arrays import SIGNALS, RunLabels
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, Answers, resolve
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.store.open import open_store

TIME = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    labels: RunLabels
    wrong: np.ndarray


def _make_world(images=600, classes=2, seed=0, informative=True, share_wrong=0.25):
    """Labels in images of which some are hard; three signals tell right from wrong, the others are missing or noise."""
    rng = np.random.default_rng([7, seed])
    image = np.repeat(np.arange(images), 1 + rng.poisson(3, images))
    count = len(image)
    difficulty = rng.normal(0, 0.7, images)[image]
    wrong = rng.random(count) < expit(np.log(share_wrong / (1 - share_wrong)) + difficulty)
    names = tuple(f"class {number}" for number in range(classes))
    class_index = np.minimum(rng.geometric(0.6, count) - 1, classes - 1)
    signals = rng.standard_normal((count, len(SIGNALS))).astype(np.float32)
    if informative:
        for column in (SIGNALS.index("detector_score"), SIGNALS.index("clip_probability"), SIGNALS.index("sam_iou")):
            signals[wrong, column] -= 1.5
    corner = rng.uniform(0, 500, (count, 2))
    labels = RunLabels(
        label_ids=pa.array([hashlib.sha256(f"{seed} {row}".encode()).hexdigest()[:32] for row in range(count)]),
        class_index=class_index,
        class_names=names,
        image_index=image,
        boxes=np.concatenate([corner, corner + rng.uniform(20, 80, (count, 2))], axis=1).astype(np.float32),
        signals=signals,
        p_correct=np.full(count, np.nan),
        accepted=np.zeros(count, np.bool_),
        keys=pa.array([f"{number:05d}.jpg" for number in range(images)]),
        contents=pa.array([hashlib.sha256(f"{seed} image {number}".encode()).hexdigest() for number in range(images)]),
    )
    return World(labels, wrong)


def _make_verdicts(label_ids, verdicts, reviewer="ann", simulated=False, minutes=0):
    rows = {name: [None] * len(label_ids) for name in VERDICTS.names}
    rows |= {
        "label_id": list(label_ids),
        "verdict": list(verdicts),
        "reviewer": [reviewer] * len(label_ids),
        "seconds": [1.5] * len(label_ids),
        "reviewed_at": [TIME + timedelta(minutes=minutes)] * len(label_ids),
        "simulated": [simulated] * len(label_ids),
    }
    return pa.table(rows, VERDICTS)


def _answer(label_ids, wrong, **how) -> Answers:
    return resolve(_make_verdicts(label_ids, ["bad_box" if one else "correct" for one in wrong], **how))


def _make_plan(tasks, number=1, **changes):
    """A plan with these rows of TASKS; columns not given are filled in."""
    count = len(tasks["purpose"])
    rows = {name: [None] * count for name in TASKS.names}
    rows |= {"place": list(range(count)), "key": ["a.jpg"] * count, "seconds": [1.6] * count} | tasks
    fields = {
        "number": number,
        "run": "main",
        "created": "2026-01-01T00:00:00+00:00",
        "inputs": {"prompts": "a"},
        "precision": 0.95,
        "confidence": 0.9,
        "gate": "delivered",
        "seed": 0,
        "fit_share": 0.3,
        "counts": {},
        "seconds": 0,
        "tasks_sha256": "",
    }
    return ReviewPlan.model_validate(fields | changes), pa.table(rows, TASKS)


@pytest.fixture
def make_world():
    return _make_world


@pytest.fixture
def make_verdicts():
    return _make_verdicts


@pytest.fixture
def answer():
    return _answer


@pytest.fixture
def make_plan():
    return _make_plan


class Campaigned:
    """A labelled campaign of fake models, and a reviewer who answers its plans."""

    def __init__(self, load, folder):
        self.load, self.folder = load, folder
        self.campaign = load()

    def with_routing(self, **routing):
        """The campaign with other routing; gate and trust in reviewers stay as they were unless they are given."""
        self.campaign = self.load(routing={"gate": "delivered", "missed": 0.0} | routing)

    @property
    def reviews(self):
        return read_run_reviews(self.campaign)

    @property
    def workspace(self):
        return open_store(self.campaign.workspace)

    def wrong(self, labels):
        """The truth: labels are wrong more often the lower the detector's score, decided by their ids."""
        chance = np.array([int(label[:8], 16) / 2**32 for label in labels.label_ids.to_pylist()])
        return chance < np.clip(3 * (0.9 - labels.signals[:, SIGNALS.index("detector_score")]), 0.03, 0.97)

    def answer(self, number=-1, wrong=None, part=1.0, minutes=0, again=True, **how):
        """Answer (a part of) a plan, the last, by the truth or by one verdict for all; or just what has no answer."""
        reviews = self.reviews
        tasks = reviews.plans[number][1]
        tasks = tasks.filter(tasks["label_id"].is_valid())
        tasks = tasks.slice(0, int(tasks.num_rows * part))
        if not again:
            tasks = tasks.filter(pa.array(reviews.answers.wrong_of(tasks["label_id"]) == NO_ANSWER))
        rows = reviews.labels.places(tasks["label_id"].to_pylist())
        # Honeypots are no labels of the run, and wrong.
        called_wrong = np.append(self.wrong(reviews.labels), True)[rows] if wrong is None else np.full(len(rows), wrong)
        answers = ["not_an_object" if one else "correct" for one in called_wrong]
        write_verdicts(self.workspace, _make_verdicts(tasks["label_id"].to_pylist(), answers, minutes=minutes, **how))

    def more_images(self, count=40, start=200):
        """Add images, and label them."""
        draw_images(self.folder, count, start=start)
        label(self.campaign)

    verdicts = staticmethod(_make_verdicts)

    def fitted(self, **how):
        """After the first sample."""
        plan_reviews(self.campaign)
        self.answer(**how)
        return self

    def sampled(self, **wanted):
        """After the certification sample was drawn and answered."""
        planned = plan_reviews(self.campaign, ReviewRequest(**wanted))
        self.answer()
        return planned


@pytest.fixture(scope="session")
def labelled_once(tmp_path_factory):
    """The folder of a campaign of fake models, labelled once, to be copied."""
    folder = tmp_path_factory.mktemp("labelled")
    draw_images(folder, 200)
    label(write_campaign(folder))
    return folder


@pytest.fixture
def campaigned(labelled_once, tmp_path):
    folder = tmp_path / "campaigned"
    shutil.copytree(labelled_once, folder)
    return Campaigned(lambda **sections: write_campaign(folder, **sections), folder)
