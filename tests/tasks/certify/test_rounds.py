import json

import numpy as np
import pyarrow as pa
import pytest

from tests.fake_campaign import draw_images, label, write_campaign
from vouch_labels.schemas.errors import StoreError
from vouch_labels.tasks.certify.apply import apply_policy
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import count_tests, last_round
from vouch_labels.tasks.policy import write_policy
from vouch_labels.tasks.reviews.log import every_test
from vouch_labels.tasks.reviews.plans import write_plan
from vouch_labels.tasks.statistics.threshold_tests import delta_of_test


def test_a_label_that_two_planners_drew_counts_once(campaigned):
    campaigned.fitted().sampled()
    before = certify_campaign(campaigned.campaign)
    plan, tasks = campaigned.reviews.plans[-1]
    write_plan(campaigned.workspace, "main", plan, tasks.slice(0, tasks.num_rows - 3))
    found = last_round(campaigned.reviews.plans)
    assert [one.number for one in found.plans] == [2, 3]
    assert found.tasks["label_id"].to_pylist() == tasks["label_id"].to_pylist()
    after = certify_campaign(campaigned.campaign)
    reviewed = [sum(group.certificate.reviewed for group in one.groups) for one in (before, after)]
    assert reviewed[1] <= reviewed[0]


def test_of_two_declarations_of_a_round_the_last_holds(make_plan):
    def drawn(number, ids, **changes):
        count = len(ids)
        tasks = {"purpose": ["certify"] * count, "label_id": ids, "class_name": ["cat"] * count}
        tasks |= {"inclusion": np.full(count, 0.1), "p_correct": np.full(count, 0.9, np.float32)}
        groups = ({"name": "cat", "classes": ("cat",), "thresholds": (0.9,)},)
        return make_plan(tasks, number=number, round=1, groups=groups, **changes)

    plans = [
        drawn(1, ["a", "b"], calibrator="1"),
        drawn(2, ["a", "c"], calibrator="2"),
        drawn(3, ["d"], calibrator="2"),
    ]
    found = last_round(plans)
    assert [plan.number for plan in found.plans] == [2, 3]
    assert found.tasks["label_id"] == pa.chunked_array([["a", "c", "d"]])
    assert last_round([make_plan({"purpose": ["fit"]})]) is None


def log_of(workspace):
    return [info.key for info in workspace.list("reviews/log/")]


def changed_input(workspace, name, run="main"):
    """What labels depend on is another now; label ids stay, as they do when CLIP's templates change."""
    key = f"runs/{run}/current.json"
    current = json.loads(workspace.get(key).data)
    current["inputs"] |= {name: "another"}
    workspace.put(key, json.dumps(current).encode())


def in_run(campaigned, name, **sections):
    """The same images, labelled under another run.name, by a campaign of its own in the same workspace."""
    run = {"name": name, "shard_size": 50, "retry_delay_s": 0}
    campaign = write_campaign(campaigned.folder, run=run, **sections)
    label(campaign)
    other = type(campaigned)(campaigned.load, campaigned.folder)
    other.campaign = campaign
    return other


def test_another_run_over_the_same_images_counts_on(campaigned):
    campaigned.fitted().sampled(minutes=2)
    assert certify_campaign(campaigned.campaign).look == 1
    other = in_run(campaigned, "other")
    other.sampled(minutes=2, stage="certify")
    found = certify_campaign(other.campaign)
    assert (found.look, found.delta) == (2, pytest.approx(delta_of_test(0.2, 2)))
    assert certify_campaign(other.campaign).look == 2, "with nothing new it is the same test"
    assert [(test.run, test.look) for test in every_test(campaigned.workspace)] == [("main", 1), ("other", 2)]


def test_a_sample_that_was_left_without_a_test_counts_in_another_run(campaigned):
    """Whoever saw the answers of one run and went on in another has chosen by them."""
    campaigned.fitted().sampled(minutes=2)
    other = in_run(campaigned, "other")
    other.sampled(minutes=2, stage="certify")
    assert [(test.run, test.look) for test in every_test(campaigned.workspace)] == [("main", 1)]
    assert certify_campaign(other.campaign).look == 2
    assert certify_campaign(campaigned.campaign).look == 1, "at just the answers that counted"


def test_runs_over_other_images_have_tests_of_their_own(campaigned):
    campaigned.fitted()
    draw_images(campaigned.folder, 100, start=200)
    source = {"uri": str(campaigned.folder / "images"), "include": ["2*.png"]}
    other = in_run(campaigned, "other", source=source)
    other.fitted().sampled(minutes=2)
    campaigned.sampled(minutes=2, stage="certify")
    assert not every_test(campaigned.workspace)
    assert certify_campaign(other.campaign).look == 1
    assert certify_campaign(campaigned.campaign).look == 1


def test_a_sample_that_nobody_answered_counts_nowhere(campaigned):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    other = in_run(campaigned, "other")
    other.sampled(minutes=2, stage="certify")
    assert certify_campaign(other.campaign).look == 1


