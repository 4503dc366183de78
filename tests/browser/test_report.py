"""The report as a reader opens it: from a file, in a real browser."""

import base64
import io

import pytest
from PIL import Image

from vouch_labels.tasks.report.render import Thumbnail, render

pytestmark = pytest.mark.browser

WIDTHS = (390, 1280)
SECTIONS = ("Precision", "Recall", "Scores", "Classes", "Pictures", "People's time", "Against ground truth",
            "What changed", "Images that failed", "How it was made")  # fmt: skip


@pytest.fixture
def page(tmp_path, certified_report):
    file = io.BytesIO()
    Image.new("RGB", (64, 64), (200, 80, 40)).save(file, "JPEG")
    thumbnail = Thumbnail(base64.b64encode(file.getvalue()).decode(), "")
    path = tmp_path / "report.html"
    path.write_text(render(certified_report, [thumbnail, thumbnail, Thumbnail("", "the image has left the source")]))
    return path


@pytest.fixture
def opened(browser, page):
    """Open the page in a window of a width; afterwards nothing may have been asked of anybody, or gone wrong."""
    contexts, complaints, requests = [], [], []

    def go(width, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        tab = context.new_page()
        tab.on("console", lambda message: complaints.append(message.text))
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("request", lambda request: requests.append(request.url))
        tab.goto(page.as_uri())
        return tab

    yield go
    for context in contexts:
        context.close()
    assert complaints == []
    assert {url for url in requests if not url.startswith("data:")} <= {page.as_uri()}


@pytest.mark.parametrize("width", WIDTHS)
def test_everything_is_seen(opened, width):
    tab = opened(width)
    for title in SECTIONS:
        assert tab.get_by_role("heading", name=title, exact=True, level=2).is_visible(), title
    assert tab.get_by_role("note").inner_text().startswith("Certified")
    assert tab.evaluate("[...document.images].map(image => image.naturalWidth)") == [64, 64]
    pictures = tab.locator("figure svg")
    assert pictures.count() == 4
    assert all(pictures.nth(place).bounding_box()["height"] > 100 for place in range(4))


@pytest.mark.parametrize("width", WIDTHS)
def test_nothing_hangs_over_the_edge(opened, width):
    tab = opened(width)
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    over = "[...document.querySelectorAll('section, .tile, figure, .pictures li')]"
    assert tab.evaluate(f"{over}.filter(e => e.getBoundingClientRect().right > {width} + 0.5).length") == 0


def test_names_run_nothing(opened):
    tab = opened(1280)
    assert tab.locator("script").count() == 0
    assert tab.get_by_text("<script>alert(1)</script>").count() == 0  # in a group that is folded into its name
    assert tab.locator("h1").inner_text() == "main <&>"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(opened, scheme):
    tab = opened(1280, scheme)
    colours = tab.evaluate(
        """() => [...document.querySelectorAll('p, td, th, dt, dd, figcaption, caption, .why, .said, strong, a')]
            .filter(e => e.innerText && e.offsetParent)
            .map(e => {
                let ground = e;
                while (ground && getComputedStyle(ground).backgroundColor === 'rgba(0, 0, 0, 0)')
                    ground = ground.parentElement;
                return [getComputedStyle(e).color, getComputedStyle(ground || document.body).backgroundColor];
            })"""
    )
    assert len(colours) > 100
    assert min(_contrast(*pair) for pair in {tuple(pair) for pair in colours}) >= 4.5  # WCAG 2.2, level AA


def test_it_prints_with_what_is_folded_away(opened):
    tab = opened(1280)
    tab.emulate_media(media="print")
    assert tab.get_by_text("Fingerprint of the settings").is_visible()
    assert not tab.get_by_role("navigation").is_visible()
    document = tab.pdf(prefer_css_page_size=True)
    assert document.startswith(b"%PDF")
    assert document.count(b"/Type /Page\n") + document.count(b"/Type /Page ") >= 2


def _contrast(ink, ground):
    """(L1 + 0.05) / (L2 + 0.05), WCAG 2.2."""
    light, dark = sorted((_luminance(ink), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour):
    red, green, blue = (int(part) / 255 for part in colour.partition("(")[2].rstrip(")").split(",")[:3])
    parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (red, green, blue)]
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]
