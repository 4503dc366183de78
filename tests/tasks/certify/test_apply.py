import json
from itertools import count

import pytest

from vouch_labels.schemas.errors import StoreError, UserError, WorkspaceBusyError
from vouch_labels.tasks.certify import apply as applying
from vouch_labels.tasks.certify.active import activate, active_version, choose_policy
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.labels.arrays import current_of, read_run_labels
from vouch_labels.tasks.labels.scan import scan
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import default_policy, expired_policy, read_policy, write_policy
from vouch_labels.tasks.reviews.log import CertificationTest, record_test
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment
from vouch_labels.tasks.shard.events import Exporting, Routing
from vouch_labels.tasks.shard.files import read_current, write_current
from vouch_labels.tasks.shard.reuse import reroute_shard
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def labelled(make_images, make_campaign, label, tmp_path):
    """A campaign whose labels all wait for review, and its workspace."""
    make_images(tmp_path / "images", 9)
    campaign = make_campaign(routing={})
    label(campaign)
    return campaign, open_store(campaign.workspace)


@pytest.fixture
def put_policy(certified):
    """Keep a policy as if it had been certified for a run; it fits the labels of run main."""

    def put(workspace, version="certified-1-a", *, thresholds=None, run="main", **changes):
        values = {"inputs": read_current(workspace, "main").inputs, "created": "2026-01-01T00:00:00+00:00"} | changes
        look = CertificationTest(
            run=run, look=1, key=version, inputs=values["inputs"], plans=(1, 2), precision=0.95, confidence=0.9,
            created=values["created"],
        )  # fmt: skip
        values["look"] = record_test(workspace, look, len)[0].look
        policy = certified(thresholds or {"cat": 0.0, "dog": None}, version=version, **values)
        write_policy(workspace, policy)
        return policy

    return put


def decisions(workspace, current):
    """Label id -> class, decision and policy, under some settings."""
    found = {}
    with Ledger.load(workspace, "main") as ledger:
        columns = ["label_id", "class_name", "decision", "policy"]
        for table in scan(workspace, "main", ledger, current.fingerprint, columns):
            for row in table.to_pylist():
                found[row["label_id"]] = (row["class_name"], row["decision"], row["policy"])
    return found


def test_applied_in_force_and_exported(labelled, put_policy, tmp_path):
    campaign, workspace = labelled
    policy, before = put_policy(workspace), read_current(workspace, "main")
    earlier, events = decisions(workspace, before), []
    summary = apply_policy(campaign, None, events.append)
    after = read_current(workspace, "main")
    found = decisions(workspace, after)
    cats = sum(name == "cat" for name, _, _ in found.values())
    assert all(decision == ("accept" if name == "cat" else "review") for name, decision, _ in found.values())
    assert {version for _, _, version in found.values()} == {policy.version} == {after.policy}
    assert (summary.accepted_before, summary.accepted, summary.changed, summary.labels) == (0, cats, cats, len(found))
    assert summary.classes["cat"].before.review == summary.classes["cat"].after.accepted == cats > 0
    assert summary.classes["dog"].after.review == len(found) - cats
    assert (summary.policy_before, summary.pending) == (before.policy, 0)
    assert active_version(workspace, "main") == policy.version
    assert summary.export.accepted == cats
    document = json.loads((tmp_path / "workspace/exports/coco/annotations.json").read_text())
    assert sum(not annotation["iscrowd"] for annotation in document["annotations"]) == cats
    assert Routing(len(found)) in events
    assert any(isinstance(event, Exporting) for event in events)
    # What the earlier policy decided can still be read.
    assert decisions(workspace, before) == earlier


def test_the_next_run_finds_everything_done(labelled, put_policy, label, monkeypatch, make_images, tmp_path):
    campaign, workspace = labelled
    policy = put_policy(workspace)
    apply_policy(campaign, export=False)
    current = read_current(workspace, "main")
    seen = []
    for step in (Detect, Segment, Score):
        call = step.__call__
        monkeypatch.setattr(
            step, "__call__", lambda self, images, *rest, call=call: seen.extend(images) or call(self, images, *rest)
        )
    summary, markers = label(campaign)
    assert (markers, seen) == ([], [])
    assert read_current(workspace, "main") == current
    assert (summary.policy, summary.accepts) == (policy.version, True)
    assert summary.policy_basis.startswith("certified: at least 0.95")
    make_images(tmp_path / "images", 2, start=20)
    summary, markers = label(campaign)
    assert len(markers) == 1
    assert summary.policy == policy.version


