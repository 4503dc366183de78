"""Where the time of the job goes, step by step, and how much of it the models take."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from benchmarks.campaigns import IMAGES, QUICK_IMAGES, Options, copy_samples, sample_campaign
from benchmarks.harness.report import Table, seconds, share
from benchmarks.harness.run import in_child
from vouch_labels.tasks.bench.bench import STEPS, STORAGE, timed_steps
from vouch_labels.tasks.bench.timing import StageTimer

REPETITIONS: Final = 5


def measure(options: Options) -> Table:
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

    from benchmarks.campaigns import run_bare

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
    """Work off the shards of a campaign under a timer."""
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
