"""The whole job: images per second against a baseline over the same models, and the share of each step."""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.campaigns import IMAGES, QUICK_IMAGES, Options, copy_samples, run_bare, sample_campaign, sample_classes
from benchmarks.engine.baseline import run_baseline
from benchmarks.harness import Table, in_child, mebibytes, seconds, share
from vouch_labels.tasks.bench.bench import STEPS, STORAGE, timed_steps
from vouch_labels.tasks.bench.timing import StageTimer

REPETITIONS: Final = 5


def measure(options: Options) -> Table:
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
    found = in_child(_times, images=images, repetitions=repetitions).value
    taken, forward = found["seconds"], found["forward"]
    whole, models = sum(taken.values()), sum(forward.values())
    storage = sum(taken[step] for step in STORAGE)
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


def _times(images: int, repetitions: int) -> dict[str, Any]:
    """Seconds by step, in all and in batches of models, and those of the threads; and the device."""
    import torch

    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        copy_samples(folder / "images", images)
        run_bare(sample_campaign(folder / "warm-up", folder / "images"))
        campaigns = [sample_campaign(folder / str(number), folder / "images") for number in range(repetitions)]
        timers = [_timed(campaign, torch.cuda.synchronize if on_gpu else lambda: None) for campaign in campaigns]
    timer = sorted(timers, key=lambda each: sum(each.seconds.values()))[len(timers) // 2]
    return {
        "seconds": {step: timer.seconds[step] for step in STEPS},
        "forward": {step: timer.forward[step] for step in STEPS},
        "in_threads": dict(timer.in_threads),
        "device": torch.cuda.get_device_name() if on_gpu else f"CPU, {torch.get_num_threads()} threads",
    }


def _timed(campaign: Path, synchronize: Callable[[], object]) -> StageTimer:
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
