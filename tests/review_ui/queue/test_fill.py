"""Filling on a real server, from a run's own tables and plans.

Known-wrong labels in the queue: nothing of them reveals that they are honeypots.
"""

import shutil
from collections import Counter
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pycocotools import mask as mask_utils

from vouch_labels.review_ui.queue.answers import pull_queue
from vouch_labels.review_ui.queue.database import connect
from vouch_labels.review_ui.queue.fill import fill_queue, join, queue_id
from vouch_labels.review_ui.queue.status import progress
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.reviews import VERDICTS, ReviewPlan
from vouch_labels.tasks.certify.data import read_run_reviews
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.questions import class_by_class, label_tasks, make_honeypots
from vouch_labels.tasks.reviews.open_tasks import task_sheet
from vouch_labels.tasks.reviews.plans import read_plans, write_plan
from vouch_labels.tasks.reviews.resolve import resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts, write_verdicts
from vouch_labels.tasks.run import CampaignRun
from vouch_labels.tasks.shard.shard import process_shard
from vouch_labels.tasks.store.open import open_store


@pytest.fixture
def items(uri):
    database = connect(uri)
    yield lambda **which: list(database.items.find(which).sort("place"))
    database.close()


def import_verdicts(planned, label_ids, verdict="correct", reviewer="eve"):
    rows = dict.fromkeys(VERDICTS.names) | {
        "verdict": verdict, "reviewer": reviewer, "reviewed_at": datetime(2026, 1, 1, tzinfo=UTC), "simulated": False,
    }  # fmt: skip
    table = pa.Table.from_pylist([rows | {"label_id": label_id} for label_id in label_ids], schema=VERDICTS)
    write_verdicts(planned.workspace, table)


def test_the_queue_is_what_would_be_handed_out_in_its_order(planned, items):
    outcome = planned.fill()
    sheet = task_sheet(planned.campaign)
    expected = [(row["label_id"], row["key"], row["shown_class"], row["shown_x0"]) for row in sheet.to_pylist()]
    found = [(one["label_id"], one["key"], one["class_name"], one["box"] and one["box"][0]) for one in items()]
    assert found == expected
    assert outcome.added == len(expected)
    assert {one["kind"] for one in items()} == {"label", "image", "possible_miss"}


def test_filling_again_changes_nothing(planned, items):
    first = planned.fill()
    before = items()
    again = planned.fill()
    assert (again.added, again.kept, again.removed, again.images) == (0, first.added, 0, 0)
    assert items() == before


def test_a_further_plan_adds_what_is_new_after_what_is_there(planned, items):
    first = planned.fill()
    answer_all(planned)
    plan_reviews(planned.campaign, ReviewRequest(minutes=3, stage="queue"))
    second = planned.fill()
    assert second.added > 0
    new = items(state="open")
    assert len(new) == second.added
    assert min(one["place"] for one in new) > max(one["place"] for one in items(state="gone"))
    assert second.removed == first.added


def answer_all(planned):
    """Import an answer to everything that is asked, made elsewhere."""
    (_, tasks) = read_plans(planned.workspace, "main")[-1]
    import_verdicts(planned, tasks["label_id"].drop_null().to_pylist())
    keys = tasks.filter(tasks["label_id"].is_null())["key"].to_pylist()
    rows = dict.fromkeys(VERDICTS.names) | {"verdict": "checked", "reviewer": "eve", "simulated": False}
    write_verdicts(planned.workspace, pa.Table.from_pylist([rows | {"key": key} for key in keys], schema=VERDICTS))


def test_what_people_answered_elsewhere_leaves_but_not_from_a_session(planned, items, rows):
    with planned.open() as queue:
        held = queue.take("ann", 2)
        (_, tasks) = read_plans(planned.workspace, "main")[0]
        labels = [name for name in tasks["label_id"].to_pylist() if name]
        import_verdicts(planned, labels[:5])
        outcome = planned.fill()
        assert (outcome.removed, outcome.leased_but_gone) == (3, 2)
        assert "2 questions not asked any more, but leased" in " ".join(outcome.lines)
        assert len(items(state="gone")) == 3
        queue.submit("ann", held[0].id, held[0].epoch, rows(held[0]), 1.0)
        queue.give_back("ann")
        assert [one["state"] for one in items(item={"$in": [item.id for item in held]})] == ["answered", "gone"]
        assert planned.fill().removed == 0


