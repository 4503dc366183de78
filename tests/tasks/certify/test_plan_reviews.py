import itertools
import re
from copy import copy

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from tests import fake_campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import HONEYPOT_ACCEPTED, HONEYPOT_ROUTED
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.data import Guarantee
from vouch_labels.tasks.certify.draw import (
    draw_queue,
    expected_threshold,
    low_confidence_rows,
    nothing_worth_asking,
    removed_per_second,
)
from vouch_labels.tasks.certify.monitor import accepting_classes, outside_of, would_accept
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import policy_of_run
from vouch_labels.tasks.reviews.open_tasks import task_sheet
from vouch_labels.tasks.reviews.plans import CHECK_CLASS_S, read_plans
from vouch_labels.tasks.reviews.verdicts import write_verdicts
from vouch_labels.tasks.status import read_status


def tasks_of(campaigned, number=-1):
    return read_plans(campaigned.workspace, "main")[number][1]


def of(tasks, purpose):
    return tasks.filter(pc.equal(tasks["purpose"], purpose))


def is_one_class_at_a_time(tasks):
    names = tasks["class_name"].to_pylist()
    changes = sum(first != second for first, second in itertools.pairwise(names))
    return changes == len(set(names)) - 1


def in_force(campaigned, **wanted):
    """The active policy, certified at a low precision."""
    campaigned.fitted().sampled(**wanted)
    found = certify_campaign(campaigned.campaign)
    apply_policy(campaigned.campaign, found.version)
    return found.version


def test_a_plan_tells_how_much_a_simulated_reviewer_has_answered(campaigned):
    campaigned.fitted()
    assert plan_reviews(campaigned.campaign, ReviewRequest(minutes=3)).simulated == 0
    campaigned.answer(simulated=True)
    answered = set(tasks_of(campaigned)["label_id"].to_pylist())
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=30, stage="queue", images=60))
    both = answered & set(tasks_of(campaigned)["label_id"].to_pylist())
    assert planned.simulated == len(both)
    # What was answered is asked no more: a new sample is drawn from the rest.
    fresh = plan_reviews(campaigned.campaign, ReviewRequest(minutes=2, stage="certify", fresh=True))
    assert fresh.simulated == 0
    assert fresh.open == sum(fresh.plan.counts.values())


def test_the_first_plan_asks_about_labels_of_all_images(campaigned):
    planned = plan_reviews(campaigned.campaign)
    assert planned.stage == "first"
    assert planned.plan.counts == {"fit": planned.open}
    assert planned.plan.seconds == pytest.approx(1.6 * planned.open, rel=1e-5)
    assert planned.plan.inputs == campaigned.reviews.current.inputs
    tasks, labels = tasks_of(campaigned), campaigned.reviews.labels
    rows = labels.places(tasks["label_id"].to_pylist())
    assert len(set(rows.tolist())) == tasks.num_rows
    assert tasks["place"].to_pylist() == list(range(tasks.num_rows))
    assert is_one_class_at_a_time(tasks)
    inclusion = np.array(tasks["inclusion"].to_pylist())
    assert ((inclusion > 0) & (inclusion <= 1)).all()
    # The seed of the campaign may change; that of the first plan goes on.
    campaigned.answer()
    campaigned.with_routing(seed=9, precision=0.7, confidence=0.8)
    assert plan_reviews(campaigned.campaign).plan.seed == 0


def test_the_budget_is_kept(campaigned):
    assert plan_reviews(campaigned.campaign, ReviewRequest(minutes=1)).plan.counts == {"fit": 37}
    campaigned.answer()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=2, honeypots=15))
    assert planned.plan.counts == {"certify": 60, "plant": 15}
    assert planned.plan.seconds <= 120.001


