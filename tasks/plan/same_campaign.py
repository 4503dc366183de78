"""Tells a campaign that goes on from another one that would take its place, before anything is overwritten.

A run's folder says of which source and classes its labels are. What differs is refused with the choices there are,
unless the user accepts the changes.
"""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from pydantic import BaseModel, Field, ValidationError

from vouch_labels.schemas.campaign import Campaign, ClassConfig, Source
from vouch_labels.schemas.errors import ObjectMissingError, UserError, VouchError
from vouch_labels.schemas.text import plural, some
from vouch_labels.tasks.plan.ledger import Ledger, disk_errors
from vouch_labels.tasks.store.open import open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

ACCEPT: Final = "--accept-changes"
"""Option of `vouch run` that accepts them."""
_LOOKED_FOR: Final = 20
"""Images that are looked for in a source of another name."""
FEWEST: Final = 4
"""Images that must have vanished before that is worth a question."""
FEW: Final = 5
"""Classes that a message names at most."""

# Images that have only moved have not vanished: one that is new has their version tag, or their name and size.
_FRESH: Final = """
DROP TABLE IF EXISTS fresh;
CREATE TABLE fresh AS SELECT etag, size, file_name(key) AS name FROM listed
    WHERE NOT EXISTS (SELECT 1 FROM images WHERE images.key = listed.key);
CREATE INDEX fresh_etags ON fresh (etag);
CREATE INDEX fresh_names ON fresh (name, size);
"""
_GONE: Final = "SELECT count(*) FROM images WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key)"
_VANISHED: Final = """
SELECT count(*) FROM images WHERE NOT EXISTS (SELECT 1 FROM listed WHERE listed.key = images.key)
    AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.etag = images.etag AND images.etag <> '')
    AND NOT EXISTS (SELECT 1 FROM fresh WHERE fresh.name = file_name(images.key) AND fresh.size = images.size)
"""
_REPLACED: Final = """
SELECT count(*) FROM images JOIN listed ON listed.key = images.key
    WHERE listed.size <> images.size AND listed.size >= 0 AND images.size >= 0
"""


class LabelledSource(BaseModel):
    """runs/<run>/source.json: where the images of a run came from when it last planned."""

    uri: str = Field(description="Folder or s3:// uri.")
    endpoint_url: str | None = Field(None, description="Endpoint of the S3-compatible store; None for AWS and folders.")


def read_source(workspace: Store, run: str) -> LabelledSource | None:
    """Read where the images of a run came from; None before its first, or where an older version planned it."""
    try:
        return LabelledSource.model_validate_json(workspace.get(_key(run)).data)
    except (ObjectMissingError, ValidationError):
        return None


def write_source(workspace: Store, run: str, source: LabelledSource) -> None:
    """Write where the images of a run come from, unless that is written already."""
    if read_source(workspace, run) != source:
        workspace.put(_key(run), source.model_dump_json(indent=1).encode() + b"\n")


def dropped_classes(before: Sequence[str], classes: Sequence[ClassConfig]) -> list[str]:
    """Name the classes whose labels another list of classes would drop.

    None: the two are of one campaign, which was changed on purpose. Classes may be added, renamed, merged, put into
    another order, and have other prompts. `before` holds the names that labels carry.
    """
    names = {name for entry in classes for name in (entry.key, *entry.was)}
    return [name for name in before if name not in names]


def check_classes(workspace: Store, run: str, before: Sequence[str], classes: Sequence[ClassConfig]) -> None:
    """Make sure that no class vanishes with its labels by accident.

    Raises:
        UserError: One would.
    """
    dropped = dropped_classes(before, classes)
    if dropped:
        which = f"class {dropped[0]}" if len(dropped) == 1 else f"classes {some(dropped, FEW)}"
        raise UserError(
            f"run {run!r} in {workspace.uri} has labels of {which}, which this campaign does not have; if one has "
            f"another name now, say so by was: in the campaign file; {_choices()} leave them "
            f"out (`vouch run CAMPAIGN {ACCEPT}`)"
        )


def labelled_source(source: Source, store: Store) -> LabelledSource:
    """What is written down of a campaign's source, and its store."""
    endpoint = source.s3.endpoint_url if "://" in store.uri else None
    return LabelledSource(uri=store.uri.rstrip("/"), endpoint_url=endpoint)


