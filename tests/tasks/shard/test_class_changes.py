"""Classes that are renamed, merged, added or removed: what is labelled again, and what a fresh run would give."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from PIL import Image, ImageOps

from tests.fake_campaign import draw_images
from vouch_labels.schemas.campaign_file import load_campaign
from vouch_labels.schemas.errors import CampaignError, UserError
from vouch_labels.schemas.records import Marker
from vouch_labels.schemas.reviews import VERDICTS
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.scan import scan
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.resolve import missed_and_checked
from vouch_labels.tasks.reviews.verdicts import present_verdicts, read_verdicts, write_verdicts
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.shard.files import read_current, read_part
from vouch_labels.tasks.status import read_status
from vouch_labels.tasks.store.open import open_store

DOG = {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}
HOUND = DOG | {"name": "hound", "was": "dog"}
RUN = {"shard_size": 100, "retry_delay_s": 0}
ROUTING = {"accept": {"clip_probability": 0.2}}


@pytest.fixture
def asked(monkeypatch):
    """What the detector was asked for, a list of texts for each image; and how many images the others saw."""
    seen = {"detect": [], "segment": 0, "score": 0}
    look, segment, score = Detect.look, Segment.__call__, Score.__call__

    def looked(self, images, ask):
        seen["detect"] += [[phrase.text for phrase in ask.phrases]] * len(images)
        return look(self, images, ask)

    def segmented(self, images, boxes):
        seen["segment"] += len(images)
        return segment(self, images, boxes)

    def scored(self, images, boxes, classes):
        seen["score"] += len(images)
        return score(self, images, boxes, classes)

    monkeypatch.setattr(Detect, "look", looked)
    monkeypatch.setattr(Segment, "__call__", segmented)
    monkeypatch.setattr(Score, "__call__", scored)
    return seen


@pytest.fixture
def again(tmp_path, make_campaign, label, asked):
    """Labels drawn images by some classes; returns campaign and summary, and forgets what was asked before."""
    draw_images(tmp_path, 6)

    def run(classes, workspace="workspace", **sections):
        campaign = make_campaign(
            classes=classes,
            workspace=str(tmp_path / workspace),
            **({"routing": ROUTING, "run": RUN} | sections),
        )
        asked["detect"].clear()
        asked["segment"] = asked["score"] = 0
        summary, _ = label(campaign, accept_changes=True)
        return campaign, summary

    return run


def annotations(campaign) -> dict:
    return json.loads(open_store(campaign.workspace).get("exports/coco/annotations.json").data)


def content(campaign) -> dict:
    """The data set, but for times and places."""
    found = annotations(campaign)
    return {name: found[name] for name in ("images", "annotations", "categories")}


def parts(campaign) -> dict[str, str]:
    """Stage -> hash of its table, of the only shard under the settings last used."""
    workspace = open_store(campaign.workspace)
    fingerprint = read_current(workspace, "main").fingerprint
    (marker,) = [info.key for info in workspace.list("runs/main/done/") if info.key.endswith(f"{fingerprint}.json")]
    found = json.loads(workspace.get(marker).data)["parts"]
    return {stage: part["sha256"] for stage, part in found.items()}


def label_ids(campaign, class_name: str) -> list[str]:
    workspace = open_store(campaign.workspace)
    current = read_current(workspace, "main")
    with Ledger.load(workspace, "main") as ledger:
        table = pa.concat_tables(scan(workspace, "main", ledger, current.fingerprint, ["label_id", "class_name"]))
    rows = zip(table["label_id"].to_pylist(), table["class_name"].to_pylist(), strict=True)
    return [label_id for label_id, name in rows if name == class_name]


def say(campaign, ids, verdict="correct", class_name=None, key=None) -> None:
    rows = {name: [None] * len(ids) for name in VERDICTS.names}
    rows |= {"label_id": ids, "verdict": [verdict] * len(ids), "reviewer": ["ann"] * len(ids)}
    rows |= {"simulated": [False] * len(ids), "seconds": [2.0] * len(ids), "class_name": [class_name] * len(ids)}
    write_verdicts(open_store(campaign.workspace), pa.table(rows, VERDICTS))


def look_through(campaign, key, at) -> None:
    row = dict.fromkeys(VERDICTS.names) | {"key": key, "verdict": "checked", "reviewer": "ann", "simulated": False}
    write_verdicts(open_store(campaign.workspace), pa.Table.from_pylist([row | {"reviewed_at": at}], VERDICTS))


def kept(campaign, name: str) -> int:
    found = annotations(campaign)
    number = next(one["id"] for one in found["categories"] if one["name"] == name)
    return sum(one["category_id"] == number and one.get("verdict") == "correct" for one in found["annotations"])


def test_a_renamed_class_keeps_labels_and_reviews_and_no_model_runs(again, asked):
    campaign, before = again(["cat", DOG])
    dogs = label_ids(campaign, "dog")
    say(campaign, dogs[:5])
    _, reviewed = again(["cat", DOG])
    tables = parts(campaign)
    renamed, after = again(["cat", HOUND])
    assert asked == {"detect": [], "segment": 0, "score": 0}
    assert after.classes == {"cat": before.classes["cat"], "hound": before.classes["dog"]}
    assert list(read_status(renamed).classes) == ["cat", "hound"]
    assert parts(renamed) == tables
    assert [one["name"] for one in annotations(renamed)["categories"]] == ["cat", "hound"]
    assert kept(renamed, "hound") == 5
    assert after.answers_without_label == {}
    assert reviewed.policy == after.policy


def test_a_rename_equals_a_fresh_run_of_the_same_file(again):
    again(["cat", DOG])
    renamed, _ = again(["cat", HOUND])
    fresh, _ = again(["cat", HOUND], "fresh")
    assert content(renamed) == content(fresh)
    assert parts(renamed) == parts(fresh)


def test_without_prompts_a_renamed_class_is_asked_for_as_before(again, asked):
    again(["cat", "dog"])
    again(["cat", {"name": "hound", "was": "dog"}])
    assert asked["detect"] == []


def test_two_classes_may_swap_their_names(again, asked):
    campaign, before = again(["cat", "dog"])
    say(campaign, label_ids(campaign, "dog")[:3])
    swapped, after = again([{"name": "dog", "was": "cat"}, {"name": "cat", "was": "dog"}])
    assert asked["detect"] == []
    assert after.classes == {"dog": before.classes["cat"], "cat": before.classes["dog"]}
    assert (kept(swapped, "cat"), kept(swapped, "dog")) == (3, 0)


def test_images_that_come_later_carry_the_former_name_too(again, asked, tmp_path):
    again(["cat", DOG])
    again(["cat", HOUND])
    with Image.open(tmp_path / "images" / "000.png") as image:
        ImageOps.mirror(image).save(tmp_path / "images" / "zzz.png")
    renamed, summary = again(["cat", HOUND])
    assert len(asked["detect"]) == 1
    assert label_ids(renamed, "hound") == []
    assert summary.classes["hound"].review + summary.classes["hound"].accepted == len(label_ids(renamed, "dog"))


def test_merged_classes_keep_labels_and_reviews(again, asked):
    campaign, _ = again(["cat", "dog", "bird"])
    dogs, cats, birds = (label_ids(campaign, name) for name in ("dog", "cat", "bird"))
    say(campaign, dogs[:4])
    say(campaign, cats[:1], "wrong_class", "dog")
    say(campaign, cats[1:2], "wrong_class", "bird")
    say(campaign, cats[2:3], "wrong_class")
    say(campaign, cats[3:4], "not_an_object")
    say(campaign, birds[:1], "wrong_class", "cat")
    merged, summary = again([{"name": "pet", "was": ["cat", "dog"]}, "bird"])
    # The texts are the same, in the same order, and so are all boxes and masks.
    assert (asked["detect"], asked["segment"]) == ([], 0)
    assert summary.answers_carried == {"pet": 7}
    assert kept(merged, "pet") == 5
    found = annotations(merged)
    pet = next(one["id"] for one in found["categories"] if one["name"] == "pet")
    corrected = [one for one in found["annotations"] if one.get("verdict") == "wrong_class"]
    assert sorted(one["category_id"] == pet for one in corrected) == [False, True]
    fresh, _ = again([{"name": "pet", "was": ["cat", "dog"]}, "bird"], "fresh")
    assert parts(merged) == parts(fresh)
    verdicts = read_verdicts(open_store(merged.workspace)).num_rows
    _, once_more = again([{"name": "pet", "was": ["cat", "dog"]}, "bird"])
    assert once_more.answers_carried == {}
    assert read_verdicts(open_store(merged.workspace)).num_rows == verdicts


def test_a_class_taken_in_by_another_that_stays(again):
    campaign, _ = again(["cat", "dog"])
    dogs, cats = label_ids(campaign, "dog"), label_ids(campaign, "cat")
    say(campaign, [*dogs[:2], *cats[:3]])
    merged, summary = again([{"name": "cat", "was": ["cat", "dog"]}])
    assert summary.answers_carried == {"cat": 2}
    assert kept(merged, "cat") == 5


def test_a_class_that_comes_in_a_caption_of_its_own_alone_is_looked_for(again, asked):
    again(["cat", "dog"])
    added = ["cat", "dog", {"name": "bird", "caption": 1}]
    campaign, summary = again(added)
    assert asked["detect"] == [["bird"]] * 6
    assert asked["segment"] < 6 or summary.classes["bird"].review
    fresh, _ = again(added, "fresh")
    assert asked["detect"] == [["cat", "dog"]] * 6 + [["bird"]] * 6
    assert parts(campaign) == parts(fresh)
    assert content(campaign) == content(fresh)


def test_a_class_that_comes_into_the_caption_of_others_has_all_looked_at_again(again, asked):
    again(["cat", "dog"])
    campaign, _ = again(["cat", "dog", "bird"])
    assert asked["detect"] == [["cat", "dog", "bird"]] * 6
    fresh, _ = again(["cat", "dog", "bird"], "fresh")
    assert parts(campaign) == parts(fresh)


def test_a_removed_class_leaves_and_its_answers_are_told(again):
    campaign, _ = again(["cat", DOG])
    say(campaign, label_ids(campaign, "dog")[:5])
    less, summary = again(["cat"])
    assert summary.answers_without_label == {"": 5}
    text = "\n".join(str(block) for block in summary.blocks())
    assert "5 answers no longer fit any label; the workspace keeps them" in text
    assert list(summary.classes) == ["cat"]
    assert [one["name"] for one in annotations(less)["categories"]] == ["cat"]
    assert read_verdicts(open_store(less.workspace)).num_rows == 5
    assert read_status(less).answers_without_label == {"": 5}
    back, summary = again(["cat", DOG])
    assert summary.answers_without_label == {}
    assert kept(back, "dog") == 5


def test_a_caption_of_others_is_kept_when_a_class_goes(again, asked):
    again(["cat", "dog", {"name": "bird", "caption": 1}])
    campaign, _ = again(["cat", "dog"])
    assert asked["detect"] == []
    assert asked["segment"] == 0
    fresh, _ = again(["cat", "dog"], "fresh")
    assert parts(campaign) == parts(fresh)


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (["cat", {"name": "wolfhound", "was": "hound"}], "write was: dog"),
        (["cat", DOG | {"name": "hound"}], "keep was: dog"),
        (["cat", {"name": "hound", "was": "dgo"}], "was: dgo names no class of the run, whose 'dog' is gone"),
        ([{"name": "cat", "was": "dog"}], r"write was: \[cat, dog\]"),
    ],
)
def test_names_by_which_labels_would_be_lost_are_refused(again, asked, classes, words):
    again(["cat", DOG])
    again(["cat", HOUND])
    with pytest.raises(UserError, match=words):
        again(classes)
    assert asked["detect"] == []


@pytest.mark.parametrize(
    "classes",
    [["dog", {"name": "hound", "was": "dog"}], [{"name": "a", "was": "dog"}, {"name": "b", "was": ["dog", "cat"]}]],
)
def test_a_former_name_belongs_to_one_class(tmp_path: Path, classes):
    path = tmp_path / "campaign.yaml"
    path.write_text(json.dumps({"source": "a", "workspace": "b", "classes": classes}))
    with pytest.raises(CampaignError, match="'dog' is, or was, several classes"):
        load_campaign(path)


def test_what_the_detector_found_is_read_back_as_it_was(again):
    campaign, _ = again(["cat", DOG])
    workspace = open_store(campaign.workspace)
    (key,) = [info.key for info in workspace.list("runs/main/done/")]
    marker = Marker.model_validate_json(workspace.get(key).data)
    (part,) = marker.found.values()
    table = read_part(workspace, part, "found")
    assert table.num_rows == part.rows >= marker.counts.labels
    assert {len(scores) for scores in table["scores"].to_pylist()} == {4}


def test_that_every_class_was_looked_for_says_nothing_of_one_that_came_later(again):
    campaign, _ = again(["cat", "dog"])
    keys = ["000.png", "001.png"]
    for key in keys:
        look_through(campaign, key, datetime(2026, 1, 1, tzinfo=UTC))
    assert current_of(open_store(campaign.workspace), "main").added == {}
    added, _ = again(["cat", "dog", "bird"])
    current = current_of(open_store(added.workspace), "main")
    assert list(current.added) == ["bird"]
    look_through(added, keys[1], current.added["bird"] + timedelta(seconds=1))
    checked = missed_and_checked(present_verdicts(open_store(added.workspace), current)).checked
    pairs = set(zip(checked["key"].to_pylist(), checked["class_name"].to_pylist(), strict=True))
    assert pairs == {(keys[0], "cat"), (keys[0], "dog"), (keys[1], "cat"), (keys[1], "dog"), (keys[1], None)}
    again(["cat", "dog", "bird"])
    assert current_of(open_store(added.workspace), "main").added == current.added
    merged, _ = again([{"name": "pet", "was": ["cat", "dog"]}, "bird"])
    assert list(current_of(open_store(merged.workspace), "main").added) == ["bird"]
