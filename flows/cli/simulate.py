"""`vouch simulate`: how many reviews would certify how much, played on ground truth."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch simulate campaign.yaml --truth annotations.json",
    "vouch simulate campaign.yaml --truth annotations.json --precision 0.95,0.98 --automate 0.5",
    "vouch simulate campaign.yaml --truth annotations.json --reviews 400,800 --missed 0.05 --plants 100 --json",
)


@reported
def simulate(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    truth: Annotated[Path, typer.Option(help="COCO annotations of (some of) the images.", metavar="FILE")],
    precision: Annotated[
        str | None,
        typer.Option(help="Precisions to ask for, between commas; that of the campaign by default.", metavar="LIST"),
    ] = None,
    reviews: Annotated[
        str, typer.Option(help="Numbers of labels that people look at, between commas.", metavar="LIST")
    ] = "200,400,800,1600",
    automate: Annotated[float, typer.Option(help="Share of labels to automate, for the answer.")] = 0.5,
    draws: Annotated[int, typer.Option(help="How often each is played.")] = 100,
    gate: Annotated[
        str | None, typer.Option(help="delivered or accepted; that of the campaign by default.", show_default=False)
    ] = None,
    missed: Annotated[float, typer.Option(help="Share of wrong labels that the reviewer calls correct.")] = 0.0,
    plants: Annotated[int, typer.Option(help="Known-wrong labels mixed in, which measure what is missed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Answer "how many reviews automate half of my data at 98%?" on labels with ground truth.

    Plays the whole procedure (split, first sample, fit, certification) with a simulated reviewer, many times, and
    holds every result against the truth. Nothing is written, no model is loaded: it is a plan, and certifies nothing.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from flows.console.output import print_json
    from flows.console.simulation import print_simulation
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from tasks.evaluate.run_truth import truth_of_campaign
    from tasks.simulate.reviewer import ask
    from tasks.simulate.simulate import simulate as play

    config = load_campaign(campaign)
    question = ask(config.routing, precision, reviews, draws, gate, missed, automate, plants)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with quiet() as terminal:
        with Progress(*columns, console=terminal.remarks(), transient=True) as progress:
            reading = progress.add_task("comparing images", total=None)
            labels, right = truth_of_campaign(config, truth, lambda done: progress.update(reading, completed=done))
            progress.update(reading, visible=False)
            task = progress.add_task("playing", total=len(question.reviews) * draws)
            found = play(
                labels,
                right,
                question,
                (str(truth), config.run.name),
                lambda done, _: progress.update(task, completed=done),
            )
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
            return
        print_simulation(terminal.results(), found)
