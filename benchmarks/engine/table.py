"""The table of the engine's contests."""

import os

from benchmarks.engine.contest import ALL_ON, ALONE, LOOP, NONE_ON, WITHOUT, Block, Contest
from benchmarks.engine.fixed_boxes import BOXES
from benchmarks.engine.race import Taken
from benchmarks.harness.table import Table
from benchmarks.harness.words import mebibytes, seconds

COLUMNS = ["", "images/s", "time an image", "CPU time an image", "ratio", "CPU ratio", "of peak", "GPU memory"]
BUSY = 0.5
"""Share of the cores that others want from which on a note says so."""
BASE = LOOP.format("fp32")


def table_of(contests: dict[str, Contest], images: dict[str, int], with_s3: bool, load: float) -> Table:
    """Lay out contests.

    Args:
        contests: Name of the model set -> what was measured.
        images: Name of the model set -> how many.
        with_s3: Whether there was a server.
        load: Processes that wanted a core in the minute before.
    """
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for name, contest in contests.items():
        for title, block in (("in memory", contest.in_memory), ("files", contest.files)):
            base = block.taken[BASE]
            for way, taken in block.taken.items():
                precision = "bf16" if "bf16" in way else "fp32"
                precision = "bf16" if "bf16" in contest.peaks and way.startswith("Vouch fast, from") else precision
                share = block.images / taken.seconds * contest.flops / contest.peaks[precision]
                rows.append(_row(f"{name}, {title}: {way}", block, taken, base, share))
                figures |= {
                    f"{name}, {title}, {way}, images_per_second": block.images / taken.seconds,
                    f"{name}, {title}, {way}, cpu_seconds_per_image": taken.cpu_seconds / block.images,
                    f"{name}, {title}, {way}, ratio": base.seconds / taken.seconds,
                    f"{name}, {title}, {way}, cpu_ratio": base.cpu_seconds / max(taken.cpu_seconds, 1e-9),
                }
        for step, block in contest.steps.items():
            first = next(iter(block.taken.values()))
            for way, taken in block.taken.items():
                rows.append(_row(f"{name}, {step}: {way}", block, taken, first, None))
                figures[f"{name}, {step}, {way}, seconds_per_image"] = taken.seconds / block.images
        for switch, block in contest.switches.items():
            for way, base_way in ((WITHOUT, ALL_ON), (ALONE, NONE_ON)):
                ratio = block.taken[base_way].seconds / block.taken[way].seconds
                rows.append(_row(f"{name}, {switch}: {way}", block, block.taken[way], block.taken[base_way], None))
                figures[f"{name}, {switch}, {way}, ratio"] = ratio
                figures[f"{name}, {switch}, {way}, cpu_ratio"] = block.taken[base_way].cpu_seconds / max(
                    block.taken[way].cpu_seconds, 1e-9
                )
        figures |= {f"{name}, flop_per_image": contest.flops} | {
            f"{name}, peak {precision}, flop_per_second": peak for precision, peak in contest.peaks.items()
        }
    return Table(
        title="the engine against the loop that one writes with the packages",
        columns=COLUMNS,
        rows=rows,
        notes=_notes(contests, images, with_s3, load),
        figures=figures,
        device=next(iter(contests.values())).device,
    )


def _row(name: str, block: Block, taken: Taken, base: Taken, share: float | None) -> list[str]:
    return [
        name,
        f"{block.images / taken.seconds:.2f}",
        seconds(taken.seconds / block.images),
        seconds(taken.cpu_seconds / block.images),
        f"{base.seconds / taken.seconds:.2f}",
        f"{base.cpu_seconds / taken.cpu_seconds:.2f}" if taken.cpu_seconds else "",
        "" if share is None else f"{share:.1%}",
        mebibytes(taken.device_bytes) if taken.device_bytes else "",
    ]


def _notes(contests: dict[str, Contest], images: dict[str, int], with_s3: bool, load: float) -> list[str]:
    work = "; ".join(
        f"{name}: {images[name]} images, {contest.flops / 1e9:,.0f} GFLOP each, peak "
        + ", ".join(f"{precision} {peak / 1e12:.2f} TFLOP/s" for precision, peak in contest.peaks.items())
        for name, contest in contests.items()
    )
    cores = os.cpu_count() or 1
    return [
        "One process a model set and one device; models loaded and warm, all ways in turn, medians. The detector does "
        f"its work and its answer is replaced by the same {BOXES} boxes an image for both sides, each with two crops.",
        "Loop: groundingdino's transform and predict, SamPredictor with all boxes of an image at once, one open_clip "
        "call a crop. In memory: decoded images to masks and scores. Files: from JPEG files to JSON or, for Vouch, "
        "plan, shard, tables, COCO export and summary.",
        "Ratio: in memory and files, the loop in fp32 to this; steps, the reference in fp32 to this; switches, by the "
        "steps that they are in, all on to all but this (below 1: it helps), and none on to this alone (above 1: it "
        "helps). CPU ratio: the same of the process's CPU time, which other processes disturb less; on a GPU it says "
        "nothing of speed.",
        f"Peak: the best of some large matrix products by torch on the same device and threads. {work}.",
        "transformers' pipeline: zero-shot detection alone, by a model of the same size with random weights, on a GPU "
        "and for full-size models only: no file of the bundled detector is in its format. It runs the model once for "
        "each class.",
        *(
            [
                f"Other processes used the machine: {load:.1f} wanted one of its {cores} cores in the minute before. "
                "Wall-clock times vary with them; the CPU ratio is the one to read."
            ]
            if load >= BUSY * cores
            else []
        ),
        *([] if with_s3 else ["From S3: not measured; S3_TEST_ENDPOINT names no server."]),
    ]
