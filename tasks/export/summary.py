"""Keeps what is known of a data set, outside its folder: converters take every *.json there for annotations."""

import json
from contextlib import suppress

from pydantic import ValidationError

from vouch_labels.schemas.errors import ObjectMissingError
from vouch_labels.tasks.labels.records import ExportSummary
from vouch_labels.tasks.store.store import Store


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
