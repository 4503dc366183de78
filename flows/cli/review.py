"""Commands about reviews: `vouch plan-reviews`, `review` and `verdicts`."""

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import Terminal, answer, print_json, quiet, say, show
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    from vouch_labels.schemas.campaign import Campaign


@reported(
    "vouch review campaign.yaml",
    "vouch review campaign.yaml --reviewer ann --reviewer ben --port 5151",
    "vouch review campaign.yaml --status --json | jq .purposes",
    "vouch review campaign.yaml --host 0.0.0.0 --name review.example.org --token-file tokens.txt",
)
def review(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    reviewer: Annotated[
        list[str] | None,
        typer.Option(help="Who reviews; a server for each. You, if not given.", metavar="NAME", show_default=False),
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="Port of the first reviewer; a free one from 5151 on, if not given.")
    ] = None,
    host: Annotated[
        str, typer.Option(help="Address to bind to; tokens of your own are needed for others.")
    ] = "127.0.0.1",
    minutes: Annotated[
        float, typer.Option(help="Reviewers' time to plan for when nothing is waiting.", metavar="MINUTES")
    ] = 30,
    open_browser: Annotated[
        bool | None,
        typer.Option(
            "--open/--no-open",
            help="Open the first session in a browser; if not given, where this is a terminal with a display.",
            show_default=False,
        ),
    ] = None,
    status: Annotated[bool, typer.Option("--status", help="Tell how far the reviews are, by purpose.")] = False,
    pull: Annotated[bool, typer.Option("--pull", help="Bring the answers so far into the workspace.")] = False,
    export: Annotated[
        Path | None, typer.Option(help="Write all answers of the queue to this file.", metavar="FILE")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Import verdicts, as vouch verdicts does.", metavar="FILE")
    ] = None,
    name: Annotated[
        list[str] | None,
        typer.Option(help="Another name that browsers reach this machine by.", metavar="HOST", show_default=False),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="Tokens of your own, a line a reviewer: NAME TOKEN.", metavar="FILE")
    ] = None,
    trust_header: Annotated[
        str | None, typer.Option(help="Header in which a trusted proxy says who has logged in there.", metavar="NAME")
    ] = None,
    trusted_proxy: Annotated[
        list[str] | None,
        typer.Option(
            help="Address or network of a proxy whose X-Forwarded-For and X-Forwarded-Proto are believed.",
            metavar="NETWORK",
            show_default=False,
        ),
    ] = None,
    media: Annotated[
        Literal["redirect", "proxy"],
        typer.Option(help="Images of a bucket: by short-lived addresses, or through this server."),
    ] = "redirect",
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object; while serving, one a line.")] = False,
) -> None:
    """Review in the browser: serves what waits for an answer, in a review session for each reviewer.

    Ctrl-C ends it: open batches are given back, and the answers are brought into the workspace. Answers are
    kept as they are given, whatever happens to this process.
    """
    from vouch_labels.schemas.campaign_file import load_campaign

    if sum((status, pull, export is not None, import_ is not None)) > 1:
        raise UserError("--status, --pull, --export and --import are separate steps; ask for one at a time")
    config = load_campaign(campaign)
    with quiet() as terminal:
        if import_ is not None:
            import_verdicts(terminal, config, [import_], me(), skip_bad=False, as_json=as_json)
        elif status or pull or export is not None:
            _queue(terminal, config, campaign, export, pull, as_json)
        else:
            from vouch_labels.flows.review import serve
            from vouch_labels.review_ui.server.serve import ServeOptions

            options = ServeOptions(
                reviewers=_reviewers(reviewer),
                host=host,
                port=port,
                names=tuple(name or ()),
                token_file=token_file,
                trust_header=trust_header,
                trusted_proxies=tuple(trusted_proxy or ()),
                media=media,
            )
            serve(terminal, config, options, minutes, campaign, open_browser=open_browser, as_json=as_json)


def _queue(
    terminal: Terminal, campaign: "Campaign", file: Path, export: Path | None, pull: bool, as_json: bool
) -> None:
    from vouch_labels.review_ui.server.answers import export_answers, pull_answers, queue_status

    if export is not None:
        _written(terminal, export, export_answers(campaign, export), "verdicts", as_json)
    elif pull:
        answer(terminal, pull_answers(campaign), as_json)
    else:
        answer(terminal, queue_status(campaign), as_json, file)


def _reviewers(named: list[str] | None) -> tuple[str, ...]:
    found = tuple(name.strip() for name in named or (me(),))
    if not all(found):
        raise UserError("a reviewer needs a name; give --reviewer one")
    if len(set(found)) < len(found):
        raise UserError("a reviewer has one review session; name each --reviewer once")
    return found


