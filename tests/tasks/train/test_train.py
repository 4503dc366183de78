import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import TASKS, VERDICTS, ReviewPlan
from vouch_labels.schemas.training import TrainSummary
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.labels.records import ExportImage
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.events import Event, Training
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.train.labels import read_training_set
from vouch_labels.tasks.train.train import train_campaign

ACCEPT = {"accept": {"detector_score": 0.5}}


@pytest.fixture
def campaign(tmp_path: Path) -> Campaign:
    """Eight labelled images of a fake detector; half of the scores or so are accepted."""
    draw_images(tmp_path, 8)
    made = write_campaign(tmp_path, routing=ACCEPT)
    label(made)
    return made


def images_of(campaign: Campaign) -> dict[str, ExportImage]:
    workspace = open_store(campaign.workspace)
    current = current_of(workspace, "main")
    with Ledger.load(workspace, "main") as ledger:
        return {image.key: image for image in labelled_images(workspace, "main", ledger, current.fingerprint)}


def answer(campaign: Campaign, *rows: dict[str, Any]) -> None:
    full = [dict.fromkeys(VERDICTS.names) | {"reviewer": "ann", "simulated": False} | row for row in rows]
    write_verdicts(open_store(campaign.workspace), pa.Table.from_pylist(full, schema=VERDICTS))


def search(campaign: Campaign, *keys: str, **changes: Any) -> None:
    """Decide every label of some images, and say that there is nothing else."""
    images = images_of(campaign)
    labels = [one.label_id for key in keys for one in images[key].labels]
    answer(
        campaign,
        *({"label_id": one, "verdict": "correct"} | changes for one in labels),
        *({"key": key, "verdict": "checked"} | changes for key in keys),
    )


def certify(campaign: Campaign, key: str) -> None:
    """Draw a label of an image for a certification sample."""
    one = images_of(campaign)[key].labels[0]
    row = {"place": 0, "purpose": "certify", "label_id": one.label_id, "key": key, "class_name": one.class_name}
    row |= {"seconds": 1.6, "inclusion": 1.0} | dict(zip(("x0", "y0", "x1", "y1"), one.xyxy, strict=True))
    plan = ReviewPlan(
        number=1, run="main", created="2026-03-01T00:00:00+00:00", inputs={}, precision=0.9, confidence=0.9,
        gate="accepted", seed=0, counts={}, seconds=0, tasks_sha256="",
    )  # fmt: skip
    write_plan(open_store(campaign.workspace), "main", plan, pa.Table.from_pylist([row], schema=TASKS))


def test_labels_are_those_of_the_export(campaign: Campaign) -> None:
    before = read_training_set(campaign)
    images = images_of(campaign)
    accepted = {key: [one for one in image.labels if one.decision == "accept"] for key, image in images.items()}
    assert list(before.classes) == ["cat", "dog"]
    assert before.classes["dog"] == ("dog", "puppy")
    assert {one.key for one in before.images} == {key for key, labels in accepted.items() if labels}
    assert before.unlabelled == len(images) - len(before.images)
    assert not before.held_out
    for one in before.images:
        assert len(one.boxes) == len(accepted[one.key])
        assert len(one.ignored) == len(images[one.key].labels) - len(one.boxes)
        assert [list(before.classes)[place] for place in one.classes] == [
            label.class_name for label in accepted[one.key]
        ]
    first = next(one for one in before.images if len(one.ignored))
    undecided = next(label for label in images[first.key].labels if label.decision == "review")
    answer(campaign, {"label_id": undecided.label_id, "verdict": "not_an_object"})
    after = read_training_set(campaign)
    same = next(one for one in after.images if one.key == first.key)
    assert len(same.ignored) == len(first.ignored) - 1
    assert after.version != before.version


