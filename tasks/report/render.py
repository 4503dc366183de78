"""Writes the report of a campaign as one HTML file that asks nothing of any network and runs no script."""

import base64
import functools
import hashlib
import io
import os
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image, ImageDraw

from vouch_labels.schemas import text
from vouch_labels.schemas.campaign import Campaign, Source
from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, StoreError, UserError
from vouch_labels.schemas.records import bundled_models
from vouch_labels.schemas.report import Picture, Report, SignalDrift, audit_table
from vouch_labels.tasks.certify.monitor import P_CORRECT
from vouch_labels.tasks.decode import DecodedImage, decode
from vouch_labels.tasks.evaluate.json_lists import OnBytes
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.report.figures import POLICY_STATUSES, collect, keep_report, precision_tile, recall_tile
from vouch_labels.tasks.report.plots import drift_plot, histogram_plot, interval_bar, reliability_plot, share_bar
from vouch_labels.tasks.score import LEAST_SIDE, span
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store, map_ordered

MOST_CLASSES: Final = 40
"""Classes that stand open on the page; the others fold away."""
MOST_REASONS: Final = 30
MOST_DRIFTS: Final = 2
_FORMATS: Final = (
    text.count, text.plural, text.pct, text.share, text.least, text.most, text.cut, text.duration, text.when, text.day,
    text.some, text.rule, text.signal_name,
)  # fmt: skip
SIDE: Final = 264
"""Pixels of a thumbnail, twice those that it takes on the page."""
CONTEXT: Final = 1.9
QUALITY: Final = 80
_THREADS: Final = 4
_COLOURS: Final = {"accepted": "#12b886", "routed": "#f59f00", "wrong": "#fa5252"}
_HERE: Final = Path(__file__).parent
_KINDS: Final = (
    ("accepted", "Accepted", "Drawn at random from the accepted labels, not chosen to please."),
    ("routed", "Sent to a person", "Drawn at random, with the reason in words."),
    ("wrong", "Wrong", "Called wrong by a reviewer or by ground truth; accepted ones first."),
)
_NONE_OF: Final = {
    "accepted": "No label was accepted.",
    "routed": "No label waits for a person.",
    "wrong": "No label is known to be wrong: none was called so by a reviewer, nor by ground truth.",
}


def make_report(
    campaign: Campaign,
    out: Path | None,
    truth_file: Path | None = None,
    progress: Callable[[int], None] | None = None,
    reading: OnBytes | None = None,
) -> Report:
    """Make a report; its figures are kept in the workspace, so that the next one can say what changed.

    out: the HTML file to write, None: none. progress and reading are those of `collect`.

    Raises:
        UserError: The campaign has not been run yet, the truth does not fit it, or the file cannot be written.
        StoreError: The workspace cannot be read or written.
    """
    report, contents = collect(campaign, truth_file, progress, reading)
    report = keep_report(open_store(campaign.workspace), report)
    if out is not None:
        pictures = thumbnails(
            report.pictures, open_source(campaign.source, campaign.workspace), campaign.source, contents
        )
        write_page(out, render(report, pictures))
    return report


