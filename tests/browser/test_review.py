"""A reviewer at work in the browser: items, answers, boxes, undo; and the grid."""

from contextlib import suppress

import pytest
from playwright.sync_api import TimeoutError
from pycocotools.mask import decode

from vouch_labels.review_ui.queue.status import queue_status

pytestmark = pytest.mark.browser


def about(item, verdict, **columns):
    return {"label_id": item.label_id, "key": item.key, "verdict": verdict, **columns}


def without_times(rows):
    """What was answered; every row must have who, when and how long."""
    for row in rows:
        assert row.pop("reviewer") == "ann"
        assert 0 < row.pop("seconds", 1) <= 3600
        assert row.pop("reviewed_at")
        assert row.pop("simulated") is False
    return rows


def labels_first(reviewer):
    items = reviewer.review.held()
    assert [item.kind for item in items] == ["label"] * 6
    return items


def test_a_batch_by_keyboard_and_mouse(reviewer):
    items = labels_first(reviewer)
    # A box at the edge cannot be moved as freely.
    moved = next(item for item in items if min(item.box) > 20 and item.box[2] < 280 and item.box[3] < 200)
    drawn, renamed, rejected, *_ = (item for item in items if item != moved)
    other = "dog" if renamed.class_name == "cat" else "cat"
    x0, y0, x1, y1 = moved.box
    for item in items:
        reviewer.see(item)
        keys = "Alt+n" if item == rejected else "Alt+Enter"
        if item == drawn:
            reviewer.press("Alt+d")
            reviewer.drag(drawn, (200, 190, 260, 230))
            reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
        elif item == moved:
            reviewer.press("Alt+m")
            reviewer.drag(moved, ((x0 + x1) / 2, (y0 + y1) / 2, (x0 + x1) / 2 + 20, (y0 + y1) / 2 + 12))
        elif item == renamed:
            reviewer.page.locator("[data-cy=root_label_container] input").click()
            reviewer.page.get_by_role("option", name=other, exact=True).click()
        reviewer.press(keys)
    reviewer.page.wait_for_selector("#vouch-sheet")

    sides = ("x0", "y0", "x1", "y1")

    def near(*box):
        return dict(zip(sides, (pytest.approx(side, abs=1.5) for side in box), strict=True))

    expected = {
        drawn.id: [
            about(drawn, "correct"),
            {"key": drawn.key, "verdict": "missed", "class_name": drawn.class_name, **near(200, 190, 260, 230)},
        ],
        moved.id: [about(moved, "bad_box", **near(x0 + 20, y0 + 12, x1 + 20, y1 + 12))],
        renamed.id: [about(renamed, "wrong_class", class_name=other)],
        rejected.id: [about(rejected, "not_an_object")],
    }
    rows = [row for item in items for row in expected.get(item.id, [about(item, "correct")])]
    assert without_times(reviewer.review.verdicts()) == rows


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


def test_a_mask_is_painted_on_with_the_brush(reviewer):
    items = labels_first(reviewer)
    painted = next(
        item for item in items if item.rle and min(item.box) > 20 and item.box[2] < 280 and item.box[3] < 200
    )
    for item in items:
        reviewer.see(item)
        if item == painted:
            break
        reviewer.press("ArrowRight")
    reviewer.page.locator("[data-cy=brush]").click()
    _, y0, x1, y1 = painted.box
    middle = (y0 + y1) / 2
    reviewer.drag(painted, (x1 - 2, middle, x1 + 6, middle))
    reviewer.press("Alt+Enter")
    reviewer.gone(painted)
    [row] = without_times(reviewer.review.verdicts())
    assert (row["label_id"], row["verdict"] in ("correct", "bad_box")) == (painted.id, True)
    before, now = (
        decode({"size": [painted.height, painted.width], "counts": one}) for one in (painted.rle, row["rle_counts"])
    )
    assert now[int(middle), int(x1) + 4]
    assert not before[int(middle), int(x1) + 4]
    # What was there stays.
    assert now[before > 0].all()
    assert now.sum() < before.sum() + 1000


