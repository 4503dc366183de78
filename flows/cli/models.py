"""`vouch models`: which checkpoints there are, whether a campaign's can be used, and fetching them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.epilog import epilog
from flows.cli.reported import reported

if TYPE_CHECKING:
    from tasks.models.catalog import CatalogEntry

models = typer.Typer(name="models", help="List, check and fetch the models.", epilog=epilog(), no_args_is_help=True)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead.")]


@models.command(name="list", epilog=epilog("vouch models list", "vouch models list --json"))
@reported
def list_models(as_json: Json = False) -> None:
    """List the bundled and the official checkpoints, their sizes, and where they lie on this machine."""
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from tasks.models.catalog import catalog

    with quiet() as terminal:
        entries = catalog()
        if as_json:
            print_json(terminal, {"checkpoints": [entry.model_dump(mode="json") for entry in entries]})
            return
        for entry in entries:
            terminal.results().print(_line(entry), highlight=False, soft_wrap=True, markup=False)
        terminal.remarks().print(
            "A checkpoint may also be a path, s3://bucket/key or hf://owner/repo[@revision]/file; the transformers "
            "backend takes hf://owner/repo. A scorer's may be any that open_clip names, as architecture/tag: "
            "ViT-L-14/laion2b_s32b_b82k; `vouch models check CAMPAIGN` fetches it.",
            soft_wrap=True, markup=False, highlight=False,
        )  # fmt: skip


@models.command(epilog=epilog("vouch models check campaign.yaml"))
@reported
def check(
    campaign: Annotated[Path, typer.Argument(help="The campaign whose models are tried.", metavar="CAMPAIGN")],
    as_json: Json = False,
) -> None:
    """Find, verify and load every model of a campaign on the device that it will run on, and try its prompts.

    What is not on this machine yet is fetched.
    """
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from schemas.campaign_file import load_campaign
    from schemas.errors import UserError
    from tasks.models.catalog import check_models

    config = load_campaign(campaign)
    reports = []
    with quiet() as terminal:
        console = terminal.remarks() if as_json else terminal.results()
        for report in check_models(config):
            reports.append(report)
            model = f"{report.backend} {report.checkpoint} on {report.device}, {report.seconds:.1f} s"
            words = f"not usable: {report.problem}" if report.problem else f"ok: {model}"
            console.print(f"{report.kind:<10} {words}", highlight=False, soft_wrap=True, markup=False)
        if as_json:
            print_json(terminal, {"models": [report.model_dump(mode="json") for report in reports]})
    broken = [report.kind for report in reports if report.problem]
    if broken:
        raise UserError(f"{campaign}: {len(broken)} of {len(reports)} models cannot be used: {', '.join(broken)}")


@models.command(epilog=epilog("vouch models pull groundingdino_swint_ogc sam_vit_b"))
@reported
def pull(
    names: Annotated[list[str], typer.Argument(help="Names that `vouch models list` shows.", metavar="NAME...")],
) -> None:
    """Fetch official checkpoints from the model hub and verify them; what is here already is not fetched again.

    On a machine without the hub, put the file into ~/.cache/vouch/checkpoints (or VOUCH_CACHE) by hand.
    """
    from schemas.errors import CheckpointError
    from tasks.models.catalog import pull as fetch
    from tasks.models.checkpoints import OFFICIAL

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
