"""The crop grid and the panel in the real App."""

import pytest

pytestmark = pytest.mark.browser


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
