"""Commands that measure: `vouch evaluate`, `report` and `bench`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.cli.demo import TRUTH, samples
from vouch_labels.flows.console.output import answer, print_json, quiet, say, show
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.text import plural

if TYPE_CHECKING:
    from vouch_labels.schemas.campaign import Campaign


@reported(
    "vouch evaluate campaign.yaml --truth annotations.json",
    "vouch evaluate campaign.yaml --truth annotations.json --signal clip_probability --out evaluation",
    "vouch evaluate campaign.yaml --truth annotations.json --json | jq .accepted.precision",
)
def evaluate(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    truth: Annotated[Path, typer.Option(help="COCO annotations of (some of) the images.", metavar="FILE")],
    signal: Annotated[
        list[str] | None, typer.Option(help="Another column to sweep thresholds over; may be repeated.", metavar="NAME")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for evaluation.json and plots; made if there is none.", metavar="FOLDER")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every table, not the most important alone.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Compare the labels of a campaign with ground truth; nothing is labelled.

    Images are paired by file_name, classes by name. Reads the workspace alone: no model is loaded, no image opened.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.evaluate.evaluate import check_folder, evaluate_campaign, write_evaluation
    from vouch_labels.tasks.shard.events import Comparing, Reading

    config = load_campaign(campaign)
    if out is not None:
        check_folder(out)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            found = evaluate_campaign(
                config,
                truth,
                signal or (),
                lambda images: progress(Comparing(images)),
                lambda done, total: progress(Reading(done, total)),
            )
        written = write_evaluation(found, out) if out is not None else []
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
            return
        show(terminal.results(), found.blocks(every, signal or ()))
        if out is not None:
            say(terminal.results(), f"written: {plural(len(written), 'file')} in {out.resolve()}")


@reported(
    "vouch report campaign.yaml",
    "vouch report campaign.yaml --truth annotations.json --out evaluated.html",
    "vouch report campaign.yaml --json | jq .automation",
)
def report(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The HTML file to write; report.html beside the campaign, if not given.",
            metavar="FILE",
            show_default=False,
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option(help="COCO annotations of (some of) the images, to compare with.", metavar="FILE")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the figures as one JSON object; no page.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Write one HTML page about a run: what was accepted, on what guarantee, how good it is, what it cost.

    The page is complete in itself and asks nothing of any network. Its figures are kept in the workspace, so that the
    next report says what changed.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.records import bundled_models
    from vouch_labels.tasks.report.render import make_report
    from vouch_labels.tasks.shard.events import Comparing, Reading

    config = load_campaign(campaign)
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            page = out or campaign.with_name("report.html")
            found = make_report(
                config,
                None if as_json else page,
                truth,
                lambda images: progress(Comparing(images)),
                lambda done, total: progress(Reading(done, total)),
            )
        if as_json:
            print_json(terminal, found.model_dump(mode="json"))
        else:
            remarks = found.truth.remarks if found.truth else ()
            lines = (found.guarantee, *remarks, *bundled_models(found.bundled), f"report: {page.resolve()}")
            show(terminal.results(), lines)


@reported(
    "vouch bench",
    "vouch bench campaign.yaml --count 200",
    "vouch bench --images ~/photos --json | jq .images_per_second",
)
def bench(
    campaign: Annotated[
        Path | None,
        typer.Argument(
            help="A campaign file, for its source, classes, models.", metavar="[CAMPAIGN]", show_default=False
        ),
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option(help="Measure with the images of this folder instead.", metavar="FOLDER", show_default=False),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option(
            help="Images at most: 96 by default, several hundred on a GPU; a slow machine measures fewer.",
            min=1,
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all figures as one JSON object.")] = False,
) -> None:
    """Measure images per second on this machine, the share of each step, memory, and what limits the speed.

    Without a campaign the bundled models look for the classes of the bundled samples. Images are fetched, decoded,
    labelled and written into a temporary workspace; the campaign's own is neither read nor written. On a CPU
    it takes a minute or so. On a GPU it takes some minutes: batches grow and kernels are compiled first, and the
    images of a folder that has too few are taken several times.
    """
    from vouch_labels.flows.prefect_server import prepare_environment
    from vouch_labels.tasks.bench.bench import bench as measure

    prepare_environment()
    chosen = _campaign(campaign, images)
    with quiet() as terminal:
        with terminal.remarks().status("measuring"):
            report = measure(chosen, count)
        answer(terminal, report, as_json)


def _campaign(file: Path | None, images: Path | None) -> "Campaign":
    from vouch_labels.schemas.campaign import Campaign, Source
    from vouch_labels.schemas.campaign_file import load_campaign

    if images is not None and not images.is_dir():
        raise UserError(f"--images: {images} is no folder")
    if file is not None:
        loaded = load_campaign(file)
        return loaded if images is None else loaded.model_copy(update={"source": Source(uri=str(images.resolve()))})
    folder = samples()
    truth = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    return Campaign.model_validate(
        {
            "source": {"uri": str((images or folder).resolve())},
            "workspace": {"uri": str(folder / "no-workspace")},
            "classes": [{"name": category["name"]} for category in truth["categories"]],
        }
    )
