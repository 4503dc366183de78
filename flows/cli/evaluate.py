"""`vouch evaluate`: the labels against ground truth."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch evaluate campaign.yaml --truth annotations.json",
    "vouch evaluate campaign.yaml --truth annotations.json --signal clip_probability --out evaluation",
    "vouch evaluate campaign.yaml --truth annotations.json --json | jq .accepted.precision",
)


@reported
def evaluate(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    truth: Annotated[Path, typer.Option(help="COCO annotations of (some of) the images.", metavar="FILE")],
    signal: Annotated[
        list[str] | None, typer.Option(help="Another column to sweep thresholds over; may be repeated.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and plots; made if there is none.", metavar="FOLDER")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Compare the labels of a campaign with ground truth; nothing is labelled.

    Images are paired by file_name, classes by name. Reads the workspace alone: no model is loaded, no image opened.
    """
    from flows.console.evaluation import print_evaluation
    from flows.console.output import print_json
    from flows.console.progress import RunProgress
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from tasks.evaluate.evaluate import check_folder, evaluate_campaign, write_evaluation
    from tasks.shard.events import Comparing

    config = load_campaign(campaign)
    if out is not None:
        check_folder(out)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            found = evaluate_campaign(config, truth, signal or (), lambda images: progress(Comparing(images)))
        written = write_evaluation(found, out) if out is not None else []
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
            return
        print_evaluation(terminal.results(), found)
        if out is not None:
            terminal.results().print(
                f"written: {len(written)} files in {out.resolve()}", highlight=False, markup=False, soft_wrap=True
            )