def test_budgets_that_are_too_small(campaigned):
    for minutes in (0, -1, float("nan")):
        with pytest.raises(UserError, match="--minutes must be more than 0"):
            plan_reviews(campaigned.campaign, ReviewRequest(minutes=minutes))
    with pytest.raises(UserError, match="20 reviewed labels at least, about 1 minutes"):
        plan_reviews(campaigned.campaign, ReviewRequest(minutes=0.1))
    with pytest.raises(UserError, match="not enough for the honeypots"):
        plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, honeypots=500))
    with pytest.raises(UserError, match="cannot be negative"):
        plan_reviews(campaigned.campaign, ReviewRequest(images=-1))
    assert not read_plans(campaigned.workspace, "main")


def test_earlier_tasks_come_first(campaigned):
    with pytest.raises(UserError, match="0 labels are reviewed for fitting"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="certify"))
    plan_reviews(campaigned.campaign)
    with pytest.raises(UserError, match=r"\d+ labels to fit to still wait for an answer"):
        plan_reviews(campaigned.campaign)
    with pytest.raises(UserError, match="0 labels are reviewed for fitting"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="certify"))
    campaigned.answer(part=0.5)
    plan_reviews(campaigned.campaign, ReviewRequest(stage="certify"))
    for wanted in (ReviewRequest(stage="certify"), ReviewRequest(stage="certify", minutes=1)):
        with pytest.raises(UserError, match=r"certification tasks still wait for an answer; .* first, or draw"):
            plan_reviews(campaigned.campaign, wanted)
    again = plan_reviews(campaigned.campaign, ReviewRequest(stage="certify", fresh=True))
    assert again.plan.round == 2
    assert again.earlier_open > 0


def test_the_certification_sample_and_more_of_it(campaigned):
    planned = campaigned.fitted().sampled(minutes=1)
    plan = planned.plan
    assert (planned.stage, plan.round, plan.gate) == ("certify", 1, "delivered")
    assert plan.calibrator
    assert sorted(name for group in plan.groups for name in group.classes) == ["cat", "dog"]
    tasks, reviews = tasks_of(campaigned), campaigned.reviews
    rows = reviews.labels.places(tasks["label_id"].to_pylist())
    fitted = reviews.labels.places(tasks_of(campaigned, 0)["label_id"].to_pylist())
    assert not np.isin(rows, fitted).any()
    assert is_one_class_at_a_time(tasks)
    assert plan.population.labels == reviews.labels.count - len(fitted)
    assert set(tasks["inclusion"].to_pylist()) == {len(rows) / plan.population.labels}
    with pytest.raises(UserError, match="is answered: use `vouch certify`"):
        plan_reviews(campaigned.campaign)
    more = plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, stage="certify"))
    assert (more.plan.round, more.plan.groups, more.plan.calibrator) == (1, plan.groups, plan.calibrator)
    new = set(tasks_of(campaigned)["label_id"].to_pylist())
    assert new
    assert not new & set(tasks["label_id"].to_pylist())
    campaigned.answer()
    assert certify_campaign(campaigned.campaign).look == 2


def test_a_sample_of_every_label_is_told(campaigned):
    campaigned.fitted()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=60))
    assert planned.plan.counts["certify"] == campaigned.reviews.unknown.sum()
    assert "every label there is" in " ".join(planned.words)
    fewer = plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, stage="certify", fresh=True))
    assert fewer.plan.counts["certify"] == 37
    assert "every label there is" not in " ".join(fewer.words)


def test_more_fit_labels_begin_another_round(campaigned):
    campaigned.fitted(part=1.0).sampled(minutes=1)
    certify_campaign(campaigned.campaign)
    planned = plan_reviews(campaigned.campaign, ReviewRequest(stage="first", minutes=1))
    first, second = (set(tasks_of(campaigned, number)["label_id"].to_pylist()) for number in (0, 2))
    assert planned.plan.counts.get("fit")
    assert not first & second
    campaigned.answer()
    assert plan_reviews(campaigned.campaign, ReviewRequest(minutes=1)).plan.round == 2