def test_a_label_that_left_comes_back_when_its_answer_does_not_count(planned, items):
    folder = planned.folder / "workspace" / "reviews"
    shutil.copytree(folder, planned.folder / "earlier")
    planned.fill()
    (_, tasks) = read_plans(planned.workspace, "main")[0]
    label = tasks["label_id"].to_pylist()[0]
    import_verdicts(planned, [label])
    assert planned.fill().removed == 1
    shutil.rmtree(folder)
    shutil.copytree(planned.folder / "earlier", folder)
    assert planned.fill().added == 1
    assert items(item=label)[0]["state"] == "open"


def test_labels_are_as_people_left_them(planned):
    with planned.open() as queue:
        seen = next(item for item in queue.take("ann", 1000) if item.kind == "label" and item.others)
        other = seen.others[0]
        queue.give_back("ann")
    import_verdicts(planned, [other.label_id], "not_an_object")
    outcome = planned.fill()
    assert outcome.images == 1
    with planned.open() as queue:
        again = next(item for item in queue.take("ann", 1000) if item.id == seen.id)
        assert other.label_id not in {label.label_id for label in again.others}
        assert len(again.others) == len(seen.others) - 1


def route(planned, least):
    """Decide by another policy: labels with this detector score are accepted."""
    planned.change(routing={"precision": 0.7, "confidence": 0.8, "accept": {"detector_score": least}})
    with CampaignRun(planned.campaign) as session:
        session.plan()
        for shard in session.pending():
            process_shard(shard.id, session.settings)


def plan_again(planned, change):
    """Replace the plan by one with changed tasks."""
    plan, tasks = read_plans(planned.workspace, "main")[0]
    write_plan(planned.workspace, "main", ReviewPlan.model_validate(plan.model_dump()), change(tasks))
    for path in (planned.folder / "workspace" / "reviews" / "plans" / "main").glob("0001*"):
        path.unlink()


def test_in_an_image_that_is_searched_what_another_policy_accepts_stays(planned, items):
    planned.fill()
    searched = [one["key"] for one in items(purpose="image")]
    doubtful = items(purpose="doubtful", key={"$in": searched})
    assert doubtful
    route(planned, 0.0)
    planned.fill()
    assert items(purpose="doubtful", key={"$in": searched}) == doubtful


def test_what_another_policy_accepts_leaves_but_not_from_a_session(planned, items):
    """Only low-confidence labels: what is asked for other purposes is asked about as before."""
    plan_again(planned, lambda tasks: tasks.filter(pc.not_equal(tasks["purpose"], "image")))
    with planned.open() as queue:
        doubtful = [one["item"] for one in items(purpose="doubtful")]
        others = [one["item"] for one in items(purpose={"$ne": "doubtful"})]
        assert len(doubtful) > 1
        assert others
        queue.take("ann", 1000)
        held = doubtful[1:2]
        queue.give_back("ann", [name for name in doubtful + others if name not in held])
        route(planned, 0.0)
        outcome = planned.fill()
        assert (outcome.removed, outcome.leased_but_gone) == (len(doubtful) - 1, 1)
        assert [item.id for item in queue.held("ann")] == held
        assert sorted(one["item"] for one in items(state="open")) == sorted(others)
        assert task_sheet(planned.campaign).num_rows == len(others)
        route(planned, 1.0)  # which no label has
        assert planned.fill().added == len(doubtful)
        assert task_sheet(planned.campaign).num_rows == len(doubtful + others)
        assert len(items(state="open")) == len(doubtful + others) - 1


def test_where_nothing_is_doubtful_no_decision_is_read(planned, items, monkeypatch):
    planned.fill()
    import_verdicts(planned, [one["item"] for one in items(purpose="doubtful")])
    monkeypatch.setattr("vouch_labels.tasks.labels.read.Decisions._read", None)
    assert planned.fill().kept > 0
    assert task_sheet(planned.campaign).num_rows > 0


