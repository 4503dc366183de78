"""A review in the real App: what people do in the browser is what the verdicts say."""

import pytest

pytestmark = pytest.mark.browser


def about(item, verdict, **columns):
    return {"label_id": item.label_id, "key": item.key, "verdict": verdict, **columns}


def without_times(rows):
    """What was said; every row must tell who, when and how long."""
    for row in rows:
        assert row.pop("reviewer") == "ann"
        assert 0 < row.pop("seconds", 1) < 300
        assert row.pop("reviewed_at")
        assert row.pop("simulated") is False
    return rows


def take_batch(reviewer):
    reviewer.press("Alt+t")
    reviewer.page.wait_for_selector("[data-cy=lighter-sample-image]")
    return reviewer.review.held()


def labels_first(reviewer):
    items = take_batch(reviewer)
    assert [item.kind for item in items] == ["label"] * 6
    return items


def test_a_batch_by_keyboard_and_mouse(reviewer):
    drawn, moved, renamed, rejected, *rest = labels_first(reviewer)

    reviewer.see(drawn)
    reviewer.press("Alt+d")
    reviewer.drag(drawn, (200, 190, 260, 230))
    reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
    reviewer.press("Alt+Enter")

    reviewer.see(moved)
    reviewer.press("Alt+m")
    x0, y0, x1, y1 = moved.box
    reviewer.drag(moved, ((x0 + x1) / 2, (y0 + y1) / 2, (x0 + x1) / 2 + 20, (y0 + y1) / 2 + 12))
    reviewer.press("Alt+Enter")

    reviewer.see(renamed)
    other = "dog" if renamed.class_name == "cat" else "cat"
    reviewer.page.locator("[data-cy=root_label_container] input").click()
    reviewer.page.get_by_role("option", name=other, exact=True).click()
    reviewer.press("Alt+Enter")

    reviewer.answer(rejected, "Alt+n")
    for item in rest:
        reviewer.answer(item, "Alt+Enter")
    reviewer.page.wait_for_selector("#vouch-sheet")
    rows = without_times(reviewer.review.verdicts())
    near = {"abs": 1.5}
    box = dict(
        zip(("x0", "y0", "x1", "y1"), (pytest.approx(side, **near) for side in (200, 190, 260, 230)), strict=True)
    )
    by = (x0 + 20, y0 + 12, x1 + 20, y1 + 12)
    expected = [
        about(drawn, "correct"),
        {"key": drawn.key, "verdict": "missed", "class_name": drawn.class_name, **box},
        about(moved, "bad_box", **dict(zip(box, (pytest.approx(side, **near) for side in by), strict=True))),
        about(renamed, "wrong_class", class_name=other),
        about(rejected, "not_an_object"),
        *(about(item, "correct") for item in rest),
    ]
    assert rows == expected


def test_undo_brings_back_what_was_drawn_and_skip_asks_later(reviewer):
    first, second, third, *_ = labels_first(reviewer)
    reviewer.see(first)
    reviewer.press("Alt+d")
    reviewer.drag(first, (200, 190, 260, 230))
    reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
    reviewer.press("Alt+n")
    reviewer.see(second)
    reviewer.press("Alt+z")
    reviewer.see(first)
    reviewer.press("Alt+Enter")
    reviewer.answer(second, "Alt+s")
    reviewer.answer(third, "Alt+b")
    rows = reviewer.review.verdicts()
    assert sorted((row["verdict"], row["key"]) for row in rows) == sorted(
        [("correct", first.key), ("missed", first.key), ("bad_box", third.key)]
    )
    assert second.id not in {item.id for item in reviewer.review.held()}