def test_too_few_reviews_for_gate_accepted_say_how_many(campaigned):
    campaigned.with_routing(gate="accepted", precision=0.9, confidence=0.8)
    campaigned.fitted()
    with pytest.raises(UserError, match=r"too few to certify anything; about \d+ may do|no number of reviews"):
        plan_reviews(campaigned.campaign, ReviewRequest(minutes=0.1))


def test_plants_are_wrong_and_look_like_the_others(campaigned):
    campaigned.fitted()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(honeypots=20))
    assert planned.plan.counts["plant"] == 20
    tasks, labels = tasks_of(campaigned), campaigned.reviews.labels
    honeypots, others = of(tasks, "plant"), of(tasks, "certify")
    assert labels.places(honeypots["label_id"].to_pylist()).max() == -1
    lengths = {len(label) for label in tasks["label_id"].to_pylist()}
    assert len(lengths) == 1
    assert set(honeypots["seconds"].to_pylist()) == set(others["seconds"].to_pylist())
    assert set(honeypots["stratum"].to_pylist()) <= {HONEYPOT_ACCEPTED, HONEYPOT_ROUTED}
    assert is_one_class_at_a_time(tasks)
    # Each stands on a label of its image that was found correct, and is another class or overlaps it too little.
    right = {}
    answers = campaigned.reviews.answers
    for label, word in zip(answers.label_ids, answers.verdict, strict=True):
        row = int(labels.places([label])[0])
        if row >= 0 and word == "correct":
            right.setdefault(labels.keys[int(labels.image_index[row])].as_py(), []).append(row)
    kinds = set()
    for task in honeypots.to_pylist():
        box = np.array([[task[side] for side in BOX]], np.float32)
        overlap = box_iou(box, labels.boxes[right[task["key"]]])[0]
        row = right[task["key"]][int(overlap.argmax())]
        other = labels.class_names[labels.class_index[row]] != task["class_name"]
        assert other or overlap.max() < 0.4
        kinds.add(other)
    assert True in kinds or len(kinds) == 1
    # They stand in no particular place.
    places = np.array(honeypots["place"].to_pylist())
    assert 0.2 < places.mean() / tasks.num_rows < 0.8


def test_plants_need_a_calibrator(campaigned):
    with pytest.raises(UserError, match="--honeypots needs a fitted calibrator"):
        plan_reviews(campaigned.campaign, ReviewRequest(honeypots=5))


def test_image_checks_stand_beside(campaigned):
    planned = plan_reviews(campaigned.campaign, ReviewRequest(images=4))
    tasks = tasks_of(campaigned)
    images = of(tasks, "image")
    assert images.num_rows == 4
    assert sum(stratum.drawn for stratum in planned.plan.image_strata) == 4
    assert set(tasks["purpose"].to_pylist()) == {"fit", "image", "doubtful"}
    assert tasks["place"].to_pylist() == list(range(tasks.num_rows))
    assert planned.plan.seconds <= 30 * 60


def test_no_label_is_asked_twice_in_a_plan(campaigned):
    planned = plan_reviews(campaigned.campaign, ReviewRequest(images=40))
    about = tasks_of(campaigned).filter(tasks_of(campaigned)["label_id"].is_valid())
    drawn = set(of(about, "fit")["label_id"].to_pylist())
    searched = of(tasks_of(campaigned), "image")["key"].combine_chunks()
    assert of(about, "fit").filter(pc.is_in(of(about, "fit")["key"], searched)).num_rows > 0
    ids = about["label_id"].to_pylist()
    assert len(ids) == len(set(ids))
    assert len(drawn) == planned.plan.counts["fit"]


