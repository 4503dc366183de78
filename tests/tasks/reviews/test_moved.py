"""Reviews follow images that move: by content, however they move, and never twice."""

import shutil
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.tasks.export.export import reviewed_images
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.moved import MOVED, with_moved_tasks, with_moved_verdicts
from vouch_labels.tasks.reviews.open_tasks import campaign_figures
from vouch_labels.tasks.reviews.plans import read_plans, write_plan
from vouch_labels.tasks.reviews.resolve import missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.store.open import open_store

NOW = datetime(2026, 3, 5, tzinfo=UTC)


def move(folder, key, target):
    """As other tools do: the time of change is new."""
    (folder / target).parent.mkdir(exist_ok=True)
    shutil.copyfile(folder / key, folder / target)
    (folder / key).unlink()


def labels_of(campaign):
    """Key -> ids of its labels, in order."""
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        labels = read_run_labels(workspace, "main", ledger, current_of(workspace, "main"))
    found = {key: [] for key in labels.keys.to_pylist()}
    for label_id, image in zip(labels.label_ids.to_pylist(), labels.image_index, strict=True):
        found[labels.keys[image].as_py()].append(label_id)
    return found


def reviewed(campaign):
    """Key -> what people made of its labels."""
    workspace = open_store(campaign.workspace)
    with Ledger.load(workspace, "main") as ledger:
        images = list(reviewed_images(workspace, "main", ledger, current_of(workspace, "main")))
    return {image.key: [label.reviewed for label in image.labels] for image in images}


def plan_of(tasks):
    about = {"run": "main", "created": "2026-03-04T00:00:00+00:00", "inputs": {}, "precision": 0.9, "confidence": 0.9,
             "gate": "accepted", "seed": 0, "fit_share": 0, "number": 1, "counts": {}, "seconds": 0,
             "tasks_sha256": ""}  # fmt: skip
    filled = [
        dict.fromkeys(TASKS.names) | {"place": place, "purpose": "certify", "seconds": 1.6, **task}
        for place, task in enumerate(tasks)
    ]
    return ReviewPlan.model_validate(about), pa.Table.from_pylist(filled, schema=TASKS)


@pytest.fixture
def campaign(tmp_path, make_images, make_campaign, label, verdicts):
    """Six images; all labels of 000.png are answered, and the image is checked; a plan asks about both."""
    make_images(tmp_path / "images", 6)
    found = make_campaign()
    label(found)
    workspace, ids = open_store(found.workspace), labels_of(found)["000.png"]
    answers = [{"label_id": name, "key": None, "verdict": "not_an_object", "seconds": 2.0} for name in ids]
    about_image = {"key": "000.png", "verdict": "checked", "seconds": 3.0}
    drawn = {"key": "000.png", "verdict": "missed", "class_name": "dog", "box": (1, 1, 9, 9)}
    write_verdicts(workspace, verdicts(*answers, about_image, drawn))
    write_plan(workspace, "main", *plan_of([{"label_id": ids[0], "key": "000.png"}, {"key": "000.png"}]))
    return found


def test_answers_tasks_and_drawn_boxes_follow_a_moved_image(tmp_path, campaign, label):
    before, time = reviewed(campaign)["000.png"], campaign_figures(campaign).seconds
    assert set(before) == {"rejected", "added"}
    move(tmp_path / "images", "000.png", "done/a.png")
    summary, _ = label(campaign)
    assert summary.moved_images == 1
    assert reviewed(campaign)["done/a.png"] == before
    workspace, ids = open_store(campaign.workspace), labels_of(campaign)["done/a.png"]
    answers = resolve(read_verdicts(workspace))
    assert (answers.places(ids) >= 0).all()
    ((_, tasks),) = read_plans(workspace, "main")
    assert tasks["label_id"].to_pylist() == [ids[0], None]
    assert tasks["key"].to_pylist() == ["done/a.png"] * 2
    figures = campaign_figures(campaign)
    assert figures.labels == len(ids)
    assert figures.seconds == time, "counted once"


def test_reviews_follow_an_image_that_moves_twice_and_back(tmp_path, campaign, label):
    before, ids = reviewed(campaign)["000.png"], labels_of(campaign)["000.png"]
    for old, new in (("000.png", "b.png"), ("b.png", "c.png"), ("c.png", "000.png")):
        move(tmp_path / "images", old, new)
        label(campaign)
        assert reviewed(campaign)[new] == before
    assert labels_of(campaign)["000.png"] == ids
    ((_, tasks),) = read_plans(open_store(campaign.workspace), "main")
    assert set(tasks["key"].to_pylist()) == {"000.png"}


