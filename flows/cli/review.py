"""`vouch review`: people answer in the browser."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from flows.cli.reported import reported

if TYPE_CHECKING:
    from flows.console.streams import Terminal
    from schemas.campaign import Campaign

EXAMPLES: Final = (
    "vouch review campaign.yaml",
    "vouch review campaign.yaml --reviewer ann --reviewer ben --port 5151",
    "vouch review campaign.yaml --status --json | jq .purposes",
    "vouch review campaign.yaml --host 0.0.0.0 --name review.example.org --token-file tokens.txt",
)


@reported
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
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the first desk in a browser.")] = False,
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
    """Review in the browser: takes up what waits for an answer, and serves a desk to each reviewer.

    Ctrl-C ends it: what is on the desks is given back, and the answers are brought into the workspace. Answers are
    kept as they are given, whatever happens to this process.
    """
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from schemas.errors import UserError

    if sum((status, pull, export is not None, import_ is not None)) > 1:
        raise UserError("--status, --pull, --export and --import are separate steps; ask for one at a time")
    config = load_campaign(campaign)
    with quiet() as terminal:
        if import_ is not None:
            from flows.cli.verdicts import import_verdicts, me

            import_verdicts(terminal, config, [import_], me(), skip_bad=False, as_json=as_json)
        elif status or pull or export is not None:
            _look(terminal, config, export, pull, as_json)
        else:
            from flows.reviewing import serve
            from review_ui.server.serve import ServeOptions

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
            serve(terminal, config, options, minutes, open_browser=open_browser, as_json=as_json)


def _look(terminal: "Terminal", campaign: "Campaign", export: Path | None, pull: bool, as_json: bool) -> None:
    from flows.console.output import print_json
    from flows.console.review import print_pulled, print_queue, print_written
    from review_ui.server.answers import export_answers, pull_answers, queue_status

    if export is not None:
        rows = export_answers(campaign, export)
        if as_json:
            print_json(terminal, {"file": str(export), "rows": rows})
        else:
            print_written(terminal.results(), export, rows)
    elif pull:
        pulled = pull_answers(campaign)
        if as_json:
            print_json(terminal, pulled.model_dump(mode="json"))
        else:
            print_pulled(terminal.results(), pulled)
    else:
        found = queue_status(campaign)
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
        else:
            print_queue(terminal.results(), found)


def _reviewers(named: list[str] | None) -> tuple[str, ...]:
    from flows.cli.verdicts import me
    from schemas.errors import UserError

    found = tuple(name.strip() for name in named or (me(),))
    if not all(found):
        raise UserError("a reviewer needs a name; give --reviewer one")
    if len(set(found)) < len(found):
        raise UserError("a reviewer has one desk; name each --reviewer once")
    return found