def test_possible_misses_are_asked_last_and_once(campaigned):
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=10, images=3, misses=5))
    tasks = tasks_of(campaigned)
    assert tasks["purpose"].to_pylist()[-5:] == ["possible_miss"] * 5
    assert planned.plan.counts["possible_miss"] == 5
    assert planned.plan.seconds <= 600
    assert tasks["seconds"].to_pylist()[-5:] == pytest.approx([CHECK_CLASS_S] * 5)
    assert any("1.9% and 16.4%" in words for words in planned.words)
    searched = set(of(tasks, "image")["key"].to_pylist())
    asked = asked_pairs(tasks)
    assert len(asked) == 5
    assert not searched & {key for key, _ in asked}
    campaigned.answer()
    sheet = task_sheet(campaigned.campaign)
    assert set(zip(sheet["key"].to_pylist(), sheet["class_name"].to_pylist(), strict=True)) >= asked
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=10, misses=5))
    again = asked_pairs(tasks_of(campaigned))
    assert len(again) == 5
    assert not again & asked


def asked_pairs(tasks):
    found = of(tasks, "possible_miss")
    return set(zip(found["key"].to_pylist(), found["class_name"].to_pylist(), strict=True))


def test_fewer_possible_misses_than_asked_for(campaigned):
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=10_000, misses=50_000))
    assert 0 < planned.plan.counts["possible_miss"] < 50_000
    assert any("(50,000 were asked for; there are no more" in words for words in planned.words)


def test_possible_misses_need_the_presence_stage(campaigned, label):
    models = {"device": "cpu"} | {name: {"backend": "fake"} for name in ("detector", "segmenter", "scorer")}
    models["scorer"] = {"backend": "fake", "presence": False}
    campaign = campaigned.load(models=models)
    label(campaign)
    with pytest.raises(UserError, match=r"models\.scorer\.presence is false") as found:
        plan_reviews(campaign, ReviewRequest(misses=5))
    assert "\n" not in str(found.value)
    assert plan_reviews(campaign, ReviewRequest(images=3)).plan.counts["image"] == 3


@pytest.mark.parametrize("gate", ["accepted", "delivered"])
def test_new_labels_are_audited_beside_doubtful_ones(campaigned, gate):
    campaigned.with_routing(gate=gate, precision=0.7, confidence=0.8)
    version = in_force(campaigned, minutes=3)
    campaigned.more_images(80)
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    assert planned.stage == "queue"
    tasks, reviews = tasks_of(campaigned), campaigned.reviews
    labels, policy = reviews.labels, policy_of_run(reviews)
    audits, doubtful = of(tasks, "audit"), of(tasks, "doubtful")
    new = np.array([int(key[:3]) >= 200 for key in labels.keys.to_pylist()])[labels.image_index]
    frame = new & would_accept(policy, labels) if gate == "accepted" else new & accepting_classes(policy, labels)
    assert frame[labels.places(audits["label_id"].to_pylist())].all()
    assert is_one_class_at_a_time(tasks)
    audit = planned.plan.audit
    assert (audit.policy, audit.labels) == (version, (new & would_accept(policy, labels)).sum())
    assert planned.plan.population.labels == frame.sum() > 0
    (stratum,) = audit.strata
    assert (stratum.size, stratum.drawn) == (frame.sum(), audits.num_rows)
    assert set(audits["inclusion"].to_pylist()) == {audits.num_rows / frame.sum()}
    rows = labels.places(doubtful["label_id"].to_pylist())
    assert not would_accept(policy, labels)[rows].any()
    assert (campaigned.reviews.answers.places(doubtful["label_id"]) == -1).all()
    # The rest of them, unless others came.
    campaigned.answer()
    again = plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, stage="audit"))
    assert again.plan.population.labels == (frame & campaigned.reviews.unknown).sum()
    campaigned.more_images(20, start=300)
    again = plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, stage="audit"))
    assert all(int(key[:3]) >= 300 for key in tasks_of(campaigned)["key"].to_pylist())


