import pytest

from schemas.errors import UserError
from tasks.contract.choose import choose_policy
from tasks.contract.in_force import put_in_force
from tasks.route.policy import default_policy, write_policy
from tasks.store.local import LocalStore
from tasks.store.open import open_store


@pytest.fixture
def put_policy(certified, tmp_path):
    """Keep a certified policy in the workspace, and put it in force if asked to."""

    def put(version="certified-1-a", *, thresholds=None, in_force=False, **changes):
        policy = certified(thresholds or {"cat": 0.9, "dog": None}, version=version, **changes)
        workspace = LocalStore(tmp_path / "workspace")
        write_policy(workspace, policy)
        if in_force:
            put_in_force(workspace, "main", version)
        return policy

    return put


def chosen(campaign):
    return choose_policy(campaign, open_store(campaign.workspace)).policy


def test_without_any_policy_the_thresholds_decide_and_are_kept(make_campaign, tmp_path):
    campaign = make_campaign()
    policy = chosen(campaign)
    assert policy == default_policy(campaign.classes, campaign.routing)
    assert (tmp_path / "workspace" / "policies" / f"{policy.version}.json").is_file()


def test_the_campaign_names_a_policy_leaves_it_to_the_one_in_force_or_wants_none(make_campaign, put_policy):
    put_policy("certified-1-a")
    put_policy("certified-2-b", in_force=True)
    assert chosen(make_campaign(routing={})).version == "certified-2-b"
    assert chosen(make_campaign(routing={"policy": "certified-1-a"})).version == "certified-1-a"
    for none in ("none", "None"):
        assert chosen(make_campaign(routing={"policy": none})).version.startswith("user-")


def test_a_policy_in_force_that_is_gone(make_campaign, put_policy, tmp_path):
    policy = put_policy(in_force=True)
    (tmp_path / "workspace" / "policies" / f"{policy.version}.json").unlink()
    with pytest.raises(UserError, match=r"policy in force: .* has no policies/certified-1-a\.json; name a policy"):
        chosen(make_campaign())


def test_a_policy_that_promises_less_is_refused(make_campaign, put_policy):
    put_policy(in_force=True)
    with pytest.raises(UserError, match=r"certifies precision 0\.95, not 0\.99"):
        chosen(make_campaign(routing={"precision": 0.99}))


def test_a_run_is_refused_under_a_policy_of_other_inputs(make_images, make_campaign, put_policy, label, tmp_path):
    make_images(tmp_path / "images", 1)
    put_policy(in_force=True, inputs={"prompts": "others"})
    with pytest.raises(UserError, match="certified-1-a was certified with other image decoding, detector weights, pro"):
        label(make_campaign())
    summary, _ = label(make_campaign(routing={"policy": "none"}))
    assert summary.policy_basis == "no thresholds: everything goes to review"