def test_what_is_looked_for_names_a_drawn_box(reviewer):
    with reviewer.review.queue() as queue:
        queue.give_back("ann")
        queue.take("ann", 6, kind="image")
        asked = queue.take("ann", 6, kind="possible_miss")[0]
    reviewer.open_again()
    for item in reviewer.review.held():
        reviewer.see(item)
        if item == asked:
            break
        reviewer.press("ArrowRight")
    assert asked.class_name in reviewer.message()
    for place in range(2):
        reviewer.press("Alt+d")
        reviewer.drag(asked, (20 + 90 * place, 190, 80 + 90 * place, 230))
        reviewer.page.wait_for_selector("[data-cy=annotate-edit-back]")
        reviewer.page.wait_for_function(
            "name => document.querySelector('[data-cy=root_label_container] input')?.value === name",
            arg=asked.class_name,
        )
        reviewer.settle()
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


def test_a_lease_that_was_lost_is_reported_and_the_next_item_comes(reviewer):
    first, second, *_ = labels_first(reviewer)
    reviewer.see(first)
    with reviewer.review.queue() as queue:
        queue.give_back("ann", [first.id])
        [taken] = queue.take("bob", 1)
    assert taken.id == first.id
    reviewer.press("Alt+Enter")
    reviewer.see(second)
    assert "another's by now" in reviewer.message() or "not in your session any more" in reviewer.message()
    assert reviewer.review.verdicts() == []


def test_what_the_models_say_is_on_the_page_only_once_it_is_asked_for(reviewer):
    first, second, *_ = items = labels_first(reviewer)
    reasons = {item.reason for item in items}
    assert all(reasons)
    reviewer.see(first)
    asked = reviewer.page.evaluate(
        """async () => (await fetch("/operators/execute", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ operator_uri: "@vouch/review/session", params: {} }),
        })).text()"""
    )
    for told in (reviewer.page.content(), asked):
        assert first.id in told
        assert [reason for reason in reasons if reason in told] == []
    assert "H what the models say" in reviewer.message()
    reviewer.press("Alt+h")
    assert first.reason in reviewer.message()
    reviewer.press("ArrowRight")
    reviewer.see(second)
    assert second.reason not in reviewer.message()
    reviewer.press("Alt+Enter")
    reviewer.gone(second)
    with reviewer.review.queue() as queue:
        assert queue_status(queue).hinted == 0
    reviewer.press("Alt+g")
    reviewer.page.wait_for_selector("#vouch-grid .tile")
    assert [reason for reason in reasons if reason in reviewer.page.content()] == []
    reviewer.page.keyboard.press("Escape")
    reviewer.page.wait_for_selector("#vouch-grid", state="detached")
    reviewer.page.wait_for_selector("[data-cy=looker]")
    reviewer.press("Alt+t")
    reviewer.answer(first, "Alt+Enter")
    reviewer.gone(first)
    with reviewer.review.queue() as queue:
        assert queue_status(queue).hinted == 1


def test_an_answer_that_is_none_yet_stays_and_shows_why(reviewer):
    [first, *_] = labels_first(reviewer)
    reviewer.see(first)
    reviewer.press("Alt+m")
    reviewer.press("Alt+Enter")
    reviewer.see(first)
    assert "mask was removed" in reviewer.message()
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


def test_a_review_that_has_ended_is_reported(reviewer):
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