def test_a_move_is_noted_once_and_by_a_later_run_where_shards_are_left(tmp_path, campaign, label, monkeypatch):
    move(tmp_path / "images", "000.png", "b.png")
    with monkeypatch.context() as patch:
        patch.setattr("vouch_labels.tasks.run.note_moves", lambda *rest: 0)
        assert label(campaign)[0].moved_images == 0
    assert set(reviewed(campaign)["b.png"]) == {""}
    assert label(campaign)[0].moved_images == 1
    assert set(reviewed(campaign)["b.png"]) == {"rejected", "added"}
    assert label(campaign)[0].moved_images == 0


def test_a_copy_has_no_reviews_until_the_original_goes(tmp_path, campaign, label):
    before = reviewed(campaign)["000.png"]
    shutil.copyfile(tmp_path / "images" / "000.png", tmp_path / "images" / "copy.png")
    label(campaign)
    assert set(reviewed(campaign)["copy.png"]) == {""}
    (tmp_path / "images" / "000.png").unlink()
    label(campaign)
    assert reviewed(campaign)["copy.png"] == before


def test_each_of_two_equal_images_keeps_its_own_reviews(tmp_path, campaign, label):
    folder = tmp_path / "images"
    shutil.copyfile(folder / "000.png", folder / "twin.png")
    label(campaign)
    move(folder, "000.png", "x.png")
    move(folder, "twin.png", "y.png")
    assert label(campaign)[0].moved_images == 2
    states = reviewed(campaign)
    assert {tuple(sorted(set(states[key]))) for key in ("x.png", "y.png")} == {("added", "rejected"), ("",)}


def test_an_image_that_is_only_deleted_takes_nothing_along(tmp_path, campaign, label):
    (tmp_path / "images" / "000.png").unlink()
    assert label(campaign)[0].moved_images == 0
    assert {state for states in reviewed(campaign).values() for state in states} == {""}


def test_moves_follow_new_settings(tmp_path, campaign, make_campaign, label):
    """What was reviewed under other classes moves as well: its labels have the ids of their boxes."""
    before = reviewed(campaign)["000.png"]
    move(tmp_path / "images", "000.png", "b.png")
    added = make_campaign(
        classes=["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
        routing={"accept": {"detector_score": 0.1}},
    )
    label(added)
    assert reviewed(added)["b.png"] == before


def test_damaged_records_are_one_line(tmp_path, campaign, label):
    move(tmp_path / "images", "000.png", "b.png")
    label(campaign)
    (tmp_path / "workspace/reviews/moved/main/000002.parquet").write_bytes(b"damaged")
    with pytest.raises(StoreError, match="is damaged; restore it"):
        read_verdicts(open_store(campaign.workspace))


def moved(**changes):
    row = {"label_id": "a", "key": "k", "new_label_id": "b", "new_key": "n", "plans": 2, "moved_at": NOW}
    rows = [row | changes, row | {"label_id": None, "new_label_id": None} | changes]
    return pa.Table.from_pylist(rows, schema=MOVED)


def test_what_is_said_of_an_old_key_after_the_move_stays_there(verdicts):
    late = (NOW - datetime(2026, 3, 4, tzinfo=UTC) + timedelta(minutes=1)).total_seconds() / 60
    rows = verdicts({"key": "k", "verdict": "checked", "at": late}, {"key": "other", "verdict": "checked"})
    assert with_moved_verdicts(rows, [moved()]).equals(rows)
    early = with_moved_verdicts(verdicts({"key": "k", "verdict": "checked"}), [moved()])
    assert set(missed_and_checked(early).checked["key"].to_pylist()) == {"k", "n"}


def test_labels_follow_at_any_time_and_keep_what_was_said(verdicts):
    late = (NOW - datetime(2026, 3, 4, tzinfo=UTC) + timedelta(minutes=1)).total_seconds() / 60
    said = {"verdict": "wrong_class", "class_name": "dog", "seconds": 4.0, "at": late}
    rows = with_moved_verdicts(verdicts({"label_id": "a", "key": "k", **said}, {"label_id": "z"}), [moved()])
    assert rows.num_rows == 3
    copy = rows.to_pylist()[-1]
    assert (copy["label_id"], copy["key"], copy["class_name"], copy["seconds"]) == ("b", "n", "dog", None)


def test_later_plans_mean_the_keys_of_their_time():
    _, tasks = plan_of([{"label_id": "a", "key": "k"}, {"label_id": "honeypot", "key": "k"}, {"key": "k"}])
    assert with_moved_tasks(tasks, 3, [moved()]).equals(tasks)
    then = with_moved_tasks(tasks, 2, [moved()])
    assert then["label_id"].to_pylist() == ["b", "honeypot", None]
    assert then["key"].to_pylist() == ["n"] * 3
    assert then.schema == TASKS
