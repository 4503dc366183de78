"""`vouch scenes`: drawn images with exact ground truth."""

from pathlib import Path
from typing import Annotated, Final

import typer

from flows.cli.reported import reported

EXAMPLES: Final = (
    "vouch scenes photos --count 1000",
    "vouch scenes photos --count 200 --seed 7 --split full --largest 800",
    "vouch scenes harder --count 200 --seed 7 --style twitter",
)


@reported
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

    from flows.console.streams import terminal
    from starter.scenes.generate import generate_scenes

    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=terminal().remarks(), transient=True) as progress:
        task = progress.add_task("drawing", total=count)
        truth = generate_scenes(
            out, count, seed, split, smallest, largest, lambda done: progress.update(task, completed=done), style
        )
    print(f"{count} images in {out}, their truth in {truth}")
