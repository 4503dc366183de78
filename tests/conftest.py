"""What tests of several packages need: images to label, and campaigns that label them."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import settings
from PIL import Image

from tests.requirements import FIXTURES, MISSING
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.policy import Certification, Group, Policy
from vouch_labels.schemas.records import Marker, RunSummary
from vouch_labels.schemas.report import Report
from vouch_labels.tasks.run import CampaignRun, Processed, RunOptions
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.statistics.calibrator import Calibrator

FAKE_MODELS = {
    "device": "cpu",
    "detector": {"backend": "fake"},
    "segmenter": {"backend": "fake"},
    "scorer": {"backend": "fake"},
}


# The same examples every time, so that a run of the suite says something about the change and not about its luck;
# `make search` looks for new ones, and keeps in .hypothesis what fails.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.register_profile(
    "search", max_examples=int(os.environ.get("EXAMPLES", "2000")), deadline=None, print_blob=True
)
settings.load_profile("repeatable")

# A root logger that has a handler with a format is left alone by Prefect. Otherwise the test that happens to import it
# first would give the root logger a console on its own stderr, which is closed when the next one writes.
_root_handler = logging.NullHandler()
_root_handler.setFormatter(logging.Formatter())
logging.getLogger().addHandler(_root_handler)


def pytest_configure(config: pytest.Config) -> None:
    """Have the left-out tests counted at the end of the run."""
    config.pluginmanager.register(LeftOut(config), "left-out")


@pytest.hookimpl(wrapper=True, trylast=True)  # before pytest-cov adds up
def pytest_runtestloop(session: pytest.Session) -> Generator[None, object, object]:
    """Remove the coverage that killed children left half-written: one such file would end the whole run."""
    result = yield
    if not hasattr(session.config, "workerinput"):
        for path in session.config.rootpath.glob(".coverage.*"):
            # Coverage names a file by its hash once it is whole.
            if not re.search(r"\.H\w+h$", path.name):
                path.unlink(missing_ok=True)
    return result


@pytest.hookimpl(tryfirst=True)  # before -m chooses
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what needs something that neither the checkout nor the set-up brings, and that is not there."""
    missing: dict[str, str | None] = {}
    for item in items:
        fixtures = getattr(item, "fixturenames", ())
        needed = {marker for marker in MISSING if item.get_closest_marker(marker)}
        for fixture in FIXTURES.keys() & fixtures:
            needed.add(FIXTURES[fixture])
            item.add_marker(FIXTURES[fixture])
        for marker in needed:
            if marker not in missing:
                missing[marker] = MISSING[marker]()
            if reason := missing[marker]:
                item.add_marker(pytest.mark.skip(reason=reason))


class LeftOut:
    """Says in the last lines of a run how many tests were left out, and why: one line a reason."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._deselected = 0

    def pytest_deselected(self, items: list[pytest.Item]) -> None:
        """Count what the marker expression leaves out; in a worker of xdist, for the process that reports."""
        self._deselected += len(items)
        if (output := getattr(self._config, "workeroutput", None)) is not None:
            output["deselected"] = self._deselected

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """Take over the count of a worker; all of them collect the same."""
        self._deselected = max(self._deselected, getattr(node, "workeroutput", {}).get("deselected", 0))

    @pytest.hookimpl(trylast=True)
    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Write the lines."""
        reasons = Counter(report.longrepr[2] for report in terminalreporter.stats.get("skipped", []))
        lines = [f"{count} skipped: {reason.removeprefix('Skipped: ')}" for reason, count in reasons.most_common()]
        if self._deselected:
            choice = self._config.option.markexpr or self._config.option.keyword
            hint = "; make test-rest runs them, but for those that need a GPU" if "not slow" in choice else ""
            lines.append(f"{self._deselected} not chosen by {choice!r}{hint}")
        if lines:
            terminalreporter.section("tests left out")
            for line in lines:
                terminalreporter.line(line)


