"""`vouch preview`: a picture of what a campaign would find, from a few of its images, before it is run."""

import webbrowser
from pathlib import Path
from typing import Annotated, Final

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import answer, quiet

PREVIEW_EXAMPLES: Final = (
    "vouch preview campaign.yaml",
    "vouch preview campaign.yaml --limit 40 --seed 1 --open",
    "vouch preview campaign.yaml --out /tmp/preview.png --json | jq .accepted",
)


@reported
def preview(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    limit: Annotated[int, typer.Option(min=1, max=400, help="Images at most.")] = 20,
    seed: Annotated[int, typer.Option(help="Draws the images at random: another seed, other images.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="The picture, .jpg or .png (default: beside the campaign, as CAMPAIGN-preview.jpg).",
            show_default=False,
        ),
    ] = None,
    open_picture: Annotated[bool, typer.Option("--open/--no-open", help="Open the picture.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was found as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Label a few images of a campaign and draw them into one picture: boxes, masks, scores, and what is accepted.

    For trying classes, prompts and thresholds before the run. Labels are decided on as the next run would, and thrown
    away: the campaign's workspace and its run stay as they are.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign

    config = load_campaign(campaign)
    path = out or campaign.with_name(f"{campaign.stem}-preview.jpg")
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            from vouch_labels.tasks.preview import preview as draw

            found = draw(config, path, limit, seed, on_event=progress)
        answer(terminal, found, as_json, campaign)
    if open_picture and found.picture:
        webbrowser.open(Path(found.picture).as_uri())
