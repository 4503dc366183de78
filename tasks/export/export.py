"""Writes a run's data set into its workspace, with what its policy guarantees of the labels.

What is known of a data set stands outside its folder: converters take every *.json there for annotations.
"""

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from itertools import islice
from typing import Final, Literal

import pyarrow as pa
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign, ExportConfig
from vouch_labels.schemas.campaign_file import YamlTree, explain
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.schemas.records import Current, ExportOutcome
from vouch_labels.tasks.export.coco import write_coco
from vouch_labels.tasks.export.images import place_images
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.labels.records import ExportImage, ExportSummary, Guarantee, with_shown_names
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.reviews.overlay import HumanLabel
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.shard.events import Exporting, OnEvent, ignore
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

MOST_MISSED: Final = 20
"""Images that could not be put beside the annotations and are named; the log names all."""


def with_export_settings(campaign: Campaign, changes: Mapping[str, object], before: str = "") -> Campaign:
    """Change the export section of a campaign; `before` stands before a key where it is named to the user, as "--".

    Raises:
        UserError: There is no such key, or it cannot have this value.
    """
    values = campaign.export.model_dump() | dict(changes)
    try:
        config = ExportConfig.model_validate(values)
    except ValidationError as error:
        places = [tuple(entry["loc"]) for entry in error.errors()]
        paths = {place[:length]: 1 for place in places for length in range(1, len(place) + 1)}
        problems = explain(error, YamlTree(lines=paths), ExportConfig)
        raise UserError("; ".join(f"{before}{text}" for _, text in problems)) from None
    return campaign.model_copy(update={"export": config})


def export_run(
    campaign: Campaign,
    ledger: Ledger,
    current: Current,
    guarantee: Guarantee | str,
    on_event: OnEvent = ignore,
) -> ExportOutcome:
    """Write exports/<name>/ of everything that is done under the settings of `current`, as people left it.

    `guarantee` is what the policy guarantees of it, or why a certified one guarantees nothing.

    Verdicts go before the policy's decisions (tasks.reviews.overlay, tasks.export.coco). Memory is that of a few
    shards and of all verdicts.

    Raises:
        UserError: Links were asked for and one side is no folder.
        StoreError: The workspace cannot be read or written, or not one of the images can be put there.
    """
    source, workspace = open_source(campaign.source, campaign.workspace), open_store(campaign.workspace)
    config, run = campaign.export, campaign.run.name
    check_export_name(campaign, workspace)
    prefix = f"exports/{config.name}"
    base = workspace.uri.rstrip("/")
    root = f"{base}/{prefix}"
    # Images first: trainers end at annotations of images that are not there.
    missed: dict[str, str] = {}
    if config.images != "none":
        images = labelled_images(workspace, run, ledger, current.fingerprint)
        missed = place_images(images, source, workspace, prefix, config.images, progress=_counter(on_event, "images"))
    for key, reason in missed.items():
        logger.warning("not in the data set %s: %s: %s", config.name, key, reason)
    if config.images_per_file is not None:
        # Its files change one after the other: who finds no summary knows that they may not belong together.
        workspace.delete(_key(config.name))
    summary = write_coco(
        (image for image in reviewed_images(workspace, run, ledger, current) if image.key not in missed),
        current.shown,
        config,
        workspace,
        prefix,
        run=run,
        created=datetime.now(UTC),
        version=current.fingerprint,
        image_root=source.uri if config.images == "none" else root,
        guarantee=guarantee,
        progress=_counter(on_event, "annotations"),
    )
    write_summary(workspace, summary)
    return ExportOutcome(
        uri=root,
        annotations_file=f"{base}/{summary.splits['all'].file}",
        files=sum(len(split.files) for split in summary.splits.values()),
        images=summary.images,
        annotations=summary.annotations,
        accepted=sum(counts.accepted for counts in summary.classes.values()),
        human=sum(counts.kept + counts.corrected + counts.added for counts in summary.classes.values()),
        rejected=sum(counts.rejected for counts in summary.classes.values()),
        duplicates=sum(counts.duplicate for counts in summary.classes.values()),
        split_files=[f"{base}/{split.file}" for name, split in summary.splits.items() if name != "all"],
        unreviewed=summary.unreviewed or 0,
        undecided=sum(counts.undecided + counts.dropped for counts in summary.classes.values()),
        images_rotated=summary.images_rotated,
        images_missed=len(missed),
        missed=dict(islice(missed.items(), MOST_MISSED)),
        not_guaranteed=summary.not_guaranteed,
    )


def reviewed_images(
    workspace: Store, run: str, ledger: Ledger, current: Current, keys: pa.Array | None = None
) -> Iterator[ExportImage]:
    """Yield labelled images as people left them, in the order of `labelled_images`; keys None: all of them.

    Labels have the present names of their classes.

    Raises:
        StoreError: A marker, a table or a file of verdicts is missing or damaged.
    """
    corrections = HumanLabel.of(present_verdicts(workspace, current), current.classes)
    images = corrections.over(labelled_images(workspace, run, ledger, current.fingerprint, keys))
    return (with_shown_names(image, current.names) for image in images) if current.names else images


def check_export_name(campaign: Campaign, workspace: Store) -> None:
    """Make sure that no other run's data set would be overwritten.

    Raises:
        UserError: exports/<name> is another run's.
    """
    owner = owner_of(workspace, campaign.export.name)
    if owner not in (None, campaign.run.name):
        raise UserError(
            f"exports/{campaign.export.name} in {workspace.uri} is the data set of run {owner!r}; choose another "
            f"export.name for run {campaign.run.name!r}"
        )


def _counter(on_event: OnEvent, step: Literal["annotations", "images"]) -> Callable[[int], None]:
    seen = 0

    def count(images: int) -> None:
        nonlocal seen
        seen += images
        on_event(Exporting(seen, step))

    return count


def write_summary(workspace: Store, summary: ExportSummary) -> None:
    """Write the summary of a data set, last of all; one that an earlier version left in the data set's folder goes.

    Raises:
        StoreError: The workspace cannot be written.
    """
    workspace.put(_key(summary.name), (summary.model_dump_json(indent=2) + "\n").encode())
    workspace.delete(_earlier_key(summary.name))


def read_summary(workspace: Store, name: str) -> ExportSummary | None:
    """Read the summary of a data set; None: there is none, or none that this version understands.

    Raises:
        StoreError: The workspace cannot be read.
    """
    with suppress(ValidationError):
        return ExportSummary.model_validate_json(_read(workspace, name))
    return None


def owner_of(workspace: Store, name: str) -> str | None:
    """Name the run whose data set it is, by a summary of whatever version; None where nothing says.

    Raises:
        StoreError: The workspace cannot be read.
    """
    with suppress(ValueError, AttributeError):
        owner = json.loads(_read(workspace, name)).get("run")
        return owner if isinstance(owner, str) else None
    return None


def _read(workspace: Store, name: str) -> bytes:
    for key in (_key(name), _earlier_key(name)):
        with suppress(ObjectMissingError):
            return workspace.get(key).data
    return b""


def _key(name: str) -> str:
    return f"datasets/{name}.json"


def _earlier_key(name: str) -> str:
    return f"exports/{name}/dataset.json"