def test_a_policy_again_and_back(labelled, put_policy):
    campaign, workspace = labelled
    put_policy(workspace)
    first = read_current(workspace, "main")
    there = apply_policy(campaign, "certified-1-a", export=False)
    again = apply_policy(campaign, "certified-1-a", export=False)
    assert (again.changed, again.accepted, again.accepted_before) == (0, there.accepted, there.accepted)
    back = apply_policy(campaign, "none", export=False)
    assert (back.accepted, back.changed) == (0, there.accepted)
    assert read_current(workspace, "main") == first
    assert active_version(workspace, "main") is None


def test_the_newest_that_fits_is_taken(labelled, put_policy):
    campaign, workspace = labelled
    put_policy(workspace, "certified-1-old", created="2026-01-01T00:00:00+00:00")
    put_policy(workspace, "certified-1-new", created="2026-02-01T00:00:00+00:00")
    put_policy(workspace, "certified-1-other", created="2026-03-01T00:00:00+00:00", inputs={"prompts": "others"})
    put_policy(workspace, "certified-1-less", created="2026-04-01T00:00:00+00:00", precision=0.9)
    put_policy(workspace, "certified-1-simulated", created="2026-05-01T00:00:00+00:00", simulated=True)
    assert apply_policy(campaign, export=False).policy == "certified-1-new"
    by_program = apply_policy(campaign, "certified-1-simulated", export=False)
    assert by_program.policy_basis.startswith("simulated reviewer, so nothing is certified")


def test_policies_of_another_run_are_not_taken_by_themselves(labelled, put_policy):
    campaign, workspace = labelled
    put_policy(workspace, "certified-1-mine", created="2026-01-01T00:00:00+00:00")
    put_policy(workspace, "certified-1-other", created="2026-02-01T00:00:00+00:00", run="other")
    assert apply_policy(campaign, export=False).policy == "certified-1-mine"
    assert apply_policy(campaign, "certified-1-other", export=False).policy == "certified-1-other"


def test_what_was_certified_is_what_is_accepted(campaigned):
    """From verdicts to decisions: the labels above the threshold that the certificate covers, and no others."""
    campaigned.fitted().sampled()
    certified = certify_campaign(campaigned.campaign)
    summary = apply_policy(campaigned.campaign, export=False)
    assert summary.policy == certified.version
    assert summary.accepted == certified.accepted > 0
    with Ledger.load(campaigned.workspace, "main") as ledger:
        current = current_of(campaigned.workspace, "main")
        labels = read_run_labels(campaigned.workspace, "main", ledger, current)
    fitted = labels.places(campaigned.reviews.plans[0][1]["label_id"].to_pylist())
    assert 0 < len(fitted) < labels.count
    assert not labels.accepted[fitted].any()
    assert (labels.p_correct[labels.accepted] >= min(g.p_correct or 1 for g in certified.groups)).all()


def test_a_policy_edited_by_hand_is_nobodys(campaigned):
    campaigned.fitted().sampled()
    version = certify_campaign(campaigned.campaign).version
    key = f"policies/{version}.json"
    document = json.loads(campaigned.workspace.get(key).data)
    next(group for group in document["groups"] if group["p_correct"])["p_correct"] = 0.01
    campaigned.workspace.put(key, json.dumps(document).encode())
    with pytest.raises(UserError, match="its content is not the one that it was named by"):
        apply_policy(campaigned.campaign, version)


def test_images_that_left_do_not_count(labelled, put_policy, label, tmp_path):
    campaign, workspace = labelled
    (tmp_path / "images" / "001.png").unlink()
    before, _ = label(campaign)
    put_policy(workspace, thresholds={"cat": 0.0, "dog": 0.0})
    summary = apply_policy(campaign, export=False)
    assert summary.labels == summary.accepted == summary.changed == before.labels


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"inputs": {"prompts": "others"}}, "was certified with other image decoding, detector weights, prompts"),
        ({"precision": 0.9}, r"certifies precision 0\.9, not 0\.95"),
        ({"thresholds": {"cat": 0.5}}, "certified without dog"),
    ],
)
def test_policies_that_do_not_fit_change_nothing(labelled, put_policy, changes, problem):
    campaign, workspace = labelled
    before = read_current(workspace, "main")
    put_policy(workspace, **changes)
    with pytest.raises(UserError, match=problem):
        apply_policy(campaign)
    assert read_current(workspace, "main") == before
    assert active_version(workspace, "main") is None


def test_nothing_to_apply(labelled):
    campaign, _ = labelled
    with pytest.raises(UserError, match=r"no policy was certified for run .main. in .*; `vouch certify` makes one"):
        apply_policy(campaign)
    with pytest.raises(UserError, match=r"--policy: .* has no policies/certified-9\.json; name a policy"):
        apply_policy(campaign, "certified-9")