@pytest.fixture
def two_of_one_image(reviewer):
    """Two items about one image are all that is in the session, and the first of them is on the screen."""
    with reviewer.review.queue() as queue:
        held, of_image = queue.take("ann", 60, kind="label"), {}
        assert len(held) > 6
        for item in held:
            of_image.setdefault(item.key, []).append(item)
        first, second, *_ = next(items for items in of_image.values() if len(items) > 1)
        queue.give_back("ann", [item.id for item in held if item.id not in (first.id, second.id)])
    items = reviewer.page.evaluate(
        """async () => (await (await fetch("/operators/execute", {
            method: "POST",
            headers: { "Content-Type": "application/json" },
            body: JSON.stringify({ operator_uri: "@vouch/review/session", params: {} }),
        })).json()).result.items"""
    )
    assert [one["item"] for one in items] == [first.id, second.id]
    reviewer.open_again()
    reviewer.see(first)
    return first, second


def test_a_key_that_is_pressed_twice_answers_one_item(reviewer, two_of_one_image):
    first, second = two_of_one_image
    # As a key that bounces, for as long as the second item has not been seen: the browser sees no repetition.
    reviewer.page.evaluate(
        """async (second) => {
            while (document.documentElement.dataset.vouchReady !== second) {
                window.dispatchEvent(
                    new KeyboardEvent("keydown", { code: "KeyN", altKey: true, bubbles: true, cancelable: true }));
                await new Promise((done) => setTimeout(done, 5));
            }
        }""",
        second.id,
    )
    reviewer.see(second)
    [row] = reviewer.review.verdicts()
    assert (row["label_id"], row["verdict"]) == (first.id, "not_an_object")
    reviewer.press("Alt+Enter")
    reviewer.gone(second)
    rows = {row["label_id"]: row["verdict"] for row in reviewer.review.verdicts()}
    assert rows == {first.id: "not_an_object", second.id: "correct"}


def test_after_a_look_into_explore_the_next_item_can_be_answered(reviewer):
    first, second, *_ = labels_first(reviewer)
    reviewer.see(first)
    reviewer.page.get_by_text("Explore", exact=True).click()
    reviewer.page.wait_for_selector("[data-cy=lighter-sample-image]", state="detached")
    reviewer.page.evaluate("window.__foo__.executeOperator('close_sample')")
    reviewer.page.wait_for_selector("[data-cy=modal]", state="detached")
    # A click is lost where the App draws its grid again.
    while not reviewer.page.locator("[data-cy=modal]").count():
        with suppress(TimeoutError):
            reviewer.page.locator("[data-cy=looker]").nth(1).click(timeout=5000)
        reviewer.page.wait_for_timeout(500)
    reviewer.open(second)
    reviewer.answer(second, "Alt+n")
    assert [row["label_id"] for row in reviewer.review.verdicts()] == [second.id]


# The crop grid and the panel in the real App.


def open_grid(reviewer):
    reviewer.press("Alt+g")
    reviewer.page.wait_for_selector("#vouch-grid[data-ready] .tile")
    reviewer.settle()
    return reviewer.page.locator("#vouch-grid .tile")


def test_those_picked_out_get_a_verdict_and_the_others_are_correct(reviewer):
    tiles = open_grid(reviewer)
    items = {item.id: item for item in reviewer.review.held()}
    shown = [tiles.nth(place).get_attribute("data-item") for place in range(tiles.count())]
    assert len(shown) >= 4
    assert len({items[name].class_name for name in shown}) == 1
    for place in (1, 3, 2, 2):
        tiles.nth(place).click()
    reviewer.press("Alt+Enter")
    verdicts = {row["label_id"]: row["verdict"] for row in reviewer.review.verdicts()}
    picked = {shown[1], shown[3]}
    assert verdicts == {name: "not_an_object" if name in picked else "correct" for name in shown}
    assert f"{len(shown)} answered, 2 of them" in reviewer.message()


