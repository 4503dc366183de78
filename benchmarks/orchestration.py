"""What the flow costs over a bare loop, at its start and for every shard; and peak memory of both."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Final

from benchmarks.campaigns import Options, draw_pictures, run_bare, run_flow, write_campaign
from benchmarks.harness import Table, in_child, mebibytes, seconds
from vouch_labels.tasks.bench.timing import peak_bytes_of_children

SHARD_SIZE: Final = 4
SHARDS: Final = (2, 50)
REPETITIONS: Final = 3
REAL_SHARD: Final = 1000
"""Images of a shard by default."""
TOLERATED: Final = 0.01


def measure(options: Options) -> Table:
    """Label few and many tiny shards with the flow and without, one after the other."""
    few, many = (1, 3) if options.quick else SHARDS
    times = in_child(_times, shards=[few, many], repetitions=1 if options.quick else REPETITIONS).value
    loop, flow = times["loop"], times["flow"]
    shards = many - few
    per_loop, per_flow = (loop[1] - loop[0]) / shards, (flow[1] - flow[0]) / shards
    cost, fixed = per_flow - per_loop, flow[0] - loop[0] - few * (per_flow - per_loop)
    fast = TOLERATED * REAL_SHARD / cost if cost > 0 else float("inf")
    sizes = [f"{count} shard{'s' if count > 1 else ''}" for count in (few, many)]
    names = ["first start of the embedded server", *sizes, "each shard"]
    cells = [
        ["", seconds(times["start"][0]), ""],
        *([seconds(loop[place]), seconds(flow[place]), seconds(flow[place] - loop[place])] for place in (0, 1)),
        [seconds(per_loop), seconds(per_flow), seconds(cost)],
    ]
    rows = [[name, *row] for name, row in zip(names, cells, strict=True)]
    rows.append(["each run", "", "", seconds(fixed)])
    rows.append([f"images/s at which a shard of {REAL_SHARD:,} loses 1 %", "", "", f"{fast:,.0f}"])
    return Table(
        title="cost of orchestration",
        columns=["", "bare loop", "flow", "flow - loop"],
        rows=rows,
        notes=[
            f"Whole jobs with backends without models, shards of {SHARD_SIZE} images; medians, loop and flow in turn.",
            "Each shard: the difference between the two sizes, so that what a run costs once drops out; each run: the "
            "rest of the difference.",
            "The server starts once a process; as here, the first start of all also makes its database. The figure is "
            "the first flow less a later one, so importing Prefect is in it.",
        ],
        figures={
            "server_start_seconds": times["start"][0],
            "loop_shard_seconds": per_loop,
            "flow_shard_seconds": per_flow,
            "cost_shard_seconds": cost,
            "cost_run_seconds": fixed,
        },
    )


def _times(shards: list[int], repetitions: int) -> dict[str, list[float]]:
    """Median seconds of the loop and of the flow for each number of shards, and of the first start of the server."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        home = folder / "prefect"
        for count in shards:
            draw_pictures(folder / f"images-{count}", count * SHARD_SIZE)
        # The first runs import everything; the first flow also starts the server.
        _timed(folder, "loop", shards[0], "first", home)
        first = _timed(folder, "flow", shards[0], "first", home)
        taken: dict[tuple[str, int], list[float]] = {}
        for repetition in range(repetitions):
            for count in shards:
                for kind in ("loop", "flow"):
                    spent = _timed(folder, kind, count, str(repetition), home)
                    taken.setdefault((kind, count), []).append(spent)
    medians = {key: statistics.median(values) for key, values in taken.items()}
    return {kind: [medians[kind, count] for count in shards] for kind in ("loop", "flow")} | {
        "start": [first - medians["flow", shards[0]]]
    }


def _timed(folder: Path, kind: str, count: int, attempt: str, home: Path) -> float:
    campaign = write_campaign(
        folder / f"{kind}-{count}-{attempt}", folder / f"images-{count}", run={"shard_size": SHARD_SIZE}
    )
    started = time.perf_counter()
    summary = run_bare(campaign) if kind == "loop" else run_flow(campaign, home)
    spent = time.perf_counter() - started
    if summary.shards_processed != count:
        raise RuntimeError(f"{summary.shards_processed} of {count} shards were processed")
    return spent


MEMORY_SIZES: Final = (1_000, 10_000)
MEMORY_SHARD_SIZE: Final = 500
MEMORY_LIMIT: Final = 1.10


def measure_memory(options: Options) -> Table:
    """Run the job on both sizes, as a plain loop and as the flow."""
    few, many = (20, 60) if options.quick else MEMORY_SIZES
    shard_size = 10 if options.quick else MEMORY_SHARD_SIZE
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        for images in (few, many):
            # Another process, so that what drawing takes is not counted.
            in_child(_draw, folder=f"{folder}/images-{images}", count=images)
        for kind in ("loop", "flow"):
            peaks = []
            for images in (few, many):
                job = in_child(_job, folder=folder, kind=kind, images=images, shard_size=shard_size)
                peaks.append(job.peak_bytes)
                server = job.value["server_bytes"]
                cells = [mebibytes(job.peak_bytes), mebibytes(server) if server else "", seconds(job.seconds)]
                rows.append([f"{kind}, {images:,} images", *cells])
                figures |= {f"{kind}_{images}_peak_bytes": job.peak_bytes, f"{kind}_{images}_server_bytes": server}
            ratio = peaks[1] / peaks[0]
            figures[f"{kind}_ratio"] = ratio
            rows.append([f"{kind}, {many:,} : {few:,} (limit {MEMORY_LIMIT:.2f})", f"{ratio:.3f}", "", ""])
    return Table(
        title="peak memory of the whole job, backends without models",
        columns=["", "peak memory", "Prefect's server", "time"],
        rows=rows,
        notes=[
            "Plan, all shards, export and summary; loop: without Prefect; flow: as `vouch run`, whose embedded server "
            "is another process.",
            f"JPEG pictures of 160 x 120 in shards of {shard_size}, made by a process of their own.",
            "Of the peak, most is Python with torch, which every backend's device check imports.",
        ],
        figures=figures,
    )


def _job(folder: str, kind: str, images: int, shard_size: int) -> dict[str, int]:
    """Label; returns what the embedded server held at most, 0 without one."""
    root = Path(folder)
    campaign = write_campaign(root / f"{kind}-{images}", root / f"images-{images}", run={"shard_size": shard_size})
    summary = run_bare(campaign) if kind == "loop" else run_flow(campaign, root / f"prefect-{images}")
    if summary.done != images:
        raise RuntimeError(f"{summary.done} of {images} images were labelled")
    return {"server_bytes": peak_bytes_of_children()}


def _draw(folder: str, count: int) -> int:
    draw_pictures(Path(folder), count)
    return count
