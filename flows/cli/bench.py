"""`vouch bench`: how fast this machine labels, and what would help."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from flows.cli.reported import reported

if TYPE_CHECKING:
    from schemas.campaign import Campaign

EXAMPLES: Final = (
    "vouch bench",
    "vouch bench campaign.yaml --count 200",
    "vouch bench --images ~/photos --json | jq .images_per_second",
)


@reported
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
    from flows.console.bench import print_bench
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from flows.environment import prepare_environment
    from tasks.bench.bench import bench as measure

    prepare_environment()
    chosen = _campaign(campaign, images)
    with quiet() as terminal:
        with terminal.remarks().status("measuring"):
            report = measure(chosen, count)
        if as_json:
            print_json(terminal, report.model_dump(mode="json"))
            return
        print_bench(terminal.results(), report)


def _campaign(file: Path | None, images: Path | None) -> "Campaign":
    from schemas.campaign import Campaign, Source
    from schemas.campaign_file import load_campaign
    from schemas.errors import UserError

    if images is not None and not images.is_dir():
        raise UserError(f"--images: {images} is no folder")
    if file is not None:
        loaded = load_campaign(file)
        return loaded if images is None else loaded.model_copy(update={"source": Source(uri=str(images.resolve()))})
    samples, names = _samples()
    return Campaign.model_validate(
        {
            "source": {"uri": str((images or samples).resolve())},
            "workspace": {"uri": str(samples / "no-workspace")},
            "classes": [{"name": name} for name in names],
        }
    )


def _samples() -> tuple[Path, list[str]]:
    """Folder of the bundled samples, and the names of what they show."""
    import json

    import starter

    folder = Path(starter.__path__[0]) / "samples"
    truth = json.loads((folder / "ground_truth.json").read_text(encoding="utf-8"))
    return folder, [entry["name"] for entry in truth["categories"]]
