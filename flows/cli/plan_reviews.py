"""`vouch plan-reviews`: what people shall look at next."""

from pathlib import Path
from typing import Annotated, Final, Literal

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch plan-reviews campaign.yaml",
    "vouch plan-reviews campaign.yaml --minutes 60 --plants 100 --out tasks.csv",
    "vouch plan-reviews campaign.yaml --stage audit --minutes 10",
    "vouch plan-reviews campaign.yaml --images 40 --misses 20 --json | jq .plan.counts",
)


@reported
def plan_reviews(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    minutes: Annotated[float, typer.Option(help="Reviewers' time for all of it.", metavar="MINUTES")] = 30,
    stage: Annotated[
        Literal["first", "certify", "audit", "queue"] | None,
        typer.Option(
            help="Labels to fit to, a certification sample, a blind audit, doubtful labels; what is next, if not given."
        ),
    ] = None,
    plants: Annotated[
        int, typer.Option(help="Known-wrong labels to mix in, to see what reviewers miss.", metavar="N")
    ] = 0,
    images: Annotated[
        int, typer.Option(help="Images to be searched for every object, to know the recall.", metavar="N")
    ] = 0,
    misses: Annotated[
        int,
        typer.Option(help="Classes to look for that CLIP sees in an image and no box shows: a weak hint.", metavar="N"),
    ] = 0,
    fresh: Annotated[
        bool,
        typer.Option(
            "--fresh", help="Draw certification labels anew though the last sample could go on; a look, if answered."
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Write the tasks to this file, ready to be filled in.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan as one JSON object.")] = False,
) -> None:
    """Draw what people shall review next, within a time, and say why.

    First labels to fit to; then labels that certify, drawn before anybody looks at them; then, with a certified policy
    in force, blind audits among doubtful labels. One class at a time, and nothing tells why a label is asked.
    """
    from flows.console.output import print_json
    from flows.console.planned import print_planned
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from tasks.certify.plan_reviews import Wish
    from tasks.certify.plan_reviews import plan_reviews as plan
    from tasks.reviews.open_tasks import task_sheet
    from tasks.reviews.read_file import check_suffix, write_table

    config = load_campaign(campaign)
    if out is not None:
        check_suffix(out)
    with quiet() as terminal:
        planned = plan(config, Wish(minutes, stage, plants, images, misses, fresh))
        if out is not None:
            write_table(out, task_sheet(config, planned.plan.number))
        if as_json:
            print_json(terminal, planned.model_dump(mode="json"))
        else:
            print_planned(terminal.results(), planned, out, campaign)
