"""Takes the pictures of a review, from the real App: `python docs/review_pictures.py demo/campaign.yaml docs`."""

import argparse
import os
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests.browser.conftest import ARGUMENTS, CHROMIUM, Reviewer, reviewing
from vouch_labels.review_ui.queue.database import mongod
from vouch_labels.schemas.campaign_file import load_campaign

_QUALITY = 82
_WIDTH, _HEIGHT = 1360, 820


def take(campaign: Path, folder: Path, wrong: int) -> None:
    """Serve the campaign's open review plan from a database of its own, and picture what a reviewer sees.

    Args:
        campaign: With a run and a review plan that waits for answers; its workspace is only read.
        folder: Where review-panel.jpg, review-annotate.jpg and review-grid.jpg go.
        wrong: Which crop of the grid is picked, counted from 1; look at the picture first.
    """
    with tempfile.TemporaryDirectory(prefix="vouch-pictures-") as scratch:
        os.environ["XDG_DATA_HOME"] = scratch
        config = load_campaign(campaign)
        with (
            mongod(Path(scratch) / "mongod") as uri,
            reviewing(config, uri, Path(scratch)) as review,
            sync_playwright() as play,
        ):
            browser = play.chromium.launch(executable_path=str(CHROMIUM), headless=True, args=ARGUMENTS)
            reviewer = Reviewer(browser, review, _WIDTH, _HEIGHT)
            _picture(reviewer, folder, wrong)
            reviewer.close()
            browser.close()


def _picture(reviewer: Reviewer, folder: Path, wrong: int) -> None:
    page = reviewer.page

    def shoot(name: str) -> None:
        page.mouse.move(0, 0)
        page.wait_for_timeout(1500)
        page.screenshot(path=folder / f"{name}.jpg", quality=_QUALITY)

    reviewer.press("Alt+g")
    page.wait_for_selector("#vouch-grid .tile img")
    page.wait_for_function("() => [...document.querySelectorAll('#vouch-grid img')].every(image => image.complete)")
    page.locator("#vouch-grid .tile").nth(wrong - 1).click()
    shoot("review-grid")
    page.keyboard.press("Escape")
    page.wait_for_selector("#vouch-grid", state="detached")
    page.wait_for_selector("[data-cy=looker]")
    reviewer.press("Alt+t")
    items = reviewer.review.held()
    told = [item for item in items if "prefers" in item.reason] or items
    for item in items:
        reviewer.see(item)
        if item == told[0]:
            break
        reviewer.press("ArrowRight")
    shoot("review-annotate")
    reviewer.press("Alt+Enter")
    reviewer.leave()
    page.get_by_text("answered by you").wait_for()
    shoot("review-panel")


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("campaign", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--wrong", type=int, default=1, help="the crop of the grid to pick, from 1 (default: 1)")
    given = parser.parse_args()
    take(given.campaign, given.folder, given.wrong)


if __name__ == "__main__":
    _main()
