"""`vouch init`: writes a campaign file, and says how many images it is about."""

import json
import os
from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import show, terminal
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.text import plural, some

OFFICIAL_MODELS: Final = {
    "detector": {"checkpoint": "groundingdino_swint_ogc"},
    "segmenter": {"checkpoint": "sam_vit_b"},
    "scorer": {"checkpoint": "ViT-B-32/laion2b_s34b_b79k"},
}
"""What `vouch init --models official` writes: the smallest published ones, which run on a CPU as well."""

_FILL: Final = "put images into the folder, or name another as source.uri in {}; then "
_MOST_KINDS: Final = 6
"""Kinds of other files that are named."""

NOTES: Final = {
    "routing": "Labels are accepted only as far as reviewed samples certify the precision that is asked for here: "
    "`vouch run`, `vouch plan-reviews` (what to review), `vouch verdicts` (what was answered), `vouch certify`, "
    "`vouch apply`."
}


@reported(
    'vouch init pets --source ~/Pictures --classes "dog, cat" --models official',
    'vouch init cats --source s3://photos/2026 --class cat --class "traffic light"',
    "vouch init . --force",
)
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the campaign; made if there is none.")],
    source: Annotated[
        str | None,
        typer.Option(help="The images: s3://bucket/prefix or a folder (default: images/ in the campaign's folder)."),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="The classes to find, in plain words between commas.", metavar="LIST")
    ] = None,
    class_names: Annotated[
        list[str] | None, typer.Option("--class", help="A class to find; give it once for each.")
    ] = None,
    models: Annotated[
        Literal["bundled", "official"],
        typer.Option(
            help="bundled: small ones that know drawn things; official: published ones, about 1.7 GB, fetched by the "
            "first command that needs them."
        ),
    ] = "bundled",
    force: Annotated[bool, typer.Option("--force", help="Overwrite a campaign that is there.")] = False,
) -> None:
    """Write campaign.yaml, in which every setting stands with its description.

    Beside it goes campaign.schema.json, by which editors complete and check the campaign.
    """
    from pydantic import ValidationError

    from vouch_labels.schemas.campaign import Campaign, RoutingConfig, unknown_classes
    from vouch_labels.schemas.campaign_template import SCHEMA_FILE, campaign_json_schema, starter_campaign_text
    from vouch_labels.schemas.records import bundled_models

    if directory.suffix.lower() in (".yaml", ".yml"):
        raise UserError(f"{directory}: name the campaign's folder, such as {directory.parent}")
    campaign = directory / "campaign.yaml"
    if campaign.exists() and not force:
        raise UserError(f"{campaign} is there already; choose another folder, or overwrite it with --force")
    names = _class_names(classes, class_names)
    images, empty = _images(source, directory)
    values: dict[str, Any] = {
        "source": {"uri": source_uri(source, directory)},
        "workspace": {"uri": "./workspace"},
        "classes": [{"name": name, "prompts": [name]} for name in names or ["cat"]],
        "routing": RoutingConfig().model_dump(include={"precision", "confidence", "gate"}),
    }
    if models == "official":
        values["models"] = OFFICIAL_MODELS
    try:
        checked = Campaign.model_validate(values)
    except ValidationError as error:
        raise UserError(f"--class: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SCHEMA_FILE).write_text(json.dumps(campaign_json_schema(), indent=1) + "\n", encoding="utf-8")
        campaign.write_text(starter_campaign_text(values, NOTES), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another folder") from error
    lines = [f"wrote {campaign}", f"images: {images}"]
    if names:
        lines.append(f"classes: {', '.join(names)}")
    else:
        lines.append(f"classes: none given, so cat stands in {campaign} as an example; name yours there")
    if models == "official":
        chosen = ", ".join(model["checkpoint"] for model in OFFICIAL_MODELS.values())
        lines.append(f"models: {chosen}; they are fetched when they are first needed, and have licences of their own")
    lines += [
        *bundled_models(checked.models.bundled, unknown_classes(checked)),
        f"next: {_FILL.format(campaign) if empty else ''}vouch preview CAMPAIGN labels some of them for a first look, "
        "vouch run CAMPAIGN all",
    ]
    show(terminal().results(), lines, campaign)


def _class_names(listed: str | None, given: list[str] | None) -> list[str]:
    """The classes of the command line; none if it names none."""
    names = [] if listed is None else [name.strip() for name in listed.split(",")]
    names = [name for name in names if name]
    if listed is not None and not names:
        raise UserError(f"--classes: {listed!r} names no class; write them between commas, as in --classes 'dog, cat'")
    return names + (given or [])


def _images(source: str | None, directory: Path) -> tuple[str, bool]:
    """Say how many images a folder holds, and what else, and whether it holds none; a bucket is left to the first run.

    Raises:
        UserError: There is no such folder, or the campaign would be written among the images.
    """
    from vouch_labels.schemas.campaign import S3Options
    from vouch_labels.tasks.store.local import LocalStore
    from vouch_labels.tasks.store.open import open_uri

    folder = directory / "images"
    if source is not None:
        store = open_uri(source, S3Options())
        if not isinstance(store, LocalStore):
            return f"those of {store.uri}, listed by the first run", False
        folder = store.root
        if not folder.is_dir():
            what = "is no folder" if folder.exists() else "there is no such folder"
            raise UserError(f"--source: {source}: {what}; give the folder that holds the images")
    elif not folder.is_dir():
        if directory.is_dir() and _count(directory)[0]:
            raise UserError(
                f"{directory} holds images; give it as --source, and name another folder for the campaign: "
                f"vouch init NAME --source {directory}"
            )
        return f"none yet; put them into {folder.resolve()}, or name their folder by --source", True
    images, others = _count(folder)
    rest = ""
    if others:
        common = sorted(others.items(), key=lambda item: (-item[1], item[0]))
        kinds = some([f"{kind} {count:,}" for kind, count in common], _MOST_KINDS)
        rest = f"; {plural(others.total(), 'other file')} skipped: {kinds}"
    return f"{f'{images:,}' if images else 'NONE'} in {folder.resolve()}{rest}", not images


def _count(folder: Path) -> tuple[int, "Counter[str]"]:
    """How many images a run would find in a folder and those below it, and by extension what else is there."""
    from vouch_labels.schemas.campaign import Source
    from vouch_labels.tasks.plan.plan import list_source
    from vouch_labels.tasks.store.source import open_source

    source, others = Source(uri=str(folder)), Counter[str]()
    images = sum(1 for _ in list_source(source, open_source(source), skipped=others))
    return images, others


def source_uri(given: str | None, directory: Path) -> str:
    """The uri as it stands in the campaign: folders given on the command line are relative to where it is typed."""
    if given is None:
        return "./images"
    if "://" in given:
        return given
    path = Path(given).expanduser()
    return str(path) if path.is_absolute() else os.path.relpath(path, directory)