@pytest.mark.parametrize("name", ["templates", "segmenter weights"])
def test_labels_are_the_same_as_long_as_their_boxes_and_classes_are(campaigned, name):
    campaigned.fitted().sampled(minutes=2)
    assert certify_campaign(campaigned.campaign).look == 1
    changed_input(campaigned.workspace, name)
    campaigned.sampled(minutes=2, stage="certify")
    assert certify_campaign(campaigned.campaign).look == 2


def test_labels_of_other_boxes_have_the_whole_delta(campaigned):
    campaigned.fitted().sampled(minutes=2)
    certify_campaign(campaigned.campaign)
    assert count_tests(campaigned.reviews, campaigned.reviews.numbers) == 1
    changed_input(campaigned.workspace, "detector weights")
    others = np.arange(100, dtype=np.uint64)
    assert count_tests(campaigned.reviews, others) == 0
    assert count_tests(campaigned.reviews, np.append(others, campaigned.reviews.numbers)) == 1


def test_drawing_after_answers_is_a_test_though_templates_have_changed(campaigned):
    campaigned.fitted().sampled(minutes=2)
    changed_input(campaigned.workspace, "templates")
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=2, stage="certify"))
    assert "test 1; the next is tested at" in " ".join(planned.words)
    assert [test.look for test in every_test(campaigned.workspace)] == [1]


def test_a_test_counts_where_the_record_of_its_labels_is_lost(campaigned):
    campaigned.fitted().sampled(minutes=2)
    certify_campaign(campaigned.campaign)
    numbers = campaigned.reviews.numbers
    for info in list(campaigned.workspace.list("populations/")):
        campaigned.workspace.delete(info.key)
    other = in_run(campaigned, "other")
    assert count_tests(other.reviews, numbers) == 1


def refused(action, *arguments):
    """The one line by which something is refused."""
    with pytest.raises(StoreError, match="restore it") as caught:
        action(*arguments)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_deleted_log_is_no_new_start(campaigned):
    campaigned.fitted().sampled(minutes=2)
    found = certify_campaign(campaigned.campaign)
    assert found.version is not None
    for key in log_of(campaigned.workspace):
        campaigned.workspace.delete(key)
    said = [
        refused(plan_reviews, campaigned.campaign, ReviewRequest(fresh=True)),
        refused(certify_campaign, campaigned.campaign),
        refused(apply_policy, campaigned.campaign, found.version),
    ]
    assert all("reviews/log/" in one and "is missing, and was there when" in one for one in said)


def test_a_test_that_was_cut_off_the_log_is_missed_by_its_policy(campaigned):
    campaigned.fitted().sampled(minutes=2)
    found = certify_campaign(campaigned.campaign)
    last = log_of(campaigned.workspace)[-1]
    campaigned.workspace.delete(last)
    assert f"{last} is missing, and was there when policies/{found.version}.json" in refused(
        certify_campaign, campaigned.campaign
    )


def test_disappointing_answers_cannot_be_deleted(campaigned):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    before = {info.key for info in campaigned.workspace.list("reviews/")}
    campaigned.answer(wrong=True)
    answers = next(
        info.key for info in campaigned.workspace.list("reviews/") if info.key not in before and "log" not in info.key
    )
    campaigned.workspace.delete(answers)
    assert f"{answers} is missing" in refused(
        plan_reviews, campaigned.campaign, ReviewRequest(minutes=2, stage="certify", fresh=True)
    )


def test_an_answered_plan_cannot_be_deleted(campaigned):
    campaigned.fitted().sampled(minutes=2)
    for name in ("0002.json", "0002-tasks.parquet"):
        campaigned.workspace.delete(f"reviews/plans/main/{name}")
    assert "reviews/plans/main/0002.json is missing" in refused(
        plan_reviews, campaigned.campaign, ReviewRequest(minutes=2, stage="certify", fresh=True)
    )


def test_tests_of_an_earlier_version_count_in_every_run_of_equal_boxes(campaigned):
    campaigned.fitted()
    inputs = campaigned.reviews.current.inputs
    for number, changes in enumerate([{}, {"templates": "another"}, {"prompts": "another"}], 1):
        record = {
            "number": number, "look": number, "key": str(number), "inputs": inputs | changes, "plans": (1,),
            "precision": 0.9, "confidence": 0.9, "created": "2026-01-01",
        }  # fmt: skip
        campaigned.workspace.put(f"runs/earlier/looks/{number}.json", json.dumps(record).encode())
    campaigned.workspace.put(
        "reviews/plans/earlier/0001.json", campaigned.workspace.get("reviews/plans/main/0001.json").data
    )
    for key in log_of(campaigned.workspace):
        campaigned.workspace.delete(key)
    assert count_tests(campaigned.reviews, campaigned.reviews.numbers) == 2


def test_a_policy_of_an_earlier_version_tells_how_many_tests_there_were(campaigned, certified):
    campaigned.fitted()
    inputs = campaigned.reviews.current.inputs
    write_policy(campaigned.workspace, certified({"cat": 0.5}, version="certified-3-a", inputs=inputs, look=3))
    assert count_tests(campaigned.reviews, campaigned.reviews.numbers) == 3
    changed_input(campaigned.workspace, "prompts")
    assert count_tests(campaigned.reviews, campaigned.reviews.numbers) == 0
