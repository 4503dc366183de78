"""`vouch demo`: the main job on the bundled images with the bundled models, and a round of simulated reviews on it.

`vouch scenes` draws images like them, with exact ground truth.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import print_json, quiet, show, terminal
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.text import pct, plural

if TYPE_CHECKING:
    from collections.abc import Iterator

    from vouch_labels.schemas.campaign import Campaign
    from vouch_labels.schemas.policy import Certified
    from vouch_labels.schemas.records import ExportOutcome, RunSummary
    from vouch_labels.schemas.text import Block
    from vouch_labels.tasks.simulate.simulate import Round

ACCEPT: Final = {"detector_score": 0.55, "clip_probability": 0.5}
"""What the demo's campaign accepts; chosen by trying on these very samples, so nothing follows for other images."""

PRECISION: Final = 0.85
"""What the demo asks for: so few samples could certify no more but by luck."""
TRUTH: Final = "ground_truth.json"

NOTE: Final = (
    "These thresholds are the demo's own choice, as yours would be: labels that pass are accepted on your word. No "
    "precision is certified by them; for that, labels must be reviewed."
)


@reported("vouch demo", "vouch demo --format yolo", "vouch demo /tmp/demo --json")
def demo(
    directory: Annotated[Path, typer.Argument(help="Folder for the demo; made if there is none.")] = Path("demo"),
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            help="Also write the data set as `vouch export --format` does, with splits; may be given several times.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Label the bundled sample images with the bundled models, and have a simulated reviewer certify a precision.

    The images, the campaign, the data set, a picture of it and a report end up in one folder to look around in. A
    second run goes on where the first ended; a campaign that you have edited is kept. The reviewer answers from the
    samples' ground truth, so what it certifies shows the way and guarantees nothing.
    """
    from vouch_labels.flows.cli.label import label
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.preview import write_preview
    from vouch_labels.tasks.report.render import make_report

    campaign = prepare(directory)
    if formats:
        # A mistake in it shows before anything is labelled.
        _with_formats(load_campaign(campaign), formats)
    picture, page = directory / "preview.jpg", directory / "report.html"
    with quiet() as terminal:
        summary = label(campaign, terminal, plain=plain)
        config = load_campaign(campaign)
        write_preview(config, picture)
        if not as_json:
            show(terminal.results(), [*summary.blocks(), *_remarks(campaign, picture, summary)], campaign)
        done = review(config, samples() / TRUTH)
        if not as_json:
            show(terminal.results(), review_blocks(done), campaign)
        make_report(config, page, samples() / TRUTH)
        written = _export(config, formats) if formats else None
        if as_json:
            files = {"preview": str(picture), "report": str(page)}
            also = {"also_written": written.model_dump(mode="json")} if written is not None else {}
            print_json(terminal, summary.model_dump(mode="json") | files | also | review_json(done))
            return
        if written is not None:
            show(terminal.results(), written.blocks(), campaign)
        end = (f"report: {page.resolve()}", "review the rest in the browser: vouch review CAMPAIGN")
        show(terminal.results(), end, campaign)


def _export(config: "Campaign", formats: list[str]) -> "ExportOutcome":
    """Write further data sets of the labels as they are now, reviews included."""
    from vouch_labels.tasks.run import export_campaign

    return export_campaign(_with_formats(config, formats))


def _with_formats(config: "Campaign", formats: list[str]) -> "Campaign":
    from vouch_labels.tasks.export.export import with_export_settings

    splits = {"train": 0.8, "val": 0.2, "test": 0.0}
    return with_export_settings(config, {"formats": formats, "splits": splits}, before="--")


def samples() -> Path:
    """Folder of the bundled samples."""
    from vouch_labels import starter

    return Path(starter.__path__[0]) / "samples"


def prepare(directory: Path) -> Path:
    """Copy the samples and write the campaign, unless they are there."""
    from vouch_labels.schemas.campaign_template import SCHEMA_FILE, campaign_json_schema, starter_campaign_text

    folder = samples()
    campaign = directory / "campaign.yaml"
    try:
        truth = json.loads((folder / TRUTH).read_text(encoding="utf-8"))
    except OSError as error:
        raise VouchError(f"the bundled samples are missing from {folder}; install Vouch again") from error
    try:
        (directory / "images").mkdir(parents=True, exist_ok=True)
        for image in truth["images"]:
            target = directory / "images" / image["file_name"]
            if not target.exists():
                half = target.with_suffix(".part")
                shutil.copyfile(folder / image["file_name"], half)
                half.replace(target)
        if not campaign.exists():
            names = [category["name"] for category in truth["categories"]]
            text = starter_campaign_text(_values(names), {"routing.accept": NOTE})
            (directory / SCHEMA_FILE).write_text(json.dumps(campaign_json_schema(), indent=1) + "\n", encoding="utf-8")
            campaign.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another folder") from error
    return campaign


def _values(names: list[str]) -> dict[str, Any]:
    return {
        "source": {"uri": "./images"},
        "workspace": {"uri": "./workspace"},
        "classes": [{"name": name, "prompts": [name]} for name in names],
        # Most objects of the samples are found from here on; the low-confidence ones then wait for review.
        "models": {"detector": {"min_score": 0.25}},
        "routing": {"precision": PRECISION, "accept": ACCEPT},
        "export": {"description": "Drawn scenes labelled by Vouch's bundled models"},
    }


def _remarks(campaign: Path, picture: Path, summary: "RunSummary") -> list[str]:
    lines = [f"campaign: {campaign.resolve()}"]
    if picture.exists():
        lines.append(f"picture: {picture.resolve()}")
    # A policy that an earlier demo certified is active otherwise.
    if summary.accepted and summary.policy.startswith("user-"):
        lines.append(
            f"{plural(summary.accepted, 'label was', 'labels were')} accepted by the thresholds in the campaign. {NOTE}"
        )
    return lines


TO_FIT: Final = 10.0
"""Minutes of the first review plan; the samples have fewer labels than that."""
TO_CERTIFY: Final = 1.5
"""Minutes of the second: two fifths of the labels that may be accepted, so that others are accepted unseen."""
STRICTER: Final = 0.95


def review(campaign: "Campaign", truth: Path) -> "Round | str":
    """Review the labels of the demo, certify and apply; where that is not done, say why."""
    from vouch_labels.tasks.certify.plan_reviews import ReviewRequest
    from vouch_labels.tasks.reviews.plans import read_plans
    from vouch_labels.tasks.simulate.simulate import review_round
    from vouch_labels.tasks.store.open import open_store

    if read_plans(open_store(campaign.workspace), campaign.run.name):
        return "reviews of an earlier demo are in the workspace; they are not simulated again"
    try:
        return review_round(campaign, truth, (ReviewRequest(TO_FIT), ReviewRequest(TO_CERTIFY)), export=True)
    except UserError as error:
        return f"no simulated review: {error}"


def review_blocks(found: "Round | str") -> "Iterator[Block]":
    """What was asked, what is certified, what it changed, and what is true."""
    if isinstance(found, str):
        yield found
        return
    yield "\nA SIMULATED REVIEWER, who answers from the samples' ground truth, shows how labels are certified:"
    for part in found.reviewed:
        plan = part.planned.plan
        yield f"review plan {plan.number}: {plural(part.answers, 'answer')}. {'; '.join(part.planned.words)}"
    if found.certified is None:
        yield found.refusal
        return
    # So few labels of each class say little.
    yield from found.certified.model_copy(update={"classes": ()}).blocks()
    yield _choice(found.certified)
    applied, contract = found.applied, found.contract
    if applied is None or contract is None:
        return
    side, held = contract.covered, "held" if contract.held else "is broken"
    yield (
        f"applied without a model: {applied.accepted:,} of {applied.labels:,} labels are accepted now, "
        f"{applied.accepted_before:,} were by the thresholds; the decisions of {applied.changed:,} change."
    )
    if side.accepted_precision is not None and side.delivered_precision is not None:
        yield (
            f"against the samples' truth: {pct(side.accepted_precision)} of the accepted labels are correct, "
            f"{pct(side.delivered_precision)} of those delivered; the guarantee {held}"
        )
    yield "Nothing is guaranteed by this policy: it is marked as simulated. A real one takes people's verdicts."


def review_json(found: "Round | str") -> dict[str, Any]:
    """The same for machines."""
    if isinstance(found, str):
        return {"simulated_review": None, "why_not": found}
    parts = {"certified": found.certified, "applied": found.applied, "contract": found.contract}
    fields = {name: None if part is None else part.model_dump(mode="json") for name, part in parts.items()}
    return {"simulated_review": fields | {"refusal": found.refusal}}


def _choice(asked: "Certified") -> str:
    """Why the demo asks for so little, and what more would take."""
    from vouch_labels.tasks.statistics.bounds import labels_needed

    delta = max(group.certificate.delta for group in asked.groups if group.certificate is not None)
    none, two = (labels_needed(errors, 1 - STRICTER, delta) for errors in (0, 2))
    return (
        f"Precision {asked.precision:g} is the demo's choice, as the samples are few: {STRICTER:g} takes {none:,} "
        f"labels reviewed to certify without an error among them, {two:,} with two, and more to accept many."
    )


@reported(
    "vouch scenes photos --count 1000",
    "vouch scenes photos --count 200 --seed 7 --split full --largest 800",
    "vouch scenes harder --count 200 --seed 7 --style twitter",
)
def scenes(
    out: Annotated[Path, typer.Argument(help="Folder for the images and ground_truth.json.", metavar="OUT")],
    count: Annotated[int, typer.Option(help="Number of images.")] = 100,
    seed: Annotated[int, typer.Option(help="Which world; below 1000 is new to the bundled models.")] = 0,
    split: Annotated[
        str, typer.Option(help="core (what the bundled models know), full, core-heldout or full-heldout.")
    ] = "core",
    smallest: Annotated[int, typer.Option(help="Least height and width in pixels.")] = 256,
    largest: Annotated[int, typer.Option(help="Greatest height and width in pixels.")] = 384,
    style: Annotated[
        str, typer.Option(help="noto (what the bundled models know) or twitter (drawn otherwise, never trained on).")
    ] = "noto",
) -> None:
    """Draw images of things that the bundled models know, with their exact boxes and masks as COCO.

    For trying Vouch, and for measuring it against a truth that is known to the pixel. The same arguments draw the
    same images. Style noto needs the font Noto Color Emoji.
    """
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    from vouch_labels.starter.scenes.scene import generate_scenes

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal().remarks(), transient=True) as progress:
        task = progress.add_task("drawing", total=count)
        truth = generate_scenes(
            out, count, seed, split, smallest, largest, lambda done: progress.update(task, completed=done), style
        )
    print(f"{plural(count, 'image')} in {out}, the truth in {truth}")
