"""Finds the model and the field that stand at a path of the campaign file."""

from types import UnionType
from typing import Annotated, Any, Final, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.campaign.yaml_tree import Path

OR_TEXT: Final = ("Source", "Workspace", "ClassConfig")
"""Sections that a plain text may stand for."""


def model_at(root: type[BaseModel], path: Path) -> type[BaseModel] | None:
    """The model whose keys stand under a path, if one does.

    Args:
        root: Model of the whole file.
        path: Keys and list indices, outermost first.

    Returns:
        The model, or None where plain values or lists stand, or nothing is known.
    """
    return _model(_annotation(root, path))


def field_at(root: type[BaseModel], path: Path) -> FieldInfo | None:
    """The field that a path names, if there is one; a list item has none of its own."""
    if not path or isinstance(path[-1], int):
        return None
    parent = model_at(root, path[:-1])
    return parent.model_fields.get(path[-1]) if parent else None


def alternatives(annotation: Any) -> tuple[Any, ...]:  # noqa: ANN401 - annotations are any object
    """The types of a union, or the one type itself."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return tuple(leaf for entry in get_args(annotation) for leaf in alternatives(entry))
    return (annotation,)


def _annotation(root: type[BaseModel], path: Path) -> Any:  # noqa: ANN401 - annotations are any object
    annotation: Any = root
    for step in path:
        if isinstance(step, int):
            annotation = next(
                (get_args(kind)[0] for kind in alternatives(annotation) if get_origin(kind) is tuple), None
            )
            continue
        model = _model(annotation)
        field = model.model_fields.get(step) if model else None
        annotation = field.annotation if field else None
    return annotation


def _model(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401 - annotations are any object
    for kind in alternatives(annotation):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
