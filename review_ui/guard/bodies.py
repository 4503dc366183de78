"""Reads what a request carries, and holds it to this desk and to names that do no harm."""

import json
from typing import Final

from starlette.requests import Request
from starlette.types import Message, Receive

from review_ui.guard.refusal import RefusedError

Desk = tuple[str, str]
"""Name and hex id of the one dataset that may be seen."""

MOST_BYTES: Final = 8 << 20
MOST_DEPTH: Final = 64

STAGES: Final = frozenset(
    f"fiftyone.core.stages.{name}"
    for name in (
        "Exclude", "ExcludeBy", "ExcludeFields", "ExcludeLabels", "Exists", "FilterField", "FilterLabels", "Limit",
        "LimitLabels", "Match", "MatchLabels", "MatchTags", "Select", "SelectBy", "SelectFields", "SelectLabels",
        "Shuffle", "Skip", "SortBy", "Take",
    )
)  # fmt: skip
"""View stages that show less of the desk, or in another order. Others reach further: Mongo into every collection."""

_NAMES_DATASET: Final = frozenset({"dataset", "dataset_name", "datasetName", "dataset_id", "datasetId"})
_BY_CLASS: Final = frozenset({"extended", "extended_stages", "extendedStages"})
"""Objects whose keys FiftyOne imports and calls."""
_REACH: Final = frozenset(
    {"$accumulator", "$function", "$where", "$lookup", "$graphLookup", "$unionWith", "$out", "$merge", "$documents"}
)
_OTHER_STRINGS: Final = frozenset({"$symbol", "$code"})
"""FiftyOne reads bodies as MongoDB's extended JSON, in which an object of these keys is a string by another name."""
_ASIDE: Final = frozenset({"delegated", "request_delegation", "generated_dataset", "generatedDataset"})
"""Ways around: work that another process would do, data sets made of data sets."""


async def read_body(request: Request, most: int = MOST_BYTES) -> bytes:
    """Read a whole body.

    Raises:
        RefusedError: 413 when it is larger than `most` bytes.
    """
    told = request.headers.get("content-length", "0")
    if not told.isdigit() or int(told) > most:
        raise RefusedError(413, f"more than {most >> 20} MiB cannot be sent")
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise RefusedError(413, f"more than {most >> 20} MiB cannot be sent")
        parts.append(part)
    return b"".join(parts)


def replay(body: bytes, receive: Receive) -> Receive:
    """Hand a body that has been read to the application, and afterwards what comes from the client."""
    told = False

    async def receiving() -> Message:
        nonlocal told
        if told:
            return await receive()
        told = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def parse_json(request: Request, body: bytes, *types: str) -> object:
    """Parse a body that says that it is JSON.

    Args:
        request: For its content type: a form or plain text of a foreign page needs no leave of the browser.
        body: The bytes.
        types: Content types that are allowed; application/json when none is given.

    Raises:
        RefusedError: 415 for another content type, 400 for no JSON.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (types or ("application/json",)):
        raise RefusedError(415, "only JSON is taken here")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "this is no JSON") from None


def check_values(value: object, desk: Desk, depth: int = 0) -> None:
    """Refuse values by which FiftyOne would look beyond the desk, or call what the client names.

    Args:
        value: Parsed JSON.
        desk: The desk's name and id, the only dataset that may be named.
        depth: How deep it lies.

    Raises:
        RefusedError: With 403.
    """
    if depth > MOST_DEPTH:
        raise RefusedError(400, "nested too deep")
    if isinstance(value, list):
        for item in value:
            check_values(item, desk, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_pair(key, item, desk)
            check_values(item, desk, depth + 1)


def _check_pair(key: str, item: object, desk: Desk) -> None:
    if key in _NAMES_DATASET and item is not None and item not in desk:
        raise RefusedError(403, "only your own desk can be seen")
    if key in _REACH or key in _OTHER_STRINGS:
        raise RefusedError(403, f"{key} is not allowed")
    if key in _ASIDE and item:
        raise RefusedError(403, f"{key} is not allowed")
    if key.lower().strip("_") == "cls" and not _is_harmless_class(item):
        raise RefusedError(403, "this kind of view is not allowed")
    if key in _BY_CLASS and item and (not isinstance(item, dict) or not STAGES.issuperset(item)):
        raise RefusedError(403, "this kind of view is not allowed")


def _is_harmless_class(named: object) -> bool:
    """Whether a class is one of a label or a field, whose name has no module, or a view stage that is allowed."""
    return named is None or (isinstance(named, str) and ("." not in named or named in STAGES))
