"""A session on a real server: what is held is in it, nothing that was drawn is lost, and no sample reveals too much.

Names of sessions.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.review_ui.queue.status import queue_status
from vouch_labels.review_ui.session.samples import mask_in_box
from vouch_labels.review_ui.session.session import dataset_name, reviewer_slug
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.tables import BOX

NEW = {"label": "dog", "bounding_box": [0.5, 0.5, 0.25, 0.25]}
NEW_BOX = [32.0, 24.0, 48.0, 36.0]
PURPOSES = ("audit", "doubtful", "plant", "certify")


def ids(items):
    return [one["item"] for one in items]


def shown(session):
    """Documents of the samples in the session by item."""
    import fiftyone as fo

    return {one["item"]: one for one in fo.load_dataset(session.name)._sample_collection.find()}


def last_answer(documents):
    submitted = [event for event in documents("events") if event["what"] == "submitted"]
    return max(submitted, key=lambda event: event["seq"])["verdicts"]


def boxes(verdicts):
    return [[row[side] for side in BOX] for row in verdicts if row["x0"] is not None]


def test_what_is_held_is_in_the_session_in_order_until_it_is_answered(make_session):
    session = make_session(6)
    items = session.take(4)
    assert [(one["key"], one["class_name"]) for one in items[:2]] == [("00000.jpg", "cat"), ("00000.jpg", "dog")]
    assert set(shown(session)) == set(ids(items))
    session.submit(items[0]["item"], 1.0)
    session.skip(items[1]["item"])
    assert set(shown(session)) == set(ids(session.items())) == set(ids(items[2:]))
    assert session.give_back() == 2
    assert shown(session) == {}


def test_a_lease_that_came_again_is_answered_under_its_own_number(make_session, documents):
    session = make_session(2)
    [one] = session.take(1)
    session.queue.give_back("ann")
    [again] = session.queue.take("ann", 1)
    session.refresh()
    assert again.epoch == 2
    session.submit(one["item"], 1.0)
    [event] = [event for event in documents("events") if event["what"] == "submitted"]
    assert event["epoch"] == 2


def test_what_was_drawn_in_a_lost_session_is_in_the_log(make_session, documents, draw):
    session = make_session(4)
    drawn, untouched, _ = ids(session.take(3))
    draw(session, drawn, NEW)
    session.queue.give_back("ann", [drawn, untouched])
    assert len(session.refresh()) == 1
    [entry] = documents("requests")
    assert (entry["reviewer"], entry["method"], entry["status"]) == ("ann", "DRAFT", 410)
    body = json.loads(entry["body"])
    assert body["item"] == drawn
    assert body["question"]["detections"][1]["bounding_box"] == NEW["bounding_box"]


def test_an_answer_to_what_is_anothers_by_now_is_reported_and_its_drawing_kept(make_session, documents, draw):
    session = make_session(1)
    [item] = ids(session.take(1))
    draw(session, item, NEW)
    session.queue.give_back("ann")
    session.queue.take("bob", 1)
    with pytest.raises(LeaseLostError):
        session.submit(item, 1.0)
    assert session.items() == []
    [late] = [event for event in documents("events") if event["what"] == "late"]
    assert boxes(late["verdicts"]) == [NEW_BOX]
    assert [entry["method"] for entry in documents("requests")] == ["DRAFT"]


@pytest.mark.parametrize("choice", ["as_shown", "bad_box", "not_an_object", "wrong_class"])
def test_undo_draws_again_what_was_drawn_also_after_a_restart(make_session, restarted, documents, draw, choice):
    session = make_session(2)
    [item, _] = ids(session.take(2))
    draw(session, item, NEW, bounding_box=[0.25, 0.25, 0.5, 0.5], mask=None)
    session.submit(item, 1.0, choice)
    before = last_answer(documents)
    again = restarted()
    undone = again.undo()
    assert undone.item == item
    assert undone.answer.endswith("and 1 missed object")
    again.submit(item, 1.0, choice)
    assert [event["what"] for event in documents("events")].count("submitted") == 2
    rejected = choice == "not_an_object"
    assert boxes(last_answer(documents)) == boxes(before) == [*([] if rejected else [[16, 12, 48, 36]]), NEW_BOX]
    assert last_answer(documents) == before


def test_undo_paints_a_mask_again(make_session, restarted, documents, draw):
    session = make_session(2)
    [one, _] = session.take(2)
    # The App lets the box grow with the mask.
    draw(session, one["item"], bounding_box=[0, 5 / 48, 8.5 / 64, 15 / 48], mask=np.tri(15, 9, dtype=np.bool_))
    session.submit(one["item"], 1.0)
    [row] = last_answer(documents)
    assert row["verdict"] == "correct"
    again = restarted()
    again.undo()
    again.submit(one["item"], 1.0)
    assert last_answer(documents) == [row]
    assert mask_in_box(row["rle_counts"], (0.0, 5.0, 9.0, 20.0), 64, 48).tolist() == np.tri(15, 9, dtype=bool).tolist()


def test_a_verdict_by_key_is_given_again_after_undo(make_session, documents):
    session = make_session(1)
    [item] = ids(session.take(1))
    session.submit(item, 1.0, "wrong_class", "dog")
    assert session.undo() == (item, "another class (dog)")
    session.submit(item, 1.0)
    assert last_answer(documents)[0]["verdict"] == "correct"
    assert session.undo() is not None
    assert session.undo() is None


def test_answers_to_a_class_that_left_the_campaign_count(make_session, restarted, documents, uri):
    from vouch_labels.review_ui.queue.database import connect

    session = make_session(8)
    dogs = [one["item"] for one in session.take(8) if one["class_name"] == "dog"]
    database = connect(uri)
    database.queues.update_one({}, {"$set": {"classes": ["cat"]}})
    database.close()
    session = restarted()
    assert session.classes == ("cat",)
    for item, choice in zip(dogs, ("as_shown", "not_an_object", "bad_box", "wrong_class"), strict=True):
        session.submit(item, 1.0, choice, "cat" if choice == "wrong_class" else None)
    found = {event["item"]: event["verdict"] for event in documents("events") if event["what"] == "submitted"}
    assert [found[item] for item in dogs] == ["correct", "not_an_object", "bad_box", "wrong_class"]


def test_nothing_in_a_session_reveals_what_an_item_is_asked_for_or_what_others_and_models_say(make_session, uri):
    from vouch_labels.review_ui.queue.database import connect

    session = make_session(8)
    database = connect(uri)
    for place, purpose in enumerate(PURPOSES):
        said = {"purpose": purpose, "plan": place + 1, "words": f"the detector is unsure: 0.{place}"}
        # Another one has read one of them, and one was leased before.
        said |= {"wanted": 2, "answered_by": ["bob"]} if place == 1 else {"epoch": 3 * place}
        done = database.items.update_one({"place": 2 * place}, {"$set": said})
        assert done.modified_count
    database.close()
    cats = [one for one in session.take(8) if one["class_name"] == "cat"]
    assert len(cats) == len(PURPOSES)
    samples = shown(session)
    assert len({alike(samples[one["item"]]) for one in cats}) == 1
    own = {"sample", "item", "label", "key"}
    assert len({json.dumps({name: one[name] for name in one.keys() - own}, sort_keys=True) for one in cats}) == 1


def test_what_the_models_say_is_told_when_asked_and_marks_the_answer(make_session, documents, uri):
    from vouch_labels.review_ui.queue.database import connect

    session = make_session(4)
    first, second, third = ids(session.take(3))
    database = connect(uri)
    database.items.update_one({"item": first}, {"$set": {"words": "the mask's edge is vague: 0.60"}})
    database.close()
    session.refresh()
    assert session.hint(first) == session.hint(first)
    assert session.hint(second) == "the models say nothing of this"
    session.submit(first, 1.0)
    session.submit(third, 1.0)
    assert session.undo().item == third
    assert session.undo().item == first
    session.submit(first, 1.0)
    found = [(one["item"], one["hinted"]) for one in documents("events") if one["what"] == "submitted"]
    assert found == [(first, True), (third, False), (first, True)]
    assert queue_status(session.queue).hinted == 1
    assert [one["item"] for one in documents("events") if one["what"] == "hinted"] == [first, second]


def test_a_session_of_an_earlier_version_loses_what_led_the_answer(make_session, restarted):
    import fiftyone as fo

    session = make_session(2)
    [item, _] = ids(session.take(2))
    dataset = fo.load_dataset(session.name)
    dataset.add_sample_field("why", fo.StringField)
    dataset.add_sample_field("epoch", fo.IntField)
    dataset.set_values("why", ["the models agree", "SAM is unsure"])
    restarted()
    assert "why" not in shown(session)[item]
    assert not {"why", "epoch"} & set(fo.load_dataset(session.name).get_field_schema())


def alike(sample):
    """A sample without what distinguishes labels and images."""
    for name in ("_id", "item", "filepath", "_rand", "created_at", "last_modified_at"):
        sample.pop(name)
    for field in ("question", "known"):
        for label in sample[field]["detections"]:
            label.pop("_id")
    return repr(sample)


@pytest.mark.parametrize(
    ("reviewer", "begins"),
    [("ann", "ann"), ("Ann", "ann-"), ("Zoë Ångström", "zo-ngstr-m-"), ("李", ""), ("a/../b", "a-b-")],
)
def test_a_slug_is_readable_and_holds_nothing_that_a_path_minds(reviewer, begins):
    slug = reviewer_slug(reviewer)
    assert slug.startswith(begins)
    assert slug
    assert set(slug) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")


@given(st.text(min_size=1), st.text(min_size=1))
def test_two_reviewers_never_share_a_session(one, other):
    assert (dataset_name("q", one) == dataset_name("q", other)) == (one == other)
