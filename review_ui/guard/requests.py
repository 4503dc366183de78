"""Checks the content of requests: operators, GraphQL queries and changes of samples, held to this reviewer's session.

The review's own operators run, and the few built-in ones that the App's annotation asks for. Queries about the
session and changes of what the browser shows pass; of data only a leased sample of the reviewer may be changed.
"""

import json
import logging
import re
from collections.abc import Iterator
from typing import Any, Final

import graphql
from starlette.requests import Request
from starlette.types import Message, Receive

from vouch_labels.review_ui.guard.settings import RefusedError

logger = logging.getLogger(__name__)

Dataset = tuple[str, str]
"""Name and hex id of the one dataset that may be seen."""

MOST_BYTES: Final = 8 << 20
MOST_DEPTH: Final = 64

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

FIELD: Final = "question"
"""The one field of a sample that a reviewer answers in."""
_FILES: Final = frozenset({"mask_path", "map_path"})
"""Parts of a label that name files, which would be read."""
_FIXED: Final = _FILES | {"id"}
"""Parts of a label that are no answer; by its id a label is known again."""
_PART: Final = re.compile(r"-|\d+|[A-Za-z]\w*", re.ASCII)
_MEMBERS: Final = frozenset({"mask_path", "map_path", "filepath"})
"""Members of a value that name files."""

MOST_TOKENS: Final = 20_000

QUERIES: Final = frozenset(
    {
        "__typename", "aggregate", "aggregations", "colorscale", "config", "context", "dataset", "datasets", "dev",
        "doNotTrack", "lightning", "sample", "samples", "savedViews", "schemaForViewStages", "stageDefinitions", "uid",
        "version",
    }
)  # fmt: skip
MUTATIONS: Final = frozenset(
    {
        "__typename", "searchSelectFields", "setColorScheme", "setDataset", "setFieldVisibilityStage", "setGroupSlice",
        "setLabelSelectionStyle", "setSample", "setSampleSelectionStyle", "setSelected", "setSelectedLabels",
        "setSelectedSamples", "setSpaces", "setView",
    }
)  # fmt: skip
"""Those that change the state of this server's one browser; none of them writes to a dataset."""
_LIST: Final = "datasets"
_NAMED: Final = frozenset({"dataset", "setDataset"})
"""Fields whose argument `name` is a dataset's."""

OURS: Final = "@vouch/review"
BUILT_IN: Final = frozenset(
    {
        "@voxel51/operators/get_label_schemas",
        "@voxel51/operators/list_valid_annotation_fields",
    }
)
"""Each only reads the session's own settings."""

STAGES: Final = frozenset(
    f"fiftyone.core.stages.{name}"
    for name in (
        "Exclude", "ExcludeBy", "ExcludeFields", "ExcludeLabels", "Exists", "FilterField", "FilterLabels", "Limit",
        "LimitLabels", "Match", "MatchLabels", "MatchTags", "Select", "SelectBy", "SelectFields", "SelectLabels",
        "Shuffle", "Skip", "SortBy", "Take",
    )
)  # fmt: skip
"""View stages that show less of the session, or in another order. Others reach further: Mongo into every collection."""


async def read_body(request: Request, most: int = MOST_BYTES) -> bytes:
    """Read a whole body; one of more than `most` bytes is refused (413)."""
    length = request.headers.get("content-length", "0")
    if not length.isdigit() or int(length) > most:
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
    replayed = False

    async def receiving() -> Message:
        nonlocal replayed
        if replayed:
            return await receive()
        replayed = True
        return {"type": "http.request", "body": body, "more_body": False}

    return receiving


def parse_json(request: Request, body: bytes, *types: str) -> object:
    """Parse a body that is declared as JSON, else refuse it (400), or its content type (415).

    A foreign page's form or plain text needs no leave of the browser.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (types or ("application/json",)):
        raise RefusedError(415, "only JSON is taken here")
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise RefusedError(400, "this is no JSON") from None


def check_values(value: object, dataset: Dataset, depth: int = 0) -> None:
    """Refuse (403) values by which FiftyOne would reach beyond the session, or call what the client names."""
    if depth > MOST_DEPTH:
        raise RefusedError(400, "nested too deep")
    if isinstance(value, list):
        for item in value:
            check_values(item, dataset, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_pair(key, item, dataset)
            check_values(item, dataset, depth + 1)


def _check_pair(key: str, item: object, dataset: Dataset) -> None:
    if key in _NAMES_DATASET and item is not None and item not in dataset:
        raise RefusedError(403, "only your own session can be seen")
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


def check_changes(changes: object, whole_sample: bool) -> None:
    """Hold a JSON patch (RFC 6902) to the question, and to what is an answer; other paths are refused (403)."""
    if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
        raise RefusedError(400, "this is no JSON patch")
    for change in changes:
        paths = [change.get("path")] + ([change["from"]] if "from" in change else [])
        for path in paths:
            _check_path(path, whole_sample, _empties(change))
        _check_value(change.get("value"))


def check_field(field: str) -> None:
    """Hold the field of a label's patch to the question, else refuse it (403)."""
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


