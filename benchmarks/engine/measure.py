"""The engine's benchmarks: which model sets, how many images, and their tables."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.campaigns import Options
from benchmarks.engine.comparison import (
    ALL_ON,
    ALONE,
    FILES,
    IN_MEMORY,
    NONE_ON,
    WITHOUT,
    Comparison,
    Peak,
    Switched,
    Taken,
    add_memory,
    compare_all,
    compare_all_switches,
)
from benchmarks.engine.setting import FULL_SIZE, STARTER, prepare
from benchmarks.engine.workloads import BOXES, LOOP
from benchmarks.harness import Table, in_child, mebibytes, seconds
from vouch_labels.tasks.bench.bench import IMAGES_ON_GPU


class _Size(NamedTuple):
    images: int
    files: int


ON_CPU: Final = _Size(16, 16)
ON_GPU: Final = _Size(64, IMAGES_ON_GPU)
QUICK: Final = _Size(2, 2)
FULL_ON_CPU: Final = _Size(4, 4)
ROUNDS: Final = 3


def measure(options: Options) -> Table:
    """Compare the candidates on the bundled models; on a GPU, or if asked for, of full-size ones too."""
    load = os.getloadavg()[0]
    comparisons: dict[str, Comparison] = {}
    for name, size in _sizes(options).items():
        # A pass of full-size models on a CPU takes minutes.
        slow = size is FULL_ON_CPU
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting = prepare(name, Path(folder), *size)
            held = in_child(compare_all, setting=setting, rounds=1 if options.quick or slow else ROUNDS).value
            comparisons[name] = held if slow else add_memory(held, setting)
    return table_of(comparisons, "S3_TEST_ENDPOINT" in os.environ, load)


def measure_switches(options: Options) -> Table:
    """Try each switch of the bundled models; on a GPU of full-size ones too."""
    load = os.getloadavg()[0]
    found: dict[str, Switched] = {}
    for name, size in _sizes(options).items():
        if size is FULL_ON_CPU:
            continue
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting, rounds = prepare(name, Path(folder), *size), 1 if options.quick else ROUNDS
            found[name] = in_child(
                compare_all_switches, setting=setting, rounds=rounds, all_switches=not options.quick
            ).value
    return switches_table(found, load)


def _sizes(options: Options) -> dict[str, _Size]:
    gpu = _has_gpu()
    sizes = {STARTER.name: QUICK if options.quick else ON_GPU if gpu else ON_CPU}
    if not options.quick and (options.full or gpu):
        sizes |= {each.name: ON_GPU if gpu else FULL_ON_CPU for each in FULL_SIZE}
    return sizes


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


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
    """One row: a candidate, and what it is compared with."""

    name: str
    taken: Taken
    base: Taken
    share: float | None = None
    """Of the device's peak in the candidate's mode."""
    peak: Peak | None = None


def table_of(comparisons: Mapping[str, Comparison], with_s3: bool, load: float) -> Table:
    """Lay out comparisons.

    Args:
        comparisons: Name of the model set -> what was measured.
        with_s3: Whether there was a server.
        load: Processes that wanted a core in the minute before.
    """
    lines = [line for name, comparison in comparisons.items() for line in _lines(name, comparison)]
    figures: dict[str, float] = {}
    for line in lines:
        figures |= _figures(line)
    for name, comparison in comparisons.items():
        figures[f"{name}, flop_per_image"] = comparison.flops
        figures |= {f"{name}, peak {mode}, flop_per_second": peak for mode, peak in comparison.peaks.items()}
    return Table(
        title="the engine against the loop that one writes with the packages",
        columns=COLUMNS,
        rows=[_row(line) for line in lines],
        notes=_notes(comparisons, with_s3, load),
        figures=figures,
        device=next(iter(comparisons.values())).device,
    )


def _lines(name: str, comparison: Comparison) -> Iterator[Line]:
    for title, block in ((IN_MEMORY, comparison.in_memory), (FILES, comparison.files)):
        for candidate, taken in block.items():
            share = comparison.flops / taken.seconds_per_image / comparison.peaks[taken.mode]
            peak = comparison.memory.get(title, {}).get(candidate)
            yield Line(f"{name}, {title}: {candidate}", taken, block[BASE], share, peak)
    for step, block in comparison.steps.items():
        first = next(iter(block.values()))
        yield from (Line(f"{name}, {step}: {candidate}", taken, first) for candidate, taken in block.items())


def switches_table(found: Mapping[str, Switched], load: float) -> Table:
    """Lay out what the switches bring.

    Args:
        found: Name of the model set -> its switches.
        load: Processes that wanted a core in the minute before.
    """
    lines = [
        Line(f"{name}, {switch}: {candidate}", block[candidate], block[base])
        for name, each in found.items()
        for switch, block in each.blocks.items()
        for candidate, base in ((WITHOUT, ALL_ON), (ALONE, NONE_ON))
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
            f"{BOXES} boxes each; models loaded and warm, four candidates of a switch in turn, medians.",
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


def _notes(comparisons: Mapping[str, Comparison], with_s3: bool, load: float) -> list[str]:
    work = "; ".join(
        f"{name}: {comparison.flops / 1e9:,.0f} GFLOP an image, peak "
        + ", ".join(f"{mode} {peak / 1e12:.2f} TFLOP/s" for mode, peak in comparison.peaks.items())
        for name, comparison in comparisons.items()
    )
    counts = "; ".join(
        f"{name}: {_counts(comparison.in_memory)} images in memory, {_counts(comparison.files)} files"
        for name, comparison in comparisons.items()
    )
    return [
        "One process a model set and one device; models loaded and warm, all candidates of a block in turn, medians. "
        f"The detector does its work and its answer is replaced by the same {BOXES} boxes an image for all, each "
        f"with two crops. {counts} (fewest and most of one: the baseline needs no more).",
        "Loop: groundingdino's transform and predict, SamPredictor with all boxes of an image at once, one open_clip "
        "call a crop. In memory: decoded images to masks and scores. Files: from JPEG files to JSON or, for Vouch, "
        "plan, shard, tables, COCO export and summary.",
        "Ratio: in memory and files, the loop in fp32 to this; steps, the reference in fp32 to this. CPU ratio: the "
        "same of the process's CPU time, which other processes disturb less; on a GPU it says nothing of speed.",
        f"Peak: the best of some large matrix products in the same mode, on the same device and threads. {work}.",
        "GPU busy: share of the time in which at least one kernel ran, by torch's profiler. Peak memory and GPU "
        "memory: in a process of its own that loads it, warms it up and runs it once; Python and its packages "
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
