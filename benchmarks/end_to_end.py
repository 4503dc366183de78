"""Images per second of the whole job, against the obvious loop over the same models."""

import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from benchmarks.campaigns import IMAGES, QUICK_IMAGES, Options, copy_samples, run_bare, sample_campaign, sample_classes
from benchmarks.harness.report import Table, mebibytes, seconds
from benchmarks.harness.run import in_child
from benchmarks.obvious_loop import run_obvious_loop

REPETITIONS: Final = 5


def measure(options: Options) -> Table:
    """Label the samples with Vouch and with the loop, in turn and in one process."""
    images = QUICK_IMAGES if options.quick else IMAGES
    run = in_child(_race, images=images, repetitions=1 if options.quick else REPETITIONS)
    race = run.value
    speeds = {kind: images / statistics.median(race[kind]) for kind in ("loop", "vouch")}
    ratio = speeds["vouch"] / speeds["loop"]
    names = {"loop": "obvious loop", "vouch": "Vouch"}
    rows = [
        [
            names[kind],
            f"{speeds[kind]:.2f}",
            seconds(min(race[kind])),
            seconds(statistics.median(race[kind])),
            seconds(max(race[kind])),
            f"{race[f'{kind}_labels']:,}",
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
            "Obvious loop: groundingdino's transform and predict, torchvision's NMS, SamPredictor with all boxes of an "
            "image at once, one open_clip call and one crop a label, one JSON file; fp32, the same thresholds.",
            f"The images have 48 sizes, which keeps batches small. Peak memory of both: {mebibytes(run.peak_bytes)}.",
        ],
        figures={
            "vouch_images_per_second": speeds["vouch"],
            "loop_images_per_second": speeds["loop"],
            "ratio": ratio,
        },
        device=race["device"],
    )


def _race(images: int, repetitions: int) -> dict[str, Any]:
    """Seconds of every repetition and labels of both, and the device."""
    from benchmarks.obvious_loop import load_obvious_models
    from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig
    from vouch_labels.tasks.models.runtime import choose_runtime

    device = choose_runtime(ModelsConfig()).device
    models, classes = load_obvious_models(device), sample_classes()
    race: dict[str, Any] = {"vouch": [], "loop": [], "device": _device_name(device)}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as name:
        folder = Path(name)
        files = copy_samples(folder / "images", images)
        # Round 0 loads and warms up, and does not count.
        for round_number in range(repetitions + 1):
            started = time.perf_counter()
            race["loop_labels"] = run_obvious_loop(files, classes, models, DetectorConfig(), folder / "loop.json")
            between = time.perf_counter()
            summary = run_bare(sample_campaign(folder / str(round_number), folder / "images"))
            ended = time.perf_counter()
            race["vouch_labels"] = summary.labels
            if summary.done != images:
                raise RuntimeError(f"{summary.done} of {images} images were labelled")
            if round_number:
                race["loop"].append(between - started)
                race["vouch"].append(ended - between)
    return race


def _device_name(device: str) -> str:
    import torch

    if device.startswith("cuda"):
        return str(torch.cuda.get_device_name(device))
    return f"CPU, {torch.get_num_threads()} threads" if device == "cpu" else device