def test_what_is_looked_for_names_a_drawn_box(reviewer):
    with reviewer.review.queue() as queue:
        queue.take("ann", 6, kind="image")
        asked = queue.take("ann", 6, kind="possible_miss")[0]
    for item in take_batch(reviewer):
        reviewer.see(item)
        if item == asked:
            break
        reviewer.press("ArrowRight")
    assert asked.class_name in reviewer.said()
    for place in range(2):
        reviewer.press("Alt+d")
        reviewer.drag(asked, (20 + 90 * place, 190, 80 + 90 * place, 230))
        reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
        reviewer.page.wait_for_timeout(400)
    other = "dog" if asked.class_name == "cat" else "cat"
    reviewer.press("Alt+1" if other == "cat" else "Alt+2")
    reviewer.press("Alt+Enter")
    rows = without_times(reviewer.review.verdicts())
    assert [(row["verdict"], row["class_name"]) for row in rows] == [
        ("checked", asked.class_name),
        ("missed", asked.class_name),
        ("missed", other),
    ]


def test_keys_are_left_alone_where_people_type(reviewer):
    [first, *_] = labels_first(reviewer)
    reviewer.see(first)
    field = reviewer.page.locator("[data-cy=root_label_container] input")
    field.fill("o")
    reviewer.press("Alt+n")
    reviewer.press("Alt+2")
    assert reviewer.review.verdicts() == []
    reviewer.see(first)


def test_a_lease_that_was_lost_is_told_and_the_next_item_comes(reviewer):
    first, second, *_ = labels_first(reviewer)
    reviewer.see(first)
    with reviewer.review.queue() as queue:
        queue.give_back("ann", [first.id])
        [taken] = queue.take("bob", 1)
    assert taken.id == first.id
    reviewer.press("Alt+Enter")
    reviewer.see(second)
    assert "another's by now" in reviewer.said() or "not on your desk any more" in reviewer.said()
    assert reviewer.review.verdicts() == []


def test_an_answer_that_is_none_yet_stays_and_says_why(reviewer):
    [first, *_] = labels_first(reviewer)
    reviewer.see(first)
    reviewer.press("Alt+m")
    reviewer.press("Alt+Enter")
    reviewer.see(first)
    assert "mask was removed" in reviewer.said()
    assert reviewer.review.verdicts() == []
    reviewer.press("Alt+b")
    assert [row["verdict"] for row in reviewer.review.verdicts()] == ["bad_box"]


def test_the_list_of_classes_takes_no_key_away(reviewer):
    first, second, third, *_ = labels_first(reviewer)
    reviewer.see(first)
    field = reviewer.page.locator("[data-cy=root_label_container] input")
    field.focus()
    reviewer.press("Alt+n")
    reviewer.see(second)
    field.click()
    reviewer.press("Escape")
    reviewer.answer(second, "Alt+Enter")
    reviewer.see(third)
    assert [row["verdict"] for row in reviewer.review.verdicts()] == ["not_an_object", "correct"]


def test_a_review_that_has_ended_is_told_in_words(reviewer):
    labels_first(reviewer)
    reviewer.context.route("**/*", lambda route: route.abort())
    ended = reviewer.page.locator("#vouch-ended")
    ended.get_by_text("The review has ended, or its server cannot be reached").wait_for()
    reviewer.context.unroute("**/*")
    ended.get_by_text("The review answers again").wait_for()
    ended.get_by_role("button", name="Reload").click()
    reviewer.page.wait_for_selector("[data-cy=lighter-sample-image]")
    assert ended.count() == 0


def test_any_class_can_be_typed(reviewer):
    [first, second, *_] = labels_first(reviewer)
    reviewer.see(first)
    other = "dog" if first.class_name == "cat" else "cat"
    reviewer.press("Alt+0")
    reviewer.page.keyboard.type(other[:2])
    reviewer.page.get_by_role("option", name=other, exact=True).wait_for()
    reviewer.page.keyboard.press("ArrowDown")
    reviewer.page.keyboard.press("Enter")
    reviewer.press("Alt+Enter")
    reviewer.see(second)
    assert [(row["verdict"], row["class_name"]) for row in reviewer.review.verdicts()] == [("wrong_class", other)]
