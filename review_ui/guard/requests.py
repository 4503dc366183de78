"""Checks the content of requests: operators, GraphQL queries and changes of samples, held to this reviewer's session.

The review's own operators run, and the few built-in ones that the App's annotation asks for. Queries about the
session and changes of what the browser shows pass; of data only a leased sample of the reviewer may be changed.
"""

import asyncio
import json
import logging
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import graphql
from starlette.requests import Request
from starlette.types import Message, Receive

from vouch_labels.review_ui.guard.settings import RefusedError

logger = logging.getLogger(__name__)

Dataset = tuple[str, str]
"""Name and hex id of the one dataset that may be seen."""

MOST_BYTES: Final = 8 << 20
MOST_DEPTH: Final = 64
BODY_S: Final = 60.0
"""Within which a body must have come: what never comes would be waited for as long as the connection is open."""

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
MOST_ROOT_FIELDS: Final = 20
MOST_FIELDS: Final = 5_000
"""Of a query with every fragment written out where it is spread; the App's largest has some hundred."""

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
_ITEM: Final = frozenset({"item", "seconds"})
OPERATORS: Final[Mapping[str, frozenset[str]]] = {
    "session": frozenset(),
    "take_batch": frozenset(),
    "submit": _ITEM,
    "reject": _ITEM,
    "bad_box": _ITEM,
    "wrong_class": _ITEM | {"class_name"},
    "hint": frozenset({"item"}),
    "skip": _ITEM,
    "undo": frozenset(),
    "give_back": frozenset(),
    "renew": frozenset(),
    "grid_take": frozenset({"count", "class_name", "leave"}),
    "grid_submit": frozenset({"shown", "wrong", "seconds", "verdict", "class_name"}),
}
"""Our operators, and the parameters of each."""
PANEL: Final = f"{OURS}/review_queue"
_PANEL_PARAMETERS: Final = frozenset({"panel_id", "panel_state", "state", "event_args", "path", "value", "__method__"})
"""`path`: of the button that was pressed; `value`: what has changed, such as the sample."""
PANEL_METHODS: Final = frozenset(
    {"on_load", "on_change_current_sample", "take_batch", "crop_grid", "give_back", "refresh"}
)
"""What FiftyOne may call of our panel: it would call any attribute that a request names."""
BUILT_IN: Final[Mapping[str, frozenset[str]]] = {
    "@voxel51/operators/get_label_schemas": frozenset(),
    "@voxel51/operators/list_valid_annotation_fields": frozenset({"require_app_support"}),
}
"""Each only reads the session's own settings."""
_PARAMETERS: Final = {f"{OURS}/{name}": known for name, known in OPERATORS.items()} | {
    PANEL: _PANEL_PARAMETERS,
    **BUILT_IN,
}

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
    """Read a whole body; one of more than `most` bytes is refused (413), and one that does not come (408)."""
    too_much = RefusedError(413, f"more than {most} bytes cannot be sent here")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit() and len(length) < 16) or int(length) > most:
        raise too_much
    parts, size = [], 0
    try:
        async with asyncio.timeout(BODY_S):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_much
                parts.append(part)
    except TimeoutError:
        raise RefusedError(408, f"the request did not come within {BODY_S:.0f} s") from None
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


def as_object(content: object) -> dict[str, Any]:
    """The content of a request where FiftyOne takes an object; anything else is refused (400)."""
    if not isinstance(content, dict):
        raise RefusedError(400, "this is no JSON object")
    return content


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
    if key in _REACH or key in _OTHER_STRINGS or (key in _ASIDE and item):
        raise RefusedError(403, f"{key} is not allowed")
    # The class of a label or a field, whose name has no module, or an allowed view stage.
    harmless = item is None or (isinstance(item, str) and ("." not in item or item in STAGES))
    if key.lower().strip("_") == "cls" and not harmless:
        raise RefusedError(403, "this kind of view is not allowed")
    if key in _BY_CLASS and item and (not isinstance(item, dict) or not STAGES.issuperset(item)):
        raise RefusedError(403, "this kind of view is not allowed")


def check_changes(changes: object, whole_sample: bool) -> None:
    """Hold a JSON patch (RFC 6902) to the question, and to what is an answer; other paths are refused (403)."""
    if not isinstance(changes, list) or not all(isinstance(change, dict) for change in changes):
        raise RefusedError(400, "this is no JSON patch")
    for change in changes:
        # Leaves nothing where it points, as the App does with both masks when one is removed.
        empties = change.get("op") == "remove" or (
            change.get("op") in ("add", "replace") and change.get("value", "") is None
        )
        for path in (change.get("path"), *([change["from"]] if "from" in change else [])):
            _check_path(path, whole_sample, empties)
        _check_value(change.get("value"))


def check_field(field: str) -> None:
    """Hold the field of a label's patch to the question, else refuse it (403)."""
    if field.partition(".")[0] != FIELD:
        raise RefusedError(403, f"only {FIELD} can be changed")


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
    fragments = _Fragments(document)
    fragments.check_size(operation)
    defaults = {
        variable.variable.name.value: graphql.value_from_ast_untyped(variable.default_value)
        for variable in operation.variable_definitions
        if variable.default_value is not None
    }
    check_values(defaults, dataset)
    check_values(given, dataset)
    variables = defaults | given
    graphql.visit(document, _Arguments(variables, dataset))
    searched: dict[str, Any] = {}
    for field in _allowed_fields(operation, fragments):
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


