"""The table of a measurement, with what each figure should reach."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        key: Which figure.
        words: What it is.
        target: What a training on a GPU is to reach; None where nothing is asked.
        floor: What a training on a CPU is to reach.
        least: Whether more is better.
    """

    key: str
    words: str
    target: float | None = None
    floor: float | None = None
    least: bool = True

    @property
    def other(self) -> str:
        """Key of the same figure in the other emoji style."""
        part, _, name = self.key.partition(".")
        return f"{part}.other_{name}"


ROWS: Final = (
    Row("detector.map50", "detector, seen classes, mAP50", 0.90, 0.80),
    Row("detector.map", "detector, seen classes, mAP", 0.70, 0.55),
    Row("detector.held_out_map50", "detector, held-out colour and noun pairs, mAP50", 0.70, 0.55),
    Row("detector.false_boxes", "false boxes an image, only absent classes asked for", 0.15, 0.40, least=False),
    Row("detector.precision", "detector, precision at the default score, IoU 0.5"),
    Row("detector.recall", "detector, recall at the default score, IoU 0.5"),
    Row("detector.mean_score", "detector, mean score of the boxes kept there"),
    Row("segmenter.mean_iou", "segmenter from true boxes, mean IoU", 0.92, 0.88),
    Row("segmenter.boundary_iou", "segmenter from true boxes, mean boundary IoU"),
    Row("segmenter.iou_error", "error of the segmenter's estimate of its IoU"),
    Row("scorer.top1", "scorer on true crops, top-1 among nouns and background", 0.95, 0.90),
    Row("scorer.probability", "scorer on true crops, mean probability of its answer"),
    Row("scorer.phrase_top1", "scorer on true crops, top-1 with colours"),
    Row("scorer.held_out_top1", "scorer on crops of held-out pairs, top-1 with colours", 0.75, 0.60),
    Row("scorer.background_top1", "scorer on empty squares, background wins"),
    Row("speed.images_per_second", "three models alone, without files and flow, 384 px, images a second"),
)


def report(figures: Mapping[str, float], scenes: int, machine: str) -> str:
    """Write the evaluation as Markdown.

    Args:
        figures: Value of each row's key.
        scenes: Scenes a measurement was made on.
        machine: Where, in words.
    """
    lines = [
        "# What the bundled models reach",
        "",
        f"Measured by `make starter-eval` on {scenes} freshly drawn scenes of 256 to 384 pixels for each part, with",
        f"seeds that no training used, on {machine}. The target is meant for a training on a GPU, the floor for a",
        "short one on a CPU; the bundled weights are of the second kind.",
        "",
        "| figure | value | target | floor | |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        if row.key in figures:
            value = figures[row.key]
            limits = " | ".join(_limit(row, limit) for limit in (row.target, row.floor))
            lines.append(f"| {row.words} | {value:.3f} | {limits} | {_verdict(row, value)} |")
    lines += [
        *_other_style(figures),
        "",
        "These are figures of a small drawn world: they say that the parts work together, nothing about photographs.",
        "",
    ]
    return "\n".join(lines)


def _other_style(figures: Mapping[str, float]) -> list[str]:
    rows = [row for row in ROWS if row.other in figures]
    if not rows:
        return []
    return [
        "",
        "## Another emoji style, never trained on",
        "",
        "The same worlds drawn with the glyphs of Twemoji instead of Noto's: the same things in other looks. Less is",
        "found, and scores that can be trusted fall with the precision.",
        "",
        "| figure | seen style | other style |",
        "|---|---|---|",
        *(f"| {row.words} | {figures[row.key]:.3f} | {figures[row.other]:.3f} |" for row in rows),
    ]


def _limit(row: Row, limit: float | None) -> str:
    return "" if limit is None else f"{'≥' if row.least else '≤'} {limit:.2f}"


def _verdict(row: Row, value: float) -> str:
    if row.target is None or row.floor is None:
        return ""
    if _reaches(row, value, row.target):
        return "target met"
    return "floor met" if _reaches(row, value, row.floor) else "not met"


def _reaches(row: Row, value: float, limit: float) -> bool:
    return value >= limit if row.least else value <= limit
