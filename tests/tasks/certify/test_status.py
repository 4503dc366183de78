"""What `vouch status` says of policy and reviews, and that its next step is the one that works."""

import pytest

from tests.conftest import FAKE_MODELS
from vouch_labels.schemas.campaign import ModelsConfig
from vouch_labels.tasks.certify.active import activate
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.run import export_campaign
from vouch_labels.tasks.status import read_status


@pytest.fixture
def status(campaigned):
    return lambda: read_status(campaigned.campaign)


def test_from_the_first_sample_to_a_policy_in_force(campaigned, status):
    found = status()
    assert found.in_force.version == found.policy
    assert found.in_force.basis == "no thresholds: everything goes to review"
    assert (found.reviews.plans, found.reviews.open, found.reviews.verdicts) == (0, 0, 0)
    assert "so that a precision of 0.7 can be certified: vouch review CAMPAIGN" in found.next
    planned = plan_reviews(campaigned.campaign)
    found = status()
    assert found.reviews.open_of == {1: planned.open}
    assert f"have the {planned.open} open tasks of review plan 1 answered" in found.next
    assert "--tasks FILE hands them out" in found.next
    campaigned.answer()
    found = status()
    assert (found.reviews.open, found.reviews.verdicts) == (0, planned.open)
    assert "have labels reviewed that certify a precision of 0.7: vouch review CAMPAIGN" in found.next
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=3))
    assert "a part of a sample certifies nothing" in status().next
    campaigned.answer()
    assert status().next == "the certification sample is answered: vouch certify CAMPAIGN"
    version = certify_campaign(campaigned.campaign).version
    found = status()
    assert (found.in_force.waiting, found.in_force.certified) == (version, False)
    assert found.next == f"activate the certified policy {version}: vouch apply CAMPAIGN"
    apply_policy(campaigned.campaign)
    found = status()
    assert (found.in_force.version, found.in_force.certified, found.in_force.waiting) == (version, True, None)
    assert (found.in_force.precision, found.in_force.confidence, found.in_force.gate) == (0.7, 0.8, "delivered")
    assert "low-confidence labels" in found.next


def test_the_first_line_says_that_nothing_is_usable_yet(campaigned, status):
    def first():
        return next(iter(status().blocks()))

    start = f"NOTHING IN THE DATA SET IS USABLE FOR A TRAINER YET: {status().review} labels wait for review"
    assert status().export is None
    assert first().startswith(start)
    assert first().endswith("Next: vouch review CAMPAIGN")
    export_campaign(campaigned.campaign)
    assert (status().export.usable, first().startswith(start)) == (0, True)
    campaigned.fitted().sampled(minutes=3)
    assert first().startswith(start)  # the data set is as it was
    assert first().endswith("Next: vouch certify CAMPAIGN")
    export_campaign(campaigned.campaign)
    assert status().export.usable > 0
    assert not isinstance(first(), str)


def test_what_the_bundled_models_are_is_said(campaigned, status):
    assert status().bundled == ()
    assert not any(str(block).startswith("bundled models") for block in status().blocks())
    bundled = ModelsConfig(detector={"min_score": 0.2}, scorer={"checkpoint": "ViT-B-32/x"})
    campaigned.campaign = campaigned.campaign.model_copy(update={"models": bundled})
    assert status().bundled == ("detector", "segmenter")
    assert any("vouch models list" in str(block) for block in status().blocks())


def test_where_a_bundled_detector_finds_nothing_other_models_are_next(tmp_path, make_images, make_campaign, label):
    make_images(tmp_path / "images", 1)
    campaign = make_campaign(models=FAKE_MODELS | {"detector": {"backend": "fake", "min_score": 1}})
    label(campaign)
    assert "other prompts" in read_status(campaign).next
    bundled = campaign.model_copy(update={"models": ModelsConfig(detector={"min_score": 1})})
    assert "vouch models list" in read_status(bundled).next


def test_new_labels_and_what_is_next(campaigned, status):
    campaigned.fitted().sampled(minutes=3)
    version = certify_campaign(campaigned.campaign).version
    apply_policy(campaigned.campaign, version)
    assert (status().outside, status().next.split(":")[0]) == (0, "ask for low-confidence labels")
    campaigned.more_images()
    found = status()
    assert found.outside > 0
    assert any(f"{found.outside:,} more labels seem good enough" in str(block) for block in found.blocks())
    assert found.next.startswith("ask for a top-up sample of what is new: vouch plan-reviews CAMPAIGN")
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    assert "review plan 3 answered, which show whether the guarantee holds" in status().next
    campaigned.answer(wrong=False, again=False)
    assert status().next == "the audits of new labels extend the certificate to them: vouch certify CAMPAIGN"
    extended = certify_campaign(campaigned.campaign).version
    assert status().next == f"activate the certified policy {extended}: vouch apply CAMPAIGN"
    apply_policy(campaigned.campaign)
    assert (status().outside, status().in_force.version) == (0, extended)