def _allowed_fields(operation: graphql.OperationDefinitionNode, fragments: "_Fragments") -> Iterator[graphql.FieldNode]:
    allowed = {graphql.OperationType.QUERY: QUERIES, graphql.OperationType.MUTATION: MUTATIONS}.get(
        operation.operation, frozenset()
    )
    for count, field in enumerate(fragments.fields(operation.selection_set)):
        if count == MOST_ROOT_FIELDS:
            raise RefusedError(400, f"more than {MOST_ROOT_FIELDS} fields a request are not allowed")
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


class _Size(NamedTuple):
    """Of a selection with every fragment written out where it is spread."""

    fields: int
    depth: int
    """Levels of braces, those of fragments included."""


class _Fragments:
    """The fragments of a document; each is looked at once, however often it is spread.

    Fragments that spread others twice double at each level what a server has to do: their size is counted first.
    """

    def __init__(self, document: graphql.DocumentNode) -> None:
        found = [node for node in document.definitions if isinstance(node, graphql.FragmentDefinitionNode)]
        self._nodes = {node.name.value: node for node in found}
        self._sizes: dict[str, _Size | None] = {}
        """None while it is being counted."""
        if len(self._nodes) < len(found):
            raise RefusedError(400, "this is no GraphQL request")

    def check_size(self, operation: graphql.OperationDefinitionNode) -> None:
        """Refuse (400) an operation of too many fields, or too deep, or whose fragments spread themselves.

        Fragments that are not spread count as well: they are checked by the server all the same.
        """
        try:
            sizes = [self._size_of(operation.selection_set), *(self._size(name) for name in self._nodes)]
        except RecursionError:
            raise RefusedError(400, "this query is too large") from None
        if any(size.fields > MOST_FIELDS or size.depth > MOST_DEPTH for size in sizes):
            raise RefusedError(400, "this query is too large")

    def fields(self, selected: graphql.SelectionSetNode, seen: set[str] | None = None) -> Iterator[graphql.FieldNode]:
        """The fields of one level, those of its fragments included, each fragment once."""
        seen = set() if seen is None else seen
        for node in selected.selections:
            if isinstance(node, graphql.FieldNode):
                yield node
            elif isinstance(node, graphql.InlineFragmentNode):
                yield from self.fields(node.selection_set, seen)
            elif isinstance(node, graphql.FragmentSpreadNode) and node.name.value not in seen:
                seen.add(node.name.value)
                yield from self.fields(self._node(node.name.value).selection_set, seen)

    def _node(self, name: str) -> graphql.FragmentDefinitionNode:
        if name not in self._nodes:
            raise RefusedError(400, "this is no GraphQL request")
        return self._nodes[name]

    def _size(self, name: str) -> _Size:
        node = self._node(name)
        if name not in self._sizes:
            self._sizes[name] = None
            self._sizes[name] = self._size_of(node.selection_set)
        found = self._sizes[name]
        if found is None:
            raise RefusedError(400, "this is no GraphQL request")
        return found

    def _size_of(self, selected: graphql.SelectionSetNode | None) -> _Size:
        fields = depth = 0
        for node in selected.selections if selected else ():
            own = isinstance(node, graphql.FieldNode)
            below = self._size(node.name.value) if isinstance(node, graphql.FragmentSpreadNode) else None
            if isinstance(node, graphql.FieldNode | graphql.InlineFragmentNode):
                below = self._size_of(node.selection_set)
            if below is not None:
                fields, depth = fields + below.fields + own, max(depth, below.depth + 1)
        return _Size(fields, depth)


class _Arguments(graphql.Visitor):
    """Holds every argument, however deep and however it came, to the rules of values.

    Variables have been checked by themselves: only the name that they stand for here is new.
    """

    def __init__(self, variables: dict[str, Any], dataset: Dataset) -> None:
        super().__init__()
        self._variables, self._dataset = variables, dataset

    def enter_argument(self, node: graphql.ArgumentNode, *_: object) -> graphql.VisitorAction:
        self._check(node.name.value, node.value, 0)
        return None

    def _check(self, name: str | None, node: graphql.ValueNode, depth: int) -> None:
        """Check what stands under a name; in a list nothing has one."""
        if depth > MOST_DEPTH:
            raise RefusedError(400, "nested too deep")
        if isinstance(node, graphql.VariableNode):
            value = self._variables.get(node.name.value)
        elif isinstance(node, graphql.ListValueNode):
            for one in node.values:
                self._check(None, one, depth + 1)
            # As long as no rule is about what a list holds, what counts is that it is one.
            value = [None] * len(node.values)
        elif isinstance(node, graphql.ObjectValueNode):
            for field in node.fields:
                self._check(field.name.value, field.value, depth + 1)
            value = {field.name.value: None for field in node.fields}
        else:
            value = graphql.value_from_ast_untyped(node)
        if name is not None:
            _check_pair(name, value, self._dataset)


def is_allowed(uri: object) -> bool:
    """Whether an operator may be seen and run."""
    return isinstance(uri, str) and uri in _PARAMETERS


def check_operator(body: object) -> dict[str, Any]:
    """Refuse (403) to run or describe another operator, or with a parameter that it does not have; 400: no object.

    FiftyOne hands parameters on as they are, and calls the method of a panel that one of them names.
    """
    asked = as_object(body)
    uri = asked.get("operator_uri")
    if not isinstance(uri, str) or (known := _PARAMETERS.get(uri)) is None:
        raise RefusedError(403, "this operator is not allowed here")
    given = as_object(asked.get("params") or {})
    if not known.issuperset(given):
        raise RefusedError(403, "this operator has no such parameter")
    if uri == PANEL:
        method = given.get("__method__")
        if not isinstance(method, str) or method not in PANEL_METHODS:
            raise RefusedError(403, "this is nothing that the panel does")
        for name in ("panel_state", "state", "event_args"):
            as_object(given.get(name) or {})
    return {**asked, "params": given}


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
