"""Commands that label: `vouch preview`, `run`, `status`, `export` and `models`."""

import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vouch_labels.flows.cli.command import epilog, reported
from vouch_labels.flows.console.output import Terminal, answer, print_json, print_rows, quiet, say, terminal
from vouch_labels.schemas.errors import CheckpointError, UserError, VouchError
from vouch_labels.schemas.text import plural

if TYPE_CHECKING:
    from vouch_labels.schemas.records import RunSummary
    from vouch_labels.tasks.models.catalog import CatalogEntry
    from vouch_labels.tasks.run import RunOptions

FORMATS: Final = "coco, parquet, yolo, voc, lvis, huggingface, imagefolder, webdataset or fiftyone"


@reported(
    "vouch preview campaign.yaml",
    "vouch preview campaign.yaml --limit 40 --seed 1 --open",
    "vouch preview campaign.yaml --out /tmp/preview.png --json | jq .accepted",
)
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


@reported(
    "vouch run campaign.yaml",
    "vouch run campaign.yaml --json > summary.json",
    "vouch run campaign.yaml --limit 100",
    "vouch run campaign.yaml --retry-failed --no-export",
)
def run(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try images that failed once more.")] = False,
    no_export: Annotated[bool, typer.Option("--no-export", help="Label only; export later.")] = False,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Label the first images alone, by key; a later run goes on with the rest.")
    ] = None,
    accept_changes: Annotated[
        bool,
        typer.Option(
            "--accept-changes",
            help="Go on although source or classes are others than those labelled, or most images have vanished.",
        ),
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Label the images of a campaign and export the data set.

    Run it again to resume after an interruption, or to label new and changed images: what is done stays done, and a
    changed prompt or threshold does only that again which depends on it.
    """
    started = time.monotonic()
    with quiet() as terminal:
        from vouch_labels.tasks.run import RunOptions

        options = RunOptions(retry_failed, not no_export, accept_changes, limit, started)
        summary = label(campaign, terminal, plain=plain, options=options)
        answer(terminal, summary, as_json, campaign)
    check_complete(summary)


def check_complete(summary: "RunSummary") -> None:
    """Raise a VouchError that says how much a run has left undone, if any."""
    if summary.pending:
        raise VouchError(
            f"not labelled: {plural(summary.pending, 'image')} of {plural(len(summary.shard_errors), 'shard')}; the "
            "others are: run again to try once more"
        )


def label(campaign: Path, terminal: Terminal, *, plain: bool, options: "RunOptions | None" = None) -> "RunSummary":
    """Run a campaign; the progress goes to standard error."""
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.models.tokens import check_classes

    # Mistakes show at once: first those in the file, then those of source, workspace and models; Prefect comes last.
    config = load_campaign(campaign)
    check_classes(config.classes, config.models.detector)
    with RunProgress(terminal.remarks(), plain) as progress:
        from vouch_labels.tasks.run import CampaignRun
        from vouch_labels.tasks.shard.events import Loading

        with CampaignRun(config, progress, options) as opened:
            if opened.idle:
                return opened.finish()
            progress(Loading("Prefect"))
            from vouch_labels.flows.run import run_campaign

            return run_campaign(campaign, opened=opened)


@reported(
    "vouch status campaign.yaml",
    "vouch status campaign.yaml --json | jq .next",
    "vouch status campaign.yaml --failed > failed.tsv",
)
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
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.status import read_status

    if failed:
        from vouch_labels.tasks.labels.totals import campaign_failures

        images = campaign_failures(load_campaign(campaign))
        if as_json:
            print_json(terminal(), {"failed": [image._asdict() for image in images]})
        else:
            print_rows(terminal(), images)
        return
    answer(terminal(), read_status(load_campaign(campaign)), as_json, campaign)


@reported(
    "vouch export campaign.yaml",
    "vouch export campaign.yaml --format yolo",
    "vouch export campaign.yaml --format voc --name voc-small --undecided blank",
    "vouch export campaign.yaml --name for-yolox --preset yolox --images copy",
    "vouch export campaign.yaml --splits 0.8,0.1,0.1 --seed 7",
)
def export(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    name: Annotated[
        str | None,
        typer.Option(help="Folder under workspace/exports (default: named as the format).", show_default=False),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help=f"{FORMATS}; may be given several times.", show_default=False),
    ] = None,
    preset: Annotated[str | None, typer.Option(help="Trainer that will read COCO files.")] = None,
    undecided: Annotated[
        str | None, typer.Option(help="Boxes waiting for review: ignore, drop_image, blank, drop or include.")
    ] = None,
    masks: Annotated[str | None, typer.Option(help="rle, polygons or none; polygons make YOLO segment labels.")] = None,
    boxes: Annotated[str | None, typer.Option(help="detector, or mask for the extent of the mask.")] = None,
    images: Annotated[str | None, typer.Option(help="Images beside the annotations: none, link or copy.")] = None,
    splits: Annotated[str | None, typer.Option(help="Shares TRAIN,VAL,TEST that sum to 1, or none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the splits.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Write the data set of a campaign for a trainer, from the labels that are there; nothing is labelled.

    Options stand for the keys of the campaign's export section and go before them.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.export.export import with_export_settings
    from vouch_labels.tasks.run import export_campaign

    config = load_campaign(campaign)
    given = {"name": name, "preset": preset, "undecided": undecided, "masks": masks, "boxes": boxes, "images": images}
    changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
    if formats:
        changes["formats"] = formats
    changes["splits"] = _splits(splits, seed, config.export.model_dump()["splits"])
    config = with_export_settings(config, changes, before="--")
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            outcome = export_campaign(config, progress)
        answer(terminal, outcome, as_json, campaign)


def _splits(given: str | None, seed: int | None, configured: dict[str, Any] | None) -> dict[str, Any] | None:
    if given is not None and given.lower() == "none":
        return None
    shares = configured
    if given is not None:
        numbers = given.split(",")
        if len(numbers) != 3:
            raise UserError(f"--splits: {given!r} is not three shares; write them as 0.8,0.1,0.1")
        shares = {
            **dict(zip(("train", "val", "test"), numbers, strict=True)),
            "seed": (configured or {}).get("seed", 0),
        }
    if seed is None:
        return shares
    if shares is None:
        raise UserError("--seed: there are no splits to seed; add --splits 0.8,0.1,0.1")
    return {**shares, "seed": seed}


models = typer.Typer(name="models", help="List, check and fetch the models.", epilog=epilog(), no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@models.command(name="list", epilog=epilog("vouch models list", "vouch models list --json"))
@reported()
def list_models(as_json: Json = False) -> None:
    """List the bundled and the official checkpoints, where they lie on this machine, and what the bundled ones know."""
    from vouch_labels.schemas.campaign import DRAWN
    from vouch_labels.tasks.models.catalog import catalog

    with quiet() as terminal:
        entries = catalog()
        if as_json:
            found = [entry.model_dump(mode="json") for entry in entries]
            print_json(terminal, {"checkpoints": found, "drawn_things": list(DRAWN)})
            return
        for entry in entries:
            say(terminal.results(), _line(entry))
        say(terminal.results(), f"the bundled models (starter) know {len(DRAWN)} drawn things: {', '.join(DRAWN)}")
        say(
            terminal.remarks(),
            "They find nothing of worth on photographs: for those `vouch models pull NAME` fetches an official "
            "checkpoint, and models in the campaign file names it (`vouch init --models official` writes such a file).",
        )
        say(
            terminal.remarks(),
            "A checkpoint may also be a path, s3://bucket/key or hf://owner/repo[@revision]/file; the transformers "
            "and trained backends take hf://owner/repo or the folder of a saved model. A scorer's may be any that "
            "open_clip names, as architecture/tag (ViT-L-14/laion2b_s32b_b82k); `vouch models check` fetches it.",
        )


@models.command(epilog=epilog("vouch models check campaign.yaml"))
@reported()
def check(
    campaign: Annotated[Path, typer.Argument(help="The campaign whose models are tried.", metavar="CAMPAIGN")],
    as_json: Json = False,
) -> None:
    """Find, verify and load every model of a campaign on the device that it will run on, and try its prompts.

    What is not on this machine yet is fetched.
    """
    from vouch_labels.schemas.campaign import unknown_classes
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.records import bundled_models
    from vouch_labels.tasks.models.catalog import check_models

    config = load_campaign(campaign)
    reports = []
    with quiet() as terminal:
        console = terminal.remarks() if as_json else terminal.results()
        for report in check_models(config):
            reports.append(report)
            model = f"{report.backend} {report.checkpoint} on {report.device}, {report.seconds:.1f} s"
            result = f"not usable: {report.problem}" if report.problem else f"ok: {model}"
            say(console, f"{report.kind:<10} {result}")
        for line in bundled_models(config.models.bundled, unknown_classes(config)):
            say(console, line)
        if as_json:
            print_json(terminal, {"models": [report.model_dump(mode="json") for report in reports]})
    broken = [report.kind for report in reports if report.problem]
    if broken:
        raise UserError(f"{campaign}: {len(broken)} of {len(reports)} models cannot be used: {', '.join(broken)}")


@models.command(epilog=epilog("vouch models pull groundingdino_swint_ogc sam_vit_b"))
@reported()
def pull(
    names: Annotated[list[str], typer.Argument(help="Names that `vouch models list` shows.", metavar="NAME...")],
) -> None:
    """Fetch official checkpoints from the model hub and verify them; what is here already is not fetched again.

    On a machine without the hub, put the file into ~/.cache/vouch/checkpoints (or VOUCH_CACHE) by hand.
    """
    from vouch_labels.tasks.models.catalog import pull as fetch
    from vouch_labels.tasks.models.checkpoints import OFFICIAL

    unknown = [name for name in names if name not in OFFICIAL]
    if unknown:
        raise CheckpointError(f"{', '.join(unknown)}: not in the catalog; the names are {', '.join(OFFICIAL)}")
    for name in names:
        # The hub's client draws the progress itself, on standard error.
        print(f"{name} {fetch(name)}")


def _line(entry: "CatalogEntry") -> str:
    size = "" if entry.bytes is None else f"{entry.bytes / 1e6:,.1f} MB"
    place = entry.problem or entry.path or f"not here; vouch models pull {entry.name}"
    digest = f"sha256 {entry.sha256[:12]}…" if entry.sha256 else ""
    return f"{entry.kind:<10} {entry.name:<28} {entry.architecture:<8} {size:>10}  {digest:<20} {place}"