def test_a_campaign_that_names_another_policy(labelled, put_policy, make_campaign):
    _, workspace = labelled
    put_policy(workspace)
    with pytest.raises(UserError, match=r"routing\.policy: the campaign names none, and its next run would undo"):
        apply_policy(make_campaign(routing={"policy": "none"}), "certified-1-a")
    assert apply_policy(make_campaign(routing={"policy": "certified-1-a"}), export=False).policy == "certified-1-a"
    apply_policy(make_campaign(routing={"policy": "none"}), export=False)
    assert active_version(workspace, "main") is None


def test_changed_classes(labelled, put_policy, make_campaign):
    _, workspace = labelled
    put_policy(workspace)
    with pytest.raises(UserError, match="since the labels were made; use `vouch run` first"):
        apply_policy(make_campaign(routing={}, classes=["cat", "horse"]))


def test_labels_of_an_older_vouch(labelled, put_policy):
    campaign, workspace = labelled
    put_policy(workspace)
    write_current(workspace, "main", read_current(workspace, "main").model_copy(update={"inputs": {}}))
    for version in (None, "certified-1-a"):
        with pytest.raises(UserError, match="use `vouch run` once more"):
            apply_policy(campaign, version)
    assert apply_policy(campaign, "none", export=False).changed == 0


def test_before_the_first_run(make_campaign):
    with pytest.raises(UserError, match="has no labels yet; use `vouch run` first"):
        apply_policy(make_campaign())


def test_a_run_in_the_meantime_is_respected(labelled, put_policy):
    campaign, workspace = labelled
    put_policy(workspace)
    with WorkspaceLock(workspace, "main"), pytest.raises(WorkspaceBusyError):
        apply_policy(campaign)


def test_an_interruption_changes_nothing(labelled, put_policy, monkeypatch):
    campaign, workspace = labelled
    put_policy(workspace)
    before = read_current(workspace, "main")
    reroute, calls = reroute_shard, count()

    def fail_late(*args):
        if next(calls) == 1:
            raise StoreError("no space left")
        return reroute(*args)

    monkeypatch.setattr(applying, "reroute_shard", fail_late)
    with pytest.raises(StoreError, match="no space left"):
        apply_policy(campaign)
    assert read_current(workspace, "main") == before
    assert active_version(workspace, "main") is None
    monkeypatch.undo()
    assert apply_policy(campaign, export=False).changed > 0


@pytest.fixture
def put_policy_in_workspace(certified, tmp_path):
    """Keep a certified policy in the workspace, and activate it if asked to."""

    def put(version="certified-1-a", *, thresholds=None, in_force=False, **changes):
        policy = certified(thresholds or {"cat": 0.9, "dog": None}, version=version, **changes)
        workspace = LocalStore(tmp_path / "workspace")
        write_policy(workspace, policy)
        if in_force:
            activate(workspace, "main", version)
        return policy

    return put


def chosen(campaign):
    return choose_policy(campaign, open_store(campaign.workspace)).policy


def test_without_any_policy_the_thresholds_decide_and_are_kept(make_campaign, tmp_path):
    campaign = make_campaign()
    policy = chosen(campaign)
    assert policy == default_policy(campaign.classes, campaign.routing)
    assert (tmp_path / "workspace" / "policies" / f"{policy.version}.json").is_file()


def test_the_campaign_names_a_policy_leaves_it_to_the_one_in_force_or_wants_none(
    make_campaign, put_policy_in_workspace
):
    put_policy_in_workspace("certified-1-a")
    put_policy_in_workspace("certified-2-b", in_force=True)
    assert chosen(make_campaign(routing={})).version == "certified-2-b"
    assert chosen(make_campaign(routing={"policy": "certified-1-a"})).version == "certified-1-a"
    for none in ("none", "None"):
        assert chosen(make_campaign(routing={"policy": none})).version.startswith("user-")


def test_a_policy_in_force_that_is_gone(make_campaign, put_policy_in_workspace, tmp_path):
    policy = put_policy_in_workspace(in_force=True)
    (tmp_path / "workspace" / "policies" / f"{policy.version}.json").unlink()
    with pytest.raises(UserError, match=r"active policy: .* has no policies/certified-1-a\.json; name a policy"):
        chosen(make_campaign())


def test_a_policy_that_promises_less_is_refused(make_campaign, put_policy_in_workspace):
    put_policy_in_workspace(in_force=True)
    with pytest.raises(UserError, match=r"certifies precision 0\.95, not 0\.99"):
        chosen(make_campaign(routing={"precision": 0.99}))