def test_those_picked_out_may_be_of_another_class(reviewer):
    tiles = open_grid(reviewer)
    shown = [tiles.nth(place).get_attribute("data-item") for place in range(tiles.count())]
    name = {item.id: item for item in reviewer.review.held()}[shown[0]].class_name
    other = "dog" if name == "cat" else "cat"
    tiles.nth(0).click()
    reviewer.page.get_by_label("Those picked out are").select_option("wrong_class")
    reviewer.press("Alt+Enter")
    assert "choose the class" in reviewer.message()
    assert reviewer.review.verdicts() == []
    reviewer.page.get_by_label("Their class").select_option(other)
    reviewer.press("Alt+Enter")
    rows = {row["label_id"]: row for row in reviewer.review.verdicts()}
    assert rows[shown[0]]["verdict"] == "wrong_class"
    assert rows[shown[0]]["class_name"] == other
    assert {rows[each]["verdict"] for each in shown[1:]} == {"correct"}


def test_a_crop_shows_the_box_of_its_label(reviewer):
    tile = open_grid(reviewer).first
    item = next(one for one in reviewer.review.held() if one.id == tile.get_attribute("data-item"))
    reviewer.page.wait_for_function("() => document.querySelector('#vouch-grid .tile img').complete")
    frame, image = tile.locator("i").bounding_box(), tile.locator("img").bounding_box()
    scale = image["width"] / item.width
    assert image["height"] / item.height == pytest.approx(scale)
    found = [(frame["x"] + 2 - image["x"]) / scale, (frame["y"] + 2 - image["y"]) / scale]
    assert found == pytest.approx(item.box[:2], abs=0.5)
    assert (frame["width"] - 4) / scale == pytest.approx(item.box[2] - item.box[0], abs=0.5)


def test_the_panel_counts_and_its_buttons_work(reviewer):
    page = reviewer.page
    first, second, *_ = reviewer.review.held()
    reviewer.answer(first, "Alt+Enter")
    reviewer.see(second)
    reviewer.leave()
    page.get_by_text("1 answered by you").wait_for()
    assert page.get_by_text("5 in your session").is_visible()
    page.get_by_role("button", name="Give all back").click()
    page.wait_for_selector("#vouch-sheet h1")
    assert page.locator("#vouch-sheet h1").inner_text() == "5 items given back"
    assert reviewer.review.held() == []


def test_after_the_grid_the_page_shows_what_is_in_the_session(reviewer):
    count = open_grid(reviewer).count()
    with reviewer.page.expect_navigation():
        reviewer.page.keyboard.press("Escape")
    reviewer.page.get_by_text(f"{count} in your session").wait_for()
    reviewer.page.wait_for_selector("[data-cy=looker]")
    assert reviewer.page.locator("#vouch-grid").count() == 0


def test_one_that_was_lost_and_one_that_was_changed_hold_up_no_other(reviewer):
    review, page = reviewer.review, reviewer.page
    [changed, *_] = review.held()
    reviewer.see(changed)
    # A box that was freed of its mask is changed.
    reviewer.press("Alt+m")
    tiles = open_grid(reviewer)
    shown = [tiles.nth(place).get_attribute("data-item") for place in range(tiles.count())]
    assert len(shown) >= 3
    assert changed.id not in shown
    with review.queue() as queue:
        queue.give_back("ann", shown[:1])
        assert shown[0] in {item.id for item in queue.take("ben", 60)}
    reviewer.press("Alt+Enter")
    kept = page.locator("#vouch-grid .tile.kept")
    kept.wait_for()
    assert kept.get_attribute("data-item") == shown[0]
    assert "another's by now" in kept.get_attribute("aria-label")
    assert f"{len(shown) - 1} answered, all correct; 1 not answered: " in reviewer.message()
    assert {row["label_id"] for row in review.verdicts()} == set(shown[1:])
    for _ in range(100):
        page.wait_for_selector("#vouch-grid[data-ready] .tile, [data-cy=looker]")
        if not page.locator("#vouch-grid").count():
            break
        reviewer.press("Alt+Enter")
        page.wait_for_timeout(500)
    rest = review.held()
    assert changed.id in {item.id for item in rest}
    assert [item.id for item in rest if item.kind == "label"] == [changed.id]