def test_labels_that_were_made_again_are_asked_about_no_more(planned, items, rows):
    with planned.open() as queue:
        first, _ = queue.take("ann", 2)
        before = len(items())
        workspace = planned.workspace
        plan, tasks = read_plans(workspace, "main")[0]
        current = workspace.get("runs/main/current.json").data.decode()
        changed = current.replace('"inputs": {', '"inputs": {"weights": "other", ', 1)
        assert changed != current
        workspace.put("runs/main/current.json", changed.encode())
        outcome = planned.fill()
        assert (outcome.removed, outcome.leased_but_gone) == (before - 2, 2)
        assert "1 review plan left out" in " ".join(outcome.lines)
        queue.submit("ann", first.id, first.epoch, rows(first), 1.0)
        queue.give_back("ann")
        assert queue.take("ann", 5) == []
        assert progress(queue, "ann").answered == 1
        workspace.put("runs/main/current.json", current.encode())
        assert planned.fill().added == before - 1
        assert (plan.number, tasks.num_rows) == (1, before)


def test_what_other_models_made_again_is_shown_as_they_made_it(planned, items, uri):
    """A label has one id as long as image, class and box are the same, whatever its mask and its signals are by now."""
    workspace = planned.workspace
    with planned.open() as queue:
        held = queue.take("ann", 1)[0].id
        fresh = items()
        database = connect(uri)
        database.items.update_many({}, {"$set": {"rle": b"an older mask", "words": "older"}})
        database.close()
        plan, tasks = read_plans(workspace, "main")[0]
        current = workspace.get("runs/main/current.json").data.decode()
        workspace.put(
            "runs/main/current.json", current.replace('"inputs": {', '"inputs": {"weights": "other", ', 1).encode()
        )
        write_plan(workspace, "main", plan.model_copy(update={"inputs": {"weights": "other"} | plan.inputs}), tasks)
        assert planned.fill().added == 0
        shown = {one["item"]: (one["rle"], one["words"]) for one in items()}
        assert shown[held] == (b"an older mask", "older")
        queue.give_back("ann")
        planned.fill()
        shown = {one["item"]: (one["rle"], one["words"]) for one in items(state="open")}
        assert shown == {one["item"]: (one["rle"], one["words"]) for one in fresh}


def test_a_class_that_the_campaign_dropped_is_not_asked_about(planned, items):
    with planned.open() as queue:
        held = queue.take("ann", 1, class_name="dog")
        dogs = len(items(class_name="dog"))
        planned.change(classes=["cat"])
        outcome = planned.fill()
        assert outcome.removed == dogs - 1
        assert f"{dogs} questions about 'dog' left out: the campaign has no such class any more" in outcome.lines
        assert [one["item"] for one in items(class_name="dog", asked=False, state="leased")] == [held[0].id]
        queue.give_back("ann")
        assert items(class_name="dog", state="open") == []


def test_what_is_in_a_session_of_a_class_that_was_dropped_can_be_answered(planned, rows):
    with planned.open() as queue:
        items = [queue.take("ann", 1, kind=kind, class_name="dog")[0] for kind in ("label", "possible_miss")]
    planned.change(classes=["cat"])
    with planned.open() as queue:
        assert queue.classes == ("cat",)
        for item in items:
            queue.submit("ann", item.id, item.epoch, rows(item), 1.0)
        assert progress(queue, "ann").answered == 2


def test_an_image_that_left_the_source_is_reported(planned, items):
    planned.fill()
    key = items()[0]["key"]
    about = len(items(key=key))
    (planned.folder / "images" / key).unlink()
    with CampaignRun(planned.campaign) as session:
        session.plan()
    outcome = planned.fill()
    assert outcome.removed == about
    assert any("the image has left the source" in line for line in outcome.lines)
    assert {one["state"] for one in items(key=key)} == {"gone"}


def test_a_question_of_several_plans_is_there_once(planned, items):
    workspace = planned.workspace
    plan, tasks = read_plans(workspace, "main")[0]
    write_plan(workspace, "main", plan, tasks)
    assert len(read_plans(workspace, "main")) == 2
    assert planned.fill().added == len(items()) == tasks.num_rows