def test_searched_images_are_held_out_but_not_those_of_a_certification(campaign: Campaign) -> None:
    keys = [key for key, image in images_of(campaign).items() if image.labels][:3]
    search(campaign, *keys)
    certify(campaign, keys[0])
    found = read_training_set(campaign)
    assert [one.key for one in found.held_out] == keys[1:]
    assert keys[0] in {one.key for one in found.images}
    assert not {one.key for one in found.images} & set(keys[1:])
    assert not found.simulated


def test_trained_tested_and_used_in_the_next_round(campaign: Campaign, settings: Any, tmp_path: Path) -> None:
    keys = [key for key, image in images_of(campaign).items() if image.labels][:2]
    search(campaign, *keys, simulated=True)
    (tmp_path / "images" / "007.png").write_bytes(b"no image any more")
    events: list[Event] = []
    folder = tmp_path / "models" / "main"
    summary = train_campaign(campaign, settings(steps=3, batch=2), folder, events.append)
    assert [one.done for one in events if isinstance(one, Training)] == [1, 2, 3]
    assert summary.held_out is not None
    assert summary.held_out.images == 2
    assert summary.held_out.objects == sum(len(images_of(campaign)[key].labels) for key in keys)
    assert summary.held_out.simulated
    assert 0 <= summary.held_out.ap <= 1
    assert "SIMULATED" in " ".join(block for block in summary.blocks() if isinstance(block, str))
    assert TrainSummary.model_validate_json((folder / "training.json").read_text()) == summary
    assert f"{summary.held_out.ap}" in (folder / "README.md").read_text()
    assert sorted(path.name for path in folder.iterdir()) == [
        "README.md", "config.json", "model.safetensors", "preprocessor_config.json", "training.json",
    ]  # fmt: skip
    events.clear()
    assert train_campaign(campaign, settings(steps=3, batch=2), folder, events.append) == summary
    assert not any(isinstance(one, Training) for one in events)
    models = {"device": "cpu", "segmenter": {"backend": "fake"}, "scorer": {"backend": "fake"}}
    models["detector"] = {"backend": "trained", "checkpoint": str(folder), "min_score": 0.0}
    again = write_campaign(tmp_path, models=models, run={"name": "round-2"}, export={"name": "round-2"})
    label(again)
    workspace = open_store(again.workspace)
    with Ledger.load(workspace, "round-2") as ledger:
        current = current_of(workspace, "round-2")
        found = list(labelled_images(workspace, "round-2", ledger, current.fingerprint))
    assert len(found) == 7
    assert sum(len(image.labels) for image in found) > 0
    with CampaignRun(again) as session:
        assert session.idle  # the files say that nothing has changed, no model is loaded
    with pytest.raises(UserError, match=r"--out: .* holds a model of other labels or settings"):
        train_campaign(campaign, settings(steps=4, batch=2), folder)
    (folder / "training.json").write_text("{}")
    with pytest.raises(UserError, match="holds a model that vouch train did not write"):
        train_campaign(campaign, settings(steps=3, batch=2), folder)


def test_no_figure_without_a_searched_image(campaign: Campaign, settings: Any, tmp_path: Path) -> None:
    summary = train_campaign(campaign, settings(steps=1, batch=2), tmp_path / "model")
    assert summary.held_out is None
    assert summary.blocks()
    assert "no figure of its quality" in " ".join(block for block in summary.blocks() if isinstance(block, str))
    assert json.loads((tmp_path / "model" / "training.json").read_text())["held_out"] is None


def test_nothing_to_train_on(tmp_path: Path, settings: Any) -> None:
    draw_images(tmp_path, 3)
    campaign = write_campaign(tmp_path, routing={})
    with pytest.raises(UserError, match="has no labels yet; use `vouch run` first"):
        train_campaign(campaign, settings(), tmp_path / "model")
    label(campaign)
    with pytest.raises(UserError, match=r"run 'main' has no label to train on: none is accepted or verified, \d+ wait"):
        train_campaign(campaign, settings(), tmp_path / "model")
    assert not (tmp_path / "model").exists()
