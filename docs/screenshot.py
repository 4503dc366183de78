"""Takes a picture of a report in Chromium: `python docs/screenshot.py report.html docs/report.png`."""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def take(page: Path, picture: Path, width: int, height: int | None, *, dark: bool = False, scale: float = 1) -> None:
    """Open a page as a reader would, and keep what is seen.

    Args:
        page: The HTML file.
        picture: PNG to write, or a PDF, as printed.
        width: Of the window, CSS pixels.
        height: Of the window; None: the whole page.
        dark: Whether the reader prefers dark pages.
        scale: Pixels of the picture for each CSS pixel.
    """
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, headless=True, args=ARGUMENTS)
        context = browser.new_context(
            viewport={"width": width, "height": height or 1000},
            color_scheme="dark" if dark else "light",
            device_scale_factor=scale,
        )
        tab = context.new_page()
        tab.goto(page.resolve().as_uri())
        if picture.suffix == ".pdf":
            tab.pdf(path=picture, prefer_css_page_size=True)
        else:
            tab.screenshot(path=picture, full_page=height is None)
        browser.close()


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("page", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int)
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--scale", type=float, default=1)
    given = parser.parse_args()
    take(given.page, given.picture, given.width, given.height, dark=given.dark, scale=given.scale)


if __name__ == "__main__":
    _main()