def test_the_second_of_two_does_not_see_what_the_first_drew_after_a_pull_either(planned, rows):
    planned.change(review={"second_reviews": 1.0})
    with planned.open() as queue:
        labels = [item for item in queue.take("ann", 1000) if item.kind == "label"]
        asked_of = Counter(item.key for item in labels)
        mine = next(item for item in labels if item.others and asked_of[item.key] > 1)
        box = {"x0": 1, "y0": 2, "x1": 9, "y1": 11}
        drawn = {"key": mine.key, "verdict": "missed", "class_name": "dog", **box}
        before = {item.id: item.others for item in queue.held("ann") if item.key == mine.key}
        queue.submit("ann", mine.id, mine.epoch, [*rows(mine, "not_an_object"), drawn], 1.0)
        assert pull_queue(planned.uri, queue_id(planned.campaign), planned.workspace).verdicts == 2
        planned.fill()
        seen = {item.id: item.others for item in queue.take("bob", 1000) if item.key == mine.key}
        assert seen == before
        again = [item for item in queue.held("ann") if item.key == mine.key]
        assert again
        assert all((1, 2, 9, 11) in [label.box for label in item.others] for item in again)
        theirs = next(item for item in queue.held("bob") if item.id == mine.id)
        queue.submit("bob", mine.id, theirs.epoch, rows(theirs), 1.0)
        planned.fill()
        later = next(item for item in queue.held("bob") if item.key == mine.key)
        assert (1, 2, 9, 11) in [label.box for label in later.others]


def test_labels_asked_twice_are_the_same_every_time_and_no_images(planned, items):
    planned.change(review={"second_reviews": 0.5})
    planned.fill()
    twice = {one["item"] for one in items(wanted=2)}
    labels = items(kind="label")
    assert 0.2 * len(labels) < len(twice) < 0.8 * len(labels)
    assert not items(wanted=2, kind="image")
    planned.change(review={"second_reviews": 0.0})
    planned.fill()
    assert items(wanted=2) == []
    planned.change(review={"second_reviews": 0.5})
    planned.fill()
    assert {one["item"] for one in items(wanted=2)} == twice


def test_from_the_second_reviewer_on_a_fifth_is_read_twice_whoever_comes_first(planned, items, rows):
    with planned.open() as queue:
        join(queue, ["ann"])
        planned.fill()
        assert items(wanted=2) == []
        [read] = queue.take("ann", 1)
        queue.submit("ann", read.id, read.epoch, rows(read), 1.0)
        join(queue, ["ann", "bob"])
    twice = {one["item"] for one in items(wanted=2)}
    labels = items(kind="label")
    assert 0.05 * len(labels) < len(twice) < 0.4 * len(labels)
    assert {one["purpose"] for one in items(wanted=2)} == {"fit"}
    assert read.id not in twice
    planned.fill()
    assert {one["item"] for one in items(wanted=2)} == twice
    planned.change(review={"second_reviews": 0.0})
    with planned.open() as queue:
        join(queue, ["ann", "bob"])
    assert items(wanted=2) == []


def test_nothing_that_people_get_reveals_why_it_is_asked(planned):
    with planned.open() as queue:
        for item in queue.take("ann", 1000):
            assert "purpose" not in item.model_dump()
            assert not {"audit", "doubtful", "plant", "fit", "certify"} & set(item.reason.split())


def test_a_run_without_a_plan_is_reported_what_to_do(planned):
    for path in (planned.folder / "workspace" / "reviews" / "plans").rglob("*.json"):
        path.unlink()
    with pytest.raises(UserError, match="use `vouch plan-reviews` first"):
        planned.fill()


def test_queues_differ_by_workspace_and_run(planned):
    first = queue_id(planned.campaign)
    assert first == queue_id(planned.campaign)
    assert len(first) == 12
    planned.change(run={"name": "other"})
    assert queue_id(planned.campaign) != first