def draw(seed: int, size: tuple[int, int] = (96, 64)) -> Image.Image:
    """A dark picture with one to four bright rectangles."""
    rng = np.random.default_rng(seed)
    width, height = size
    pixels = rng.integers(0, 40, (height, width, 3), dtype=np.uint8)
    for _ in range(rng.integers(1, 5)):
        x, y = rng.integers(0, width - 20), rng.integers(0, height - 20)
        w, h = rng.integers(10, 20, 2)
        pixels[y : y + h, x : x + w] = rng.integers(150, 255, 3, dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(autouse=True, scope="session")
def _no_wait_for_the_disk() -> Iterator[None]:
    """Let files reach the disk when they may: no test loses power. Commands and servers that tests start do wait."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture
def make_images() -> Callable[..., list[str]]:
    """Write images 000.png, 001.png ... into a folder, and give their keys."""

    def make(folder: Path, count: int, start: int = 0) -> list[str]:
        folder.mkdir(parents=True, exist_ok=True)
        keys = [f"{number:03d}.png" for number in range(start, start + count)]
        for number, key in enumerate(keys, start):
            draw(number).save(folder / key)
        return keys

    return make


@pytest.fixture
def write_campaign(tmp_path: Path) -> Callable[..., Path]:
    """Write a campaign of fake models over tmp_path/images; keyword arguments replace whole sections."""

    def write(name: str = "campaign.yaml", **sections: Any) -> Path:
        content = {
            "source": str(tmp_path / "images"),
            "workspace": str(tmp_path / "workspace"),
            "classes": ["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
            "models": FAKE_MODELS,
            "routing": {"accept": {"detector_score": 0.5}},
            "run": {"shard_size": 4, "retry_delay_s": 0},
        }
        path = tmp_path / name
        path.write_text(yaml.safe_dump(content | sections))
        return path

    return write


@pytest.fixture
def make_campaign(write_campaign: Callable[..., Path]) -> Callable[..., Campaign]:
    """As write_campaign, loaded."""

    def make(**sections: Any) -> Campaign:
        return load_campaign(write_campaign(**sections))

    return make


@pytest.fixture(scope="session")
def moto_endpoint() -> Iterator[str]:
    """Address of a made-up S3 for all tests of this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys that the made-up S3 takes, and none of the user's."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test-access")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test-secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)


@pytest.fixture
def label() -> Callable[..., tuple[RunSummary, list[Marker]]]:
    """Run a campaign: plan, process all shards, export."""

    def run(campaign: Campaign, **how: Any) -> tuple[RunSummary, list[Marker]]:
        with CampaignRun(campaign, options=RunOptions(**how)) as session:
            session.plan()
            markers = [process_shard(shard.id, session.settings, session.on_event) for shard in session.pending()]
            worked = Processed(shards=len(markers), images=sum(marker.counts.images for marker in markers))
            session.note_moves(worked)
            return session.summary(worked, session.export()), markers

    return run


@pytest.fixture
def own_truth(tmp_path: Path) -> Callable[..., Path]:
    """The exported labels of a campaign in tmp_path as ground truth, changed by a function."""

    def write(change: Callable[[dict[str, Any]], None] = lambda document: None) -> Path:
        document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
        change(document)
        path = tmp_path / "truth.json"
        path.write_text(json.dumps(document))
        return path

    return write


@pytest.fixture
def calibrator() -> Calibrator:
    """Looks at one signal: p = sigmoid(4 (sam_iou - 0.5)), and is blind where it is missing."""
    return Calibrator(("sam_iou",), (0.5,), (0.25,), (1.0,), (None,), 0.0, {})


@pytest.fixture
def certified(calibrator: Calibrator) -> Callable[..., Policy]:
    """Make a certified policy from thresholds of classes; keyword arguments replace parts of its certification."""

    def make(thresholds: dict[str, float | None], *, version: str = "certified-1-test", **changes: Any) -> Policy:
        values = {
            "precision": 0.95, "confidence": 0.9, "gate": "accepted", "look": 1, "inputs": {},
            "calibrator": calibrator.to_dict(), "fit_labels": 200, "brier": 0.1, "brier_of_rate": 0.2,
            "seed": 0, "plans": (1, 2), "verdicts": "0", "created": "2026-01-01T00:00:00+00:00",
        }  # fmt: skip
        groups = tuple(Group(name=name, classes=(name,), p_correct=least) for name, least in thresholds.items())
        return Policy(
            version=version, basis="certified", groups=groups, certification=Certification(**(values | changes))
        )

    return make


@pytest.fixture
def certified_report() -> Report:
    """A report of every part that there is, with names that would be markup if nobody escaped them."""
    interval = {"value": 0.973, "low": 0.951, "high": 0.988, "confidence": 0.9}
    certificate = {"labels": 900, "accepted": 610, "reviewed": 410, "errors": 9, "limit": 0.05, "bound": 0.0378,
                   "delta": 0.04, "accepted_precision": interval, "delivered_precision": interval}  # fmt: skip
    groups = [
        {"name": "cat", "classes": ["cat"], "rule": "p(correct) >= 0.912", "p_correct": 0.912, **certificate},
        {"name": "others", "classes": ["<script>alert(1)</script>", "dog"], "rule": "", **certificate,
         "refusal": "9 of 60 reviewed labels are wrong; review about 340 more", "more_reviews": 340},
    ]  # fmt: skip
    quality = {"labels": 610, "correct": 600, "wrong": 10, "ignored": 0, "objects": 900, "precision": 0.98,
               "recall": 0.6}  # fmt: skip
    picture = {"label_id": "a", "key": '"><img src=x onerror=alert(1)>.jpg', "class_name": "<b>cat</b>",
               "box": [1, 2, 30, 40], "accepted": True, "p_correct": 0.98, "detector_score": 0.7,
               "reason": "p_correct 0.98"}  # fmt: skip
    percentiles = [place / 100 for place in range(101)]
    bins = [{"labels": 40, "score": score, "precision": score - 0.02} for score in (0.3, 0.5, 0.7, 0.9, 0.98)]
    return Report.model_validate(
        {
            "run": "main <&>",
            "workspace": "/data/workspace",
            "source": "s3://photos/2026",
            "number": 2,
            "created": "2026-03-04T05:06:07+00:00",
            "images": {"total": 1000, "done": 990, "failed": 10, "pending": 0, "reasons": {"acquire: <i>bad</i>": 10}},
            "automation": {"labels": 1000, "accepted": 610, "answered": 110},
            "covered": {"labels": 900, "accepted": 610},
            "outside": 100,
            "guarantee": "At least 95% of the labels that are delivered are correct, with 90% confidence.",
            "policy": {"version": "certified-1-0a1b2c3d", "standing": "certified", "precision": 0.95, "confidence": 0.9,
                       "gate": "delivered", "look": 1, "created": "2026-03-01T00:00:00+00:00", "fit_labels": 200,
                       "planted": 20, "missed": 1, "groups": groups,
                       "covers": [{"population": "0a1b", "labels": 900, "images": 870, "plan": 2,
                                   "created": "2026-03-01T00:00:00+00:00"}]},
            "audits": [{"plan": 4, "created": "2026-03-03T00:00:00+00:00", "policy": "certified-1-0a1b2c3d",
                        "labels": 610, "asked": 100, "answered": 100, "wrong": 2, "precision": interval}],
            "expiry": {"batches": 1, "wealth": 0.6, "limit": 20, "expired": False},
            "recall": {"accepted": interval, "delivered": interval, "undecided": 1,
                       "parts": [{"name": "boxes", "images": 900, "searched": 40, "objects": 90, "accepted": 60,
                                  "delivered": 80}]},
            "drift": {"audit_factor": 2, "signals": [
                {"signal": "p_correct", "distance": 0.2, "drifted": True, "before": percentiles,
                 "now": [place**2 for place in percentiles]},
                {"signal": "sam_iou", "distance": 0.01, "drifted": False, "before": percentiles, "now": percentiles}]},
            "reliability": {"found": {"ece": 0.02, "bins": bins}, "brier": 0.08, "labels": 200},
            "histogram": {"signal": "p_correct", "edges": [0, 0.25, 0.5, 0.75, 1], "accepted": [0, 0, 10, 600],
                          "review": [90, 100, 150, 50], "thresholds": [0.912], "missing": 3},
            "classes": [
                {"name": f"class {place}" * (9 if place == 2 else 1), "labels": 100 - place, "accepted": 40,
                 "reviewed": 20, "wrong": 1, "precision": 0.96} for place in range(60)
            ],
            "pictures": [
                {**picture, "kind": "accepted", "answer": "correct"},
                {**picture, "kind": "routed", "accepted": False, "reason": "p_correct 0.710 < 0.912"},
                {**picture, "kind": "wrong", "answer": "wrong_class"},
            ],
            "verdicts": {"labels": 700, "answers": {"correct": 600, "wrong_class": 100}, "images": 41, "missed": 7,
                         "reviewers": 3, "foreign": 2},
            "time": {"spent": 1500, "untimed": 4, "verify_s": 1.6, "draw_s": 25.5, "saved": 800, "unseen": 500,
                     "waiting": 100, "delivered": 900, "per_box": 1.67},
            "truth": {"file": "truth.json", "images": 990, "iou_threshold": 0.5, "accepted": quality,
                      "everything": quality},
            "changes": {"since": "2026-03-02T00:00:00+00:00", "number": 1, "changes": [
                {"name": "labels", "before": "900", "now": "1,000", "direction": "up", "words": "100 more"},
                {"name": "policy", "before": "a", "now": "b", "direction": "other"}]},
            "provenance": {"vouch": "0.1.0", "packages": {"numpy": "2.0"}, "fingerprint": "0a1b",
                           "models": {"detector": "x"}, "inputs": {"prompts": "1f"}, "settings": {"seed": "0"}},
        }
    )  # fmt: skip
