"""Every change to what labels depend on shows, under the name that a user knows."""

import pytest

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.models.fake import FakeDetector, FakeScorer, FakeSegmenter
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.shard import pipeline
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.shard.pipeline import load_pipeline, recipe_of, rerouted
from vouch_labels.tasks.store.open import open_store

FAKE = {"backend": "fake"}
MODELS = {"device": "cpu", "detector": FAKE, "segmenter": FAKE, "scorer": FAKE}
POLICY = Policy(version="v1", groups=(Group(name="all", classes=("cat", "dog")),))
OTHER = Policy(version="v2", groups=(Group(name="all", classes=("cat", "dog")),))


def model(part, **settings):
    return {"models": MODELS | {part: FAKE | settings}}


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"classes": ["cat", "horse"]}, {"prompts", "scorer texts"}),
        ({"classes": ["dog", "cat"]}, {"prompts", "scorer texts"}),
        ({"classes": ["cat", {"name": "dog", "negatives": ["wolf"]}]}, {"prompts", "scorer texts"}),
        ({"classes": ["cat", {"name": "dog", "min_score": 0.4}]}, {"detector settings"}),
        (model("detector", min_score=0.4), {"detector settings"}),
        (model("detector", nms_iou=0.4), {"detector settings"}),
        (model("detector", max_boxes=4), {"detector settings"}),
        (model("scorer", contexts=[1, 2]), {"scorer settings"}),
        (model("scorer", temperature=0.5), {"scorer settings"}),
        (model("scorer", templates="plain"), {"scorer texts"}),
        (model("scorer", background=["sky"]), {"scorer texts"}),
        ({"max_pixels": 10**6}, {"image decoding"}),
        ({"run": {"tiles": {"size": 64}}}, {"detector settings"}),
    ],
)
def test_a_change_shows_in_keys_and_inputs(make_campaign, tmp_path, change, names):
    plain = {"classes": ["cat", "dog"], "models": MODELS}
    if "max_pixels" in change:
        change = {"source": {"uri": str(tmp_path / "images"), **change}}
    before, after = (load_pipeline(make_campaign(**sections)) for sections in (plain, plain | change))
    assert {name for name, value in after.inputs.items() if value != before.inputs[name]} == names
    assert after.stages(POLICY) != before.stages(POLICY)


@pytest.mark.parametrize(("part", "name"), [("detector", "detector weights"), ("segmenter", "segmenter weights"),
                                            ("scorer", "scorer weights")])  # fmt: skip
def test_other_weights_show(make_campaign, monkeypatch, part, name):
    campaign = make_campaign()
    kind = {"detector": FakeDetector, "segmenter": FakeSegmenter, "scorer": FakeScorer}[part]

    def step():
        if part == "segmenter":
            return Segment(FakeSegmenter())
        if part == "scorer":
            return Score(FakeScorer(), campaign.classes, campaign.models.scorer)
        return Detect(FakeDetector(), campaign.classes, DetectorConfig(backend="fake"))

    before = step()
    monkeypatch.setattr(kind, "fingerprint", "another")
    after = step()
    assert [key for key, value in after.inputs.items() if value != before.inputs[key]] == [name]
    assert after.key != before.key


def test_a_policy_is_no_input_and_changes_routing_alone(make_campaign):
    pipeline = load_pipeline(make_campaign())
    stages, others = pipeline.stages(POLICY), pipeline.stages(OTHER)
    assert [name for name in stages if stages[name] != others[name]] == ["route"]
    assert rerouted(stages, OTHER) == others


def test_a_run_writes_its_inputs(make_images, make_campaign, label, tmp_path):

    make_images(tmp_path / "images", 1)
    campaign = make_campaign()
    label(campaign)
    current = read_current(open_store(campaign.workspace), campaign.run.name)
    assert current.inputs == load_pipeline(campaign).inputs


def test_models_are_loaded_anew_for_other_models_and_classes_alone(make_campaign, tmp_path, monkeypatch):
    loaded = []
    monkeypatch.setattr(pipeline, "load_segmenter", lambda *_: loaded.append(1) or FakeSegmenter())
    pipeline._load.cache_clear()
    plain = {"classes": ["cat", "dog"], "models": MODELS}
    first = load_pipeline(make_campaign(**plain))
    alike = [
        {"source": str(tmp_path / "elsewhere")},
        {"source": {"uri": "s3://bucket/images", "s3": {"endpoint_url": "http://localhost:1"}, "max_pixels": 10**6}},
        {"workspace": str(tmp_path / "other")},
        {"review": {"batch": 7}},
        {"models": MODELS | {"switched_off": ["overlap"]}},
    ]
    for change in (*alike, {}):
        pipeline_of_it = load_pipeline(make_campaign(**(plain | change)))
        assert pipeline_of_it.segment is first.segment
        assert (pipeline_of_it.acquire_key == first.acquire_key) == ("max_pixels" not in str(change))
    assert loaded == [1]
    for change in ({"classes": ["cat"]}, {"models": MODELS | {"switched_off": ["late_heads"]}}):
        assert load_pipeline(make_campaign(**(plain | change))).segment is not first.segment
    assert loaded == [1] * 3
    pipeline._load.cache_clear()


def test_a_recipe_follows_the_files_of_the_models_and_loads_none(tmp_path, make_campaign, monkeypatch):
    monkeypatch.setenv("VOUCH_CACHE", str(tmp_path / "cache"))
    weights = tmp_path / "sam.pth"
    weights.write_bytes(b"one")
    models = MODELS | {"segmenter": {"checkpoint": str(weights), "architecture": "vit_b"}}
    first = recipe_of(make_campaign(models=models))
    assert first == recipe_of(make_campaign(models=models, export={"name": "other"})) != ""
    assert first != recipe_of(make_campaign(models=models | {"engine": "reference"}))
    weights.write_bytes(b"another")
    assert recipe_of(make_campaign(models=models)) not in (first, "")
    weights.unlink()
    assert recipe_of(make_campaign(models=models)) == ""
    moving = MODELS | {"segmenter": {"checkpoint": "hf://owner/repo/sam.pth", "architecture": "vit_b"}}
    assert recipe_of(make_campaign(models=moving)) == ""
    tagged = MODELS | {"scorer": {"checkpoint": "ViT-B-32/laion2b_s34b_b79k"}}
    assert recipe_of(make_campaign(models=tagged))