def other_campaign(workspace: Store, campaign: Campaign, before: Sequence[str]) -> str:
    """Say why a run's labels seem to be another campaign's, by what stands in the workspace alone; empty: they do not.

    Args:
        workspace: The workspace.
        campaign: The campaign that is asked about.
        before: The classes that the run was labelled for.
    """
    known, dropped = read_source(workspace, campaign.run.name), dropped_classes(before, campaign.classes)
    differences = []
    source = known
    with suppress(UserError):  # what is wrong with the address, a run says
        source = labelled_source(campaign.source, open_store(campaign.source))
    if known is not None and source is not None and known != source:
        differences.append(f"it labelled {known.uri}, and the source is {source.uri} now")
    if dropped:
        differences.append(f"it has labels of {some(dropped, FEW)}, which the campaign does not have now")
    if not differences:
        return ""
    return f"run {campaign.run.name!r} may be another campaign's: {'; '.join(differences)} (vouch run says more)"


def check_same_campaign(workspace: Store, campaign: Campaign, before: Sequence[str], ledger: Ledger) -> None:
    """Make sure that a data set is written of the campaign's own labels, without listing its source.

    A campaign that was moved with its images has another source by name: then the first of them are looked for there. A
    source that is empty or out of reach says nothing.

    Raises:
        UserError: The labels are of classes that the campaign does not have, or of other images.
    """
    run = campaign.run.name
    check_classes(workspace, run, before, campaign.classes)
    known, store = read_source(workspace, run), open_source(campaign.source, campaign.workspace, keep=False)
    source = labelled_source(campaign.source, store)
    if known is None or known == source:
        return
    with ledger.lock:
        images = ledger.database.execute("SELECT key, size FROM images ORDER BY key LIMIT ?", (_LOOKED_FOR,)).fetchall()
    try:
        if next(iter(store.list()), None) is None:
            return
        found = [store.stat(key) for key, _ in images]
    except VouchError as error:
        # A data set may be written where the images are out of reach.
        logger.info("not compared with the images that were labelled: %s", error)
        return
    lacking = sum(
        info is None or (-1 not in (size, info.size) and size != info.size)
        for info, (_, size) in zip(found, images, strict=True)
    )
    if 2 * lacking > len(images):
        raise UserError(
            f"run {run!r} in {workspace.uri} labelled {known.uri}, and {lacking} of its first {len(images)} images are "
            f"not in {source.uri}; nothing was written: vouch run CAMPAIGN says which choices there are"
        )


def check_source(workspace: Store, run: str, ledger: Ledger, source: LabelledSource, *, in_part: bool = False) -> None:
    """Make sure that a listing (`take_listing`) is of the source that the run labelled, and has not shrunk by most.

    Args:
        workspace: The workspace.
        run: Name of the run.
        ledger: Its ledger, with the listing.
        source: Where the listing comes from.
        in_part: The listing is a part of the source, its first images: no others are missed.

    Raises:
        UserError: The run's images came from elsewhere and most are not there; or most have vanished.
    """
    known = read_source(workspace, run)
    moved = known is not None and known != source
    with ledger.lock, disk_errors():
        database = ledger.database
        listed = int(database.execute("SELECT count(*) FROM listed").fetchone()[0])
        planned, bound = ledger.count(), ""
        if in_part:
            bound = " AND images.key <= (SELECT max(key) FROM listed)"
            planned = int(database.execute(f"SELECT count(*) FROM images WHERE 1{bound}").fetchone()[0])  # noqa: S608 - our own words
        vanished = int(database.execute(_GONE + bound).fetchone()[0])
        if moved:
            # Another place with the same names: 0001.jpg is not the 0001.jpg of before when its size differs.
            vanished += int(database.execute(_REPLACED + bound).fetchone()[0])
        elif in_part:
            return
        if not _is_most(vanished, planned):
            return
        if not moved:
            database.create_function("file_name", 1, lambda key: key.rpartition("/")[2], deterministic=True)
            database.executescript(_FRESH)
            vanished = int(database.execute(_VANISHED).fetchone()[0])
            database.executescript("DROP TABLE fresh;")
    if known is not None and moved:
        raise UserError(
            f"run {run!r} in {workspace.uri} labelled {known.uri}, and {vanished:,} of its {planned:,} images are not "
            f"in {source.uri}; {_choices()} let them go (`vouch run CAMPAIGN {ACCEPT}`)"
        )
    if _is_most(vanished, planned):
        raise UserError(
            f"{vanished:,} of the {plural(planned, 'image')} of run {run!r} have vanished from {source.uri}, which "
            f"holds {listed:,} now; see that it is whole (a mount, a prefix, source.include); {_choices()} let "
            f"them and their labels go (`vouch run CAMPAIGN {ACCEPT}`)"
        )


def _is_most(vanished: int, planned: int) -> bool:
    return vanished >= FEWEST and vanished > planned / 2


def _choices() -> str:
    return "for another campaign, choose another run.name and export.name, or another workspace; or"


def _key(run: str) -> str:
    return f"runs/{run}/source.json"
