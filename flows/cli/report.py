"""`vouch report`: a run on one page."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch report campaign.yaml",
    "vouch report campaign.yaml --truth annotations.json --out evaluated.html",
    "vouch report campaign.yaml --json | jq .automation",
)


@reported
def report(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    out: Annotated[Path, typer.Option(help="The HTML file to write.", metavar="FILE")] = Path("report.html"),
    truth: Annotated[
        Path | None, typer.Option(help="COCO annotations of (some of) the images, to compare with.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object; no page.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Write one HTML page about a run: what was accepted, on what promise, how good it is, what it cost.

    The page is complete in itself and asks nothing of any network. Its figures are kept in the workspace, so that the
    next report says what changed.
    """
    from flows.console.output import print_json
    from flows.console.progress import RunProgress
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from tasks.report.render import make_report
    from tasks.shard.events import Comparing

    config = load_campaign(campaign)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            page = None if as_json else out
            found = make_report(config, page, truth, lambda images: progress(Comparing(images)))
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
            return
        words = [found.promise, f"report: {out.resolve()}"]
        terminal.results().print("\n".join(words), highlight=False, markup=False, soft_wrap=True)