def test_no_audit_of_a_policy_that_cannot_be_used(campaigned):
    campaigned.fitted().sampled(minutes=3)
    apply_policy(campaigned.campaign, certify_campaign(campaigned.campaign).version)
    campaigned.with_routing(precision=0.8)
    problem = read_status(campaigned.campaign).in_force.problem
    assert "certifies precision 0.7, not 0.8" in problem
    with pytest.raises(UserError, match=re.escape(problem)):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
    assert plan_reviews(campaigned.campaign).stage == "certify"


def test_a_certificate_outlives_a_new_name_and_no_merger(campaigned):
    version = in_force(campaigned, minutes=3)
    dog = {"prompts": ["dog", "puppy"], "negatives": ["wolf"]}
    campaigned.campaign = campaigned.load(classes=["cat", dog | {"name": "hound", "was": "dog"}])
    fake_campaign.label(campaigned.campaign)
    status = read_status(campaigned.campaign)
    assert (status.in_force.version, status.in_force.certified, status.policy) == (version, True, version)
    assert list(status.classes) == ["cat", "hound"]
    assert status.accepted > 0
    assert plan_reviews(campaigned.campaign, ReviewRequest(minutes=20, images=30)).stage == "queue"
    shown = set(task_sheet(campaigned.campaign)["shown_class"].to_pylist())
    assert "hound" in shown
    assert "dog" not in shown
    campaigned.campaign = campaigned.load(classes=[dog | {"name": "pet", "was": ["cat", "dog"]}])
    problem = read_status(campaigned.campaign).in_force.problem
    assert "was certified without pet" in problem
    with pytest.raises(UserError, match="was certified without pet"):
        fake_campaign.label(campaigned.campaign)


def test_changed_prompts_end_a_policy_before_anything_is_labelled(campaigned):
    version = in_force(campaigned)
    campaigned.campaign = campaigned.load(classes=["cat", {"name": "dog", "prompts": ["dog", "hound"]}])
    problem = read_status(campaigned.campaign).in_force.problem
    assert f"policy {version} was certified with other prompts, scorer texts" in problem
    with pytest.raises(UserError, match=re.escape(problem)):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))


def test_no_reviews_of_labels_of_other_classes(campaigned):
    in_force(campaigned)
    campaigned.campaign = campaigned.load(classes=["cat", {"name": "dog", "prompts": ["dog", "puppy"]}, "bird"])
    assert "was certified without bird" in read_status(campaigned.campaign).in_force.problem
    for stage in (None, "audit", "queue"):
        with pytest.raises(UserError, match=r"was (added|removed)|were put into another order"):
            plan_reviews(campaigned.campaign, ReviewRequest(stage=stage))


def test_after_audits_say_that_new_labels_are_worse_a_new_sample_is_drawn(campaigned):
    campaigned.fitted().sampled(minutes=3)
    version = certify_campaign(campaigned.campaign).version
    apply_policy(campaigned.campaign, version)
    accepted = campaigned.reviews.labels.accepted.sum()
    for start in (200, 300):
        campaigned.more_images(start=start)
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))
        campaigned.answer(wrong=True, again=False)
    found = certify_campaign(campaigned.campaign)
    assert found.version is None
    assert "blind audits" in " ".join(found.remarks)
    # What is certified stays so.
    assert (read_status(campaigned.campaign).policy, campaigned.reviews.labels.accepted.sum()) == (version, accepted)
    planned = plan_reviews(campaigned.campaign)
    assert (planned.stage, planned.plan.round) == ("certify", 2)


def test_a_certified_policy_that_is_not_in_force(campaigned):
    campaigned.fitted().sampled(minutes=3)
    version = certify_campaign(campaigned.campaign).version
    with pytest.raises(UserError, match=rf"policy {version} is certified and not active: use `vouch apply`"):
        plan_reviews(campaigned.campaign)


