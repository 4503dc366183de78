"""Lets the review's own operators run, and the few built-in ones that the App's annotation asks; shows no others."""

import json
import logging
from typing import Final

from review_ui.guard.refusal import RefusedError

OURS: Final = "@vouch/review"
BUILT_IN: Final = frozenset(
    {
        "@voxel51/operators/get_label_schemas",
        "@voxel51/operators/list_valid_annotation_fields",
    }
)
"""Each only reads the desk's own settings."""

logger = logging.getLogger(__name__)


def is_allowed(uri: object) -> bool:
    """Whether an operator may be seen and run."""
    return isinstance(uri, str) and (uri.startswith(f"{OURS}/") or uri in BUILT_IN)


def check_operator(body: object) -> dict[str, object]:
    """Refuse to run or describe another operator.

    Returns:
        The request, which is an object.

    Raises:
        RefusedError: With 403.
    """
    if not isinstance(body, dict) or not is_allowed(body.get("operator_uri")):
        raise RefusedError(403, "this operator is not allowed here")
    return body


def only_allowed_operators(body: bytes) -> bytes:
    """Leave the allowed operators of a list of operators; errors of others, which name files, go too."""
    said = json.loads(body)
    operators = [operator for operator in said["operators"] if is_allowed(operator.get("uri"))]
    return json.dumps({"operators": operators, "errors": []}).encode()


def only_allowed_placements(body: bytes) -> bytes:
    """Leave the allowed operators of a list of buttons."""
    said = json.loads(body)
    placements = [one for one in said["placements"] if is_allowed(one.get("operator_uri"))]
    return json.dumps({"placements": placements}).encode()


def only_our_plugin(body: bytes) -> bytes:
    """Leave our own plugin of a list of plugins."""
    said = json.loads(body)
    return json.dumps({"plugins": [plugin for plugin in said["plugins"] if plugin.get("name") == OURS]}).encode()


def only_what_happened(body: bytes) -> bytes:
    """Put the traceback of an operator that failed, which names files, into the log, and leave its last words."""
    try:
        said = json.loads(body)
    except ValueError:
        return body
    if not isinstance(said, dict) or not isinstance(said.get("error"), str):
        return body
    logger.error("an operator failed: %s", said["error"])
    words = said.get("error_message") or "this failed; the log of the review says why"
    return json.dumps(said | {"error": words}).encode()