def check_graphql(body: object, dataset: Dataset) -> dict[str, Any]:
    """Refuse (403) what is not in the lists, and whatever names another dataset; 400 for what is no GraphQL.

    Returns the request to make: a search among all datasets has become one for the session's.
    """
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise RefusedError(400, "this is no GraphQL request")
    given = body.get("variables") or {}
    if not isinstance(given, dict):
        raise RefusedError(400, "this is no GraphQL request")
    try:
        document = graphql.parse(body["query"], no_location=True, max_tokens=MOST_TOKENS)
    except (graphql.GraphQLError, RecursionError):
        raise RefusedError(400, "this is no GraphQL request") from None
    operation = _only_operation(document)
    defaults = _defaults(operation)
    check_values(defaults, dataset)
    check_values(given, dataset)
    variables = defaults | given
    graphql.visit(document, _Arguments(variables, dataset))
    searched: dict[str, Any] = {}
    for field in _allowed_fields(operation, document):
        _check_name(field, variables, dataset)
        if field.name.value == _LIST:
            searched[_search_variable(field)] = f"^{re.escape(dataset[0])}$"
    return {**body, "variables": {**given, **searched}}


def _only_operation(document: graphql.DocumentNode) -> graphql.OperationDefinitionNode:
    """The one operation: of several, each would have defaults of its own, and the client selects one later."""
    others = [node for node in document.definitions if not isinstance(node, graphql.FragmentDefinitionNode)]
    if len(others) != 1 or not isinstance(others[0], graphql.OperationDefinitionNode):
        raise RefusedError(403, "one operation a request is allowed")
    return others[0]


def _defaults(operation: graphql.OperationDefinitionNode) -> dict[str, Any]:
    return {
        variable.variable.name.value: graphql.value_from_ast_untyped(variable.default_value)
        for variable in operation.variable_definitions
        if variable.default_value is not None
    }


def _allowed_fields(
    operation: graphql.OperationDefinitionNode, document: graphql.DocumentNode
) -> Iterator[graphql.FieldNode]:
    allowed = {graphql.OperationType.QUERY: QUERIES, graphql.OperationType.MUTATION: MUTATIONS}.get(
        operation.operation, frozenset()
    )
    fragments = {
        node.name.value: node for node in document.definitions if isinstance(node, graphql.FragmentDefinitionNode)
    }
    for field in _root_fields(operation.selection_set, fragments, frozenset()):
        if field.name.value not in allowed:
            raise RefusedError(403, f"{operation.operation.value} {field.name.value} is not allowed")
        yield field


def _check_name(field: graphql.FieldNode, variables: dict[str, Any], dataset: Dataset) -> None:
    if field.name.value in _NAMED:
        for argument in field.arguments:
            value = graphql.value_from_ast_untyped(argument.value, variables)
            if argument.name.value == "name" and value is not None and value not in dataset:
                raise RefusedError(403, "only your own session can be seen")


def _search_variable(field: graphql.FieldNode) -> str:
    for argument in field.arguments:
        if argument.name.value == "search" and isinstance(argument.value, graphql.VariableNode):
            return argument.value.name.value
    raise RefusedError(403, "only your own session can be seen")


def _root_fields(
    selected: graphql.SelectionSetNode, fragments: dict[str, graphql.FragmentDefinitionNode], seen: frozenset[str]
) -> Iterator[graphql.FieldNode]:
    for node in selected.selections:
        if isinstance(node, graphql.FieldNode):
            yield node
        elif isinstance(node, graphql.InlineFragmentNode):
            yield from _root_fields(node.selection_set, fragments, seen)
        elif isinstance(node, graphql.FragmentSpreadNode):
            name = node.name.value
            if name in seen or name not in fragments:
                raise RefusedError(400, "this is no GraphQL request")
            yield from _root_fields(fragments[name].selection_set, fragments, seen | {name})


class _Arguments(graphql.Visitor):
    """Holds every argument, however deep and however it came, to the rules of values."""

    def __init__(self, variables: dict[str, Any], dataset: Dataset) -> None:
        super().__init__()
        self._variables, self._dataset = variables, dataset

    def enter_argument(self, node: graphql.ArgumentNode, *_: object) -> graphql.VisitorAction:
        value = graphql.value_from_ast_untyped(node.value, self._variables)
        if value is not graphql.Undefined:
            check_values({node.name.value: value}, self._dataset)
        return None


def is_allowed(uri: object) -> bool:
    """Whether an operator may be seen and run."""
    return isinstance(uri, str) and (uri.startswith(f"{OURS}/") or uri in BUILT_IN)


def check_operator(body: object) -> dict[str, object]:
    """Refuse (403) to run or describe another operator; returns the request, which is an object."""
    if not isinstance(body, dict) or not is_allowed(body.get("operator_uri")):
        raise RefusedError(403, "this operator is not allowed here")
    return body


def only_allowed_operators(body: bytes) -> bytes:
    """Keep the allowed operators of a list of operators; errors of others, which name files, are removed."""
    operators = [operator for operator in json.loads(body)["operators"] if is_allowed(operator.get("uri"))]
    return json.dumps({"operators": operators, "errors": []}).encode()


def only_allowed_placements(body: bytes) -> bytes:
    """Keep the allowed operators of a list of buttons."""
    placements = [one for one in json.loads(body)["placements"] if is_allowed(one.get("operator_uri"))]
    return json.dumps({"placements": placements}).encode()


def only_our_plugin(body: bytes) -> bytes:
    """Keep our own plugin of a list of plugins."""
    plugins = [plugin for plugin in json.loads(body)["plugins"] if plugin.get("name") == OURS]
    return json.dumps({"plugins": plugins}).encode()


def without_operator_traceback(body: bytes) -> bytes:
    """Replace the traceback of an operator that failed, which names files, by its message; the log has it."""
    try:
        result = json.loads(body)
    except ValueError:
        return body
    if not isinstance(result, dict) or not isinstance(result.get("error"), str):
        return body
    logger.error("an operator failed: %s", result["error"])
    message = result.get("error_message") or "this failed; the log of the review says why"
    return json.dumps(result | {"error": message}).encode()
