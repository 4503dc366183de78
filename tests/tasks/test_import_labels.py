"""Labels that exist are taken as they are, are masked, scored and routed, and are added to."""

import json

import pytest

from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.import_labels import LEFT_OUT, import_labels
from vouch_labels.tasks.imported import imported_of, remove_imported
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.open import open_store

CATEGORIES = [{"id": 3, "name": "Cat"}, {"id": 7, "name": "dog"}]


def annotation(number, image, category, box, **more):
    return {"id": number, "image_id": image, "category_id": category, "bbox": box, **more}


@pytest.fixture
def labels_file(tmp_path):
    """Write a COCO file of these annotations, over images 000.png and 001.png in a folder that the source lacks."""

    def write(annotations, categories=CATEGORIES, images=("data/000.png", "data/001.png")):
        path = tmp_path / "labels.json"
        listed = [{"id": number, "file_name": name} for number, name in enumerate(images)]
        path.write_text(json.dumps({"images": listed, "categories": categories, "annotations": annotations}))
        return path

    return write


@pytest.fixture
def labelled(label):
    """Run a campaign: key -> its labels as (prompt, class, box, score)."""

    def run(campaign):
        label(campaign)
        workspace, name = open_store(campaign.workspace), campaign.run.name
        fingerprint = read_current(workspace, name).fingerprint
        from vouch_labels.tasks.labels.scan import scan

        with Ledger.load(workspace, name) as ledger:
            columns = ["key", "prompt", "class_name", "detector_score", "x0", "y0", "x1", "y1", "mask_area"]
            found = {}
            for table in scan(workspace, name, ledger, fingerprint, columns):
                for row, box in zip(table.to_pylist(), boxes_of(table).tolist(), strict=True):
                    assert row["mask_area"] >= 0
                    found.setdefault(row["key"], {})[row["prompt"]] = (row["class_name"], box, row["detector_score"])
        return found

    return run


def test_labels_of_a_file_are_taken_beside_what_the_detector_finds(
    tmp_path, make_images, make_campaign, labels_file, labelled
):
    make_images(tmp_path / "images", 3)
    campaign = make_campaign()
    before = labelled(campaign)
    file = labels_file([
        annotation(1, 0, 3, [2, 3, 5, 6]),
        annotation(2, 0, 7, [1, 1, 4, 4], score=0.25),
        annotation(5, 0, 7, [1, 1, 40, 40], iscrowd=1),
        annotation(6, 1, 7, [1, 1, 0, 4]),
    ])  # fmt: skip
    taken = import_labels(campaign, file)
    assert (taken.images, taken.labels) == (2, 2)
    assert taken.left_out == {"crowd regions": 1, "boxes without an extent": 1}
    found = labelled(campaign)
    assert found["000.png"]["annotation 1"][:2] == ("cat", [2, 3, 7, 9])
    assert found["000.png"]["annotation 2"] == ("dog", [1, 1, 5, 5], 0.25)
    assert found["001.png"] == before["001.png"]
    assert found["002.png"] == before["002.png"]
    assert len(found["000.png"]) > 2
    # Gone again, all is as it was.
    remove_imported(open_store(campaign.workspace), campaign.run.name)
    assert labelled(campaign) == before


def test_without_a_detector_there_are_no_other_labels(tmp_path, make_images, make_campaign, labels_file, labelled):
    make_images(tmp_path / "images", 2)
    models = make_campaign().models.model_dump(exclude_unset=True)
    campaign = make_campaign(models=models | {"detector": {"backend": "none"}})
    import_labels(campaign, labels_file([annotation("a", 1, 3, [2, 3, 5, 6], score=0.5)]))
    assert labelled(campaign) == {"001.png": {"annotations[0]": ("cat", [2, 3, 7, 9], 0.5)}}


def test_equal_images_have_labels_of_their_own(tmp_path, make_images, make_campaign, labels_file, labelled):
    make_images(tmp_path / "images", 1)
    (tmp_path / "images/001.png").write_bytes((tmp_path / "images/000.png").read_bytes())
    campaign = make_campaign()
    import_labels(campaign, labels_file([annotation(9, 1, 7, [2, 3, 5, 6])]))
    found = labelled(campaign)
    assert "annotation 9" in found["001.png"]
    assert "annotation 9" not in found["000.png"]


def test_a_second_import_takes_the_place_of_the_first_and_nothing_new_is_looked_at_twice(
    tmp_path, make_images, make_campaign, labels_file, label
):
    make_images(tmp_path / "images", 2)
    campaign = make_campaign()
    workspace = open_store(campaign.workspace)
    first = import_labels(campaign, labels_file([annotation(1, 0, 3, [2, 3, 5, 6])]))
    label(campaign)
    assert import_labels(campaign, labels_file([annotation(1, 0, 3, [2, 3, 5, 6])])) == first
    with CampaignRun(campaign) as run:
        assert run.idle
    second = import_labels(campaign, labels_file([annotation(1, 0, 7, [2, 3, 5, 6])]))
    assert second.table != first.table
    assert imported_of(workspace, campaign.run.name) == second
    with CampaignRun(campaign) as run:
        assert not run.idle
    label(campaign)
    with Ledger.load(workspace, "main") as ledger:
        images = {
            image.key: image
            for image in labelled_images(workspace, "main", ledger, read_current(workspace, "main").fingerprint)
        }
    assert [label.class_name for label in images["000.png"].labels if label.xyxy == (2, 3, 7, 9)] == ["dog"]


def test_categories_that_fit_no_class_are_asked_about_once(tmp_path, make_images, make_campaign, labels_file):
    make_images(tmp_path / "images", 2)
    campaign = make_campaign()
    categories = [{"id": 1, "name": "kitty"}, {"id": 2, "name": "doge"}, {"id": 3, "name": "kite"}]
    annotations = [annotation(number, 0, number, [2, 3, 5, 6]) for number in (1, 2, 3)]
    file = labels_file(annotations, categories)
    with pytest.raises(UserError, match=r"'kitty', 'doge', 'kite'; .* \"kitty=left out\", --class \"doge=dog\""):
        import_labels(campaign, file)
    with pytest.raises(UserError, match="'bird' is no class of the campaign; it has cat, dog"):
        import_labels(campaign, file, {"kitty": "bird"})
    taken = import_labels(campaign, file, {"kitty": "cat", "doge": "dog", "kite": LEFT_OUT})
    assert (taken.labels, taken.left_out) == (2, {"annotations of categories that are left out": 1})
    assert import_labels(campaign, file) == taken


@pytest.mark.parametrize(
    ("images", "words"),
    [(["other.png"], "none of its 1 images is in .*'other.png', the first key '000.png'"), ([], "it names no image")],
)
def test_a_file_about_other_images_is_refused(tmp_path, make_images, make_campaign, labels_file, images, words):
    make_images(tmp_path / "images", 2)
    with pytest.raises(UserError, match=words):
        import_labels(make_campaign(), labels_file([], images=images))
