"""Puts what is wrong with a campaign into words, one line a problem."""

import difflib
import re
from typing import TYPE_CHECKING, Any, Final, get_args

from pydantic import BaseModel, ValidationError

from schemas.campaign.fields import OR_TEXT, alternatives, field_at, model_at
from schemas.campaign.yaml_tree import Path, YamlTree

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

_CREDENTIAL: Final = re.compile(r"secret|password|token|credential|access_?key|session", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]*@")
_SHOWN: Final = 60
"""Longest value that is quoted, in characters."""


def explain(error: ValidationError, tree: YamlTree, root: type[BaseModel]) -> list[tuple[int, str]]:
    """Word every error of a validation.

    Args:
        error: What pydantic found.
        tree: The file that was validated, for lines.
        root: Model that it was validated as, for names and descriptions.

    Returns:
        (line, "path: words") of every problem, in line order.
    """
    grouped: dict[Path, list[ErrorDetails]] = {}
    for entry in error.errors(include_url=False):
        if entry["type"] == "too_short" and len(entry["input"]) >= entry["ctx"]["min_length"]:
            continue  # pydantic counts only the items that fit, and each that does not has its own line
        grouped.setdefault(_path(entry["loc"], entry["type"], tree), []).append(entry)
    lines = []
    for path, entries in grouped.items():
        words = list(dict.fromkeys(_words(path, entry, root) for entry in entries))
        # Several errors of one place are the branches of a union, none of which fits.
        words[:-1] = [text.partition(", not ")[0] for text in words[:-1]]
        lines.append((tree.line(path), f"{dotted(path)}{' or '.join(words).replace(' or must be', ' or')}"))
    return sorted(lines)


def dotted(path: Path) -> str:
    """`models.detector: ` or `classes[2].prompts: `, for the start of a line; empty for the file itself."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text}: " if text else ""


def _path(loc: tuple[str | int, ...], kind: str, tree: YamlTree) -> Path:
    """The part of pydantic's location that is a place in the file; branches of unions are not."""
    path: Path = ()
    for step in loc:
        if (*path, step) in tree.lines:
            path = (*path, step)
    return (*path, loc[-1]) if kind == "missing" and isinstance(loc[-1], str) else path


def _words(path: Path, entry: "ErrorDetails", root: type[BaseModel]) -> str:
    kind, context, value = entry["type"], entry.get("ctx", {}), entry["input"]
    if kind == "extra_forbidden":
        return _unknown(path, root)
    if kind == "missing":
        field = field_at(root, path)
        by_name = field is not None and isinstance(entry["loc"][-1], str)
        return f"missing: {field.description}" if field and by_name else "has too few items"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        return f"must be {context['expected']}, not {_shown(path, value)}{_nearest_choice(context['expected'], value)}"
    if kind == "string_pattern_mismatch":
        field = field_at(root, path)
        return f"{_shown(path, value)} is not {_PATTERNS.get(context['pattern'], field.description if field else '')}"
    if kind == "model_type" and context["class_name"] in OR_TEXT and isinstance(value, bool | int | float):
        return f'must be a section of keys, not {_shown(path, value)}; a text goes in quotes: "{_plain(value)}"'
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'must be a text, not {_shown(path, value)}; put it in quotes: "{_plain(value)}"'
    template = _TEMPLATES.get(kind)
    if template is None:
        return entry["msg"][:1].lower() + entry["msg"][1:]
    return template.format(value=_shown(path, value), **context)


_PATTERNS: Final = {
    r"^[0-9a-f]{64}$": "a SHA-256: 64 digits of 0-9 and a-f",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "a name: letters, digits, '.', '_' and '-', the first a letter or digit",
}
_NUMBER: Final = "must be a number, not {value}"
_WHOLE: Final = "must be a whole number, not {value}"
_SWITCH: Final = "must be true or false, not {value}"
_TEMPLATES: Final = {
    "string_type": "must be a text, not {value}",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": _WHOLE,
    "int_parsing": _WHOLE,
    "int_from_float": _WHOLE,
    "float_type": _NUMBER,
    "float_parsing": _NUMBER,
    "bool_type": _SWITCH,
    "bool_parsing": _SWITCH,
    "tuple_type": "must be a list, as in [one, two], not {value}",
    "too_short": "must have at least {min_length} of them",
    "too_long": "must have at most {max_length} of them",
    "model_type": "must be a section of keys, not {value}",
    "greater_than": "must be greater than {gt:g}, not {value}",
    "greater_than_equal": "must be at least {ge:g}, not {value}",
    "less_than": "must be less than {lt:g}, not {value}",
    "less_than_equal": "must be at most {le:g}, not {value}",
}


def _unknown(path: Path, root: type[BaseModel]) -> str:
    key = str(path[-1])
    if _CREDENTIAL.search(key):
        return "unknown key; credentials never stand in a campaign: use AWS's environment variables or profiles"
    model = model_at(root, path[:-1])
    names = list(model.model_fields) if model else []
    near = difflib.get_close_matches(key.lower(), names, n=1, cutoff=0.6)
    if near:
        return f"unknown key; did you mean {near[0]}?"
    homes = [dotted(home)[:-2] for home in _homes(root, key, ())]
    if homes:
        return f"unknown key; did you mean {' or '.join(homes[:3])}?"
    return f"unknown key; use one of {', '.join(names)}"


def _homes(model: type[BaseModel], key: str, path: Path) -> list[Path]:
    """Places of the file where a key of this name belongs."""
    found = [(*path, key)] if key in model.model_fields else []
    for name, field in model.model_fields.items():
        for kind in _parts(field.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += _homes(kind, key, (*path, name))
    return found


def _parts(annotation: Any) -> list[Any]:  # noqa: ANN401 - annotations are any object
    return [leaf for kind in alternatives(annotation) for leaf in (kind, *get_args(kind))]


def _nearest_choice(expected: str, value: object) -> str:
    choices = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(str(value), choices, n=1, cutoff=0.7)
    return f"; did you mean {near[0]}?" if near else ""


def _shown(path: Path, value: object) -> str:
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    if any(_CREDENTIAL.search(str(step)) for step in path):
        return "the value given"
    text = _USERINFO.sub("", _plain(value))
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return repr(text) if isinstance(value, str) else text


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
