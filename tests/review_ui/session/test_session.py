"""A desk on a real server: what is held lies on it, nothing that was drawn is lost, and no sample tells too much.

Names of desks.
"""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.review_ui.session.samples import mask_in_box
from vouch_labels.review_ui.session.session import desk_name, reviewer_slug
from vouch_labels.schemas.errors import LeaseLostError
from vouch_labels.schemas.tables import BOX

NEW = {"label": "dog", "bounding_box": [0.5, 0.5, 0.25, 0.25]}
NEW_BOX = [32.0, 24.0, 48.0, 36.0]
PURPOSES = ("audit", "doubtful", "plant", "certify")


def ids(cards):
    return [card["item"] for card in cards]


def laid(desk):
    """Documents of the samples on the desk by item."""
    import fiftyone as fo

    return {one["item"]: one for one in fo.load_dataset(desk.name)._sample_collection.find()}


def last_answer(documents):
    submitted = [event for event in documents("events") if event["what"] == "submitted"]
    return max(submitted, key=lambda event: event["seq"])["verdicts"]


def boxes(verdicts):
    return [[row[side] for side in BOX] for row in verdicts if row["x0"] is not None]


def test_what_is_held_lies_on_the_desk_in_order_until_it_is_answered(make_desk):
    desk = make_desk(6)
    cards = desk.take(4)
    assert [(card["key"], card["class_name"]) for card in cards[:2]] == [("00000.jpg", "cat"), ("00000.jpg", "dog")]
    assert set(laid(desk)) == set(ids(cards))
    desk.submit(cards[0]["item"], 1.0)
    desk.skip(cards[1]["item"])
    assert set(laid(desk)) == set(ids(desk.cards())) == set(ids(cards[2:]))
    assert desk.give_back() == 2
    assert laid(desk) == {}


def test_a_lease_that_came_anew_is_answered_under_its_own_number(make_desk, documents):
    desk = make_desk(2)
    [card] = desk.take(1)
    desk.queue.give_back("ann")
    [again] = desk.queue.take("ann", 1)
    desk.refresh()
    assert laid(desk)[card["item"]]["epoch"] == again.epoch == 2
    desk.submit(card["item"], 1.0)
    [event] = [event for event in documents("events") if event["what"] == "submitted"]
    assert event["epoch"] == 2


def test_what_was_drawn_on_a_lost_desk_is_in_the_log(make_desk, documents, draw):
    desk = make_desk(4)
    drawn, untouched, _ = ids(desk.take(3))
    draw(desk, drawn, NEW)
    desk.queue.give_back("ann", [drawn, untouched])
    assert len(desk.refresh()) == 1
    [entry] = documents("requests")
    assert (entry["reviewer"], entry["method"], entry["status"]) == ("ann", "DRAFT", 410)
    body = json.loads(entry["body"])
    assert body["item"] == drawn
    assert body["question"]["detections"][1]["bounding_box"] == NEW["bounding_box"]


def test_an_answer_to_what_is_anothers_by_now_is_told_and_its_drawing_kept(make_desk, documents, draw):
    desk = make_desk(1)
    [item] = ids(desk.take(1))
    draw(desk, item, NEW)
    desk.queue.give_back("ann")
    desk.queue.take("bob", 1)
    with pytest.raises(LeaseLostError):
        desk.submit(item, 1.0)
    assert desk.cards() == []
    [late] = [event for event in documents("events") if event["what"] == "late"]
    assert boxes(late["verdicts"]) == [NEW_BOX]
    assert [entry["method"] for entry in documents("requests")] == ["DRAFT"]


@pytest.mark.parametrize("said", ["as_shown", "bad_box", "not_an_object", "wrong_class"])
def test_undo_draws_again_what_was_drawn_also_after_a_restart(make_desk, restarted, documents, draw, said):
    desk = make_desk(2)
    [item, _] = ids(desk.take(2))
    draw(desk, item, NEW, bounding_box=[0.25, 0.25, 0.5, 0.5], mask=None)
    desk.submit(item, 1.0, said)
    before = last_answer(documents)
    again = restarted()
    undone = again.undo()
    assert undone.item == item
    assert undone.said.endswith("and 1 missed object")
    again.submit(item, 1.0, said)
    assert [event["what"] for event in documents("events")].count("submitted") == 2
    rejected = said == "not_an_object"
    assert boxes(last_answer(documents)) == boxes(before) == [*([] if rejected else [[16, 12, 48, 36]]), NEW_BOX]
    assert last_answer(documents) == before


def test_undo_paints_a_mask_again(make_desk, restarted, documents, draw):
    desk = make_desk(2)
    [card, _] = desk.take(2)
    # The App lets the box grow with the mask.
    draw(desk, card["item"], bounding_box=[0, 5 / 48, 8.5 / 64, 15 / 48], mask=np.tri(15, 9, dtype=np.bool_))
    desk.submit(card["item"], 1.0)
    [row] = last_answer(documents)
    assert row["verdict"] == "correct"
    again = restarted()
    again.undo()
    again.submit(card["item"], 1.0)
    assert last_answer(documents) == [row]
    assert mask_in_box(row["rle_counts"], (0.0, 5.0, 9.0, 20.0), 64, 48).tolist() == np.tri(15, 9, dtype=bool).tolist()


def test_a_verdict_by_key_is_said_anew_after_undo(make_desk, documents):
    desk = make_desk(1)
    [item] = ids(desk.take(1))
    desk.submit(item, 1.0, "wrong_class", "dog")
    assert desk.undo() == (item, "another class (dog)")
    desk.submit(item, 1.0)
    assert last_answer(documents)[0]["verdict"] == "correct"
    assert desk.undo() is not None
    assert desk.undo() is None


def test_answers_to_a_class_that_left_the_campaign_count(make_desk, restarted, documents, uri):
    from vouch_labels.review_ui.queue.database import connect

    desk = make_desk(8)
    dogs = [card["item"] for card in desk.take(8) if card["class_name"] == "dog"]
    database = connect(uri)
    database.queues.update_one({}, {"$set": {"classes": ["cat"]}})
    database.close()
    desk = restarted()
    assert desk.classes == ("cat",)
    for item, said in zip(dogs, ("as_shown", "not_an_object", "bad_box", "wrong_class"), strict=True):
        desk.submit(item, 1.0, said, "cat" if said == "wrong_class" else None)
    found = {event["item"]: event["verdict"] for event in documents("events") if event["what"] == "submitted"}
    assert [found[item] for item in dogs] == ["correct", "not_an_object", "bad_box", "wrong_class"]


def test_nothing_on_a_desk_tells_what_an_item_is_asked_for(make_desk, uri):
    from vouch_labels.review_ui.queue.database import connect

    desk = make_desk(8)
    database = connect(uri)
    for place, purpose in enumerate(PURPOSES):
        done = database.items.update_one({"place": 2 * place}, {"$set": {"purpose": purpose, "plan": place + 1}})
        assert done.modified_count
    database.close()
    cats = [card for card in desk.take(8) if card["class_name"] == "cat"]
    assert len(cats) == len(PURPOSES)
    samples = laid(desk)
    assert len({alike(samples[card["item"]]) for card in cats}) == 1
    own = {"sample", "item", "label", "key"}
    assert len({json.dumps({name: card[name] for name in card.keys() - own}, sort_keys=True) for card in cats}) == 1


def alike(sample):
    """A sample without what tells one label and image from another."""
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
def test_two_reviewers_never_share_a_desk(one, other):
    assert (desk_name("q", one) == desk_name("q", other)) == (one == other)
