"""`vouch verdicts`: verdicts in, out, and in figures."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.cli.reported import reported

if TYPE_CHECKING:
    from flows.console.streams import Terminal
    from schemas.campaign import Campaign

EXAMPLES: Final = (
    "vouch verdicts campaign.yaml",
    "vouch verdicts campaign.yaml --tasks tasks.csv --plan 2",
    "vouch verdicts campaign.yaml answered.csv more.jsonl --reviewer ann --skip-bad",
    "vouch verdicts campaign.yaml --export verdicts.parquet",
)


@reported
def verdicts(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    files: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Verdicts to import: .csv, .parquet, .json or .jsonl.", metavar="[FILE]...", show_default=False
        ),
    ] = None,
    reviewer: Annotated[
        str | None, typer.Option(help="Who answered, where a row does not say; you, if not given.", metavar="NAME")
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Import the other rows; those refused go to FILE-refused.csv.")
    ] = False,
    export: Annotated[Path | None, typer.Option(help="Write all verdicts to this file.", metavar="FILE")] = None,
    tasks: Annotated[
        Path | None, typer.Option(help="Write the open tasks of a review plan to this file.", metavar="FILE")
    ] = None,
    plan: Annotated[int | None, typer.Option(help="Number of that plan; the last, if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
) -> None:
    """Import verdicts on labels, export them, hand out what is to be reviewed, or tell what is there.

    A verdict file has a row a verdict: label_id and verdict (correct, wrong_class, bad_box, not_an_object), and as
    needed class_name, x0, y0, x1, y1, reviewer, seconds, reviewed_at. About an image: key and checked or missed.
    """
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from schemas.errors import UserError

    if sum(map(bool, (files, export, tasks))) > 1:
        raise UserError("importing, --export and --tasks are separate steps; ask for one at a time")
    if plan is not None and tasks is None:
        raise UserError("--plan says whose tasks to write; add --tasks FILE")
    if (reviewer is not None or skip_bad) and not files:
        raise UserError("--reviewer and --skip-bad are about importing; name the FILE to import")
    config = load_campaign(campaign)
    with quiet() as terminal:
        if files:
            import_verdicts(terminal, config, files, me() if reviewer is None else reviewer, skip_bad, as_json)
        elif export is not None:
            _export(terminal, config, export, as_json)
        elif tasks is not None:
            _hand_out(terminal, config, tasks, plan, as_json)
        else:
            _tell(terminal, config, as_json)


def import_verdicts(
    terminal: "Terminal", campaign: "Campaign", files: list[Path], reviewer: str, skip_bad: bool, as_json: bool
) -> None:
    """Import verdict files and print what became of them; `vouch review --import` does the same."""
    from flows.console.output import print_json
    from flows.console.verdicts import print_imports
    from tasks.reviews.import_verdicts import import_files

    outcomes = import_files(campaign, files, reviewer, skip_bad=skip_bad)
    if as_json:
        print_json(terminal, {"files": [outcome.model_dump(mode="json") for outcome in outcomes]})
    else:
        print_imports(terminal.results(), outcomes)


def _export(terminal: "Terminal", campaign: "Campaign", path: Path, as_json: bool) -> None:
    from tasks.reviews.read_file import check_suffix, write_table
    from tasks.reviews.verdicts import read_verdicts
    from tasks.store.open import open_store

    check_suffix(path)
    table = read_verdicts(open_store(campaign.workspace))
    write_table(path, table)
    _written(terminal, path, table.num_rows, "verdicts", as_json)


def _hand_out(terminal: "Terminal", campaign: "Campaign", path: Path, plan: int | None, as_json: bool) -> None:
    from tasks.reviews.open_tasks import task_sheet
    from tasks.reviews.read_file import check_suffix, write_table

    check_suffix(path)
    table = task_sheet(campaign, plan)
    write_table(path, table)
    _written(terminal, path, table.num_rows, "open tasks", as_json)


def _tell(terminal: "Terminal", campaign: "Campaign", as_json: bool) -> None:
    from flows.console.output import print_json
    from flows.console.verdicts import print_figures
    from tasks.reviews.open_tasks import campaign_figures

    figures = campaign_figures(campaign)
    if as_json:
        print_json(terminal, figures.model_dump(mode="json"))
    else:
        print_figures(terminal.results(), figures)


def _written(terminal: "Terminal", path: Path, rows: int, what: str, as_json: bool) -> None:
    from flows.console.output import print_json

    if as_json:
        print_json(terminal, {"file": str(path), "rows": rows})
    else:
        terminal.results().print(f"{rows:,} {what} in {path}", highlight=False, markup=False, soft_wrap=True)


def me() -> str:
    """The user's name, who reviews where no other is named.

    Raises:
        UserError: The system does not know it.
    """
    import getpass

    from schemas.errors import UserError

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise UserError("cannot tell who you are; give --reviewer a name") from None
