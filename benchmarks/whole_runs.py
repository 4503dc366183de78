"""Whole runs: images per second against a baseline, the share of each step, what the flow costs, and peak memory."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.campaigns import (
    IMAGES,
    QUICK_IMAGES,
    Options,
    copy_samples,
    draw_pictures,
    run_bare,
    run_flow,
    sample_campaign,
    sample_classes,
    write_campaign,
)
from benchmarks.engine.baseline import run_baseline
from benchmarks.harness import Table, in_child, mebibytes, peak_bytes_of_children, seconds, share
from vouch_labels.tasks.bench.bench import STEPS, timed_steps
from vouch_labels.tasks.bench.timing import StageTimer

REPETITIONS: Final = 5
SHARD_SIZE: Final = 4
SHARDS: Final = (2, 50)
FLOW_REPETITIONS: Final = 3
REAL_SHARD: Final = 1000
"""Images of a shard by default."""
TOLERATED: Final = 0.01


def measure_speed(options: Options) -> Table:
    """Label the samples with Vouch and with the loop, in turn and in one process."""
    images = QUICK_IMAGES if options.quick else IMAGES
    run = in_child(_compare, images=images, repetitions=1 if options.quick else REPETITIONS)
    compared = run.value
    speeds = {kind: images / statistics.median(compared[kind]) for kind in ("loop", "vouch")}
    ratio = speeds["vouch"] / speeds["loop"]
    names = {"loop": "baseline", "vouch": "Vouch"}
    rows = [
        [
            names[kind],
            f"{speeds[kind]:.2f}",
            seconds(min(compared[kind])),
            seconds(statistics.median(compared[kind])),
            seconds(max(compared[kind])),
            f"{compared[f'{kind}_labels']:,}",
        ]
        for kind in names
    ]
    rows.append(["Vouch : loop", f"{ratio:.2f}", "", "", "", ""])
    return Table(
        title=f"{images} sample images from file to COCO, bundled models",
        columns=["", "images/s", "fastest", "median", "slowest", "labels"],
        rows=rows,
        notes=[
            "One process, models loaded and warm, loop and Vouch in turn; images/s of the median.",
            "Vouch: plan, one shard, export and summary into a fresh workspace; two CLIP crops a label, and all "
            "signals, tables and syncs to disk.",
            "Baseline: groundingdino's transform and predict, torchvision's NMS, SamPredictor with all boxes of an "
            "image at once, one open_clip call and one crop a label, one JSON file; fp32, the same thresholds.",
            f"The images have 48 sizes, which keeps batches small. Peak memory of both: {mebibytes(run.peak_bytes)}.",
        ],
        figures={
            "vouch_images_per_second": speeds["vouch"],
            "loop_images_per_second": speeds["loop"],
            "ratio": ratio,
        },
        device=compared["device"],
    )


def _compare(images: int, repetitions: int) -> dict[str, Any]:
    """Seconds of every repetition and labels of both, and the device."""
    from benchmarks.engine.baseline import load_baseline_models
    from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig
    from vouch_labels.tasks.models.runtime import choose_runtime

    device = choose_runtime(ModelsConfig()).device
    models, classes = load_baseline_models(device), sample_classes()
    compared: dict[str, Any] = {"vouch": [], "loop": [], "device": _device_name(device)}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        files = copy_samples(folder / "images", images)
        # Round 0 loads and warms up, and does not count.
        for round_number in range(repetitions + 1):
            started = time.perf_counter()
            compared["loop_labels"] = run_baseline(files, classes, models, DetectorConfig(), folder / "loop.json")
            between = time.perf_counter()
            summary = run_bare(sample_campaign(folder / str(round_number), folder / "images"))
            ended = time.perf_counter()
            compared["vouch_labels"] = summary.labels
            if summary.done != images:
                raise RuntimeError(f"{summary.done} of {images} images were labelled")
            if round_number:
                compared["loop"].append(between - started)
                compared["vouch"].append(ended - between)
    return compared


def _device_name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads" if device == "cpu" else device


def measure_stages(options: Options) -> Table:
    """Time every step of one shard of the samples, models loaded and warm."""
    images, repetitions = (QUICK_IMAGES, 1) if options.quick else (IMAGES, REPETITIONS)
    found = in_child(_times_of_steps, images=images, repetitions=repetitions).value
    taken, forward = found["seconds"], found["forward"]
    whole, models = sum(taken.values()), sum(forward.values())
    storage = sum(taken[step] for step in ("acquire", "write"))
    rows = [
        [step, seconds(taken[step]), share(taken[step] / whole), seconds(forward[step]) if forward[step] else ""]
        for step in STEPS
    ]
    rows.append(["all", seconds(whole), "100.0 %", seconds(models)])
    kinds = {
        "in models": models,
        "in storage and decoding": storage,
        "in the code around them": whole - models - storage,
    }
    rows += [[name, seconds(value), share(value / whole), ""] for name, value in kinds.items()]
    threads = " and ".join(f"{name} {seconds(value)}" for name, value in found["in_threads"].items())
    return Table(
        title="share of time of each step, sample images, bundled models",
        columns=["", "time", "share", "of it in batches of models"],
        rows=rows,
        notes=[
            f"One call of process_shard, the median one of {repetitions}; every step's calls are wrapped with a timer, "
            "a wrapped call inside another counts for itself alone.",
            "acquire: the main thread's waiting for decoded images and plans; its threads work beside the models, "
            f"where they took: {threads}.",
            "tables: laying out rows and counting them; write: parts and marker; rest: all else of process_shard.",
            "In models: their batches, with the resizing before and the run-length encoding after them. In storage and "
            "decoding: acquire and write. The code around them is all else: class rules, crops, tables, Python itself.",
        ],
        figures={f"{step}_seconds": taken[step] for step in STEPS}
        | {f"{step}_batches_seconds": value for step, value in forward.items() if value}
        | {f"share {name}": value / whole for name, value in kinds.items()},
        device=found["device"],
    )


def _times_of_steps(images: int, repetitions: int) -> dict[str, Any]:
    """Seconds by step, in all and in batches of models, and those of the threads; and the device."""
    import torch

    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        copy_samples(folder / "images", images)
        run_bare(sample_campaign(folder / "warm-up", folder / "images"))
        campaigns = [sample_campaign(folder / str(number), folder / "images") for number in range(repetitions)]
        timers = [_steps_timed(campaign, torch.cuda.synchronize if on_gpu else lambda: None) for campaign in campaigns]
    timer = sorted(timers, key=lambda each: sum(each.seconds.values()))[len(timers) // 2]
    return {
        "seconds": {step: timer.seconds[step] for step in STEPS},
        "forward": {step: timer.forward[step] for step in STEPS},
        "in_threads": dict(timer.in_threads),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
    }


def _steps_timed(campaign: Path, synchronize: Callable[[], object]) -> StageTimer:
    """Process the shards of a campaign under a timer."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.run import CampaignRun
    from vouch_labels.tasks.shard import shard as work

    timer = StageTimer()
    with CampaignRun(load_campaign(campaign)) as run:
        run.plan()
        pending = run.pending()
        with timed_steps(timer, synchronize):
            whole = timer.wrap("rest", work.process_shard)
            for shard in pending:
                whole(shard.id, run.settings)
    return timer


