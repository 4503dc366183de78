"""`vouch certify`: from verdicts to a policy that keeps its promise."""

import os
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch certify campaign.yaml",
    "vouch certify campaign.yaml --unanswered-as-wrong",
    "vouch certify campaign.yaml --json | jq .version",
)


@reported
def certify(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    unanswered_as_wrong: Annotated[
        bool, typer.Option("--unanswered-as-wrong", help="Count certification tasks without an answer as wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Test the reviewed certification sample, and write the policy that it allows.

    Nothing is accepted by it before `vouch apply`. Ends with exit code 3 where nothing could be certified; each group
    then says why, and how many more reviews it needs. Each result with new verdicts is a look, which spends a part of
    the confidence.
    """
    from flows.console.certified import print_certified, refusal
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from schemas.errors import NotCertifiedError
    from tasks.certify.certify import certify_campaign

    config = load_campaign(campaign)
    with quiet() as terminal:
        found = certify_campaign(config, unanswered_as_wrong)
        # No server is started for this, and none need be there.
        if os.environ.get("PREFECT_API_URL"):
            from flows.certify import show

            show(found)
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
        else:
            print_certified(terminal.results(), found)
    if found.version is None:
        raise NotCertifiedError(refusal(found))