def test_an_expired_policy(campaigned, status):
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.answer(wrong=True, minutes=10)
    found = status()
    assert found.in_force.version.startswith("expired-")
    assert "were changed since" in found.in_force.expired
    assert not found.in_force.certified
    assert found.in_force.waiting is None
    assert found.next.startswith("the guarantee of the policy has ended: verdicts that policy")
    assert certify_campaign(campaigned.campaign).version is None


def test_a_simulated_reviewer_certifies_nothing(campaigned, status):
    plan_reviews(campaigned.campaign)
    campaigned.answer(simulated=True)
    plan_reviews(campaigned.campaign)
    campaigned.answer(simulated=True)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    found = status()
    assert (found.in_force.simulated, found.in_force.certified) == (True, False)
    assert found.in_force.basis.startswith("simulated reviewer, so nothing is certified")
    assert found.reviews.simulated == found.reviews.verdicts > 0


def test_a_look_that_certified_nothing_asks_for_more(campaigned, status):
    campaigned.with_routing(precision=0.95, confidence=0.9)
    campaigned.fitted()
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=3))
    campaigned.answer(wrong=True)
    assert certify_campaign(campaigned.campaign).version is None
    assert "draw more of it: vouch plan-reviews CAMPAIGN" in status().next
    campaigned.with_routing(precision=0.7, confidence=0.8)
    assert "vouch certify CAMPAIGN" in status().next


def test_tasks_of_an_earlier_plan_are_named_by_its_number(campaigned, status):
    plan_reviews(campaigned.campaign)
    campaigned.answer(part=0.7)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="certify", minutes=2))
    found = status()
    # A label that is drawn again before it was answered is asked about once.
    assert 0 < found.reviews.open <= sum(found.reviews.open_of.values())
    assert set(found.reviews.open_of) == {1, 2}
    assert "of review plan 1 answered" in found.next
    assert "--tasks FILE --plan 1 hands them out" in found.next


def test_a_policy_that_cannot_be_used_and_one_that_has_not_decided_yet(campaigned, status):
    activate(campaigned.workspace, "main", "certified-1-gone")
    found = status()
    assert found.in_force.version is None
    assert "has no policies/certified-1-gone.json" in found.in_force.problem
    assert found.next.startswith("the policy cannot be used: active policy: ")
    activate(campaigned.workspace, "main", None)
    campaigned.with_routing(accept={"detector_score": 0.5})
    found = status()
    assert found.in_force.version != found.policy
    assert found.in_force.basis == "user thresholds, not certified"
    assert found.next == (
        "decide the labels by what is active now, manual thresholds, not certified: vouch run CAMPAIGN"
    )


@pytest.mark.parametrize(
    ("classes", "told", "works"),
    [
        (["cat", {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}, "bird"],
         "class bird was added", True),
        ([{"name": "pet", "was": ["cat", "dog"]}], "class pet was made of others", True),
        ([{"name": "tiger", "was": "cat"}, {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}],
         "class cat is called tiger now", False),
        (["cat", "dog"], "the campaign has other prompts, scorer texts than the labels were made by", True),
    ],
)  # fmt: skip
def test_what_the_campaign_says_otherwise_comes_before_policies(campaigned, classes, told, works):
    campaign = campaigned.load(classes=classes, routing={"accept": {"detector_score": 0.5}})
    why = "the models have to look at the images for that" if works else "no model has to work for that"
    assert read_status(campaign).next == f"{told}: vouch run CAMPAIGN ({why})"
    campaign = campaigned.load(classes=classes, routing={"policy": "certified-1-gone"})
    found = read_status(campaign).next
    assert found.startswith(f"{told}, and vouch run CAMPAIGN has to follow; but the policy cannot be used: ")


def test_it_writes_nothing(campaigned, status):
    campaigned.with_routing(accept={"detector_score": 0.4})
    before = sorted(info.key for info in campaigned.workspace.list(""))
    status()
    assert sorted(info.key for info in campaigned.workspace.list("")) == before
