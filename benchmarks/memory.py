"""Peak memory of the whole job for few and for ten times as many images."""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.campaigns import Options, draw_pictures, run_bare, run_flow, write_campaign
from benchmarks.harness.report import Table, mebibytes, seconds
from benchmarks.harness.run import in_child
from vouch_labels.tasks.bench.timing import peak_bytes_of_children

SIZES: Final = (1_000, 10_000)
SHARD_SIZE: Final = 500
LIMIT: Final = 1.10


def measure(options: Options) -> Table:
    """Run the job on both sizes, as a plain loop and as the flow."""
    few, many = (20, 60) if options.quick else SIZES
    shard_size = 10 if options.quick else SHARD_SIZE
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
            rows.append([f"{kind}, {many:,} : {few:,} (limit {LIMIT:.2f})", f"{ratio:.3f}", "", ""])
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
