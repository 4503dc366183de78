import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.policy import Covered, GroupCertificate, Reviewers
from vouch_labels.tasks.certify.active import guarantee_of
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.judge import judge_round
from vouch_labels.tasks.certify.monitor import (
    P_CORRECT,
    audit_draws,
    audit_factor,
    delivered_on_accepted,
    drift,
    expired,
    expired_reason,
    growth_delta,
    monitor,
    reference,
    would_accept,
)
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import labels_of_round, last_round, read_tests
from vouch_labels.tasks.certify.top_up import extension
from vouch_labels.tasks.export.export import read_summary
from vouch_labels.tasks.labels.arrays import SIGNALS
from vouch_labels.tasks.labels.scan import scan
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import default_policy, expired_policy, read_policy, write_policy
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.route import OUTSIDE
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


def test_an_estimate_of_each_complete_audit_of_the_policy(audit_plan, answer, certified):
    first, second, other = audit_plan(1), audit_plan(2), audit_plan(3, version="another")
    wrong = np.arange(100) < 20
    answers = answer([*first[2], *second[2][:60]], [*wrong, *wrong[:60]])
    draws = audit_draws(certified({"cat": 0.5}), [one[:2] for one in (first, second, other)], answers, 0.1)
    assert [draw.plan for draw in draws] == [1, 2]
    assert [draw.unanswered for draw in draws] == [0, 40]
    assert draws[0].estimate.value == pytest.approx(0.8)
    assert draws[0].estimate.low < 0.8 < draws[0].estimate.high
    assert draws[1].estimate is None


def test_an_audit_that_two_planners_drew_counts_once(audit_plan, answer, certified):
    first, again = audit_plan(1), audit_plan(1)
    again = (again[0].model_copy(update={"number": 2}), again[1])
    answers = answer(first[2], np.arange(100) < 20)
    assert [draw.plan for draw in audit_draws(certified({"cat": 0.5}), [first[:2], again], answers, 0.1)] == [1]


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
    policy = certified({"cat": 0.5, "dog": None}, plans=(1,), gate="delivered")
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
    assert "did not keep which labels it covers" in guarantee_of(campaign, workspace, policy.version)
    covers = [
        Covered(
            population=f"{labels:016}", labels=labels, images=40, plan=2, created=f"2026-0{month}-01T00:00:00+00:00"
        )
        for month, labels in ((1, 90), (3, 30))
    ]
    reviewers = Reviewers(assumed=0.05)
    covering = certified({"cat": 0.5, "dog": None}, version="certified-1-covers", covers=covers, reviewers=reviewers)
    write_policy(workspace, covering)
    held = guarantee_of(campaign, workspace, covering.version)
    assert (held.policy, held.precision, held.confidence, held.gate) == (covering.version, 0.95, 0.9, "accepted")
    assert (held.labels, held.images, held.as_of, held.missed) == (120, 80, "2026-03-01T00:00:00+00:00", 0.05)
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