def test_a_label_that_two_read_differently_is_disputed_until_a_third_reading_decides(planned, items, rows):
    def answer(queue, reviewer, verdict):
        item = next(item for item in queue.take(reviewer, 1000) if item.id == name)
        queue.submit(reviewer, item.id, item.epoch, rows(item, verdict), 1.0)
        queue.give_back(reviewer)

    def doubtful(tasks):
        labels = tasks.filter(tasks["label_id"].is_valid())
        purposes = pa.array(["doubtful"] * labels.num_rows)
        return labels.set_column(labels.schema.get_field_index("purpose"), "purpose", purposes)

    planned.change(review={"second_reviews": 1.0})
    workspace, queue_name = open_store(planned.campaign.workspace), queue_id(planned.campaign)
    with planned.open() as queue:
        name = queue.take("ann", 1)[0].id
        answer(queue, "ann", "correct")
        pull_queue(planned.uri, queue_name, workspace)
        answer(queue, "bob", "not_an_object")
        plan_again(planned, doubtful)
        assert planned.fill().again == 0  # not pulled yet
        pull_queue(planned.uri, queue_name, workspace)
        both = read_verdicts(workspace).filter(pc.equal(read_verdicts(workspace)["label_id"], name))
        assert sorted(zip(both["reviewer"].to_pylist(), both["verdict"].to_pylist(), strict=True)) == [
            ("ann", "correct"), ("bob", "not_an_object"),
        ]  # fmt: skip
        assert resolve(both).verdict == ["disputed"]
        assert planned.fill().again == 1
        assert (planned.fill().again, items(item=name)[0]["wanted"]) == (0, 1)
        # Of those who have read it only when nothing else is left.
        assert queue.take("ann", 1)[0].id != name
        assert queue.take("cem", 1)[0].id == name
        answer(queue, "cem", "not_an_object")
        pull_queue(planned.uri, queue_name, workspace)
        assert planned.fill().again == 0
        answers = resolve(read_verdicts(workspace))
        assert answers.verdict[answers.label_ids.index(name)] == "not_an_object"
        assert pc.any(pc.equal(task_sheet(planned.campaign)["label_id"], name)).as_py() is False
        assert fill_queue(planned.campaign, planned.uri).again == 0


@pytest.fixture
def planted(planned):
    """The campaign with a second plan: twenty honeypots among labels without an answer; and these honeypots."""
    (first, _) = read_run_reviews(planned.campaign).plans[0]
    labels = read_run_reviews(planned.campaign).labels
    ids = labels.label_ids.to_pylist()[::2]
    row = dict.fromkeys(VERDICTS.names) | {"verdict": "correct", "reviewer": "eve", "simulated": False}
    write_verdicts(planned.workspace, pa.Table.from_pylist([row | {"label_id": one} for one in ids], schema=VERDICTS))
    reviews = read_run_reviews(planned.campaign)
    scores, rng = np.full(labels.count, 0.9), np.random.default_rng(0)
    honeypots = make_honeypots(reviews, scores, 0.5, 20, rng, routed=False)
    others = label_tasks(labels, np.arange(1, labels.count, 2), "doubtful", scores, reviews.answers)
    write_plan(
        planned.workspace,
        "main",
        ReviewPlan.model_validate(first.model_dump()),
        class_by_class([honeypots, others], rng),
    )
    return planned, honeypots


def test_the_label_that_a_honeypot_was_made_from_is_not_beside_it(planted, uri):
    planned, honeypots = planted
    labels = read_run_reviews(planned.campaign).labels
    classes = dict(zip(labels.label_ids.to_pylist(), labels.class_index.tolist(), strict=True))
    with planned.open() as queue:
        items = {item.id: item for item in queue.take("ann", 1000)}
    database = connect(uri)
    hidden = {one["item"]: one["hide"] for one in database.items.find({"purpose": "plant"})}
    database.close()
    swapped = cut = 0
    for task in honeypots.to_pylist():
        item = items[task["label_id"]]
        source = hidden[item.id]
        assert source in classes
        assert source not in {label.label_id for label in item.others}
        same = [label for label in item.others if np.allclose(label.box, item.box)]
        assert same == []
        if labels.class_names[classes[source]] != item.class_name:
            swapped += 1
            assert item.class_name not in item.reason.replace("the models agree", "")
        else:
            cut += 1
            inside = mask_utils.decode({"size": [item.height, item.width], "counts": item.rle})
            rows, columns = np.nonzero(inside)
            x0, y0, x1, y1 = item.box
            assert columns.min() >= np.floor(x0)
            assert columns.max() < np.ceil(x1)
            assert rows.min() >= np.floor(y0)
            assert rows.max() < np.ceil(y1)
    assert min(swapped, cut) > 3


def test_honeypots_look_like_any_other_label(planted):
    planned, honeypots = planted
    ids = set(honeypots["label_id"].to_pylist())
    with planned.open() as queue:
        items = [item for item in queue.take("ann", 1000) if item.kind == "label"]
    mine, others = ([item for item in items if (item.id in ids) is planted] for planted in (True, False))
    assert len(mine) == len(ids)
    assert all(item.rle for item in mine)
    assert all(item.reason for item in mine)
    assert {len(item.id) for item in mine} == {len(item.id) for item in others}
    assert {item.seconds for item in mine} == {item.seconds for item in others}
    assert {label.model_dump_json() for item in mine for label in item.others if label.label_id in ids} == set()
