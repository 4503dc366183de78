"""Many labels at once: only those that lie as their crops show them, and trouble with one holds up no other."""

import pytest

from tests.review_ui.desk.test_desk import NEW, ids


@pytest.fixture
def said(documents):
    """Verdicts by item."""
    return lambda: {event["item"]: event["verdict"] for event in documents("events") if event["what"] == "submitted"}


def test_a_grid_is_of_the_class_that_comes_next(make_desk):
    desk = make_desk(10)
    grid = desk.take_grid(3)
    assert [card["class_name"] for card in grid] == ["cat"] * 3
    assert ids(desk.take_grid(3)) == ids(grid)
    assert [card["class_name"] for card in desk.take_grid(2, "dog")] == ["dog"] * 2
    assert desk.take_grid(3, "ox") == []


def test_items_that_are_left_out_hold_up_no_others(make_desk):
    desk = make_desk(6)
    cats = ids(desk.take_grid(9))
    assert len(cats) == 3
    assert ids(desk.take_grid(9, "cat", cats[:2])) == cats[2:]
    assert desk.take_grid(9, "cat", cats) == []
    assert [card["class_name"] for card in desk.take_grid(9, leave=cats)] == ["dog"] * 3
    assert desk.take_grid(9, leave=ids(desk.cards())) == []


def test_what_was_drawn_on_is_not_in_the_grid(make_desk, draw):
    desk = make_desk(8)
    first, second, third, fourth = ids(desk.take_grid(4))
    draw(desk, first, bounding_box=[0.25, 0.25, 0.5, 0.5], mask=None)
    draw(desk, second, NEW)
    draw(desk, third, label="dog")
    assert ids(desk.take_grid(4, "cat")) == [fourth]
    desk.submit(fourth, 1.0)
    assert {card["class_name"] for card in desk.take_grid(4)} == {"dog"}


def test_a_whole_grid_is_answered(make_desk, said):
    desk = make_desk(8)
    shown = ids(desk.take_grid(4))
    assert desk.submit_grid(shown, shown[1:2], 8.0, "wrong_class", "dog") == {}
    assert said() == dict(zip(shown, ("correct", "wrong_class", "correct", "correct"), strict=True))


def test_one_that_was_lost_or_changed_holds_up_no_other(make_desk, draw, said):
    desk = make_desk(10)
    lost, changed, *rest = shown = ids(desk.take_grid(5))
    desk.queue.give_back("ann", [lost])
    desk.queue.take("bob", 1)
    draw(desk, changed, NEW)
    kept = desk.submit_grid(shown, [], 5.0, "not_an_object")
    assert set(kept) == {lost, changed}
    assert "another's by now" in kept[lost]
    assert "you have changed this label" in kept[changed]
    assert said() == dict.fromkeys(rest, "correct")
    assert ids(desk.cards()) == [changed]
    # Sent once more, as after an answer that did not come back: nothing is answered twice.
    again = desk.submit_grid(shown, rest, 5.0, "not_an_object")
    assert set(again) == set(shown)
    assert said() == dict.fromkeys(rest, "correct")
