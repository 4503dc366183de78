"""Lets queries about the desk through, and the changes of what the browser shows; no change of data."""

import re
from collections.abc import Iterator
from typing import Any, Final

from graphql import (
    ArgumentNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    InlineFragmentNode,
    OperationDefinitionNode,
    OperationType,
    SelectionSetNode,
    Undefined,
    VariableNode,
    Visitor,
    VisitorAction,
    parse,
    value_from_ast_untyped,
    visit,
)

from review_ui.guard.bodies import Desk, check_values
from review_ui.guard.refusal import RefusedError

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


def check_graphql(body: object, desk: Desk) -> dict[str, Any]:
    """Refuse what is not in the lists, and whatever names another dataset.

    Args:
        body: The request's JSON.
        desk: The desk's name and id.

    Returns:
        The request to make: a search among all datasets has become one for the desk.

    Raises:
        RefusedError: 403, or 400 for what is no GraphQL.
    """
    if not isinstance(body, dict) or not isinstance(body.get("query"), str):
        raise RefusedError(400, "this is no GraphQL request")
    given = body.get("variables") or {}
    if not isinstance(given, dict):
        raise RefusedError(400, "this is no GraphQL request")
    try:
        document = parse(body["query"], no_location=True, max_tokens=MOST_TOKENS)
    except (GraphQLError, RecursionError):
        raise RefusedError(400, "this is no GraphQL request") from None
    operation = _only_operation(document)
    defaults = _defaults(operation)
    check_values(defaults, desk)
    check_values(given, desk)
    variables = defaults | given
    visit(document, _Arguments(variables, desk))
    searched: dict[str, Any] = {}
    for field in _allowed_fields(operation, document):
        _check_name(field, variables, desk)
        if field.name.value == _LIST:
            searched[_search_variable(field)] = f"^{re.escape(desk[0])}$"
    return {**body, "variables": {**given, **searched}}


def _only_operation(document: DocumentNode) -> OperationDefinitionNode:
    """The one operation: of several, each would have defaults of its own, and the client says later which is meant."""
    others = [node for node in document.definitions if not isinstance(node, FragmentDefinitionNode)]
    if len(others) != 1 or not isinstance(others[0], OperationDefinitionNode):
        raise RefusedError(403, "one operation a request is allowed")
    return others[0]


def _defaults(operation: OperationDefinitionNode) -> dict[str, Any]:
    return {
        variable.variable.name.value: value_from_ast_untyped(variable.default_value)
        for variable in operation.variable_definitions
        if variable.default_value is not None
    }


def _allowed_fields(operation: OperationDefinitionNode, document: DocumentNode) -> Iterator[FieldNode]:
    allowed = {OperationType.QUERY: QUERIES, OperationType.MUTATION: MUTATIONS}.get(operation.operation, frozenset())
    fragments = {node.name.value: node for node in document.definitions if isinstance(node, FragmentDefinitionNode)}
    for field in _root_fields(operation.selection_set, fragments, frozenset()):
        if field.name.value not in allowed:
            raise RefusedError(403, f"{operation.operation.value} {field.name.value} is not allowed")
        yield field


def _check_name(field: FieldNode, variables: dict[str, Any], desk: Desk) -> None:
    if field.name.value in _NAMED:
        for argument in field.arguments:
            value = value_from_ast_untyped(argument.value, variables)
            if argument.name.value == "name" and value is not None and value not in desk:
                raise RefusedError(403, "only your own desk can be seen")


def _search_variable(field: FieldNode) -> str:
    for argument in field.arguments:
        if argument.name.value == "search" and isinstance(argument.value, VariableNode):
            return argument.value.name.value
    raise RefusedError(403, "only your own desk can be seen")


def _root_fields(
    selected: SelectionSetNode, fragments: dict[str, FragmentDefinitionNode], seen: frozenset[str]
) -> Iterator[FieldNode]:
    for node in selected.selections:
        if isinstance(node, FieldNode):
            yield node
        elif isinstance(node, InlineFragmentNode):
            yield from _root_fields(node.selection_set, fragments, seen)
        elif isinstance(node, FragmentSpreadNode):
            name = node.name.value
            if name in seen or name not in fragments:
                raise RefusedError(400, "this is no GraphQL request")
            yield from _root_fields(fragments[name].selection_set, fragments, seen | {name})


class _Arguments(Visitor):
    """Holds every argument, however deep and however it came, to the rules of values."""

    def __init__(self, variables: dict[str, Any], desk: Desk) -> None:
        super().__init__()
        self._variables, self._desk = variables, desk

    def enter_argument(self, node: ArgumentNode, *_: object) -> VisitorAction:
        value = value_from_ast_untyped(node.value, self._variables)
        if value is not Undefined:
            check_values({node.name.value: value}, self._desk)
        return None
