"""`vouch status`: how far a campaign is."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch status campaign.yaml",
    "vouch status campaign.yaml --json | jq .next",
    "vouch status campaign.yaml --failed > failed.tsv",
)


@reported
def status(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")] = False,
    failed: Annotated[
        bool, typer.Option("--failed", help="List the images that failed instead: key, step and reason, tab-separated.")
    ] = False,
) -> None:
    """Tell how far a campaign is, also while it runs: images, labels, failures, policy, reviews, and what comes next.

    Reads the workspace alone; no model is loaded and the source is not listed.
    """
    from flows.console.output import print_json, print_rows
    from flows.console.status import print_status
    from flows.console.streams import terminal
    from schemas.campaign_file import load_campaign
    from tasks.status import read_status

    if failed:
        from tasks.labels.totals import campaign_failures

        images = campaign_failures(load_campaign(campaign))
        if as_json:
            print_json(terminal(), {"failed": [image._asdict() for image in images]})
        else:
            print_rows(terminal(), images)
        return
    found = read_status(load_campaign(campaign))
    if as_json:
        print_json(terminal(), found.model_dump(mode="json"))
    else:
        print_status(terminal().results(), found, campaign)
