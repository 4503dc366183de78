"""The page: whole, escaped, asking nothing of a network; its pictures of labels."""

import base64
import hashlib
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import ObjectRefusedError, StoreAccessError, StoreError
from vouch_labels.schemas.report import Picture, RecallReport
from vouch_labels.tasks.report.render import MOST_CLASSES, SIDE, Thumbnail, prose, render, thumbnails
from vouch_labels.tasks.store.local import LocalStore

VOID = {"meta", "img", "br", "link", "hr"}
FOREIGN = {"rect", "line", "circle", "polyline", "path"}
HOSTILE = ("<script>", "<img src=x", "<b>cat", "<i>bad")


class Page(HTMLParser):
    """Elements in order, and whether each that is opened is closed."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.open, self.wrong, self.texts = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        self.texts.append(data)

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def page(certified_report):
    thumbnails = [Thumbnail("QUJD", ""), Thumbnail("", "the image has left the source"), Thumbnail("QUJD", "")]
    return render(certified_report, thumbnails)


def changed(report, **values):
    return report.model_copy(update=values)


def test_every_element_is_closed(page):
    found = Page(page)
    assert (found.open, found.wrong) == ([], [])


def test_bundled_models_are_named_as_what_they_are(page, certified_report):
    assert "drawn things" not in page
    bundled = render(changed(certified_report, bundled=("detector",), pictures=()), [])
    assert "Bundled models (detector): they know 28 drawn things" in bundled
    assert "vouch models list" in bundled


def test_names_and_keys_are_no_markup(page):
    assert not [text for text in HOSTILE if text in page]
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" not in page.partition("<style>")[2].partition("</style>")[0]
    assert not any(name.startswith("on") for _, attributes in Page(page).elements for name in attributes)


def test_nothing_is_fetched_and_nothing_runs(page):
    found = Page(page)
    assert not found.all("script") + found.all("link") + found.all("iframe")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in found.all("img"))
    assert all(link["href"].startswith("#") for link in found.all("a"))
    assert "url(" not in page
    assert "@import" not in page


def test_no_style_but_its_own_is_allowed(page):
    policy = next(meta["content"] for meta in Page(page).all("meta") if "http-equiv" in meta)
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert policy.startswith("default-src 'none';")
    assert f"style-src 'sha256-{digest}'" in policy
    assert not any("style" in attributes for _, attributes in Page(page).elements)


def test_it_can_be_read_without_seeing_it(page):
    found = Page(page)
    ids = [attributes["id"] for _, attributes in found.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    assert {link["href"][1:] for link in found.all("a")} <= set(ids)
    assert {section["aria-labelledby"] for section in found.all("section")} <= set(ids)
    assert len(found.all("h1")) == 1
    assert all(image["alt"] for image in found.all("img"))
    assert all(picture["aria-label"] for picture in found.all("svg"))
    assert len(found.all("caption")) == len(found.all("table"))
    assert found.all("html")[0]["lang"] == "en"


def test_what_is_certified_stands_with_its_evidence(page):
    text = " ".join(" ".join(Page(page).texts).split())
    assert "9 of 410" in text
    assert "3.8%" in text  # 0.0378, raised
    assert "5% allowed" in text
    assert "review about 340 more" in text
    assert "the image has left the source" in text
    assert "↑ 100 more" in text
    assert "1 of 20 labels that are known to be wrong" in text


def test_recall_says_what_is_certain_on_what_and_how_unfinished_images_count(certified_report):
    old = certified_report.recall
    found = {**old.delivered.model_dump(), "low": 0.87, "high": 0.96, "value": 0.92}
    values = {"most_missed": 8, "images_with_misses": 0.121}
    recall = RecallReport.model_validate(
        old.model_dump()
        | {"delivered": found | values, "accepted": found | {"most_missed": 16, "images_with_misses": 0.3}}
        | {"undecided": 3, "passed_over": 2}
    )
    html = render(changed(certified_report, recall=recall), [Thumbnail("QUJD", "")] * 3)
    text = " ".join(" ".join(Page(html).texts).split())
    assert (
        "at least 87% and at most 96% with 90% confidence, from 40 images that people searched; 3 with undecided "
        "labels and 2 passed over counted at their worst"
    ) in text
    assert "all labels show at least 87% and at most 96%, by estimate 92%" in text
    assert "no more than 8 objects without a label in one image, 16 without an accepted one" in text
    assert "at most 12.1% of the images have an object that no label shows" in text
    assert "decide the labels of 3 searched images and search 2 images passed over" in text


def test_a_recall_of_an_earlier_version_is_shown_without_what_it_did_not_keep(certified_report, page):
    assert certified_report.recall.delivered.most_missed is None
    text = " ".join(" ".join(Page(page).texts).split())
    assert "at least 95.1% and at most 98.8%, by estimate 97.3%" in text
    assert "without a label in one image" not in text


def test_what_people_looked_at_is_not_called_automatic(certified_report, page):
    text = " ".join(" ".join(Page(page).texts).split())
    assert "610 of 1,000 labels accepted by the policy, 110 of them people had looked at;" in text
    assert "500 accepted labels without a verdict \u00d7 1.6 s" in text
    assert "each drawn from the labels that were new then" in text
    assert "without a person" not in text
    unseen = changed(certified_report.automation, answered=0)
    assert "people had looked at" not in render(changed(certified_report, automation=unseen, pictures=()), [])
    simulated = changed(certified_report.time, simulated=True)
    html = render(changed(certified_report, time=simulated, pictures=()), [])
    assert "110 of them have a verdict, some of a simulated reviewer" in html
    assert "people had looked at" not in html


@pytest.mark.parametrize(
    ("standing", "expected"),
    [
        ("simulated", "Simulated reviewer, not certified"),
        ("expired", "Expired"),
        ("user_thresholds", "Nothing is certified."),
        ("nothing_accepted", "Nothing accepted"),
        ("empty", "No labels"),
    ],
)
def test_every_standing_has_a_page_that_says_so(certified_report, standing, expected):
    policy = changed(certified_report.policy, standing=standing)
    html = render(changed(certified_report, policy=policy, pictures=(), histogram=None), [])
    assert expected in html
    assert "certified for 1 group" not in html
    assert "≥ 95%" not in html


def test_what_bets_on_audits_end_is_said_of_the_policy_that_it_is_said_of(certified_report, page):
    earlier = changed(certified_report.policy, covers=())
    old = render(changed(certified_report, policy=earlier, pictures=()), [])
    for html, words, others in ((page, "New labels are taken", "The policy expires"),
                                (old, "The policy expires", "New labels are taken")):  # fmt: skip
        assert f"{words} " in html
        assert f"{others} " not in html
        assert "After 1 audit " in html


def test_what_waits_outside_is_told_where_something_does(certified_report, page):
    assert "The guarantee covers 900 labels" in page
    assert "; 100 more came later and wait for a top-up sample." in page
    assert "came later" not in render(changed(certified_report, outside=0, pictures=()), [])


def test_many_classes_fold_away(certified_report, page):
    assert f"{len(certified_report.classes) - MOST_CLASSES} more classes" in page


def test_a_control_character_in_a_name_breaks_no_picture(certified_report):
    first = changed(certified_report.classes[0], name="cat\x00\x1b[31m")
    html = render(changed(certified_report, classes=(first,), pictures=()), [])
    assert Page(html).wrong == []


def test_the_bars_of_certified_groups_need_no_room_for_the_others(certified_report):
    first, second = certified_report.policy.groups
    without = changed(certified_report.policy, groups=(first,))
    with_none = changed(certified_report.policy, groups=(first, changed(second, bound=1.0)))
    pages = [render(changed(certified_report, policy=policy, pictures=()), []) for policy in (without, with_none)]
    bars = [re.findall(r'<svg [^>]*class="interval".*?</svg>', page) for page in pages]
    assert bars[0] == bars[1]
    assert len(bars[0]) == 1


def test_commands_in_prose_are_code_and_the_rest_is_escaped():
    assert prose("use `vouch run` on <b>") == "Use <code>vouch run</code> on &lt;b&gt;."


# Pictures of labels.


@pytest.fixture
def source(tmp_path):
    return LocalStore(tmp_path)


def save(tmp_path, name="a.png", size=(200, 100), orientation=None):
    pixels = np.full((size[1], size[0], 3), 40, np.uint8)
    pixels[40:60, 20:40] = (250, 250, 250)
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / name, exif=exif)
    return hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()


def picture(key="a.png", box=(20, 40, 40, 60), kind="accepted"):
    return Picture(kind=kind, label_id="1", key=key, class_name="cat", box=box, accepted=True, reason="")


def pixels_of(thumbnail):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(thumbnail.data)))).astype(int)


def cut(tmp_path, source, *pictures, contents=None, **config):
    return thumbnails(pictures, source, Source(uri=str(tmp_path), **config), contents or {})


def test_a_label_is_shown_with_its_box_and_surroundings(tmp_path, source):
    save(tmp_path)
    [found] = cut(tmp_path, source, picture())
    shown = pixels_of(found)
    assert shown.shape == (SIDE, SIDE, 3)
    assert (shown[SIDE // 2, SIDE // 2] > 200).all()
    green = (shown[..., 1] > shown[..., 0] + 60) & (shown[..., 1] > 120)
    assert green.sum() > SIDE  # the box
    assert (shown[4, 4] < 80).all()  # the surroundings


def test_boxes_lie_on_the_upright_image(tmp_path, source):
    # Turned by 90 degrees: what is at (20..40, 40..60) of 200 x 100 comes to (40..60, 20..40) of 100 x 200.
    save(tmp_path, "turned.jpg", orientation=6)
    [found] = cut(tmp_path, source, picture("turned.jpg", (40, 20, 60, 40)))
    assert (pixels_of(found)[SIDE // 2, SIDE // 2] > 200).all()


@pytest.mark.parametrize("box", [(-10, -10, 5, 5), (190, 90, 400, 300), (50, 50, 50, 50)])
def test_boxes_at_the_border_and_without_area_are_shown(tmp_path, source, box):
    save(tmp_path)
    [found] = cut(tmp_path, source, picture(box=box))
    assert pixels_of(found).shape == (SIDE, SIDE, 3)


def test_a_missing_a_damaged_and_a_changed_image_leave_a_note(tmp_path, source):
    save(tmp_path)
    (tmp_path / "bad.png").write_bytes(b"\x89PNG nothing")
    keys = ("gone.png", "bad.png", "a.png")
    found = cut(tmp_path, source, *map(picture, keys), contents={"a.png": "0" * 64})
    assert [one.data for one in found] == ["", "", ""]
    assert [one.note for one in found] == [
        "the image has left the source", "the image cannot be decoded", "the image has changed since it was labelled",
    ]  # fmt: skip


@pytest.mark.parametrize("refused", [ObjectRefusedError, StoreAccessError, StoreError])
def test_an_image_that_may_not_be_read_leaves_a_note(tmp_path, refused):
    class Source(LocalStore):
        def get(self, key):
            if key == "closed.png":
                raise refused("denied")
            return super().get(key)

    for name in ("a.png", "closed.png"):
        save(tmp_path, name)
    found = cut(tmp_path, Source(tmp_path), picture("closed.png"), picture())
    assert (found[0].data, found[0].note) == ("", "the image cannot be read")
    assert found[1].data


def test_an_image_that_is_too_large_is_not_read(tmp_path, source):
    sha256 = save(tmp_path, "a.bmp")
    [found] = cut(tmp_path, source, picture("a.bmp"), contents={"a.bmp": sha256}, max_image_mb=0.01)
    assert found.note == "the image is too large"


def test_the_order_is_that_of_the_labels(tmp_path, source):
    save(tmp_path, "a.png")
    save(tmp_path, "b.png")
    found = cut(tmp_path, source, picture("b.png"), picture("none.png"), picture("a.png"), picture("b.png"))
    assert [bool(one.data) for one in found] == [True, False, True, True]