def test_new_images_wait_until_a_top_up_sample_covers_them(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    first = certify_campaign(campaigned.campaign)
    apply_policy(campaigned.campaign)
    accepted = campaigned.reviews.labels.accepted.sum()
    campaigned.more_images()
    reviews = campaigned.reviews
    new = np.array([int(key[:3]) >= 200 for key in reviews.labels.keys.to_pylist()])[reviews.labels.image_index]
    policy = read_policy(campaigned.workspace, first.version, campaigned.campaign.classes)
    good = new & would_accept(policy, reviews.labels)
    # Neither labelling, certifying again nor applying stretches the guarantee over them.
    assert certify_campaign(campaigned.campaign).version == first.version
    apply_policy(campaigned.campaign)
    assert good.any()
    assert campaigned.reviews.labels.accepted.sum() == accepted
    reasons = set(read_reasons(campaigned, np.flatnonzero(good)))
    assert reasons == {OUTSIDE}
    held = guarantee_of(campaigned.campaign, campaigned.workspace, first.version)
    assert (held.labels, held.as_of) == (first.covers[0].labels, first.covers[0].created)
    planned = plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    assert planned.plan.population.labels == good.sum()
    assert certify_campaign(campaigned.campaign).version == first.version, "nothing is answered yet"
    campaigned.answer(wrong=False, again=False)
    extended = certify_campaign(campaigned.campaign)
    assert extended.version not in (None, first.version)
    assert [one.labels for one in extended.covers] == [first.covers[0].labels, good.sum()]
    assert "so the certificate extends to" in " ".join(extended.remarks)
    assert len(read_tests(campaigned.workspace, "main")) == 1, "it is no test of the sample"
    apply_policy(campaigned.campaign)
    assert campaigned.reviews.labels.accepted.sum() == accepted + good.sum() == extended.accepted
    assert certify_campaign(campaigned.campaign).version == extended.version
    # And on: what comes later is tested together with what came before.
    campaigned.more_images(30, start=300)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    campaigned.answer(wrong=False, again=False)
    again = certify_campaign(campaigned.campaign)
    assert len(again.covers) == 3
    kept = read_policy(campaigned.workspace, again.version, campaigned.campaign.classes).certification
    assert kept.extends == first.version


def read_reasons(campaigned, rows):
    reviews = campaigned.reviews
    ids = reviews.labels.label_ids.take(pa.array(rows)).to_pylist()
    with Ledger.load(campaigned.workspace, "main") as ledger:
        tables = scan(campaigned.workspace, "main", ledger, reviews.current.fingerprint, ["label_id", "reason"])
        found = {row["label_id"]: row["reason"] for table in tables for row in table.to_pylist()}
    return [found[one] for one in ids]


def test_bad_new_labels_stay_outside(campaigned):
    """700 images certified, and then worse ones: they are neither accepted nor covered."""
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    first = certify_campaign(campaigned.campaign)
    apply_policy(campaigned.campaign)
    accepted = campaigned.reviews.labels.accepted.sum()
    campaigned.more_images(60)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    tasks = campaigned.reviews.plans[-1][1]["label_id"].to_pylist()
    words = ["not_an_object" if place % 2 else "correct" for place in range(len(tasks))]
    write_verdicts(campaigned.workspace, campaigned.verdicts(tasks, words))
    found = certify_campaign(campaigned.campaign)
    assert found.version is None
    assert f"{len(tasks) // 2} of {len(tasks)} reviewed new labels are accepted and wrong" in found.remarks[0]
    assert "stay outside" in found.remarks[1]
    assert found.outside > 0
    apply_policy(campaigned.campaign)
    assert campaigned.reviews.labels.accepted.sum() == accepted
    assert guarantee_of(campaigned.campaign, campaigned.workspace, first.version).labels == first.covers[0].labels


def test_new_labels_without_an_answer_count_as_wrong(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.more_images(120)
    planned = plan_reviews(campaigned.campaign, ReviewRequest(stage="audit", minutes=2))
    campaigned.answer(wrong=False, part=0.4)
    found = certify_campaign(campaigned.campaign)
    missing = planned.open - int(planned.open * 0.4)
    assert found.version is None
    assert f"({missing:,} without an answer among them)" in found.remarks[0]
    # Where few are missing it extends, and these stay outside.
    campaigned.answer(wrong=False, part=0.95)
    found = certify_campaign(campaigned.campaign)
    missing = planned.open - int(planned.open * 0.95)
    assert found.covers[-1].labels == planned.plan.population.labels - missing
    assert apply_policy(campaigned.campaign).policy == found.version
    unanswered = campaigned.reviews.plans[-1][1]["label_id"].to_pylist()[-missing:]
    assert set(read_reasons(campaigned, campaigned.reviews.labels.places(unanswered))) == {OUTSIDE}
    # They are new once more, and another sample may cover them.
    again = plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    assert again.plan.population.labels == missing
    campaigned.answer(wrong=False, again=False)
    found = certify_campaign(campaigned.campaign)
    assert found.covers[-1].labels == missing
    apply_policy(campaigned.campaign)
    assert OUTSIDE not in read_reasons(campaigned, campaigned.reviews.labels.places(unanswered))


def test_a_lost_record_of_what_is_covered_is_told(campaigned):
    campaigned.fitted().sampled(minutes=3)
    found = certify_campaign(campaigned.campaign)
    key = f"populations/{found.covers[0].population}.parquet"
    kept = campaigned.workspace.get(key).data
    for damaged, told in ((None, "is missing"), (b"PAR1", "is damaged")):
        if damaged is None:
            campaigned.workspace.delete(key)
        else:
            campaigned.workspace.put(key, damaged)
        for command in (certify_campaign, apply_policy):
            with pytest.raises(StoreError, match=f"{told}; restore it: without it nobody knows which labels"):
                command(campaigned.campaign)
    campaigned.workspace.put(key, kept)
    assert apply_policy(campaigned.campaign).policy == found.version


def test_a_simulated_answer_hides_no_others_of_a_top_up_sample(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.more_images(60)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit", minutes=2))
    tasks = campaigned.reviews.plans[-1][1]["label_id"].to_pylist()
    write_verdicts(campaigned.workspace, campaigned.verdicts(tasks[1:], ["not_an_object"] * len(tasks[1:])))
    found = certify_campaign(campaigned.campaign)
    assert (found.version, len(found.remarks)) == (None, 2)
    write_verdicts(campaigned.workspace, campaigned.verdicts(tasks[:1], ["correct"], reviewer="truth", simulated=True))
    again = certify_campaign(campaigned.campaign)
    assert again.remarks == found.remarks


def extended_campaign(campaigned):
    """A policy that was extended to new images, and applied."""
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    first = certify_campaign(campaigned.campaign)
    apply_policy(campaigned.campaign)
    campaigned.more_images(120)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit", minutes=2))
    campaigned.answer(wrong=False, again=False)
    extended = certify_campaign(campaigned.campaign)
    assert len(extended.covers) == 2
    apply_policy(campaigned.campaign)
    return first, extended


def test_answers_of_a_top_up_sample_that_were_changed_since_end_the_extension(campaigned):
    first, extended = extended_campaign(campaigned)
    policy = read_policy(campaigned.workspace, extended.version, campaigned.campaign.classes)
    # What was bounded is kept with it, so that the same answers give the same result.
    assert policy.certification.extension_labels == extended.covers[1].labels
    assert policy.certification.extension_times == 1
    assert expired_reason(campaigned.workspace, "main", policy) is None
    campaigned.answer(wrong=True, minutes=10)
    assert "were changed since" in expired_reason(campaigned.workspace, "main", policy)
    assert "has expired" in guarantee_of(campaigned.campaign, campaigned.workspace, extended.version)
    # What was certified first rests on other answers.
    root = read_policy(campaigned.workspace, first.version, campaigned.campaign.classes)
    assert expired_reason(campaigned.workspace, "main", root) is None
    assert certify_campaign(campaigned.campaign).version == first.version
    assert apply_policy(campaigned.campaign).policy == first.version


def test_a_policy_of_another_run_ends_by_the_answers_it_rests_on(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    policy = read_policy(
        campaigned.workspace, certify_campaign(campaigned.campaign).version, campaigned.campaign.classes
    )
    assert expired_reason(campaigned.workspace, "another", policy) is None
    campaigned.answer(minutes=10, wrong=True)
    assert "were changed since" in expired_reason(campaigned.workspace, "another", policy)


def test_a_policy_is_extended_in_its_own_run_alone(campaigned):
    """Another run of the same labels would bound them afresh, without the samples of this one."""
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    version = certify_campaign(campaigned.campaign).version
    campaigned.campaign = campaigned.load(
        run={"name": "another"}, routing={"gate": "accepted", "precision": 0.7, "confidence": 0.8, "missed": 0.0}
    )
    campaigned.more_images()
    apply_policy(campaigned.campaign, version)
    assert campaigned.reviews.labels.accepted.any()
    with pytest.raises(UserError, match="was certified for another run"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))


def test_new_labels_that_are_drawn_from_again_count_once(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.more_images(60)
    sizes = []
    for _ in range(2):
        planned = plan_reviews(campaigned.campaign, ReviewRequest(stage="audit", minutes=0.5))
        sizes.append(planned.plan.population.labels)
        campaigned.answer(wrong=False, again=False)
    reviews = campaigned.reviews
    policy = read_policy(campaigned.workspace, reviews.current.policy, campaigned.campaign.classes)
    growth = extension(campaigned.workspace, policy, reviews.plans, reviews.answers).growth
    assert sizes[1] < sizes[0] == growth.labels
    assert growth.times == 2
    campaigned.more_images(30, start=300)
    planned = plan_reviews(campaigned.campaign, ReviewRequest(stage="audit", minutes=0.5))
    campaigned.answer(wrong=False, again=False)
    growth = extension(campaigned.workspace, policy, campaigned.reviews.plans, campaigned.reviews.answers).growth
    assert (growth.labels, growth.times) == (sizes[0] + planned.plan.population.labels, 1)


def test_kept_labels_that_are_rejected_later_end_a_policy_of_gate_delivered(campaigned):
    """They are below the threshold, so no more accepted ones are wrong, but fewer labels are delivered."""
    campaigned.with_routing(gate="delivered", precision=0.9, confidence=0.8)
    campaigned.fitted().sampled(minutes=5)
    found = certify_campaign(campaigned.campaign)
    policy = read_policy(campaigned.workspace, found.version, campaigned.campaign.classes)
    least = policy.groups[0].p_correct
    tasks = campaigned.reviews.plans[-1][1]
    below = tasks.filter(pc.less(tasks["p_correct"], least))["label_id"].to_pylist()
    assert len(below) > 10
    rejected = campaigned.verdicts(below, ["not_an_object"] * len(below), minutes=10)
    write_verdicts(campaigned.workspace, rejected)
    assert certify_campaign(campaigned.campaign).version != found.version
    assert "were changed since" in expired_reason(campaigned.workspace, "main", policy)


def test_second_readings_are_held_against_what_is_assumed_before_a_policy_is_extended(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8, missed=0.05)
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.more_images(60)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    campaigned.answer(wrong=False, again=False)
    ids = campaigned.reviews.labels.label_ids.to_pylist()[-100:]
    for reviewer, word in (("dora", "not_an_object"), ("carl", "correct")):
        write_verdicts(campaigned.workspace, campaigned.verdicts(ids, [word] * 100, reviewer=reviewer, minutes=2))
    with pytest.raises(UserError, match=r"two people read .* more than the 5% of routing\.missed"):
        certify_campaign(campaigned.campaign)


@pytest.mark.parametrize(("look", "share"), [(1, 0.08), (2, 0.016)])
def test_what_extends_a_policy_is_tested_as_when_it_was_written(campaigned, look, share):
    campaigned.with_routing(gate="accepted", precision=0.7, confidence=0.8)
    campaigned.fitted().sampled(minutes=3)
    policy = read_policy(
        campaigned.workspace, certify_campaign(campaigned.campaign).version, campaigned.campaign.classes
    )
    assert growth_delta(policy.certification) == pytest.approx(0.2 * 0.1)
    # The first policies do not say, and had 8% of delta at the first test, a fifth of that at each later one.
    first = policy.certification.model_copy(update={"look": look, "extension_delta": None})
    assert "extension_delta" not in first.model_dump()
    assert growth_delta(first) == pytest.approx(0.2 * share)


@pytest.mark.parametrize("gate", ["accepted", "delivered"])
def test_a_policy_ends_just_where_its_own_test_would_not_pass_any_more(campaigned, gate):
    campaigned.with_routing(gate=gate, precision=0.7, confidence=0.8, missed=0.05)
    campaigned.fitted().sampled(minutes=5)
    found = certify_campaign(campaigned.campaign)
    policy = read_policy(campaigned.workspace, found.version, campaigned.campaign.classes)
    assert expired_reason(campaigned.workspace, "main", policy) is None
    tasks = campaigned.reviews.plans[-1][1]
    rows = tasks.filter(pc.equal(tasks["purpose"], "certify")).sort_by("p_correct")
    ids, wrong = rows["label_id"].to_pylist(), campaigned.reviews.answers.wrong_of(rows["label_id"]) == 1
    # First some answers become better, which leaves room for worse ones.
    changes = [(label, "correct") for label in np.array(ids)[wrong][-4:].tolist()]
    changes += [(label, "not_an_object") for label in np.array(ids)[~wrong].tolist()]
    ended = []
    for place, (label, verdict) in enumerate(changes[:30]):
        write_verdicts(campaigned.workspace, campaigned.verdicts([label], [verdict], minutes=10 + place))
        reviews = campaigned.reviews
        last = last_round(reviews.plans)
        judged = judge_round(reviews, last, labels_of_round(reviews, last), 1).judged
        now = {one.plan.name: one.certificate.threshold for one in judged}
        certified = [group for group in policy.groups if group.p_correct is not None]
        held = [now[group.name] is not None and now[group.name] <= group.p_correct for group in certified]
        ended.append(not all(held))
        assert (expired_reason(campaigned.workspace, "main", policy) is not None) == ended[-1]
        if ended[-1]:
            break
    assert ended[-1]
    assert len(ended) > 1
