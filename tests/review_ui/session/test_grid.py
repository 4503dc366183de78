"""Many labels at once: only those that lie as their crops show them, and trouble with one holds up no other."""

import pytest

from tests.review_ui.session.test_session import NEW, ids
from vouch_labels.review_ui.session.grid import submit_grid, take_grid


@pytest.fixture
def verdicts(documents):
    """Verdicts by item."""
    return lambda: {event["item"]: event["verdict"] for event in documents("events") if event["what"] == "submitted"}


def test_a_grid_is_of_the_class_that_comes_next(make_session):
    session = make_session(10)
    grid = take_grid(session, 3)
    assert [one["class_name"] for one in grid] == ["cat"] * 3
    assert ids(take_grid(session, 3)) == ids(grid)
    assert [one["class_name"] for one in take_grid(session, 2, "dog")] == ["dog"] * 2
    assert take_grid(session, 3, "ox") == []


def test_items_that_are_left_out_hold_up_no_others(make_session):
    session = make_session(6)
    cats = ids(take_grid(session, 9))
    assert len(cats) == 3
    assert ids(take_grid(session, 9, "cat", cats[:2])) == cats[2:]
    assert take_grid(session, 9, "cat", cats) == []
    assert [one["class_name"] for one in take_grid(session, 9, leave=cats)] == ["dog"] * 3
    assert take_grid(session, 9, leave=ids(session.items())) == []


def test_what_was_drawn_on_is_not_in_the_grid(make_session, draw):
    session = make_session(8)
    first, second, third, fourth = ids(take_grid(session, 4))
    draw(session, first, bounding_box=[0.25, 0.25, 0.5, 0.5], mask=None)
    draw(session, second, NEW)
    draw(session, third, label="dog")
    assert ids(take_grid(session, 4, "cat")) == [fourth]
    session.submit(fourth, 1.0)
    assert {one["class_name"] for one in take_grid(session, 4)} == {"dog"}


def test_a_whole_grid_is_answered(make_session, verdicts):
    session = make_session(8)
    shown = ids(take_grid(session, 4))
    assert submit_grid(session, shown, shown[1:2], 8.0, "wrong_class", "dog") == {}
    assert verdicts() == dict(zip(shown, ("correct", "wrong_class", "correct", "correct"), strict=True))


def test_one_that_was_lost_or_changed_holds_up_no_other(make_session, draw, verdicts):
    session = make_session(10)
    lost, changed, *rest = shown = ids(take_grid(session, 5))
    session.queue.give_back("ann", [lost])
    session.queue.take("bob", 1)
    draw(session, changed, NEW)
    kept = submit_grid(session, shown, [], 5.0, "not_an_object")
    assert set(kept) == {lost, changed}
    assert "another's by now" in kept[lost]
    assert "you have changed this label" in kept[changed]
    assert verdicts() == dict.fromkeys(rest, "correct")
    assert ids(session.items()) == [changed]
    # Of those that leave the session none is answered twice, nor otherwise.
    again = submit_grid(session, shown, rest, 5.0, "not_an_object")
    assert set(again) == set(shown)
    assert "another answer to this" in again[rest[0]]
    assert verdicts() == dict.fromkeys(rest, "correct")


def test_a_grid_that_is_sent_again_is_answered(make_session, documents):
    session = make_session(8)
    shown = ids(take_grid(session, 4))
    for _ in range(2):
        assert submit_grid(session, shown, shown[1:2], 8.0, "wrong_class", "dog") == {}
    events = [event for event in documents("events") if event["what"] in ("submitted", "late")]
    assert [event["item"] for event in events] == shown
    assert set(submit_grid(session, shown, shown[1:2], 8.0, "wrong_class", "ox")) == {shown[1]}


def test_what_was_taken_back_does_not_count_as_answered(make_session):
    session = make_session(8)
    shown = ids(take_grid(session, 3))
    submit_grid(session, shown, [], 3.0, "not_an_object")
    session.undo()
    session.give_back()
    assert set(submit_grid(session, shown, [], 3.0, "not_an_object")) == set(shown[2:])
