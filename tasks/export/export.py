"""Writes a run's data set into its workspace, with what its policy guarantees of the labels.

What is known of a data set stands outside its folder: converters take every *.json there for annotations.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Final, Literal

import pyarrow as pa
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign, ExportConfig
from vouch_labels.schemas.campaign_file import YamlTree, explain
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.schemas.records import Current, ExportOutcome
from vouch_labels.tasks.export.dataset import write_dataset
from vouch_labels.tasks.export.decide import is_left_out
from vouch_labels.tasks.export.formats import FORMATS, kind_of, layout_of
from vouch_labels.tasks.export.images import place_images, read_changed
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
    """Write the data sets of everything that is done under the settings of `current`, as people left it.

    `guarantee` is what the policy guarantees of it, or why a certified one guarantees nothing.

    Verdicts go before the policy's decisions (tasks.reviews.overlay, tasks.export.decide). Memory is that of a few
    shards and of all verdicts.

    Returns:
        What the first data set holds; `others` are the outcomes of those in further formats.

    Raises:
        UserError: Links were asked for and one side is no folder, or a data set would replace another's.
        StoreError: The workspace cannot be read or written, or not one of the images can be put there.
    """
    check_export_name(campaign, open_store(campaign.workspace))
    first, *others = (
        _Export(campaign, config, ledger, current, on_event).write(guarantee) for config in data_sets(campaign)
    )
    return first.model_copy(update={"others": others})


def data_sets(campaign: Campaign) -> list[ExportConfig]:
    """What is written, one entry a data set, every default settled."""
    stores = open_store(campaign.source), open_store(campaign.workspace)
    return campaign.export.data_sets(linkable=all(store.local_path("x") is not None for store in stores))


class _Export:
    """One data set."""

    def __init__(
        self, campaign: Campaign, config: ExportConfig, ledger: Ledger, current: Current, on_event: OnEvent
    ) -> None:
        self._workspace = open_store(campaign.workspace)
        self._source = open_source(campaign.source, campaign.workspace)
        self._run, self._ledger, self._current = campaign.run.name, ledger, current
        self._config, self._on_event = config, on_event
        self._name, self._undecided = config.name or "", config.undecided or "ignore"
        self._prefix = f"exports/{self._name}"

    def write(self, guarantee: Guarantee | str) -> ExportOutcome:
        config, workspace = self._config, self._workspace
        base = workspace.uri.rstrip("/")
        kind = kind_of(config)
        if config.images_per_file is not None or kind.last:
            # Its files change one after the other: who finds no summary knows that they may not belong together.
            workspace.delete(_key(self._name))
        for name in kind.last:
            workspace.delete(f"{self._prefix}/{name}")
        # Images first: trainers end at annotations of images that are not there.
        missed = self._place_images()
        summary = write_dataset(
            (image for image in self._images() if image.key not in missed),
            self._current.shown,
            config,
            workspace,
            self._prefix,
            run=self._run,
            created=datetime.now(UTC),
            version=self._current.fingerprint,
            image_root=self._source.uri if config.images == "none" else f"{base}/{self._prefix}",
            guarantee=guarantee,
            contents=partial(read_changed, source=self._source, layout=layout_of(config))
            if kind.holds_images
            else None,
            missed=missed,
            progress=_counter(self._on_event, "annotations"),
        )
        for key, reason in missed.items():
            logger.warning("not in the data set %s: %s: %s", self._name, key, reason)
        write_summary(workspace, summary)
        return _outcome(summary, base, missed)

    def _images(self) -> Iterator[ExportImage]:
        return reviewed_images(self._workspace, self._run, self._ledger, self._current)

    def _place_images(self) -> dict[str, str]:
        """Put the images there; returns those that cannot be, and why."""
        config = self._config
        if config.images not in ("link", "copy"):
            return {}
        images: Iterable[ExportImage]
        if self._undecided in ("drop_image", "blank"):
            images = (image for image in self._images() if not is_left_out(image, self._undecided))
        else:
            images = labelled_images(self._workspace, self._run, self._ledger, self._current.fingerprint)
        progress = _counter(self._on_event, "images")
        return place_images(
            images,
            self._source,
            self._workspace,
            self._prefix,
            config.images,
            layout=layout_of(config),
            progress=progress,
        )


def _outcome(summary: ExportSummary, base: str, missed: Mapping[str, str]) -> ExportOutcome:
    counts = summary.classes.values()
    return ExportOutcome(
        uri=f"{base}/exports/{summary.name}",
        formats=summary.formats,
        undecided_as=summary.undecided_as,
        annotations_file=f"{base}/{summary.splits['all'].file}",
        files=sum(len(split.files) for split in summary.splits.values()),
        images=summary.images,
        annotations=summary.annotations,
        accepted=sum(one.accepted for one in counts),
        human=sum(one.kept + one.corrected + one.added for one in counts),
        rejected=sum(one.rejected for one in counts),
        duplicates=sum(one.duplicate for one in counts),
        split_files=[f"{base}/{split.file}" for name, split in summary.splits.items() if name != "all"],
        unreviewed=summary.unreviewed or 0,
        undecided=sum(one.undecided + one.dropped for one in counts),
        images_left_out=summary.images_left_out,
        images_filled=summary.images_filled,
        waiting_of_left_out=summary.waiting_of_left_out,
        images_rotated=summary.images_rotated,
        images_missed=len(missed),
        missed=dict(islice(missed.items(), MOST_MISSED)),
        not_guaranteed=summary.not_guaranteed,
        precision_of_rest=summary.guarantee.precision_of_rest if summary.guarantee else None,
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
    """Make sure that no other run's data set would be overwritten, and none of another format.

    Raises:
        UserError: exports/<name> is another run's, or of another format.
    """
    for config in data_sets(campaign):
        name = config.name or ""
        owner = owner_of(workspace, name)
        if owner not in (None, campaign.run.name):
            raise UserError(
                f"exports/{name} in {workspace.uri} is the data set of run {owner!r}; choose another "
                f"export.name for run {campaign.run.name!r}"
            )
        there = read_summary(workspace, name)
        if there is not None and FORMATS[there.formats[0]].open != FORMATS[config.formats[0]].open:
            raise UserError(
                f"exports/{name} in {workspace.uri} is a data set in the format {there.formats[0]}; choose another "
                f"export.name for the format {config.formats[0]}, or leave it empty"
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