def test_disputed_labels_are_asked_again_first(campaigned):
    in_force(campaigned)
    disputed = tasks_of(campaigned, 0)["label_id"].to_pylist()[:3]
    for reviewer, word in (("ann", "correct"), ("bob", "bad_box")):
        write_verdicts(campaigned.workspace, campaigned.verdicts(disputed, [word] * 3, reviewer=reviewer, minutes=9))
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=1, stage="queue"))
    tasks = tasks_of(campaigned)
    assert set(disputed) <= set(tasks["label_id"].to_pylist())
    assert set(tasks.filter(pc.is_in(tasks["label_id"], pa.array(disputed)))["purpose"].to_pylist()) == {"doubtful"}


def test_a_plan_without_a_task_is_not_written(campaigned):
    in_force(campaigned, minutes=3)
    campaigned.more_images()
    reviews = campaigned.reviews
    rows, waiting = low_confidence_rows(reviews, np.ones(reviews.labels.count), 10**6)
    assert len(rows) == waiting > 0
    ids = reviews.labels.label_ids.take(pa.array(rows)).to_pylist()
    write_verdicts(campaigned.workspace, campaigned.verdicts(ids, ["correct"] * len(ids)))
    plans = len(read_plans(campaigned.workspace, "main"))
    with pytest.raises(UserError, match=r"^nothing is left to ask: every label that waits has been asked about$"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="queue"))
    assert len(read_plans(campaigned.workspace, "main")) == plans
    # An audit beside it is asked all the same.
    assert set(plan_reviews(campaigned.campaign).plan.counts) == {"audit"}


def test_labels_that_are_quicker_drawn_than_looked_at_are_not_asked(campaigned):
    reviews = campaigned.fitted().reviews
    labels = copy(reviews.labels)
    labels.__dict__["p_correct"] = np.full(labels.count, 0.05)
    doubted = copy(reviews)
    doubted.__dict__["labels"] = labels
    draw = draw_queue(doubted, 600)
    assert sum(table.num_rows for table in draw.tables) == 0
    assert draw.notes == (draw.nothing,)
    waiting = labels.count - sum(tasks.num_rows for _, tasks in reviews.plans)
    assert draw.nothing == (
        f"{waiting:,} labels wait; all have p_correct below 0.063, where drawing is quicker than looking (they stay "
        "out of the data set as ignore regions)"
    )
    assert "1 label waits; " in nothing_worth_asking(1, "include")


def test_new_labels_that_people_know_need_no_audit(campaigned):
    in_force(campaigned, minutes=3)
    campaigned.more_images(5)
    reviews = campaigned.reviews
    new = outside_of(reviews, policy_of_run(reviews))
    ids = reviews.labels.label_ids.filter(pa.array(new)).to_pylist()
    write_verdicts(campaigned.workspace, campaigned.verdicts(ids, ["correct"] * len(ids), minutes=5))
    with pytest.raises(UserError, match="covers every label that it accepts, so there is nothing new to audit"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))


def test_nothing_to_audit(campaigned):
    campaigned.fitted()
    with pytest.raises(UserError, match="nothing to audit"):
        plan_reviews(campaigned.campaign, ReviewRequest(stage="audit"))


def test_the_queue_goes_by_what_a_second_mends():
    p = np.array([0.2, 0.5, 0.9])
    assert (np.diff(removed_per_second(p, "ignore")) > 0).all()
    assert (np.diff(removed_per_second(p, "include")) < 0).all()


@pytest.mark.parametrize("gate", ["accepted", "delivered"])
def test_the_expected_threshold_keeps_the_expected_guarantee(gate):
    p = np.random.default_rng(0).random(5000) ** 0.3
    cut = expected_threshold(p, Guarantee(0.9, 0.9, gate))
    kept = p[p >= cut]
    size = len(kept) + (p[p < cut].sum() if gate == "delivered" else 0)
    assert (1 - kept).sum() / size == pytest.approx(0.1, abs=0.002)
    assert expected_threshold(np.full(9, 0.1), Guarantee(0.9, 0.9, "accepted")) == np.inf
