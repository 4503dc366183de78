"""Draws the report's plots as inline SVG.

Axes go from 0 to 1; colours are left to the page's style sheet.
"""

from collections.abc import Sequence
from typing import Final
from xml.etree.ElementTree import Element, SubElement, tostring

import numpy as np
from markupsafe import Markup

from vouch_labels.schemas.evaluation import Reliability
from vouch_labels.schemas.report import Histogram, SignalDrift
from vouch_labels.schemas.text import cut, plural, signal_name

MOST_NAMED_THRESHOLDS: Final = 3
MOST_EDGES: Final = 8
"""Spans between named edges of a histogram."""

WIDTH: Final = 440
HEIGHT: Final = 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 12, 42
_TICKS: Final = (0.0, 0.25, 0.5, 0.75, 1.0)
_QUARTERS: Final = tuple((tick, f"{tick:g}") for tick in _TICKS)
_PERCENTS: Final = tuple((tick, f"{100 * tick:.0f}%") for tick in _TICKS)


def histogram_plot(found: Histogram) -> Markup:
    """Draw how many labels have which score, accepted ones below, waiting ones on top of them."""
    most = max((one + two for one, two in zip(found.accepted, found.review, strict=True)), default=0)
    top, ticks = _whole_ticks(most)
    signal = signal_name(found.signal)
    title = f"Histogram of {signal}: {sum(found.accepted):,} accepted and {sum(found.review):,} waiting labels"
    # Bins stand equally wide, whatever they span.
    bins = len(found.accepted)
    places = np.linspace(0, 1, bins + 1)
    step = max(1, -(-bins // MOST_EDGES))
    named = [(float(places[edge]), f"{found.edges[edge]:g}") for edge in range(0, bins + 1, step)]
    frame = Frame(title, signal, "labels", top, ticks, named)
    spans = zip(found.edges[:-1], found.edges[1:], places[:-1], places[1:], found.accepted, found.review, strict=True)
    for low, high, left, right, accepted, review in spans:
        title = f"{low:g} to {high:g}: {accepted:,} accepted, {review:,} waiting"
        frame.bar(left, right, 0, accepted, "bar-accept", title)
        frame.bar(left, right, accepted, accepted + review, "bar-route", title)
    few = len(found.thresholds) <= MOST_NAMED_THRESHOLDS
    for number, least in enumerate(found.thresholds):
        label = f"from {cut(least)}" if few and number == 0 else ""
        frame.mark(float(np.interp(least, found.edges, places)), label)
    return frame.done()


def reliability_plot(found: Reliability) -> Markup:
    """Draw what came true over what was stated; on the diagonal both agree."""
    title = f"Reliability diagram of {len(found.bins)} bins; mean distance from the diagonal {found.ece:.3f}"
    frame = Frame(title, "stated p(correct)", "found correct")
    frame.line((0, 0), (1, 1), "diagonal")
    frame.path([(one.score, one.precision) for one in found.bins], "curve")
    most = max(one.labels for one in found.bins)
    for one in found.bins:
        title = f"stated {one.score:.3f}, found {one.precision:.3f}, {plural(one.labels, 'label')}"
        frame.dot(one.score, one.precision, 2.5 + 3 * (one.labels / most) ** 0.5, title)
    return frame.done()


def drift_plot(found: SignalDrift) -> Markup:
    """Draw the distribution functions of a signal, certified batch and now, on the range of both."""
    values = np.array([*found.before, *found.now], np.float64)
    low, high = float(values.min()), float(values.max())
    scale = (high - low) or 1.0
    name = signal_name(found.signal)
    places = [(place / 4, f"{low + scale * place / 4:.2g}") for place in range(5)]
    frame = Frame(f"Distribution of {name} when certified and now", name, "share below", across_ticks=places)
    for percentiles, kind in ((found.before, "curve before"), (found.now, "curve")):
        steps = max(1, len(percentiles) - 1)
        frame.path([((value - low) / scale, place / steps) for place, value in enumerate(percentiles)], kind)
    return frame.done()


def _whole_ticks(most: int) -> tuple[float, list[tuple[float, str]]]:
    """A round top for counts, and ticks at whole numbers."""
    step = max(1, 10 ** int(np.floor(np.log10(max(1, most)))))
    step = next(each for each in (max(1, step // 5), max(1, step // 2), step, 2 * step) if most <= 5 * each)
    count = max(1, -(-most // step))
    return float(step * count), [(float(step * place), f"{step * place:,}") for place in range(count + 1)]


class Frame:
    """A plot under construction; x runs from 0 to 1, y from 0 to its top."""

    def __init__(
        self,
        title: str,
        across: str,
        up: str,
        top: float = 1.0,
        ticks: Sequence[tuple[float, str]] = _PERCENTS,
        across_ticks: Sequence[tuple[float, str]] = _QUARTERS,
    ) -> None:
        """Draw the axes; the text describes the plot to those who cannot see it, ticks are places with their labels."""
        self._top = top or 1.0
        self.root = Element("svg", {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "aria-label": title})
        for place, label in ticks:
            self.line((0, place), (1, place), "grid")
            self._text(_LEFT - 7, self.y(place) + 4, label, "tick end")
        for tick, label in across_ticks:
            self._text(self.x(tick), HEIGHT - _BOTTOM + 18, label, "tick middle")
        self._text(self.x(0.5), HEIGHT - 6, across, "axis middle")
        turned = f"rotate(-90 12 {self.y(self._top / 2):.1f})"
        self._text(12, self.y(self._top / 2), up, "axis middle").set("transform", turned)

    def x(self, value: float) -> float:
        """Where a value lies, in units of the picture."""
        return _LEFT + value * (WIDTH - _LEFT - _RIGHT)

    def y(self, value: float) -> float:
        """Where a value lies, in units of the picture."""
        return HEIGHT - _BOTTOM - value / self._top * (HEIGHT - _BOTTOM - _TOP)

    def line(self, start: tuple[float, float], end: tuple[float, float], kind: str) -> None:
        """Draw a straight line between two points (x, y)."""
        (x1, y1), (x2, y2) = start, end
        ends = {"x1": self.x(x1), "y1": self.y(y1), "x2": self.x(x2), "y2": self.y(y2)}
        SubElement(self.root, "line", {"class": kind} | {name: f"{value:.1f}" for name, value in ends.items()})

    def path(self, points: Sequence[tuple[float, float]], kind: str) -> None:
        """Draw a line through points (x, y)."""
        places = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        SubElement(self.root, "polyline", {"class": kind, "points": places})

    def bar(self, left: float, right: float, low: float, high: float, kind: str, title: str) -> None:
        """Draw an upright bar that says what it is when pointed at."""
        if high <= low:
            return
        place = {"x": self.x(left) + 0.6, "y": self.y(high), "width": self.x(right) - self.x(left) - 1.2}
        sizes = {name: f"{value:.1f}" for name, value in place.items()}
        bar = SubElement(self.root, "rect", {"class": kind, **sizes, "height": f"{self.y(low) - self.y(high):.1f}"})
        SubElement(bar, "title").text = title

    def dot(self, x: float, y: float, radius: float, title: str) -> None:
        """Draw a dot that says what it is when pointed at."""
        place = {"cx": f"{self.x(x):.1f}", "cy": f"{self.y(y):.1f}", "r": f"{radius:.1f}"}
        SubElement(SubElement(self.root, "circle", {"class": "dot", **place}), "title").text = title

    def mark(self, x: float, label: str) -> None:
        """Draw an upright line with a label at its top, on the side where there is room."""
        self.line((x, 0), (x, self._top), "mark")
        if label:
            right = x > 0.7
            self._text(self.x(x) + (-5 if right else 5), _TOP + 9, label, f"marked {'end' if right else 'start'}")

    def done(self) -> Markup:
        """The picture; everything in it is escaped."""
        return _markup(self.root)

    def _text(self, x: float, y: float, label: str, kind: str) -> Element:
        element = SubElement(self.root, "text", {"class": kind, "x": f"{x:.1f}", "y": f"{y:.1f}"})
        element.text = _sound(label)
        return element


def share_bar(share: float, title: str, kind: str = "bar-accept") -> Markup:
    """Draw a share as a bar, for a cell of a table."""
    root = Element("svg", {"viewBox": "0 0 100 8", "class": "share", "role": "img", "aria-label": _sound(title)})
    root.set("preserveAspectRatio", "none")
    SubElement(root, "rect", {"class": "rail", "width": "100", "height": "8", "rx": "2"})
    SubElement(root, "rect", {"class": kind, "width": f"{100 * min(1.0, max(0.0, share)):.2f}", "height": "8"})
    return _markup(root)


def interval_bar(low: float, high: float, value: float | None, guaranteed: float, floor: float, title: str) -> Markup:
    """Draw an interval on a scale from a floor to 1, with the guarantee as an upright line."""

    def place(share: float) -> str:
        return f"{100 * min(1.0, max(0.0, (share - floor) / (1 - floor))):.2f}"

    root = Element("svg", {"viewBox": "0 0 100 12", "class": "interval", "role": "img", "aria-label": _sound(title)})
    root.set("preserveAspectRatio", "none")
    SubElement(root, "rect", {"class": "rail", "y": "5", "width": "100", "height": "2"})
    span = {"x": place(low), "y": "3", "width": f"{max(0.8, float(place(high)) - float(place(low))):.2f}"}
    SubElement(root, "rect", {"class": "bar-accept" if low >= guaranteed else "bar-route", **span, "height": "6"})
    if value is not None:
        SubElement(root, "rect", {"class": "estimate", "x": place(value), "y": "1", "width": "1", "height": "10"})
    line = {"x1": place(guaranteed), "x2": place(guaranteed), "y1": "0", "y2": "12"}
    SubElement(root, "line", {"class": "mark", **line})
    return _markup(root)


def _markup(root: Element) -> Markup:
    # Safe to insert: ElementTree has escaped every text and attribute.
    return Markup(tostring(root, encoding="unicode"))  # noqa: S704


def _sound(title: str) -> str:
    """Text without the characters that XML cannot say."""
    return "".join(letter if letter >= " " or letter in "\t\n" else "\ufffd" for letter in title)
