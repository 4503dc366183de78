"""Commands for labels that exist: `vouch import` and `audit`."""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.cli.init import NOTES, OFFICIAL_MODELS, source_uri
from vouch_labels.flows.cli.label import check_complete, label
from vouch_labels.flows.console.output import Terminal, answer, quiet, say, terminal
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    from vouch_labels.schemas.records import Imported


@reported(
    "vouch import campaign.yaml labels.json",
    'vouch import campaign.yaml labels.json --class "kitty=cat" --class "kite=left out"',
    "vouch import campaign.yaml --remove",
)
def import_(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    labels: Annotated[
        Path | None,
        typer.Argument(help="COCO annotations of (some of) the images.", metavar="[LABELS]", show_default=False),
    ] = None,
    class_names: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="A category of the file and the class that it is, or 'left out'; kept for the next import.",
            metavar="CATEGORY=CLASS",
        ),
    ] = None,
    remove: Annotated[bool, typer.Option("--remove", help="Have no imported labels count any more.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was taken as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Take the labels of a COCO file as those of another detector: the next run masks, scores and routes them.

    They stay as they are, and what the campaign's own detector finds beside them is added (models.detector.backend:
    none adds nothing). A second import takes the place of the first; answers of people stay. Images are paired by
    file_name, categories with classes by name.
    """
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.imported import remove_imported
    from vouch_labels.tasks.store.open import open_workspace

    config = load_campaign(campaign)
    if (labels is None) != remove:
        raise UserError("name the file of labels to import, or say --remove to have none")
    if labels is None:
        remove_imported(open_workspace(config.workspace), config.run.name)
        say(terminal().results(), "imported labels count no more; the next vouch run goes without them")
        return
    classes = dict(_class_pair(pair) for pair in class_names or ())
    with quiet() as shown:
        taken = _import(shown, campaign, labels, classes, plain)
        answer(shown, taken, as_json, campaign)


def _import(shown: Terminal, campaign: Path, labels: Path, classes: dict[str, str], plain: bool) -> "Imported":
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.import_labels import import_labels
    from vouch_labels.tasks.shard.events import Listing, Reading

    with RunProgress(shown.remarks(), plain) as progress:
        return import_labels(
            load_campaign(campaign),
            labels,
            classes,
            lambda images: progress(Listing(images)),
            lambda done, total: progress(Reading(done, total)),
        )


def _class_pair(pair: str) -> tuple[str, str]:
    category, sign, name = pair.rpartition("=")
    if not (sign and category.strip() and name.strip()):
        raise UserError(f"--class {pair!r}: write the category of the file, =, and the class that it is: kitty=cat")
    return category.strip(), name.strip()


@reported(
    "vouch audit labels.json --source images/",
    "vouch audit instances.json --source s3://photos/2026 --models official --out photos-audit",
    "vouch audit labels.json --source images/ --json | jq .kinds",
)
def audit(
    labels: Annotated[Path, typer.Argument(help="The data set's labels: COCO annotations.", metavar="LABELS")],
    source: Annotated[str, typer.Option(help="Its images: s3://bucket/prefix or a folder.")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the audit: campaign, workspace, results (default: LABELS-audit in the current folder).",
            metavar="FOLDER",
            show_default=False,
        ),
    ] = None,
    models: Annotated[
        Literal["bundled", "official"],
        typer.Option(
            help="bundled: small ones that know drawn things; official: published ones, about 1.7 GB, fetched when "
            "first needed. Others: edit campaign.yaml in the folder, and run the command again."
        ),
    ] = "bundled",
    count: Annotated[int, typer.Option(min=1, max=1000, help="Labels in the picture.")] = 60,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Find the labels of a data set that are most likely wrong: class, box, twice there, missing.

    The models look at every image as a second opinion. What they doubt most comes first in suspects.csv, with crops
    in suspects.jpg: for people to look at, since a model's doubt proves nothing. How right the data set is, reviewed
    samples certify: measure.yaml beside them is a campaign of these labels alone. Run again after an interruption, or
    when the labels have changed: what is done stays done.
    """
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.import_labels import category_names
    from vouch_labels.tasks.reviews.read_file import write_table
    from vouch_labels.tasks.run import RunOptions
    from vouch_labels.tasks.suspects import audit_summary, draw_suspects, find_suspects

    started = time.monotonic()
    folder = out or Path(f"{labels.stem}-audit")
    campaign, measure = folder / "campaign.yaml", folder / "measure.yaml"
    if not campaign.exists():
        names = category_names(labels)
        values, chosen = _values(folder, source, names), OFFICIAL_MODELS if models == "official" else {}
        alone = {"models": {**chosen, "detector": {"backend": "none"}}, "run": {"name": "labels"}}
        _write(folder, measure, {**values, **alone})
        _write(folder, campaign, {**values, "models": chosen} if chosen else values)
    with quiet() as shown:
        taken = _import(shown, campaign, labels, {}, plain)
        if measure.exists():
            _import(shown, measure, labels, {}, plain)
        summary = label(campaign, shown, plain=plain, options=RunOptions(export=False, started=started))
        config = load_campaign(campaign)
        suspects = find_suspects(config)
        table, picture = folder / "suspects.csv", folder / "suspects.jpg"
        write_table(table, suspects)
        drawn = draw_suspects(config, suspects, picture, count)
        found = audit_summary(taken, summary, suspects, table, picture if drawn else None, measure)
        answer(shown, found, as_json)
    check_complete(summary)


def _values(folder: Path, source: str, names: list[str]) -> dict[str, Any]:
    from vouch_labels.schemas.campaign import RoutingConfig

    return {
        "source": {"uri": source_uri(source, folder)},
        "workspace": {"uri": "./workspace"},
        "classes": [{"name": name, "prompts": [name]} for name in names],
        "routing": RoutingConfig().model_dump(include={"precision", "confidence", "gate"}),
    }


def _write(folder: Path, path: Path, values: dict[str, Any]) -> None:
    """Write a campaign file.

    Raises:
        UserError: The classes are none that a campaign can have, or the folder cannot be written.
    """
    from pydantic import ValidationError

    from vouch_labels.schemas.campaign import Campaign
    from vouch_labels.schemas.campaign_template import SCHEMA_FILE, campaign_json_schema, starter_campaign_text

    try:
        Campaign.model_validate(values)
    except ValidationError as error:
        what = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(
            f"the categories of the labels make no classes: {what}; name them otherwise in the file"
        ) from None
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / SCHEMA_FILE).write_text(json.dumps(campaign_json_schema(), indent=1) + "\n", encoding="utf-8")
        part = path.with_suffix(".part")
        part.write_text(starter_campaign_text(values, NOTES), encoding="utf-8")
        Path(part).replace(path)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror}); choose another folder by --out") from error
