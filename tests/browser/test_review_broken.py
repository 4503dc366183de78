"""Images that cannot be shown are never answered."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.browser


@pytest.fixture
def gone(reviewer):
    """The item that comes first, whose image was deleted while it waited for review."""
    item, *_ = reviewer.review.held()
    (Path(reviewer.review.campaign.source.uri) / item.key).unlink()
    return item


def test_an_item_whose_image_is_gone_can_only_be_skipped(reviewer, gone):
    reviewer.open_again()
    reviewer.open(gone)
    reviewer.page.locator("#vouch-line").get_by_text("cannot be shown").wait_for()
    for keys in ("Alt+Enter", "Alt+n", "Alt+b", "Alt+1"):
        reviewer.press(keys)
        assert reviewer.item() == gone.id
        assert "cannot be shown: skip it (Alt+S)" in reviewer.message()
    reviewer.press("Alt+s")
    reviewer.gone(gone)
    assert reviewer.review.verdicts() == []
    assert gone.id not in {item.id for item in reviewer.review.held()}


FAIL_ONCE = """
const src = Object.getOwnPropertyDescriptor(HTMLImageElement.prototype, "src");
Object.defineProperty(HTMLImageElement.prototype, "src", {
  ...src,
  set(address) {
    const fails = this.dataset.cy === "lighter-sample-image" && !sessionStorage.getItem("failed");
    if (fails) sessionStorage.setItem("failed", "true");
    src.set.call(this, fails ? `${address}&lost` : address);
  },
});
"""


KEEP_SUBMITTING = """() => setInterval(
  () => window.dispatchEvent(new KeyboardEvent("keydown", { code: "Enter", altKey: true, cancelable: true })), 500)"""


def test_an_image_that_came_for_all_but_the_app_is_loaded_again(reviewer):
    page = reviewer.page
    page.route("**/media?*&lost", lambda route: route.abort())
    # A request of the App's own: the browser makes one of all those for the same address.
    page.add_init_script(FAIL_ONCE)
    [item, *_] = reviewer.review.held()
    page.reload()
    reviewer.open(item)
    page.wait_for_selector("#vouch-cover", state="detached")
    # The App says nothing when it has given up: a key that comes before that is answered with a message.
    with page.expect_navigation():
        page.evaluate(KEEP_SUBMITTING)
    reviewer.answer(item, "Alt+Enter")
    assert [row["label_id"] for row in reviewer.review.verdicts()] == [item.id]


def test_crops_whose_image_is_gone_are_left_out_of_the_grid(reviewer, gone):
    # A page that has shown an image keeps it.
    reviewer.open_again()
    reviewer.press("Alt+g")
    broken = reviewer.page.locator(f"#vouch-grid .tile.broken[data-item='{gone.id}']")
    broken.wait_for()
    assert broken.get_attribute("aria-label") == "cannot be shown"
    reviewer.page.wait_for_selector("#vouch-grid[data-ready]")
    tiles = reviewer.page.locator("#vouch-grid .tile")
    shown = [tiles.nth(place).get_attribute("data-item") for place in range(tiles.count())]
    key_of = {item.id: item.key for item in reviewer.review.held()}
    reviewer.press("Alt+Enter")
    verdicts = {row["label_id"]: row["verdict"] for row in reviewer.review.verdicts()}
    assert verdicts == {name: "correct" for name in shown if key_of[name] != gone.key}
    assert verdicts
    assert "skipped: they cannot be shown" in reviewer.message()