def write_page(path: Path, page: str) -> None:
    """Write the page whole, or not at all.

    Raises:
        UserError: It cannot be written.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(page, encoding="utf-8")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise UserError(f"--out: {path} cannot be written ({error.strerror}); choose another place") from error


class Thumbnail(NamedTuple):
    """A picture for the page."""

    data: str
    """Base64 of a square JPEG of `SIDE` pixels; empty where there is none."""
    note: str
    """Why there is none."""


class _Shown(NamedTuple):
    picture: Picture
    thumbnail: Thumbnail
    why: str


def render(report: Report, thumbnails: Sequence[Thumbnail]) -> str:
    """Render the page as HTML; everything that comes from the report is escaped, since names are not trusted."""
    style = (_HERE / "report.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode("ascii")
    pairs = zip(report.pictures, thumbnails, strict=True)
    page = _environment().get_template("report.html.j2")
    status = text.policy_name(POLICY_STATUSES[report.policy.standing])
    return page.render(
        report=report,
        # The page's own style and no other: nothing from the data can add one.
        style=Markup(style),  # noqa: S704 - report.css of this folder, which no data can reach
        style_hash=f"sha256-{digest}",
        bundled=tuple(bundled_models(report.bundled)),
        status=status[:1].upper() + status[1:],
        precision=precision_tile(report),
        recall=recall_tile(report),
        contents=_contents(report),
        kinds=_KINDS,
        none_of=_NONE_OF,
        pictures=[_Shown(picture, thumbnail, _why(picture)) for picture, thumbnail in pairs],
        side=SIDE // 2,
        most_classes=MOST_CLASSES,
        most_reasons=MOST_REASONS,
        dash=text.NONE,
        audit_table=audit_table,
        share_bar=share_bar,
        interval_bar=functools.partial(_certified_bar, report),
        **_plots(report),
    )


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {form.__name__: form for form in _FORMATS} | {"prose": prose}
    return environment


def prose(sentence: str) -> Markup:
    """A sentence with `commands` set as code; everything in it is escaped."""
    parts = sentence.rstrip(".").split("`")
    parts[0] = parts[0][:1].upper() + parts[0][1:]
    code = Markup("<code>{}</code>")
    return Markup("").join(code.format(part) if place % 2 else part for place, part in enumerate(parts)) + "."


def _plots(report: Report) -> dict[str, Any]:
    found = report.reliability.found
    return {
        "histogram": histogram_plot(report.histogram) if report.histogram else None,
        "reliability": reliability_plot(found) if found else None,
        "drift": [(one, drift_plot(one)) for one in _shown_drift(report.drift.signals)],
    }


def _shown_drift(signals: Sequence[SignalDrift]) -> list[SignalDrift]:
    """What decides, and the others that moved most."""
    known = [one for one in signals if one.now]
    return sorted(known, key=lambda one: (one.signal != P_CORRECT, -one.distance))[:MOST_DRIFTS]


def _contents(report: Report) -> list[tuple[str, str]]:
    everything = {
        "precision": "Precision",
        "recall": "Recall",
        "scores": "Scores",
        "classes": "Classes",
        "pictures": "Pictures",
        "time": "People's time",
        "truth": "Against ground truth" if report.truth else "",
        "changes": "What changed",
        "failed": "Images that failed" if report.images.reasons else "",
        "made": "How it was made",
    }
    return [(name, title) for name, title in everything.items() if title]


def _certified_bar(report: Report, low: float, errors: int, reviewed: int, guaranteed: float) -> Markup:
    """The interval of a group, on a scale that all groups share."""
    certified = (group for group in report.policy.groups if group.p_correct is not None)
    bounds = [1 - group.bound for group in certified if group.bound is not None]
    floor = max(0.0, min([guaranteed, *bounds]) - 0.5 * (1 - guaranteed))
    value = 1 - errors / reviewed if reviewed else None
    title = f"at least {text.least(low)}, guaranteed {text.pct(guaranteed)}"
    return interval_bar(low, 1.0, value, guaranteed, floor, title)


def _why(picture: Picture) -> str:
    """Give the score of an accepted label, for the rule is the same for all; of others the reason."""
    if not picture.accepted:
        return text.rule(picture.reason)
    p_correct, score = picture.p_correct, picture.detector_score
    value = f"p(correct) {p_correct:.3f}" if p_correct is not None else f"detector score {score or 0:.2f}"
    return f"accepted, {value}" if picture.kind == "wrong" else value


def thumbnails(
    pictures: Sequence[Picture], source: Store, config: Source, contents: Mapping[str, str]
) -> list[Thumbnail]:
    """Cut every label out of its image, with some surroundings, and draw its box; each image is read once.

    contents: key -> SHA-256 of the content that was labelled, for boxes do not fit another. Where an image cannot be
    shown, its thumbnail has a note.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        places[picture.key].append(place)

    def cut(key: str) -> list[tuple[int, Thumbnail]]:
        found = _read(key, source, config, contents.get(key))
        if isinstance(found, str):
            return [(place, Thumbnail("", found)) for place in places[key]]
        return [(place, _thumbnail(found, pictures[place])) for place in places[key]]

    made = dict(chain.from_iterable(map_ordered(cut, places, _THREADS)))
    return [made[place] for place in range(len(pictures))]


def _read(key: str, source: Store, config: Source, sha256: str | None) -> Pixels | str:
    """The upright pixels of an image, or why they cannot be shown."""
    try:
        known = source.stat(key)
        if known is not None and known.size > config.max_image_mb * 1_000_000:
            return "the image is too large"
        data = source.get(key).data
    except ObjectMissingError:
        return "the image has left the source"
    except (StoreError, StoreAccessError):  # a page without this picture is of more use than none
        return "the image cannot be read"
    decoded = decode(key, data, config.max_pixels)
    if not isinstance(decoded, DecodedImage):
        return "the image cannot be decoded"
    if sha256 is not None and decoded.sha256 != sha256:
        return "the image has changed since it was labelled"
    return decoded.pixels


def _thumbnail(pixels: Pixels, picture: Picture) -> Thumbnail:
    box = np.array(picture.box, np.float64)
    if not np.isfinite(box).all():
        return Thumbnail("", "the box has no place")
    side = max(LEAST_SIDE, CONTEXT * float(max(abs(box[2] - box[0]), abs(box[3] - box[1]))))
    left, right = span(float(box[0] + box[2]) / 2, side, pixels.shape[1])
    top, bottom = span(float(box[1] + box[3]) / 2, side, pixels.shape[0])
    scale = SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    scaled = Image.fromarray(pixels[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    at = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    sheet.paste(scaled, at)
    corners = (box - np.array([left, top, left, top])) * scale + np.array([*at, *at])
    _draw_box(sheet, corners.tolist(), _COLOURS[picture.kind])
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(base64.b64encode(file.getvalue()).decode("ascii"), "")


def _draw_box(sheet: Image.Image, corners: Sequence[float], colour: str) -> None:
    """A line of the colour between two thin dark ones, so that it is seen on any ground."""
    x0, x1 = sorted((corners[0], corners[2]))
    y0, y1 = sorted((corners[1], corners[3]))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x0 - 2, y0 - 2, x1 + 2, y1 + 2), outline="#14161a", width=6)
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=colour, width=4)
