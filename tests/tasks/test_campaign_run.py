"""What a run does before its models: checks, the listing, and whether the workspace is another campaign's."""

import json
import os
import shutil
import time

import pytest

import vouch_labels.tasks.run as module
from tests.conftest import FAKE_MODELS, draw
from vouch_labels.schemas.errors import CheckpointError, StoreAccessError, UserError
from vouch_labels.schemas.text import Table
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.run import CampaignRun, RunOptions, export_campaign
from vouch_labels.tasks.shard.events import Listing, Loading, Planned
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.status import read_status


def files(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def no_models(monkeypatch):
    """What is refused, is refused before a model is loaded."""

    def fail(campaign):
        raise AssertionError("models are loaded")

    monkeypatch.setattr(module, "load_pipeline", fail)


def refused(campaign, words, **options):
    with pytest.raises(UserError, match=words) as caught, CampaignRun(campaign, options=RunOptions(**options)):
        pass
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(
    ("sections", "error", "words"),
    [
        ({"source": "nowhere"}, StoreAccessError, "does not exist"),
        ({"source": {"uri": "images", "include": ["*.nothing"]}}, UserError, "holds no image to label"),
        ({"models": {"detector": {"backend": "yolo"}}}, UserError, "unknown backend 'yolo'; use one of"),
        ({"models": {"detector": {"checkpoint": "no/such.pth"}}}, CheckpointError, "detector.checkpoint: no file"),
        ({"models": {"segmenter": {"checkpoint": "/no/such.pth"}}}, CheckpointError, "segmenter.checkpoint: no file"),
        ({"models": {"scorer": {"checkpoint": "no/such.pt"}}}, CheckpointError, "scorer.checkpoint: no file"),
        ({"models": {"detector": {"checkpoint": "sam_vit_h"}}}, CheckpointError, "sam_vit_h is a segmenter"),
        ({"models": {"scorer": {"architecture": "no.json"}}}, CheckpointError, "scorer.architecture: no file"),
    ],
)
def test_mistakes_show_before_models(tmp_path, make_images, make_campaign, sections, error, words):
    make_images(tmp_path / "images", 2)
    with pytest.raises(error, match=words), CampaignRun(make_campaign(**sections)):
        pass
    assert not (tmp_path / "workspace" / "runs").exists() or not list((tmp_path / "workspace/runs").rglob("*.parquet"))


@pytest.mark.usefixtures("no_models")
@pytest.mark.parametrize(("prefix", "words"), [("", "no-such-bucket"), ("some/where", "holds no image to label")])
def test_a_missing_bucket_or_prefix_shows_before_models(moto_store, make_campaign, prefix, words):
    bucket = moto_store.bucket if prefix else "no-such-bucket"
    s3 = {"endpoint_url": moto_store.client.meta.endpoint_url, "path_style": True, "checksums": "when_required"}
    refused(make_campaign(source={"uri": f"s3://{bucket}/{prefix}", "s3": s3}), words)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
@pytest.mark.usefixtures("no_models")
def test_a_workspace_that_cannot_be_written_shows_before_models(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 2)
    (tmp_path / "workspace").mkdir(mode=0o500)
    refused(make_campaign(), "cannot write")


def test_the_source_is_listed_before_models_are_loaded(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 3)
    events = []
    with CampaignRun(make_campaign(), events.append):
        pass
    assert [type(event) for event in events] == [Listing, Loading]


def test_models_that_take_open_clips_names_are_left_to_it(tmp_path, make_images, make_campaign, monkeypatch):
    make_images(tmp_path / "images", 1)
    models = FAKE_MODELS | {"scorer": {"checkpoint": "ViT-L-14/laion2b_s32b_b82k"}}
    refused_late = UserError("asked of the hub")

    def load(campaign, imported):
        raise refused_late

    monkeypatch.setattr(module, "load_pipeline", load)
    refused(make_campaign(models=models), "asked of the hub")


def test_another_source_is_refused_and_nothing_is_overwritten(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    make_images(tmp_path / "others", 6, start=50)
    label(make_campaign())
    before = files(tmp_path / "workspace")
    other = make_campaign(source=str(tmp_path / "others"))
    message = refused(other, "6 of its 6 images are not in")
    for words in (str(tmp_path / "images"), str(tmp_path / "others"), "run.name", "workspace", "--accept-changes"):
        assert words in message
    assert files(tmp_path / "workspace") == before
    summary, _ = label(other, accept_changes=True)
    assert (summary.images, summary.removed_images) == (6, 6)
    assert label(other)[0].new_images == 0, "accepted once"


def test_another_place_with_the_same_names_is_another_source(tmp_path, make_campaign, label):
    for folder, size in (("images", (96, 64)), ("others", (64, 64))):
        (tmp_path / folder).mkdir()
        for number in range(5):
            draw(number, size).save(tmp_path / folder / f"{number}.png")
    label(make_campaign())
    refused(make_campaign(source=str(tmp_path / "others")), "5 of its 5 images are not in")


def test_a_limit_does_not_hide_another_source(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 6)
    make_images(tmp_path / "others", 6, start=50)
    label(make_campaign())
    refused(make_campaign(source=str(tmp_path / "others")), "6 of its 6 images are not in", limit=5)
    assert label(make_campaign(), limit=5)[0].images == 6


def test_a_source_that_was_renamed_goes_on(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 5)
    label(make_campaign())
    shutil.copytree(tmp_path / "images", tmp_path / "elsewhere", copy_function=shutil.copyfile)
    summary, _ = label(make_campaign(source=str(tmp_path / "elsewhere")))
    assert (summary.images, summary.removed_images) == (5, 0)


def test_a_workspace_of_an_older_version_says_no_source(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 5)
    label(make_campaign())
    (tmp_path / "workspace/runs/main/source.json").unlink()
    assert label(make_campaign())[0].done == 5


def test_a_source_that_has_shrunk_by_most_is_refused_with_numbers(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 8)
    campaign = make_campaign()
    label(campaign)
    for key in keys[1:]:
        (tmp_path / "images" / key).unlink()
    message = refused(campaign, "7 of the 8 images of run 'main' have vanished")
    assert "which holds 1 now" in message
    assert "--accept-changes" in message
    summary, _ = label(campaign, accept_changes=True)
    assert (summary.images, summary.removed_images) == (1, 7)


def test_up_to_half_of_the_images_may_go(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 8)
    label(make_campaign())
    for key in keys[:4]:
        (tmp_path / "images" / key).unlink()
    assert label(make_campaign())[0].removed_images == 4


def test_images_that_moved_have_not_vanished(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 8)
    label(make_campaign())
    (tmp_path / "images" / "2026").mkdir()
    for key in keys:
        shutil.copyfile(tmp_path / "images" / key, tmp_path / "images" / "2026" / key)
        (tmp_path / "images" / key).unlink()
    summary, _ = label(make_campaign())
    assert (summary.images, summary.moved_images, summary.known_images) == (8, 8, 8)
    assert "8 images moved, labels and reviews kept" in [line for line in summary.blocks() if isinstance(line, str)]


def test_a_dropped_class_is_asked_about_and_an_added_one_is_not(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    before = files(tmp_path / "workspace")
    other = make_campaign(classes=["horse", "cow"])
    message = refused(other, "has labels of classes cat, dog, which this campaign does not have")
    assert "--accept-changes" in message
    assert files(tmp_path / "workspace") == before
    status = read_status(other)
    assert "vouch run" in status.other_campaign
    assert "cat, dog" in status.next
    assert "vouch run CAMPAIGN" not in status.next, "what it refuses is not what comes next"
    assert "--accept-changes" in status.next
    nothing_usable = status.model_copy(update={"accepted": 0, "export": None})
    assert str(next(iter(nothing_usable.blocks()))).endswith(f"Next: {status.next}")
    grown = make_campaign(classes=["bird", "dog", {"name": "cat", "prompts": ["kitten"]}])
    assert set(label(grown)[0].classes) == {"bird", "dog", "cat"}
    assert read_status(grown).other_campaign == ""
    assert set(label(other, accept_changes=True)[0].classes) == {"horse", "cow"}


def test_status_says_that_the_workspace_is_another_campaigns(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 4)
    make_images(tmp_path / "others", 4)
    label(make_campaign())
    status = read_status(make_campaign(source=str(tmp_path / "others")))
    assert f"labelled {tmp_path / 'images'}" in status.other_campaign
    assert any("labelled" in block for block in status.blocks() if isinstance(block, str))


def apply_none(campaign):
    apply_policy(campaign, "none")


@pytest.mark.parametrize("write", [export_campaign, apply_none])
def test_no_data_set_is_written_of_another_campaigns_labels(tmp_path, make_images, make_campaign, label, write):
    make_images(tmp_path / "images", 4)
    make_images(tmp_path / "others", 4, start=10)
    label(make_campaign())
    before = files(tmp_path / "workspace")
    other = make_campaign(source=str(tmp_path / "others"))
    with pytest.raises(UserError, match=r"labelled .*, and 4 of its first 4 images are not in .*; nothing was written"):
        write(other)
    with pytest.raises(UserError, match=r"class dog, which|class dog was removed since"):
        write(make_campaign(classes=["cat"]))
    assert files(tmp_path / "workspace") == before
    (tmp_path / "images").rename(tmp_path / "moved")
    write(make_campaign(source=str(tmp_path / "moved")))
    write(make_campaign(source=str(tmp_path / "out of reach")))


def test_a_limit_labels_the_first_images_and_a_later_run_the_rest(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 10)
    campaign = make_campaign()
    first, _ = label(campaign, limit=3)
    assert (first.images, first.done, first.limit) == (3, 3, 3)
    assert any("limited to the first 3 images" in block for block in first.blocks() if isinstance(block, str))
    again, markers = label(campaign, limit=3)
    assert (again.images, markers) == (3, [])
    more, _ = label(campaign, limit=6)
    assert (more.images, more.new_images, more.removed_images) == (6, 3, 0)
    rest, _ = label(campaign)
    assert (rest.images, rest.done, rest.new_images, rest.removed_images) == (10, 10, 4, 0)
    fewer, markers = label(campaign, limit=2)
    assert (fewer.images, markers) == (10, []), "nothing is thought to have vanished"


def test_a_limit_takes_the_first_keys_of_a_manifest_in_any_order(tmp_path, make_images, make_campaign, label):
    keys = make_images(tmp_path / "images", 6)
    (tmp_path / "list.txt").write_text("\n".join(reversed(keys)))
    campaign = make_campaign(source={"uri": str(tmp_path / "images"), "manifest": str(tmp_path / "list.txt")})
    label(campaign, limit=2)
    with CampaignRun(campaign, options=RunOptions(limit=2)) as run:
        assert run._ledger.keys_of(run._ledger.shards()[0].id) == set(keys[:2])


def test_a_limit_leaves_other_unfinished_shards_alone(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 10)
    campaign = make_campaign()
    with CampaignRun(campaign) as run:
        run.plan()
        assert len(list(run.pending())) == 3
    with CampaignRun(campaign, options=RunOptions(limit=5)) as run:
        run.plan()
        assert [shard.first_key for shard in run.pending()] == ["000.png", "004.png"]


def test_the_time_is_that_from_the_start_of_the_command_in_parts(tmp_path, make_images, make_campaign):
    make_images(tmp_path / "images", 3)
    options = RunOptions(started=time.monotonic() - 100)
    with CampaignRun(make_campaign(), options=options) as run:
        run.plan()
        for shard in run.pending():
            process_shard(shard.id, run.settings)
        worked = module.Processed(seconds=2.0)
        summary = run.summary(worked, run.export())
        later = run.timed_again(summary)
    assert list(summary.seconds_of) == ["start", "listing", "loading models", "labelling", "export"]
    assert summary.seconds_of["labelling"] == 2
    assert summary.seconds_of["start"] > 90
    assert summary.seconds == pytest.approx(sum(summary.seconds_of.values()), abs=0.01)
    assert later.seconds >= summary.seconds > 100
    shown = summary.model_copy(update={"seconds": 89, "seconds_of": {"start": 21, "listing": 0.1, "labelling": 68}})
    table = next(block for block in shown.blocks() if isinstance(block, Table))
    assert "1 min 29 s: start 21 s, labelling 1 min 8 s" in {cell for row in table.cells() for cell in row}


def idle(campaign, **options):
    """Whether a run finds nothing to do, and the summary that it then makes."""
    with CampaignRun(campaign, options=RunOptions(**options)) as run:
        return run.idle, run.finish() if run.idle else None


def test_where_every_image_is_labelled_no_model_is_loaded(tmp_path, make_images, make_campaign, label, monkeypatch):
    make_images(tmp_path / "images", 5)
    (tmp_path / "images" / "bad.png").touch()
    campaign = make_campaign()
    before, _ = label(campaign)
    with monkeypatch.context() as patch:
        patch.setattr(module, "load_pipeline", pytest.fail)
        assert idle(campaign)[0]
        found = idle(campaign)[1]
        kept = {"done", "failed", "labels", "accepted", "classes", "reasons", "export", "policy", "bundled"}
        assert found.model_dump(include=kept) == before.model_dump(include=kept)
        assert (found.new_images, found.shards_processed) == (0, 0)
        assert "loading models" not in found.seconds_of
        classes = [{"name": "tiger", "was": "cat"}, *(entry.model_dump() for entry in campaign.classes[1:])]
        assert set(idle(make_campaign(classes=classes))[1].classes) == {"tiger", "dog"}
        (tmp_path / "images" / "000.png").unlink()
        assert idle(campaign)[1].removed_images == 1
    for changes in (
        {"classes": ["cat", "dog"]},
        {"routing": {"accept": {"detector_score": 0.6}}},
        {"source": {"uri": campaign.source.uri, "max_pixels": 10_000}},
    ):
        assert not idle(make_campaign(**changes))[0]
    assert not idle(campaign, retry_failed=True)[0]
    draw(77).save(tmp_path / "images" / "new.png")
    assert not idle(campaign)[0]


def test_a_workspace_that_does_not_say_what_its_keys_are_made_of_has_the_models_tell(
    tmp_path, make_images, make_campaign, label
):
    make_images(tmp_path / "images", 2)
    campaign = make_campaign()
    label(campaign)
    file = tmp_path / "workspace" / "runs" / "main" / "current.json"
    older = {key: value for key, value in json.loads(file.read_text()).items() if key not in ("recipe", "stages")}
    file.write_text(json.dumps(older))
    events = []
    with CampaignRun(campaign, events.append) as run:
        assert run.idle
        run.finish()
    assert Loading("models") in events
    assert json.loads(file.read_text())["recipe"]


def planned(campaign, **options):
    """How a run that does not go on says that it is planned: all images, those done before, shards to process."""
    events = []
    with CampaignRun(campaign, events.append, RunOptions(**options)) as run:
        run.plan()
        run.pending()
    (event,) = [event for event in events if isinstance(event, Planned)]
    return event.images, event.done, event.shards


def test_images_that_are_done_count_as_done_before(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 7)
    campaign = make_campaign(run={"shard_size": 3})
    assert planned(campaign) == (7, 0, 3)
    summary, _ = label(campaign)
    (facts,) = [block for block in summary.blocks() if isinstance(block, Table) and block.title == "run main"]
    assert "speed" in str(facts)
    assert planned(campaign) == (7, 7, 0), "nothing is left to do, since all of it is done"
    assert planned(campaign, limit=2) == (3, 3, 0), "those of the shard that holds the first two"
    summary, _ = label(campaign)
    (facts,) = [block for block in summary.blocks() if isinstance(block, Table) and block.title == "run main"]
    assert "speed" not in str(facts), "nothing was labelled, so there is no speed"


def test_other_names_that_a_refusal_proposes_are_enough(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 4)
    label(make_campaign())
    message = refused(make_campaign(classes=["horse"]), "choose another run.name and export.name")
    assert "or another workspace" in message
    other = make_campaign(classes=["horse"], run={"name": "second"}, export={"name": "second"})
    assert label(other)[0].done == 4