def measure_orchestration(options: Options) -> Table:
    """Label few and many tiny shards with the flow and without, one after the other."""
    few, many = (1, 3) if options.quick else SHARDS
    times = in_child(_times_of_flow, shards=[few, many], repetitions=1 if options.quick else FLOW_REPETITIONS).value
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


def _times_of_flow(shards: list[int], repetitions: int) -> dict[str, list[float]]:
    """Median seconds of the loop and of the flow for each number of shards, and of the first start of the server."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        home = folder / "prefect"
        for count in shards:
            draw_pictures(folder / f"images-{count}", count * SHARD_SIZE)
        # The first runs import everything; the first flow also starts the server.
        _time_of_run(folder, "loop", shards[0], "first", home)
        first = _time_of_run(folder, "flow", shards[0], "first", home)
        taken: dict[tuple[str, int], list[float]] = {}
        for repetition in range(repetitions):
            for count in shards:
                for kind in ("loop", "flow"):
                    spent = _time_of_run(folder, kind, count, str(repetition), home)
                    taken.setdefault((kind, count), []).append(spent)
    medians = {key: statistics.median(values) for key, values in taken.items()}
    return {kind: [medians[kind, count] for count in shards] for kind in ("loop", "flow")} | {
        "start": [first - medians["flow", shards[0]]]
    }


def _time_of_run(folder: Path, kind: str, count: int, attempt: str, home: Path) -> float:
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
