"""The command that trains a detector on a campaign's labels: `vouch train`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vouch_labels.flows.cli.command import reported
from vouch_labels.flows.console.output import answer, quiet
from vouch_labels.schemas.errors import UserError

if TYPE_CHECKING:
    from vouch_labels.schemas.training import TrainSettings


@reported(
    "vouch train campaign.yaml --start hf://OWNER/REPO --epochs 30",
    "vouch train campaign.yaml --size dfine-s --steps 20000 --batch 16 --out models/round-1",
    "vouch train campaign.yaml --size tiny --image-size 128 --minutes 10",
)
def train(
    campaign: Annotated[Path, typer.Argument(help="The campaign file.", metavar="CAMPAIGN")],
    start: Annotated[
        str | None,
        typer.Option(
            help="D-FINE, RT-DETR or RT-DETRv2 to start from: a folder that transformers saved, or hf://owner/repo.",
            metavar="MODEL",
            show_default=False,
        ),
    ] = None,
    size: Annotated[
        str | None,
        typer.Option(
            help="Random weights instead: dfine-n, -s, -m, -l, -x, rtdetrv2-r18, -r34, -r50m, -r50, -r101, or tiny for "
            "trials (default: dfine-n).",
            show_default=False,
        ),
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Batches to learn from.", show_default=False)] = None,
    epochs: Annotated[
        float | None, typer.Option(help="Times that every image is looked at (default: 50).", show_default=False)
    ] = None,
    minutes: Annotated[float | None, typer.Option(help="Time to train, instead.", show_default=False)] = None,
    batch: Annotated[int, typer.Option(help="Images in a batch.")] = 8,
    image_size: Annotated[int, typer.Option(help="Side of the square that images are resized to, pixels.")] = 640,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Greatest learning rate (default: 0.0001 from a model, 0.0004 from random weights, 0.002 for tiny).",
            show_default=False,
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of the model (default: models/RUN beside the campaign).", metavar="FOLDER", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Train a detector on the labels of a campaign, to be the detector of its next round.

    Learned from are accepted and verified labels; regions of undecided ones teach nothing. Images that people searched
    for every object, and of which no label certifies anything, are held out and give its AP. Run it again to go on
    after an interruption.
    """
    from vouch_labels.flows.console.progress import RunProgress
    from vouch_labels.schemas.campaign_file import load_campaign

    if start is not None and size is not None:
        raise UserError("--size: --start says the size already; leave one of them out")
    given = {"--steps": steps, "--epochs": epochs, "--minutes": minutes}
    if sum(value is not None for value in given.values()) > 1:
        raise UserError("--steps, --epochs, --minutes: give one of them")
    size = size or (None if start else "dfine-n")
    rate = learning_rate or (1e-4 if start else 2e-3 if size == "tiny" else 4e-4)
    settings = _checked(
        size=size, start=start, steps=steps, epochs=epochs, minutes=minutes,
        batch=batch, image_size=image_size, learning_rate=rate, seed=seed,
    )  # fmt: skip
    config = load_campaign(campaign)
    folder = (out or campaign.parent / "models" / config.run.name).absolute()
    with quiet() as terminal:
        with RunProgress(terminal.remarks(), plain) as progress:
            from vouch_labels.tasks.train.train import train_campaign

            found = train_campaign(config, settings, folder, progress)
        answer(terminal, found, as_json, campaign)


def _checked(**values: object) -> "TrainSettings":
    from pydantic import ValidationError

    from vouch_labels.schemas.campaign_file import YamlTree, explain
    from vouch_labels.schemas.training import TrainSettings

    try:
        return TrainSettings.model_validate(values)
    except ValidationError as error:
        places = [tuple(entry["loc"]) for entry in error.errors()]
        problems = explain(error, YamlTree(lines={place[:1]: 1 for place in places}), TrainSettings)
        raise UserError("; ".join(f"--{text.replace('_', '-', 1)}" for _, text in problems)) from None