def test_a_run_is_refused_under_a_policy_of_other_inputs(
    make_images, make_campaign, put_policy_in_workspace, label, tmp_path
):
    make_images(tmp_path / "images", 1)
    put_policy_in_workspace(in_force=True, inputs={"prompts": "others"})
    with pytest.raises(UserError, match="certified-1-a was certified with other image decoding, detector weights, pro"):
        label(make_campaign())
    summary, _ = label(make_campaign(routing={"policy": "none"}))
    assert summary.policy_basis == "no thresholds: everything goes to review"


@pytest.fixture
def audited(make_plan, make_verdicts):
    """Audit a policy twice, with half of the answers wrong."""

    def audit(workspace, version):
        for number in (1, 2):
            ids = [f"audit {number} {place}" for place in range(100)]
            tasks = {"purpose": ["audit"] * 100, "label_id": ids, "inclusion": [0.1] * 100}
            tasks |= {"p_correct": [0.9] * 100, "stratum": [0] * 100}
            strata = ({"name": "all", "size": 1000, "drawn": 100},)
            drawn = {"policy": version, "labels": 1000, "mean_p_correct": 0.9, "strata": strata}
            write_plan(workspace, "main", *make_plan(tasks, number=number, audit=drawn))
            write_verdicts(workspace, make_verdicts(ids, ["not_an_object", "correct"] * 50))

    return audit


def test_a_run_goes_on_and_accepts_nothing(make_images, make_campaign, label, certified, audited, tmp_path):
    make_images(tmp_path / "images", 5)
    campaign = make_campaign(routing={"gate": "accepted"})
    label(campaign)
    workspace = open_store(campaign.workspace)
    inputs = current_of(workspace, "main").inputs
    policy = certified({"cat": 0.0, "dog": 0.0}, version="certified-1-a", gate="accepted", inputs=inputs)
    write_policy(workspace, policy)
    assert apply_policy(campaign, policy.version, export=False).accepted > 0
    audited(workspace, policy.version)
    make_images(tmp_path / "images", 2, start=20)
    summary, markers = label(campaign)
    assert len(markers) == 3
    assert summary.policy == "expired-certified-1-a"
    assert "audits (2) say" in summary.policy_expired
    assert summary.policy_basis == "an expired certificate: everything goes to review"
    assert (summary.accepted, summary.accepts) == (0, False)
    assert summary.review == summary.labels > 0
    with Ledger.load(workspace, "main") as ledger:
        labels = read_run_labels(workspace, "main", ledger, current_of(workspace, "main"))
    assert (labels.p_correct >= 0).all()
    again, markers = label(campaign)
    assert (again.policy, markers) == (summary.policy, [])
    with pytest.raises(UserError, match=r"policy certified-1-a has expired: blind audits \(2\) say"):
        apply_policy(campaign, policy.version)
    by_thresholds, _ = label(make_campaign(routing={"policy": "none", "accept": {"detector_score": 0.0}}))
    assert by_thresholds.accepted == by_thresholds.labels
    assert by_thresholds.policy_expired == ""


def test_what_takes_its_place(certified, tmp_path, make_campaign):
    policy = certified({"cat": 0.5, "dog": None})
    ended = expired_policy(policy)
    assert [group.p_correct for group in ended.groups] == [None, None]
    assert ended.certification == policy.certification
    long = expired_policy(policy.model_copy(update={"version": "v" * 100}))
    workspace, campaign = open_store(make_campaign().workspace), make_campaign()
    for one in (ended, long):
        write_policy(workspace, one)
        assert read_policy(workspace, one.version, campaign.classes).version == one.version


def test_put_and_taken_back(tmp_path):
    workspace = LocalStore(tmp_path)
    assert active_version(workspace, "main") is None
    activate(workspace, "main", "certified-1-a")
    activate(workspace, "other", "certified-1-b")
    assert active_version(workspace, "main") == "certified-1-a"
    activate(workspace, "main", "certified-2-a")
    assert active_version(workspace, "main") == "certified-2-a"
    activate(workspace, "main", None)
    assert active_version(workspace, "main") is None


@pytest.mark.parametrize("data", [b"", b"[]", b"{}", b'{"version": 3}', b'{"version": "v", "more": 1}'])
def test_a_damaged_record_is_one_line(tmp_path, data):
    workspace = LocalStore(tmp_path)
    workspace.put("runs/main/policy.json", data)
    with pytest.raises(StoreError, match=r"runs/main/policy\.json is damaged; delete it") as caught:
        active_version(workspace, "main")
    assert "\n" not in str(caught.value)
