"""The table of the engine's contests."""

import os
from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from benchmarks.engine.contest import ALL_ON, ALONE, FILES, IN_MEMORY, NONE_ON, WITHOUT, Contest, Peak, Switched, Taken
from benchmarks.engine.sides import BOXES, LOOP
from benchmarks.harness.report import Table, mebibytes, seconds

COLUMNS: Final = [
    "",
    "images/s",
    "time an image",
    "CPU time an image",
    "ratio",
    "CPU ratio",
    "of peak",
    "GPU busy",
    "peak memory",
    "GPU memory",
]
SPEED: Final = 6
"""Columns, counted from the left, that are of speed."""
BUSY: Final = 0.5
"""Share of the cores that others want from which on a note says so."""
BASE: Final = LOOP.format("fp32")


class Line(NamedTuple):
    """One row: a way, and what it is compared with."""

    name: str
    taken: Taken
    base: Taken
    share: float | None = None
    """Of the device's peak in the way's mode."""
    peak: Peak | None = None


def table_of(contests: Mapping[str, Contest], with_s3: bool, load: float) -> Table:
    """Lay out contests.

    Args:
        contests: Name of the model set -> what was measured.
        with_s3: Whether there was a server.
        load: Processes that wanted a core in the minute before.
    """
    lines = [line for name, contest in contests.items() for line in _lines(name, contest)]
    figures: dict[str, float] = {}
    for line in lines:
        figures |= _figures(line)
    for name, contest in contests.items():
        figures[f"{name}, flop_per_image"] = contest.flops
        figures |= {f"{name}, peak {mode}, flop_per_second": peak for mode, peak in contest.peaks.items()}
    return Table(
        title="the engine against the loop that one writes with the packages",
        columns=COLUMNS,
        rows=[_row(line) for line in lines],
        notes=_notes(contests, with_s3, load),
        figures=figures,
        device=next(iter(contests.values())).device,
    )


def _lines(name: str, contest: Contest) -> Iterator[Line]:
    for title, block in ((IN_MEMORY, contest.in_memory), (FILES, contest.files)):
        for way, taken in block.items():
            share = contest.flops / taken.seconds_per_image / contest.peaks[taken.mode]
            peak = contest.memory.get(title, {}).get(way)
            yield Line(f"{name}, {title}: {way}", taken, block[BASE], share, peak)
    for step, block in contest.steps.items():
        first = next(iter(block.values()))
        yield from (Line(f"{name}, {step}: {way}", taken, first) for way, taken in block.items())


def switches_table(found: Mapping[str, Switched], load: float) -> Table:
    """Lay out what the switches bring.

    Args:
        found: Name of the model set -> its switches.
        load: Processes that wanted a core in the minute before.
    """
    lines = [
        Line(f"{name}, {switch}: {way}", block[way], block[base])
        for name, each in found.items()
        for switch, block in each.blocks.items()
        for way, base in ((WITHOUT, ALL_ON), (ALONE, NONE_ON))
    ]
    figures: dict[str, float] = {}
    for line in lines:
        figures |= _figures(line)
    return Table(
        title="each speed-up of the engine: all but it, and it alone",
        columns=COLUMNS[:SPEED],
        rows=[_row(line)[:SPEED] for line in lines],
        notes=[
            "One process a model set and one device; the steps that a switch belongs to, on images in memory with "
            f"{BOXES} boxes each; models loaded and warm, four ways of a switch in turn, medians.",
            "Ratio: all on to all but this (below 1: it helps), and none on to this alone (above 1: it helps). CPU "
            "ratio: the same of the process's CPU time, which other processes disturb less; on a GPU it says nothing "
            "of speed.",
            "overlap (the whole job from files) and compile (a setting of its own) are tried on a GPU alone.",
            *_disturbed(load),
        ],
        figures=figures,
        device=next(iter(found.values())).device,
    )


