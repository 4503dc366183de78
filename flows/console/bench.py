"""The tables of `vouch bench`."""

from typing import Final

from rich.console import Console

from flows.console.output import say, table_of
from schemas.evaluation import BenchReport

MEBIBYTE: Final = 1 << 20


def print_bench(console: Console, report: BenchReport) -> None:
    """Print the speed, the share of each step, memory, and the bottleneck last."""
    failed = f", {report.failed} of them failed" if report.failed else ""
    repeated = f" ({report.distinct} different ones, again and again)" if report.distinct < report.images else ""
    say(console, f"{report.images} images of {report.source}{repeated}{failed}; {report.labels} labels")
    table = table_of("step", "time", "share")
    for step in report.steps:
        table.add_row(step.name, f"{step.seconds:.2f} s", f"{step.share:.1%}")
    console.print(table)
    say(
        console,
        f"models on {report.device}, {report.precision}, engine {report.engine}; {report.cpu_threads} CPU threads; "
        f"an image takes one of {report.fetch_threads} threads {report.fetching_ms:.1f} ms to fetch and "
        f"{report.decoding_ms:.1f} ms to decode",
    )
    memory = f"memory: {report.peak_bytes / MEBIBYTE:,.0f} MiB on the host"
    if report.gpu_peak_bytes is not None and report.gpu_busy is not None:
        memory += f", {report.gpu_peak_bytes / MEBIBYTE:,.0f} MiB on the GPU, which computed {report.gpu_busy:.0%}"
    say(console, memory)
    say(console, f"speed: {report.images_per_second:.2f} images/s from the file to the written labels")
    say(console, f"bottleneck: {report.bottleneck}")