@reported(
    "vouch plan-reviews campaign.yaml",
    "vouch plan-reviews campaign.yaml --minutes 60 --honeypots 100 --out tasks.csv",
    "vouch plan-reviews campaign.yaml --stage audit --minutes 10",
    "vouch plan-reviews campaign.yaml --images 40 --misses 20 --json | jq .plan.counts",
)
def plan_reviews(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    minutes: Annotated[float, typer.Option(help="Reviewers' time for all of it.", metavar="MINUTES")] = 30,
    stage: Annotated[
        Literal["first", "certify", "audit", "queue"] | None,
        typer.Option(
            help="Calibration set, validation sample, blind audit, low-confidence labels; what is next, if not given."
        ),
    ] = None,
    honeypots: Annotated[
        int, typer.Option(help="Honeypots to mix in, known to be wrong, to see what reviewers miss.", metavar="N")
    ] = 0,
    images: Annotated[
        int, typer.Option(help="Images to be searched for every object, to know the recall.", metavar="N")
    ] = 0,
    misses: Annotated[
        int,
        typer.Option(help="Classes to look for that CLIP sees in an image and no box shows: a weak hint.", metavar="N"),
    ] = 0,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Draw a new validation sample though the last one could go on; a test, if answered."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the tasks to this file, ready to be filled in.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Draw what people shall review next, within a time, and say why.

    First a calibration set; then a validation sample, drawn before anybody looks at it; then, with an active certified
    policy, blind audits among low-confidence labels. One class at a time, and nothing tells why a label is asked.
    """
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.plan_reviews import ReviewRequest
    from vouch_labels.tasks.certify.plan_reviews import plan_reviews as plan
    from vouch_labels.tasks.reviews.open_tasks import task_sheet
    from vouch_labels.tasks.reviews.read_file import check_suffix, write_table

    config = load_campaign(campaign)
    if out is not None:
        check_suffix(out)
    with quiet() as terminal:
        planned = plan(config, ReviewRequest(minutes, stage, honeypots, images, misses, fresh))
        if out is not None:
            write_table(out, task_sheet(config, planned.plan.number))
        answer(terminal, planned, as_json, campaign)
        if out is not None and not as_json:
            say(terminal.results(), f"tasks, blind, in the order to ask them: {out}")


@reported(
    "vouch verdicts campaign.yaml",
    "vouch verdicts campaign.yaml --tasks tasks.csv --plan 2",
    "vouch verdicts campaign.yaml answered.csv more.jsonl --reviewer ann --skip-bad",
    "vouch verdicts campaign.yaml --export verdicts.parquet",
)
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
    """Import verdicts on labels, export them, write the open tasks, or tell what is there.

    A verdict file has a row a verdict: label_id and verdict (correct, wrong_class, bad_box, not_an_object), and as
    needed class_name, x0, y0, x1, y1, reviewer, seconds, reviewed_at. About an image: key and checked or missed.
    """
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.reviews.open_tasks import campaign_figures, task_sheet
    from vouch_labels.tasks.reviews.read_file import check_suffix, write_table
    from vouch_labels.tasks.reviews.verdicts import read_verdicts
    from vouch_labels.tasks.store.open import open_workspace

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
        elif (out := export or tasks) is not None:
            check_suffix(out)
            table = task_sheet(config, plan) if export is None else read_verdicts(open_workspace(config.workspace))
            write_table(out, table)
            _written(terminal, out, table.num_rows, "open tasks" if export is None else "verdicts", as_json)
        else:
            answer(terminal, campaign_figures(config), as_json, campaign)


def import_verdicts(
    terminal: Terminal, campaign: "Campaign", files: list[Path], reviewer: str, skip_bad: bool, as_json: bool
) -> None:
    """Import verdict files and print what became of them; `vouch review --import` does the same."""
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.tasks.reviews.import_verdicts import import_files
    from vouch_labels.tasks.shard.events import Reading

    with ExitStack() as shown:
        progress: RunProgress | None = None

        def follow(done: int, total: int) -> None:
            nonlocal progress
            # Most files are read at once, and nothing need be said.
            if progress is None and done < total:
                progress = shown.enter_context(RunProgress(terminal.remarks(), plain=False))
            if progress is not None:
                progress(Reading(done, total))

        outcomes = import_files(campaign, files, reviewer, skip_bad=skip_bad, progress=follow)
    if as_json:
        print_json(terminal, {"files": [outcome.model_dump(mode="json") for outcome in outcomes]})
        return
    for outcome in outcomes:
        show(terminal.results(), outcome.blocks())


def _written(terminal: Terminal, path: Path, rows: int, what: str, as_json: bool) -> None:
    if as_json:
        print_json(terminal, {"file": str(path), "rows": rows})
    else:
        say(terminal.results(), f"{rows:,} {what} in {path}")


def me() -> str:
    """The user's name, who reviews where no other is named; a UserError where the system does not know it."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        raise UserError("cannot tell who you are; give --reviewer a name") from None
