"""`vouch demo`: the main job on the bundled images with the bundled models."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from flows.cli.reported import reported

if TYPE_CHECKING:
    from schemas.records import RunSummary

EXAMPLES: Final = ("vouch demo", "vouch demo /tmp/demo --json")

ACCEPT: Final = {"detector_score": 0.55, "clip_probability": 0.5}
"""What the demo's campaign accepts; chosen by trying on these very samples, so nothing follows for other images."""

PRECISION: Final = 0.85
"""What the demo asks for: so few samples could certify no more but by luck."""
TRUTH: Final = "ground_truth.json"

NOTE: Final = (
    "These thresholds are the demo's own choice, as yours would be: labels that pass are accepted on your word. No "
    "precision is certified by them; for that, labels must be reviewed."
)


@reported
def demo(
    directory: Annotated[Path, typer.Argument(help="Folder for the demo; made if there is none.")] = Path("demo"),
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as one JSON object.")] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Plain lines instead of a progress bar.")] = False,
) -> None:
    """Label the bundled sample images with the bundled models, and have a simulated reviewer certify a precision.

    The images, the campaign, the data set, a picture of it and a report end up in one folder to look around in. A
    second run takes up where the first ended; a campaign that you have edited is kept. The reviewer answers from the
    samples' ground truth, so what it certifies shows the way and promises nothing.
    """
    from flows.cli.demo_review import as_json as review_json
    from flows.cli.demo_review import print_review, review
    from flows.cli.labelling import label
    from flows.console.output import print_json
    from flows.console.streams import quiet
    from flows.console.summary import print_summary
    from schemas.campaign_file import load_campaign
    from tasks.preview import write_preview
    from tasks.report.render import make_report

    campaign = _prepare(directory)
    picture, page = directory / "preview.jpg", directory / "report.html"
    with quiet() as terminal:
        summary = label(campaign, terminal, plain=plain, retry_failed=False, export=True)
        config = load_campaign(campaign)
        write_preview(config, picture)
        if not as_json:
            print_summary(terminal.results(), summary)
            for line in _remarks(campaign, picture, summary):
                terminal.results().print(line, highlight=False, markup=False, soft_wrap=True)
        done = review(config, _samples() / TRUTH)
        if not as_json:
            print_review(terminal.results(), done)
        make_report(config, page, _samples() / TRUTH)
        if as_json:
            files = {"preview": str(picture), "report": str(page)}
            print_json(terminal, summary.model_dump(mode="json") | files | review_json(done))
            return
        for line in (f"report: {page.resolve()}", f"review the rest in the browser: vouch review {campaign}"):
            terminal.results().print(line, highlight=False, markup=False, soft_wrap=True)


def _samples() -> Path:
    import starter

    return Path(starter.__path__[0]) / "samples"


def _prepare(directory: Path) -> Path:
    """Copy the samples and write the campaign, unless they are there."""
    from schemas.campaign_template import SCHEMA_FILE, campaign_json_schema, starter_campaign_text
    from schemas.errors import UserError, VouchError

    samples = _samples()
    campaign = directory / "campaign.yaml"
    try:
        truth = json.loads((samples / TRUTH).read_text(encoding="utf-8"))
    except OSError as error:
        raise VouchError(f"the bundled samples are missing from {samples}; install Vouch again") from error
    try:
        (directory / "images").mkdir(parents=True, exist_ok=True)
        for image in truth["images"]:
            target = directory / "images" / image["file_name"]
            if not target.exists():
                half = target.with_suffix(".part")
                shutil.copyfile(samples / image["file_name"], half)
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
        # Most objects of the samples are found from here on; what is doubtful then waits for review.
        "models": {"detector": {"min_score": 0.25}},
        "routing": {"precision": PRECISION, "accept": ACCEPT},
        "export": {"description": "Drawn scenes labelled by Vouch's bundled models"},
    }


def _remarks(campaign: Path, picture: Path, summary: "RunSummary") -> list[str]:
    lines = [f"campaign: {campaign.resolve()}"]
    if picture.exists():
        lines.append(f"picture: {picture.resolve()}")
    # A policy that an earlier demo certified is in force otherwise.
    if summary.accepted and summary.policy.startswith("user-"):
        lines.append(f"{summary.accepted:,} labels were accepted by the thresholds in the campaign. {NOTE}")
    return lines
