"""How long FiftyOne's App takes to open before a long queue, and to go on to the next item, in a real browser."""

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.campaigns import Options
from benchmarks.harness import Table, in_child, seconds
from benchmarks.review_made_queue import BATCH, HEIGHT, WIDTH, fill_made_queue, served_queue
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

ITEMS: Final = 10_000
OPENINGS: Final = 9
ANSWERS: Final = 20
"""Less than a batch."""
LIMIT_SECONDS: Final = 2.0
CHROMIUM: Final = os.environ.get("CHROMIUM", "/usr/bin/chromium")
ARGUMENTS: Final = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking")
_PAINTED: Final = """() => document.querySelector('[data-cy=lighter-sample-image]')
    && document.querySelector('#vouch-line b') && !document.querySelector('#vouch-cover')"""
"""The first item's picture with its question; the cover goes when the App has painted it."""
_LOADED: Final = "() => performance.now() - performance.getEntriesByType('navigation')[0].loadEventEnd"
_NEXT: Final = """async () => {
    const start = performance.now();
    const before = document.querySelector('[data-cy=lighter-sample-image]');
    window.dispatchEvent(new KeyboardEvent('keydown', { code: 'Enter', altKey: true, cancelable: true }));
    const renderer = () => document.querySelector('[data-cy=lighter-sample-renderer]')?.style.visibility;
    for (;;) {
        await new Promise((done) => requestAnimationFrame(done));
        const image = document.querySelector('[data-cy=lighter-sample-image]');
        if (image && image !== before && image.complete && image.naturalWidth && renderer() === 'visible') break;
    }
    return performance.now() - start;
}"""
"""From the key to the next item's picture on the screen; the App makes an image of its own for each."""


def measure(options: Options) -> Table:
    """Serve a long queue, open it again and again, and answer a batch.

    Raises:
        UserError: There is no Chromium.
    """
    if not Path(CHROMIUM).exists():
        raise UserError(f"there is no {CHROMIUM}; install chromium, or name it in CHROMIUM")
    items, openings = (500, 2) if options.quick else (ITEMS, OPENINGS)
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        done = in_child(_review, folder=folder, items=items, openings=openings).value
    return Table(
        title="review app",
        columns=["", "median", "longest"],
        rows=[
            [
                "address to the first picture and its question",
                seconds(done["open_median"]),
                seconds(done["open_longest"]),
            ],
            ["the same from the App's load", seconds(done["loaded_median"]), seconds(done["loaded_longest"])],
            ["limit for that", seconds(LIMIT_SECONDS), ""],
            ["key to the next item's picture", seconds(done["next_median"]), seconds(done["next_longest"])],
        ],
        notes=[
            f"{items:,} labels with masks wait in the queue; the first opening takes {BATCH} of them.",
            f"JPEGs of {WIDTH} x {HEIGHT}. "
            f"Chromium without a screen or a GPU, 1400 x 860, from the same machine through the guard. {openings} "
            f"openings, each of a fresh profile without a cache; {ANSWERS} answers.",
        ],
        figures=done,
    )


def _review(folder: str, items: int, openings: int) -> dict[str, float]:
    from vouch_labels.review_ui.queue.database import mongod

    with mongod(Path(folder) / "mongod") as uri:
        fill_made_queue(uri, items)
        _draw_images(Path(folder) / "images")
        with served_queue(uri, Path(folder), "simulated") as address, _browser() as browser:
            opened, loaded = zip(*(_open(browser, address) for _ in range(openings)), strict=True)
            following = _answer(browser, address)
    return {
        "open_median": statistics.median(opened), "open_longest": max(opened),
        "loaded_median": statistics.median(loaded), "loaded_longest": max(loaded),
        "next_median": statistics.median(following), "next_longest": max(following),
    }  # fmt: skip


def _draw_images(folder: Path) -> None:
    """Write the images of a batch, two items each: clouds, of some 100 KB."""
    import numpy as np
    from PIL import Image

    folder.mkdir()
    for number in range(BATCH // 2 + 1):
        rough = np.random.default_rng(number).integers(0, 255, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(rough).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg")


@contextmanager
def _browser() -> "Iterator[Browser]":
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=list(ARGUMENTS))
        yield browser
        browser.close()


@contextmanager
def _page(browser: "Browser") -> "Iterator[Page]":
    context: BrowserContext = browser.new_context(viewport={"width": 1400, "height": 860})
    page = context.new_page()
    page.set_default_timeout(600_000)
    yield page
    context.close()


def _open(browser: "Browser", address: str) -> tuple[float, float]:
    """Seconds from the address, and from the load event of the App's page, to what people work with."""
    with _page(browser) as page:
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.wait_for_function(_PAINTED)
        return time.perf_counter() - start, page.evaluate(_LOADED) / 1000


def _answer(browser: "Browser", address: str) -> list[float]:
    """Seconds from one answer to the next item, each."""
    found = []
    with _page(browser) as page:
        page.goto(address)
        page.wait_for_function(_PAINTED)
        page.keyboard.press("?")
        for _ in range(ANSWERS):
            page.wait_for_selector("[data-cy=annotate-edit-back]")
            page.wait_for_timeout(1500)  # as long as people look at it
            found.append(page.evaluate(_NEXT) / 1000)
    return found
