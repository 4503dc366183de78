import numpy as np
import pytest

from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.policy import GroupCertificate
from vouch_labels.tasks.certify.active import guarantee_of
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.monitor import (
    P_CORRECT,
    audit_draws,
    audit_factor,
    delivered_on_accepted,
    drift,
    expired,
    expired_reason,
    monitor,
    reference,
)
from vouch_labels.tasks.export.summary import read_summary
from vouch_labels.tasks.labels.arrays import SIGNALS
from vouch_labels.tasks.policy import default_policy, expired_policy, read_policy, write_policy
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.run import export_campaign
from vouch_labels.tasks.store.local import LocalStore

STRATA = ({"name": "all", "size": 1000, "drawn": 100},)


@pytest.fixture
def audit_plan(make_plan):
    def make(number, version="certified-1-test", count=100):
        ids = [f"audit {number} {place}" for place in range(count)]
        tasks = {"purpose": ["audit"] * count, "label_id": ids, "inclusion": [count / 1000] * count}
        tasks |= {"p_correct": [0.9] * count, "stratum": [0] * count}
        audit = {"policy": version, "labels": 1000, "mean_p_correct": 0.9, "strata": STRATA}
        return (*make_plan(tasks, number=number, audit=audit), ids)

    return make


def test_an_estimate_of_each_complete_audit_of_the_policy(audit_plan, answer):
    first, second, other = audit_plan(1), audit_plan(2), audit_plan(3, version="another")
    wrong = np.arange(100) < 20
    answers = answer([*first[2], *second[2][:60]], [*wrong, *wrong[:60]])
    draws = audit_draws([one[:2] for one in (first, second, other)], answers, "certified-1-test", 0.1)
    assert [draw.plan for draw in draws] == [1, 2]
    assert [draw.unanswered for draw in draws] == [0, 40]
    assert draws[0].estimate.value == pytest.approx(0.8)
    assert draws[0].estimate.low < 0.8 < draws[0].estimate.high
    assert draws[1].estimate is None


def test_an_audit_that_two_planners_drew_counts_once(audit_plan, answer):
    first, again = audit_plan(1), audit_plan(1)
    again = (again[0].model_copy(update={"number": 2}), again[1])
    answers = answer(first[2], np.arange(100) < 20)
    assert [draw.plan for draw in audit_draws([first[:2], again], answers, "certified-1-test", 0.1)] == [1]


def test_a_policy_expires_only_when_its_audits_say_so(audit_plan, answer, certified):
    policy = certified({"cat": 0.5}, gate="accepted")
    plans = [audit_plan(number) for number in (1, 2, 3)]
    ids = [label for plan in plans for label in plan[2]]
    kept = [plan[:2] for plan in plans]
    fine, bad = np.arange(300) % 50 == 0, np.arange(300) % 4 == 0
    assert expired(policy, kept, answer(ids, fine)) is None
    assert "audits (3) say that more than 5.0%" in expired(policy, kept, answer(ids, bad))
    # An audit without an answer says nothing.
    assert monitor(policy, kept, answer(ids[:100], bad[:100])).batches == 1
    # What a program answered says nothing of a guarantee of people.
    assert monitor(policy, kept, answer(ids, bad, simulated=True)).batches == 0
    simulated = certified({"cat": 0.5}, gate="accepted", simulated=True)
    assert monitor(simulated, kept, answer(ids, bad, simulated=True)).expired


def test_a_label_without_an_answer_hides_no_other(audit_plan, answer, certified):
    policy = certified({"cat": 0.5}, gate="accepted")
    (first, second), places = (audit_plan(1), audit_plan(2)), np.arange(100)
    one, both = [first[:2]], [first[:2], second[:2]]
    # 99 of 100 answered, 23 of them wrong.
    assert expired(policy, one, answer(first[2][:99], places[:99] < 23))
    # Those that would be wrong are skipped: while the audit may still be answered they count as correct.
    assert expired(policy, one, answer(first[2][:77], [False] * 77)) is None
    skipped = answer([*first[2][:77], *second[2]], [False] * 177)
    assert "(23 without an answer count as wrong" in expired(policy, both, skipped)
    # One that was drawn and hardly started, as labels are drawn again that were answered before, ends nothing.
    hardly = answer([*first[2][:49], *second[2]], [False] * 149)
    assert expired(policy, both, hardly) is None
    # What is counted without an answer is no more than all answers would give.
    whole, part = answer(first[2], places % 10 == 0), answer(first[2][:60], places[:60] % 10 == 0)
    assert monitor(policy, one, part).wealth < monitor(policy, one, whole).wealth
    # Skipped labels that are answered in the end count as what they are.
    assert expired(policy, both, answer([*first[2], *second[2]], [False] * 200)) is None


