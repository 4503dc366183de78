"""`vouch run`: from a campaign to a data set."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch run campaign.yaml",
    "vouch run campaign.yaml --json > summary.json",
    "vouch run campaign.yaml --retry-failed --no-export",
)


@reported
def run(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images that failed once more.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Label only; export later.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Label the images of a campaign and export the data set.

    Run it again to resume after an interruption, or to take up new and changed images: what is done stays done, and a
    changed prompt or threshold does only that again which depends on it.
    """
    from flows.cli.labelling import label
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from flows.console.summary import print_summary
    from schemas.errors import VouchError

    with quiet() as terminal:
        summary = label(campaign, terminal, plain=plain, retry_failed=retry_failed, export=not no_export)
        if as_json:
            print_json(terminal, summary.model_dump(mode="json"))
        else:
            print_summary(terminal.results(), summary)
    if summary.pending:
        raise VouchError(
            f"{summary.pending} images of {len(summary.shard_errors)} shards are not labelled; "
            "the others are: run again to try them once more"
        )
