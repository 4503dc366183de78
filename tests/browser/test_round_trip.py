"""From images to a certified data set: a person answers in the browser, all else is what the shell offers."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from pycocotools.coco import COCO

from tests.browser.conftest import Reviewer
from tests.processes import ROOT, running
from vouch_labels.flows.cli.demo import PRECISION, TO_CERTIFY, TO_FIT, TRUTH, prepare
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.reviews import LABEL_VERDICTS
from vouch_labels.tasks.evaluate.run_truth import truth_of_campaign
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.store.open import open_store

pytestmark = [pytest.mark.browser, pytest.mark.slow]

SAMPLES = ROOT / "starter" / "samples"
KEYS = {"correct": "Alt+Enter", "bad_box": "Alt+b", "not_an_object": "Alt+n"}


@pytest.fixture
def campaign(tmp_path, monkeypatch):
    """The demo's campaign over the bundled samples, which nothing was done with yet; all is kept in tmp_path."""
    for name in ("HOME", "XDG_DATA_HOME", "XDG_STATE_HOME"):
        monkeypatch.setenv(name, str(tmp_path / name))
    (tmp_path / "HOME").mkdir()
    for name in ("VOUCH_LOG", "VOUCH_MONGODB_URI", "VOUCH_REVIEW_TOKEN", "FIFTYONE_DATABASE_NAME", "PREFECT_API_URL"):
        monkeypatch.delenv(name, raising=False)
    return prepare(tmp_path / "demo")


def vouch(*arguments):
    """What a command prints, read."""
    command = [sys.executable, "-m", "vouch_labels.flows.cli", *map(str, arguments), "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def right_answers(campaign):
    """Label id -> verdict and right class, from the samples' ground truth."""
    labels, truth = truth_of_campaign(load_campaign(campaign), SAMPLES / TRUTH)
    names = labels.class_names
    return {
        label: (LABEL_VERDICTS[verdict], names[place] if place >= 0 else None)
        for label, verdict, place in zip(
            labels.label_ids.to_pylist(), truth.verdict.tolist(), truth.class_index.tolist(), strict=True
        )
        if verdict >= 0
    }


class Person(Reviewer):
    """Somebody who knows the right answers, and gives them by the keyboard as the page asks."""

    def __init__(self, browser, address, answers, classes):
        self.answers, self.classes = answers, classes
        self.given = {}
        super().__init__(browser, SimpleNamespace(address=address))  # type: ignore[arg-type]

    def answer_all(self):
        """Take batches until the page shows that nothing is left."""
        title = ""
        while "Nothing is left" not in title:
            self.press("Alt+t")
            self.answer_batch()
            title = self.page.locator("#vouch-sheet h1").inner_text()

    def answer_batch(self):
        while item := self.next_item():
            verdict, name = self.answers[item]
            self.given[item] = verdict
            if verdict != "wrong_class":
                self.press(KEYS[verdict])
            elif (place := self.classes.index(name)) < 9:
                self.press(f"Alt+{place + 1}")
            else:
                self.page.locator("[data-cy=root_label_container] input").click()
                self.page.get_by_role("option", name=name, exact=True).click()
                self.press("Alt+Enter")

    def next_item(self):
        """Wait for an item that is not answered yet, ready to be; '' where the sheet shows that the batch is done."""
        self.page.wait_for_function(
            """given => {
                if (document.querySelector('#vouch-sheet')) return true;
                const item = document.documentElement?.dataset.vouchReady;
                return item && !given.includes(item) && document.querySelector('[data-cy=annotate-edit-back]');
            }""",
            arg=list(self.given),
        )
        return "" if self.page.locator("#vouch-sheet").count() else self.item()


def review(browser, campaign, answers, minutes):
    """Serve what is to be asked next, have it answered, end the review; returns what the person answered."""
    classes = [one.name for one in load_campaign(campaign).classes]
    with running(campaign, "--reviewer", "ann", "--minutes", str(minutes)) as served:
        person = Person(browser, served.line()["url"], answers, classes)
        person.answer_all()
        person.close()
        code, output = served.end()
    assert code == 0, output
    assert person.complaints == []
    pulled = json.loads(next(line for line in output.splitlines() if line.startswith("{")))
    assert (pulled["verdicts"], pulled["late"]) == (len(person.given), 0)
    return person.given


def test_from_images_to_a_certified_data_set(browser, campaign):
    ran = vouch("run", campaign)
    assert (ran["done"], ran["failed"]) == (48, 0)
    answers = right_answers(campaign)

    to_fit = review(browser, campaign, answers, TO_FIT)
    to_certify = review(browser, campaign, answers, TO_CERTIFY)
    assert not to_fit.keys() & to_certify.keys()
    given = to_fit | to_certify
    assert len(given) > 90
    assert vouch("review", campaign, "--status")["unpulled"] == 0
    rows = read_verdicts(open_store(load_campaign(campaign).workspace)).to_pylist()
    assert {row["label_id"]: (row["verdict"], row["class_name"]) for row in rows} == {
        label: (verdict, answers[label][1] if verdict == "wrong_class" else None) for label, verdict in given.items()
    }
    assert len(rows) == len(given)

    certified = vouch("certify", campaign)
    assert certified["version"].startswith("certified-")
    assert certified["precision"] == PRECISION
    assert certified["simulated"] is False
    applied = vouch("apply", campaign)
    assert applied["policy"] == certified["version"]
    assert applied["accepted"] > 0
    check_export(Path(vouch("export", campaign)["annotations_file"]), given)


def check_export(file, given):
    """The data set loads, and marks what people answered and what the policy accepted."""
    found = COCO(file)
    assert len(found.getImgIds()) == 48
    labels = {one["label_id"]: one for one in found.anns.values()}
    assert not any(label in labels for label, verdict in given.items() if verdict == "not_an_object")
    correct = {label for label, verdict in given.items() if verdict == "correct"}
    assert {labels[one]["provenance"] for one in correct} == {"human"}
    unseen = [one for label, one in labels.items() if label not in given and one["decision"] == "accept"]
    assert unseen
    assert {one["provenance"] for one in unseen} == {"auto"}
    assert all(found.annToMask(one).any() for one in unseen)