def test_gate_delivered_leaves_more_wrong_labels_to_the_accepted_ones(audit_plan, make_plan, answer, certified):
    """900 labels, 400 of them accepted; of 90 sampled ones 40 are routed and correct."""
    policy = certified({"cat": 0.5, "dog": None}, plans=(1,))
    certificate = GroupCertificate(
        labels=900, accepted=400, reviewed=80, errors=1, limit=0.05, bound=0.04, p_value=0.05, delta=0.08, tested=(0.5,)
    )
    groups = (policy.groups[0].model_copy(update={"certificate": certificate}), policy.groups[1])
    policy = policy.model_copy(update={"groups": groups})
    ids = [f"certify {place}" for place in range(120)]
    tasks = {"purpose": ["certify"] * 120, "label_id": ids, "class_name": ["cat"] * 90 + ["dog"] * 30}
    tasks |= {"p_correct": [0.9] * 40 + [0.25] * 80, "inclusion": [0.1] * 120}
    plan = make_plan(tasks)
    wrong = [False] * 80 + [True] * 10 + [False] * 30
    audits = [audit_plan(number) for number in (2, 3, 4)]
    answers = answer([*ids, *(label for one in audits for label in one[2])], [*wrong, *(np.arange(300) % 11 == 0)])
    plans = [plan, *(one[:2] for one in audits)]
    ratio = delivered_on_accepted(policy, policy.certification, plans, answers, 0.05)
    assert 2 < ratio < 2.4
    # 9% of the accepted labels wrong is 4.5% of the delivered ones, which keeps the guarantee.
    assert expired(policy, plans, answers) is None
    assert monitor(policy, plans, answers).batches == 3
    as_accepted = policy.model_copy(
        update={"certification": policy.certification.model_copy(update={"gate": "accepted"})}
    )
    assert monitor(as_accepted, plans, answers).wealth > monitor(policy, plans, answers).wealth


def test_from_the_workspace(tmp_path, audit_plan, make_verdicts, certified):
    workspace, policy = LocalStore(tmp_path), certified({"cat": 0.5}, gate="accepted")
    assert expired_reason(workspace, "main", policy) is None
    for number in (1, 2):
        plan, tasks, ids = audit_plan(number)
        write_plan(workspace, "main", plan, tasks)
        write_verdicts(workspace, make_verdicts(ids, ["not_an_object", "correct"] * 50))
    assert "certified-1-test" in expired_reason(workspace, "main", policy)
    assert expired_reason(workspace, "another", policy) is None
    assert expired_reason(workspace, "main", certified({"cat": 0.5}, version="certified-2-test")) is None


def test_what_is_guaranteed_of_a_data_set(tmp_path, audit_plan, make_verdicts, make_campaign, certified):
    campaign, workspace = make_campaign(), LocalStore(tmp_path / "kept")
    policy = certified({"cat": 0.5, "dog": None}, gate="accepted")
    for kept in (policy, expired_policy(policy), default_policy(campaign.classes, campaign.routing)):
        write_policy(workspace, kept)
    own = default_policy(campaign.classes, campaign.routing).version
    assert guarantee_of(campaign, workspace, "none") == guarantee_of(campaign, workspace, own) == ""
    held = guarantee_of(campaign, workspace, policy.version)
    assert (held.policy, held.precision, held.confidence, held.gate) == (policy.version, 0.95, 0.9, "accepted")
    every = make_campaign(export={"undecided": "include"})
    assert "nobody has looked at" in guarantee_of(every, workspace, policy.version)
    assert "has expired" in guarantee_of(campaign, workspace, expired_policy(policy).version)
    for number in (1, 2):
        plan, tasks, ids = audit_plan(number)
        write_plan(workspace, "main", plan, tasks)
        write_verdicts(workspace, make_verdicts(ids, ["not_an_object", "correct"] * 50))
    assert "has expired: blind audits" in guarantee_of(campaign, workspace, policy.version)
    workspace.put(f"policies/{policy.version}.json", b"{}")
    with pytest.raises(StoreError, match="is damaged"):
        guarantee_of(campaign, workspace, policy.version)


