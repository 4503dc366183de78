"""`vouch export`: the data set again, or another one, from labels that are there."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flows.cli.reported import reported

if TYPE_CHECKING:
    from schemas.campaign import ExportConfig

EXAMPLES: Final = (
    "vouch export campaign.yaml",
    "vouch export campaign.yaml --name for-yolox --preset yolox --undecided drop --images copy",
    "vouch export campaign.yaml --splits 0.8,0.1,0.1 --seed 7",
)


@reported
def export(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    name: Annotated[str | None, typer.Option(help="Folder under workspace/exports.")] = None,
    preset: Annotated[str | None, typer.Option(help="Trainer that will read it.")] = None,
    undecided: Annotated[str | None, typer.Option(help="Boxes waiting for review: ignore, drop or include.")] = None,
    images: Annotated[str | None, typer.Option(help="Images beside the annotations: none, link or copy.")] = None,
    splits: Annotated[str | None, typer.Option(help="Shares TRAIN,VAL,TEST that sum to 1, or none.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the splits.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print what was written as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Write the COCO data set of a campaign from the labels that are there; nothing is labelled.

    Options stand for the keys of the campaign's export section and go before them.
    """
    from flows.console.output import print_json
    from flows.console.progress import RunProgress
    from flows.console.streams import quiet
    from flows.console.summary import print_export
    from schemas.campaign_file import load_campaign
    from tasks.export.export import export_campaign

    config = load_campaign(campaign)
    given = {"name": name, "preset": preset, "undecided": undecided, "images": images}
    values: dict[str, Any] = config.export.model_dump() | {
        key: value for key, value in given.items() if value is not None
    }
    values["splits"] = _splits(splits, seed, values["splits"])
    config = config.model_copy(update={"export": _checked(values)})
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            outcome = export_campaign(config, progress)
        if as_json:
            print_json(terminal, outcome.model_dump(mode="json"))
            return
        terminal.results().print(
            f"{outcome.images:,} images, {outcome.annotations:,} annotations, {outcome.accepted:,} of them accepted, "
            f"{outcome.human:,} verified by people",
            highlight=False, markup=False, soft_wrap=True,
        )  # fmt: skip
        print_export(terminal.results(), outcome)


def _splits(given: str | None, seed: int | None, configured: dict[str, Any] | None) -> dict[str, Any] | None:
    from schemas.errors import UserError

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


def _checked(values: dict[str, Any]) -> "ExportConfig":
    from pydantic import ValidationError

    from schemas.campaign import ExportConfig
    from schemas.campaign_file import YamlTree, explain
    from schemas.errors import UserError

    try:
        return ExportConfig.model_validate(values)
    except ValidationError as error:
        places = [tuple(entry["loc"]) for entry in error.errors()]
        paths = {place[:length]: 1 for place in places for length in range(1, len(place) + 1)}
        problems = explain(error, YamlTree(lines=paths), ExportConfig)
        raise UserError("; ".join(f"--{words}" for _, words in problems)) from None
