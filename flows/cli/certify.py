"""Commands about policies: `vouch certify`, `apply` and `simulate`."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import answer, quiet
from vouch_labels.schemas.errors import NotCertifiedError

if TYPE_CHECKING:
    from vouch_labels.schemas.policy import Certified


@reported(
    "vouch certify campaign.yaml",
    "vouch certify campaign.yaml --unanswered-as-wrong",
    "vouch certify campaign.yaml --json | jq .version",
)
def certify(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    unanswered_as_wrong: Annotated[
        bool, typer.Option("--unanswered-as-wrong", help="Count certification tasks without an answer as wrong.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as one JSON object.")] = False,
) -> None:
    """Test the reviewed certification sample, and write the policy that it allows; or extend it to new labels.

    Where a top-up sample of new labels was answered, the active policy is extended to them if the sample allows it.
    Nothing is accepted by it before `vouch apply`. Ends with exit code 3 where nothing could be certified; each group
    then says why, and how many more reviews it needs. Each test with new verdicts spends a part of the confidence.
    """
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.certify import certify_campaign

    config = load_campaign(campaign)
    with quiet() as terminal:
        found = certify_campaign(config, unanswered_as_wrong)
        # No server is started for this, and none need be there.
        if os.environ.get("PREFECT_API_URL"):
            from vouch_labels.flows.certify import show

            show(found)
        answer(terminal, found, as_json, campaign)
    if found.version is None:
        raise NotCertifiedError(_refusal(found, campaign))


def _refusal(found: "Certified", campaign: Path) -> str:
    """Say in one line that nothing could be certified, and what to do."""
    from vouch_labels.tasks.reviews.plans import minutes_for

    if not found.groups:
        return "the certificate could not be extended to the new labels; the policy stays as it is, and they wait"
    text = "nothing could be certified, so no policy was written"
    if found.unanswered:
        return f"{text}; {found.unanswered:,} labels of the sample wait: answer more of them, then certify again"
    if found.more_reviews is None:
        return f"{text}; the reasons stand with each group"
    more, minutes = f"{found.more_reviews:,}", minutes_for(found.more_reviews)
    return f"{text}; about {more} more reviews may do: vouch plan-reviews {campaign} --minutes {minutes}"


@reported(
    "vouch apply campaign.yaml",
    "vouch apply campaign.yaml --policy certified-2-0a1b2c3d --no-export",
    "vouch apply campaign.yaml --policy none",
)
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
    """Decide over all labels of a campaign by a policy, make it the active one for the runs to come, and export.

    Reads the workspace alone: no model is loaded, no image opened. A policy that was certified with other models,
    prompts or settings than the labels come from is refused. Decisions of earlier policies are kept.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.apply import apply_policy

    config = load_campaign(campaign)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            summary = apply_policy(config, policy, progress, export=not no_export)
        answer(terminal, summary, as_json, campaign)


@reported(
    "vouch simulate campaign.yaml --truth annotations.json",
    "vouch simulate campaign.yaml --truth annotations.json --precision 0.95,0.98 --automate 0.5",
    "vouch simulate campaign.yaml --truth annotations.json --reviews 400,800 --missed 0.05 --honeypots 100 --json",
)
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
    honeypots: Annotated[int, typer.Option(help="Honeypots mixed in, which measure what is missed.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Answer "how many reviews automate half of my data at 98%?" on labels with ground truth.

    Plays the whole procedure (split, first sample, fit, certification) with a simulated reviewer, many times, and
    holds every result against the truth. Nothing is written, no model is loaded: it is a plan, and certifies nothing.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.evaluate.run_truth import truth_of_campaign
    from vouch_labels.tasks.simulate.reviewer import ask
    from vouch_labels.tasks.simulate.simulate import simulate as play

    config = load_campaign(campaign)
    question = ask(config.routing, precision, reviews, draws, gate, missed, automate, honeypots)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with quiet() as terminal:
        with Progress(*columns, console=terminal.remarks(), transient=True) as progress:
            reading = progress.add_task("reading the truth", total=None)
            comparing = progress.add_task("comparing images", total=None)
            labels, right = truth_of_campaign(
                config,
                truth,
                lambda done: progress.update(comparing, completed=done),
                lambda done, total: progress.update(reading, completed=done, total=total),
            )
            progress.update(reading, visible=False)
            progress.update(comparing, visible=False)
            task = progress.add_task("playing", total=len(question.reviews) * draws)
            found = play(
                labels,
                right,
                question,
                (str(truth), config.run.name),
                lambda done, _: progress.update(task, completed=done),
            )
        answer(terminal, found, as_json, campaign)
