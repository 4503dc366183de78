"""`vouch init`: a commented campaign to start from."""

import json
import os
from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    'vouch init cats --source s3://photos/2026 --class cat --class "traffic light"',
    "vouch init . --force",
)

NOTES: Final = {
    "routing": "Labels are accepted only as far as reviewed samples certify the precision that is asked for here: "
    "`vouch run`, `vouch plan-reviews` (what to review), `vouch verdicts` (what was answered), `vouch certify`, "
    "`vouch apply`."
}


@reported
def init(
    directory: Annotated[Path, typer.Argument(help="Folder of the campaign; made if there is none.")],
    source: Annotated[
        str | None,
        typer.Option(help="The images: s3://bucket/prefix or a folder (default: images/ beside it)."),
    ] = None,
    class_names: Annotated[
        list[str] | None, typer.Option("--class", help="A class to find; give it once for each.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite a campaign that is there.")] = False,
) -> None:
    """Write campaign.yaml, in which every setting stands with its description.

    Beside it goes campaign.schema.json, by which editors complete and check the campaign.
    """
    from pydantic import ValidationError

    from schemas.campaign import Campaign, RoutingConfig
    from schemas.campaign_template import SCHEMA_FILE, campaign_json_schema, starter_campaign_text
    from schemas.errors import UserError

    campaign = directory / "campaign.yaml"
    if campaign.exists() and not force:
        raise UserError(f"{campaign} is there already; choose another folder, or overwrite it with --force")
    values = {
        "source": {"uri": _source(source, directory)},
        "workspace": {"uri": "./workspace"},
        "classes": [{"name": name, "prompts": [name]} for name in class_names or ["cat"]],
        "routing": RoutingConfig().model_dump(include={"precision", "confidence", "gate"}),
    }
    try:
        Campaign.model_validate(values)
    except ValidationError as error:
        raise UserError(f"--class: {error.errors()[0]['msg'].removeprefix('Value error, ')}") from error
    try:
        directory.mkdir(parents=True, exist_ok=True)
        (directory / SCHEMA_FILE).write_text(json.dumps(campaign_json_schema(), indent=1) + "\n", encoding="utf-8")
        campaign.write_text(starter_campaign_text(values, NOTES), encoding="utf-8")
    except OSError as error:
        raise UserError(f"{directory}: cannot be written ({error.strerror}); choose another folder") from error
    first = "look it over" if class_names else "name your classes in it"
    print(f"wrote {campaign}\n{first}, then: vouch run {campaign}")


def _source(given: str | None, directory: Path) -> str:
    """The uri as it stands in the campaign: folders given on the command line are relative to where it is typed."""
    if given is None:
        return "./images"
    if "://" in given or Path(given).is_absolute():
        return given
    return os.path.relpath(given, directory)
