"""Runs the benchmarks: `python -m benchmarks`."""

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.console import Console

EXAMPLES: Final = """\b
Examples:
  python -m benchmarks                      all of them, into benchmarks/
  python -m benchmarks export memory        two of them
  python -m benchmarks listing --huge       with ten million keys
  VOUCH_FAULTS=done python -m benchmarks faults --full     goes on where it stopped
  python -m benchmarks --quick              small sizes, nothing written: does everything still work?

An S3 server is listed too where S3_TEST_ENDPOINT names one: eval "$(tests/radosgw.sh start)"
"""
HERE: Final = Path(__file__).parent

app = typer.Typer(add_completion=False, rich_markup_mode=None)


@app.command(epilog=EXAMPLES)
def benchmarks(
    names: Annotated[list[str] | None, typer.Argument(metavar="[NAME]...", help="Which; all by default.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small sizes; writes only where --out says.")] = False,
    huge: Annotated[bool, typer.Option("--huge", help="Also ten million keys, and a million far away.")] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Also what takes hours: full-size models without a GPU.")
    ] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for RESULTS.md and results/.", show_default=False)] = None,
) -> None:
    """Measure Vouch, print a table a benchmark, and write results/NAME.json and RESULTS.md.

    The names: end_to_end, stage_shares, engine, engine_switches, cluster, cluster_plans, orchestration, memory,
    faults, listing, far_listing, fetching, decoding, small_objects, export, verdict_import, ground_truth,
    review_queue, review_operators, review_app, certificate, routing_contract, routing_after, routing_starter,
    routing_size, train, large.
    """
    from benchmarks.campaigns import Options
    from benchmarks.harness import in_child, make_result, print_table, write_result
    from benchmarks.registry import BENCHMARKS
    from vouch_labels.schemas.errors import VouchError

    console = Console(width=None if Console().is_terminal else 120)
    unknown = [name for name in names or () if name not in BENCHMARKS]
    if unknown:
        raise typer.BadParameter(f"there is no benchmark {unknown[0]!r}; the names are {', '.join(BENCHMARKS)}")
    folder = out or (None if quick else HERE)
    failed = False
    for name in names or BENCHMARKS:
        with console.status(f"measuring {name}"):
            try:
                measured = in_child(BENCHMARKS[name], options=Options(quick=quick, huge=huge, full=full))
            except VouchError as error:
                console.print(f"{name}: {error}", markup=False, highlight=False)
                failed = True
                continue
        print_table(console, measured.value)
        if folder is not None:
            write_result(folder, make_result(name, measured), list(BENCHMARKS))
    if failed:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