def _figures(line: Line) -> dict[str, float]:
    name, taken, base = line.name, line.taken, line.base
    found = {
        f"{name}, images_per_second": 1 / taken.seconds_per_image,
        f"{name}, cpu_seconds_per_image": taken.cpu_seconds_per_image,
        f"{name}, ratio": base.seconds_per_image / taken.seconds_per_image,
        f"{name}, cpu_ratio": base.cpu_seconds_per_image / taken.cpu_seconds_per_image,
    }
    if taken.gpu_busy is not None:
        found[f"{name}, gpu_busy_share"] = taken.gpu_busy
    if line.peak is not None:
        found |= {f"{name}, host_bytes": line.peak.host_bytes, f"{name}, device_bytes": line.peak.device_bytes}
    return found


def _row(line: Line) -> list[str]:
    taken, base, peak = line.taken, line.base, line.peak
    return [
        line.name,
        f"{1 / taken.seconds_per_image:.2f}",
        seconds(taken.seconds_per_image),
        seconds(taken.cpu_seconds_per_image),
        f"{base.seconds_per_image / taken.seconds_per_image:.2f}",
        f"{base.cpu_seconds_per_image / taken.cpu_seconds_per_image:.2f}",
        "" if line.share is None else f"{line.share:.1%}",
        "" if taken.gpu_busy is None else f"{taken.gpu_busy:.0%}",
        "" if peak is None else mebibytes(peak.host_bytes),
        mebibytes(peak.device_bytes) if peak is not None and peak.device_bytes else "",
    ]


def _notes(contests: Mapping[str, Contest], with_s3: bool, load: float) -> list[str]:
    work = "; ".join(
        f"{name}: {contest.flops / 1e9:,.0f} GFLOP an image, peak "
        + ", ".join(f"{mode} {peak / 1e12:.2f} TFLOP/s" for mode, peak in contest.peaks.items())
        for name, contest in contests.items()
    )
    counts = "; ".join(
        f"{name}: {_counts(contest.in_memory)} images in memory, {_counts(contest.files)} files"
        for name, contest in contests.items()
    )
    return [
        "One process a model set and one device; models loaded and warm, all ways of a block in turn, medians. The "
        f"detector does its work and its answer is replaced by the same {BOXES} boxes an image for both sides, each "
        f"with two crops. {counts} (fewest and most of a side: a loop needs no more).",
        "Loop: groundingdino's transform and predict, SamPredictor with all boxes of an image at once, one open_clip "
        "call a crop. In memory: decoded images to masks and scores. Files: from JPEG files to JSON or, for Vouch, "
        "plan, shard, tables, COCO export and summary.",
        "Ratio: in memory and files, the loop in fp32 to this; steps, the reference in fp32 to this. CPU ratio: the "
        "same of the process's CPU time, which other processes disturb less; on a GPU it says nothing of speed.",
        f"Peak: the best of some large matrix products in the same mode, on the same device and threads. {work}.",
        "GPU busy: share of the time in which at least one kernel ran, by torch's profiler. Peak memory and GPU "
        "memory: in a process of the side's own that loads it, warms it up and runs it once; Python and its packages "
        "are in the first, what torch had allocated is the second.",
        "On a GPU too: Vouch is compiled where it says so and in all rows from files; a row for transformers' pipeline "
        "(full-size models; zero-shot detection alone, by a model of the same size with random weights, since no file "
        "of the bundled detector is in its format; it runs the model once for each class).",
        *_disturbed(load),
        *([] if with_s3 else ["From S3: not measured; S3_TEST_ENDPOINT names no server."]),
    ]


def _disturbed(load: float) -> list[str]:
    cores = os.cpu_count() or 1
    if load < BUSY * cores:
        return []
    return [
        f"Other processes used the machine: {load:.1f} wanted one of its {cores} cores in the minute before. "
        "Wall-clock times vary with them; the CPU ratio is the one to read."
    ]


def _counts(block: Mapping[str, Taken]) -> str:
    counts = sorted({taken.images for taken in block.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
