"""Decides whether a sample may be changed: the reviewer's own desk, a lease that holds, the question alone."""

import re
from typing import Final

from review_ui.guard.refusal import RefusedError

FIELD: Final = "question"
"""The one field of a sample that a reviewer answers in."""
_FILES: Final = frozenset({"mask_path", "map_path"})
"""Parts of a label that name files, which would be read."""
_FIXED: Final = _FILES | {"id"}
"""Parts of a label that are no answer; by its id a label is known again."""
_PART: Final = re.compile(r"-|\d+|[A-Za-z]\w*", re.ASCII)
_MEMBERS: Final = frozenset({"mask_path", "map_path", "filepath"})
"""Members of a value that name files."""


def check_changes(changes: object, whole_sample: bool) -> None:
    """Hold a JSON patch to the question, and to what is an answer.

    Args:
        changes: The request's JSON: a list of operations of RFC 6902.
        whole_sample: Whether paths start at the sample, not at a label.

    Raises:
        RefusedError: 400 for no patch, 403 for a path outside.
    """
    if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
        raise RefusedError(400, "this is no JSON patch")
    for change in changes:
        paths = [change.get("path")] + ([change["from"]] if "from" in change else [])
        for path in paths:
            _check_path(path, whole_sample, _empties(change))
        _check_value(change.get("value"))


def check_field(field: str) -> None:
    """Hold the field of a label's patch to the question.

    Raises:
        RefusedError: With 403.
    """
    if field.partition(".")[0] != FIELD:
        raise RefusedError(403, f"only {FIELD} can be changed")


def _empties(change: dict[str, object]) -> bool:
    """Whether an operation leaves nothing where it points, as the App does with both masks when one is removed."""
    if change.get("op") == "remove":
        return True
    return change.get("op") in ("add", "replace") and "value" in change and change["value"] is None


def _check_path(path: object, whole_sample: bool, empties: bool) -> None:
    if not isinstance(path, str):
        raise RefusedError(400, "this is no JSON patch")
    parts = [part.replace("~1", "/").replace("~0", "~") for part in path.split("/")]
    if path and parts[0]:
        raise RefusedError(400, "this is no JSON patch")
    if whole_sample and (len(parts) < 2 or parts[1] != FIELD):
        raise RefusedError(403, f"only {FIELD} can be changed")
    # FiftyOne follows them through the attributes of its objects.
    if not all(_PART.fullmatch(part) for part in parts[1:]):
        raise RefusedError(403, "this path is not allowed")
    if empties and parts[-1] in _FILES:
        parts.pop()
    if not _FIXED.isdisjoint(parts):
        raise RefusedError(403, "a label's id and files cannot be changed")


def _check_value(value: object) -> None:
    if isinstance(value, list):
        for item in value:
            _check_value(item)
    elif isinstance(value, dict):
        if any(value.get(name) is not None for name in _MEMBERS):
            raise RefusedError(403, "a label cannot name a file")
        for item in value.values():
            _check_value(item)
