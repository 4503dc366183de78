"""The plots of the report."""

from typing import Final

import numpy as np
from markupsafe import Markup

from schemas.evaluation import Reliability
from schemas.report import Histogram, SignalDrift
from tasks.report.formats import cut
from tasks.report.svg import Frame

MOST_NAMED_THRESHOLDS: Final = 3
MOST_EDGES: Final = 8
"""Spans between named edges of a histogram."""
_NAMES: Final = {"p_correct": "p(correct)"}
_ACRONYMS: Final = {"clip": "CLIP", "sam": "SAM", "iou": "IoU"}


def spoken(signal: str) -> str:
    """A signal's name for people."""
    words = signal.replace("_", " ").split()
    return _NAMES.get(signal, " ".join(_ACRONYMS.get(word, word) for word in words))


def histogram_plot(found: Histogram) -> Markup:
    """Draw how many labels have which score, accepted ones below, waiting ones on top of them."""
    most = max((one + two for one, two in zip(found.accepted, found.review, strict=True)), default=0)
    top, ticks = _whole_ticks(most)
    signal = spoken(found.signal)
    words = f"Histogram of {signal}: {sum(found.accepted):,} accepted and {sum(found.review):,} waiting labels"
    # Bins stand equally wide, whatever they span.
    bins = len(found.accepted)
    places = np.linspace(0, 1, bins + 1)
    step = max(1, -(-bins // MOST_EDGES))
    named = [(float(places[edge]), f"{found.edges[edge]:g}") for edge in range(0, bins + 1, step)]
    frame = Frame(words, signal, "labels", top, ticks, named)
    spans = zip(found.edges[:-1], found.edges[1:], places[:-1], places[1:], found.accepted, found.review, strict=True)
    for low, high, left, right, accepted, review in spans:
        told = f"{low:g} to {high:g}: {accepted:,} accepted, {review:,} waiting"
        frame.bar(left, right, 0, accepted, "bar-accept", told)
        frame.bar(left, right, accepted, accepted + review, "bar-route", told)
    few = len(found.thresholds) <= MOST_NAMED_THRESHOLDS
    for number, least in enumerate(found.thresholds):
        word = f"from {cut(least)}" if few and number == 0 else ""
        frame.mark(float(np.interp(least, found.edges, places)), word)
    return frame.done()


def reliability_plot(found: Reliability) -> Markup:
    """Draw what came true over what was stated; on the diagonal both agree."""
    words = f"Reliability diagram of {len(found.bins)} bins; mean distance from the diagonal {found.ece:.3f}"
    frame = Frame(words, "stated p(correct)", "found correct")
    frame.line((0, 0), (1, 1), "diagonal")
    frame.path([(one.score, one.precision) for one in found.bins], "curve")
    most = max(one.labels for one in found.bins)
    for one in found.bins:
        told = f"stated {one.score:.3f}, found {one.precision:.3f}, {one.labels:,} labels"
        frame.dot(one.score, one.precision, 2.5 + 3 * (one.labels / most) ** 0.5, told)
    return frame.done()


def drift_plot(found: SignalDrift) -> Markup:
    """Draw the distribution functions of a signal, certified batch and now, on the range of both."""
    values = np.array([*found.before, *found.now], np.float64)
    low, high = float(values.min()), float(values.max())
    scale = (high - low) or 1.0
    name = spoken(found.signal)
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