def test_verdicts_that_were_changed_since_end_a_policy(campaigned):
    campaigned.fitted().sampled()
    found = certify_campaign(campaigned.campaign)
    policy = read_policy(campaigned.workspace, found.version, campaigned.campaign.classes)
    assert expired_reason(campaigned.workspace, "main", policy) is None
    campaigned.answer(minutes=5, reviewer="bob")
    assert expired_reason(campaigned.workspace, "main", policy) is None, "another reviewer agrees"
    campaigned.answer(minutes=10, wrong=True)
    assert certify_campaign(campaigned.campaign).version is None
    reason = expired_reason(campaigned.workspace, "main", policy)
    assert "were changed since" in reason
    assert "vouch certify" in reason
    with pytest.raises(UserError, match="has expired: verdicts that policy"):
        apply_policy(campaigned.campaign, found.version, export=False)


def test_a_data_set_tells_no_guarantee_that_has_ended(campaigned):
    campaigned.fitted().sampled()
    found = certify_campaign(campaigned.campaign)
    outcome = apply_policy(campaigned.campaign).export
    assert outcome.not_guaranteed == ""
    assert read_summary(campaigned.workspace, "coco").guarantee.policy == found.version
    campaigned.answer(minutes=10, wrong=True)
    outcome = export_campaign(campaigned.campaign)
    assert f"policy {found.version} has expired" in outcome.not_guaranteed
    assert any("nothing is guaranteed of this data set: " in str(line) for line in outcome.blocks())
    kept = read_summary(campaigned.workspace, "coco")
    assert (kept.guarantee, kept.not_guaranteed) == (None, outcome.not_guaranteed)


def test_a_moved_signal_asks_for_more_audits(make_world):
    before, now = make_world(images=1500).labels, make_world(images=1500, seed=1).labels
    scores = [np.random.default_rng(seed).random(labels.count) for seed, labels in enumerate((before, now))]
    every = [np.ones(labels.count, np.bool_) for labels in (before, now)]
    kept = reference(before, scores[0], every[0])
    assert set(kept) == {*SIGNALS, P_CORRECT}
    assert {len(values) for values in kept.values()} == {101}
    still = drift(kept, now, scores[1], every[1])
    assert audit_factor(still) == 1
    now.signals[:, SIGNALS.index("sam_iou")] += 0.5
    moved = drift(kept, now, scores[1], every[1])
    assert audit_factor(moved) == 2
    assert next(iter(moved)) == "sam_iou"
    assert next(iter(moved.values())).distance > 0.1


def test_whole_numbers_do_not_drift_from_themselves(make_world):
    labels = make_world(images=500).labels
    column = SIGNALS.index("border_sides")
    labels.signals[:, column] = np.random.default_rng(0).integers(0, 5, labels.count)
    scores, every = np.ones(labels.count), np.ones(labels.count, np.bool_)
    found = drift(reference(labels, scores, every), labels, scores, every)
    assert found["border_sides"].distance < 0.02
    assert audit_factor(found) == 1


def test_a_signal_that_vanished_has_drifted_and_one_that_never_was_has_not(make_world):
    labels = make_world(images=200).labels
    scores, every = np.ones(labels.count), np.ones(labels.count, np.bool_)
    labels.signals[:, 0] = np.nan
    kept = reference(labels, scores, every)
    assert SIGNALS[0] not in kept
    labels.signals[:, 1] = np.nan
    found = drift(kept, labels, scores, every)
    assert found[SIGNALS[1]].audit_factor == 2
    assert audit_factor({}) == 1
