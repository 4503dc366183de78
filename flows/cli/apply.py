"""`vouch apply`: another policy for labels that are there."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch apply campaign.yaml",
    "vouch apply campaign.yaml --policy certified-2-0a1b2c3d --no-export",
    "vouch apply campaign.yaml --policy none",
)


@reported
def apply(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    policy: Annotated[
        str | None,
        typer.Option(
            help="Version of a policy in the workspace, or none for the thresholds of the campaign; the newest "
            "certified one that fits the labels, if not given.",
            metavar="VERSION",
        ),
    ] = None,
    no_export: Annotated[bool, typer.Option("--no-export", help="Decide only; export later.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what has changed as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Decide over all labels of a campaign by a policy, put it in force for the runs to come, and export.

    Reads the workspace alone: no model is loaded, no image opened. A policy that was certified with other models,
    prompts or settings than the labels come from is refused. Decisions of earlier policies are kept.
    """
    from flows.console.apply import print_applied
    from flows.console.output import print_json
    from flows.console.progress import RunProgress
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from tasks.certify.apply import apply_policy

    config = load_campaign(campaign)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            summary = apply_policy(config, policy, progress, export=not no_export)
        if as_json:
            print_json(terminal, summary.model_dump(mode="json"))
        else:
            print_applied(terminal.results(), summary)
