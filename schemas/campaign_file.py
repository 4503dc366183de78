"""Loads a campaign file (YAML) and reports every problem at once, one line each, with file and line number.

YAML is parsed into plain values that remember their lines and trust nothing in the file: aliases, tags and sizes are
bounded. Relative paths in the file are resolved against its folder. Pydantic's errors are translated into sentences
that name the key, the line and, for a misspelt key, the right one.
"""

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from types import UnionType
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

import yaml
from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from vouch_labels.schemas.campaign import Campaign, nearest
from vouch_labels.schemas.errors import CampaignError, UserError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

MAX_BYTES: Final = 2**20

_MODELS: Final = ("detector", "segmenter", "scorer")
_FILES: Final = ("checkpoint", "architecture", "text_encoder")

_CREDENTIAL: Final = re.compile(r"secret|password|token|credential|access_?key|session", re.IGNORECASE)
_USERINFO: Final = re.compile(r"(?<=://)[^/@\s]*@")
_SHOWN: Final = 60
"""Longest value that is quoted, in characters."""

_PATTERNS: Final = {
    r"^[0-9a-f]{64}$": "a SHA-256: 64 digits of 0-9 and a-f",
    r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$": "a name: letters, digits, '.', '_' and '-', the first a letter or digit",
}
_NUMBER: Final = "must be a number, not {value}"
_WHOLE: Final = "must be a whole number, not {value}"
_SWITCH: Final = "must be true or false, not {value}"

_YOLO: Final = re.compile(r"ultralytics|yolo(?!-?x$)[-_]?v?[0-9]*[a-z]?", re.IGNORECASE)
_YOLO_HINT: Final = (
    "YOLO's text files are not written: take coco with undecided: drop, and convert it, by supervision's "
    "DetectionDataset.from_coco and as_yolo, say; yolox is for YOLOX, which reads COCO"
)

OR_TEXT: Final = ("Source", "Workspace", "ClassConfig")
"""Sections that a plain text may stand for."""

YamlPath: TypeAlias = tuple[str | int, ...]

MAX_VALUES: Final = 200_000
"""Most values of a document with its aliases written out: a few lines of aliases can name billions."""

_TAG: Final = "tag:yaml.org,2002:"


def load_campaign(path: Path) -> Campaign:
    """Read and check a campaign file.

    A section or key without a value stands for its default, so a section whose keys are all commented out is one.
    Local folders and files are relative to the file's own folder, and absolute in what is returned.

    Raises:
        CampaignError: The file cannot be read, is no YAML, or does not fit; one line a problem, in line order,
            as `campaign.yaml:14: models.detector.batchsize: unknown key; did you mean batch_size?`.
    """
    tree = _parse(path, _read(path))
    if tree.data is None and not tree.problems:
        raise CampaignError(f"{path}: it is empty; `vouch init` writes a campaign to start from")
    problems = [(line, f"{dotted(at)}{words}") for at, line, words in tree.problems]
    data = _without_nulls(tree.data, (), Campaign)
    problems += _switches_for_numbers(data, (), tree)
    campaign = None
    try:
        campaign = Campaign.model_validate(data)
    except ValidationError as error:
        problems += explain(error, tree, Campaign)
    if problems or campaign is None:
        raise CampaignError("\n".join(f"{path}:{line}: {words}" for line, words in sorted(problems)))
    return resolve_paths(campaign, path.absolute().parent)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise CampaignError(f"{path}: no such file; `vouch init` writes a campaign to start from") from None
    except IsADirectoryError:
        raise CampaignError(f"{path}: is a folder; name the campaign file in it") from None
    except OSError as error:
        raise CampaignError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if len(raw) > MAX_BYTES:
        raise CampaignError(f"{path}: is larger than 1 MiB; is it a campaign? Name many keys in a manifest file")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise CampaignError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


@dataclass
class YamlTree:
    """A document as plain dicts, lists, texts, numbers, booleans and None."""

    data: object = None
    lines: dict[YamlPath, int] = field(default_factory=dict)
    """Path -> line, counted from 1, of the key or list item that stands there."""
    texts: dict[YamlPath, str] = field(default_factory=dict)
    """Path -> a number, truth value or null as it is written: 007 is read as 7."""
    problems: list[tuple[YamlPath, int, str]] = field(default_factory=list)
    """What cannot be taken as it stands, with its path and line."""

    def line(self, path: YamlPath) -> int:
        """Line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def _parse(path: Path, text: str) -> YamlTree:
    try:
        return parse_yaml(text)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        hint = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise CampaignError(f"{path}:{mark.line + 1 if mark else 1}: not YAML: {error.problem}{hint}") from None
    except yaml.YAMLError as error:
        raise CampaignError(f"{path}: not YAML: {str(error).splitlines()[0]}") from None
    except ValueError as error:
        raise CampaignError(f"{path}: {error}; write it out plainly") from None


def _without_nulls(value: object, at: YamlPath, root: type[BaseModel]) -> object:
    """Leave out known keys without a value: a nullable field's default is null, any other's is meant."""
    if isinstance(value, list):
        return [_without_nulls(item, (*at, index), root) for index, item in enumerate(value)]
    if not isinstance(value, dict):
        return value
    model = model_at(root, at)
    known = model.model_fields if model else {}
    given = {key: item for key, item in value.items() if item is not None or key not in known}
    return {key: _without_nulls(item, (*at, key), root) for key, item in given.items()}


def _switches_for_numbers(value: object, at: YamlPath, tree: YamlTree) -> list[tuple[int, str]]:
    """Refuse `true` for a number, which pydantic would read as 1."""
    if isinstance(value, dict):
        return [found for key, item in value.items() for found in _switches_for_numbers(item, (*at, key), tree)]
    field = field_at(Campaign, at)
    if not isinstance(value, bool) or field is None:
        return []
    kinds = alternatives(field.annotation)
    if bool in kinds or not {int, float} & set(kinds):
        return []
    return [(tree.line(at), f"{dotted(at)}must be a number, not {tree.texts.get(at, str(value).lower())}")]


def resolve_paths(campaign: Campaign, folder: Path) -> Campaign:
    """Make local paths absolute.

    A checkpoint, architecture or text encoder may be a name as well as a path: it is taken as a path where it
    starts with `.`, `~` or `/`, or where such a file lies in the folder.

    Raises:
        UserError: A path names the home of an unknown user, or holds a NUL.
    """
    source = campaign.source.model_copy(
        update={
            "uri": _local(campaign.source.uri, folder),
            "manifest": campaign.source.manifest and _local(campaign.source.manifest, folder),
        }
    )
    workspace = campaign.workspace.model_copy(update={"uri": _local(campaign.workspace.uri, folder)})
    models = {}
    for name in _MODELS:
        config = getattr(campaign.models, name)
        given = {key: getattr(config, key, None) for key in _FILES}
        files = {key: _file_or_name(value, folder) for key, value in given.items() if value is not None}
        models[name] = config.model_copy(update=files)
    return campaign.model_copy(
        update={"source": source, "workspace": workspace, "models": campaign.models.model_copy(update=models)}
    )


def _local(uri: str, folder: Path) -> str:
    # "s3:bucket" is a slip that the store words better than a folder of that name.
    if "://" in uri or uri.lower().startswith("s3:"):
        return uri
    try:
        return str((folder / Path(uri).expanduser()).resolve())
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(f"{uri!r} is no usable path ({error}); fix it in the campaign") from None


def _file_or_name(value: str, folder: Path) -> str:
    if "://" in value or not (value.startswith((".", "~", "/")) or _exists(folder / value)):
        return value
    return _local(value, folder)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):  # a name longer than a file's may be
        return False


def explain(error: ValidationError, tree: YamlTree, root: type[BaseModel]) -> list[tuple[int, str]]:
    """Word every error of validating a file as a model, `root`: (line, "path: words"), in line order."""
    grouped: dict[YamlPath, list[ErrorDetails]] = {}
    for entry in error.errors(include_url=False):
        if entry["type"] == "too_short" and len(entry["input"]) >= entry["ctx"]["min_length"]:
            continue  # pydantic counts only the items that fit, and each that does not has its own line
        grouped.setdefault(_path(entry["loc"], entry["type"], tree), []).append(entry)
    lines = []
    for path, entries in grouped.items():
        words = list(dict.fromkeys(_words(path, entry, root, tree.texts.get(path)) for entry in entries))
        # Several errors of one place are the branches of a union, none of which fits.
        words[:-1] = [text.partition(", not ")[0] for text in words[:-1]]
        lines.append((tree.line(path), f"{dotted(path)}{' or '.join(words).replace(' or must be', ' or')}"))
    return sorted(lines)


def dotted(path: YamlPath) -> str:
    """`models.detector: ` or `classes[2].prompts: `, for the start of a line; empty for the file itself."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return f"{text}: " if text else ""


def _path(loc: tuple[str | int, ...], kind: str, tree: YamlTree) -> YamlPath:
    """The part of pydantic's location that is a place in the file; branches of unions are not."""
    path: YamlPath = ()
    for step in loc:
        if (*path, step) in tree.lines:
            path = (*path, step)
    return (*path, loc[-1]) if kind == "missing" and isinstance(loc[-1], str) else path


def _words(path: YamlPath, entry: "ErrorDetails", root: type[BaseModel], written: str | None) -> str:
    kind, context, value = entry["type"], entry.get("ctx", {}), entry["input"]
    shown = _shown(path, value, written)
    if kind == "extra_forbidden":
        return _unknown(path, root)
    if kind == "missing":
        field = field_at(root, path)
        by_name = field is not None and isinstance(entry["loc"][-1], str)
        return f"missing: {field.description}" if field and by_name else "has too few items"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        choices = re.findall(r"'([^']*)'", context["expected"])
        near = nearest(str(value), choices, 0.7)
        hint = _YOLO_HINT if "yolox" in choices and _YOLO.fullmatch(str(value)) else near and f"did you mean {near}?"
        return f"must be {context['expected']}, not {shown}{hint and f'; {hint}'}"
    if kind == "string_pattern_mismatch":
        field = field_at(root, path)
        return f"{shown} is not {_PATTERNS.get(context['pattern'], field.description if field else '')}"
    if kind == "model_type" and context["class_name"] in OR_TEXT and isinstance(value, bool | int | float):
        return f'must be a section of keys, not {shown}; a text goes in quotes: "{shown}"'
    if kind == "string_type" and isinstance(value, bool | int | float):
        return f'must be a text, not {shown}; put it in quotes: "{shown}"'
    template = _TEMPLATES.get(kind)
    if template is None:
        return entry["msg"][:1].lower() + entry["msg"][1:]
    return template.format(value=shown, **context)


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


def _unknown(path: YamlPath, root: type[BaseModel]) -> str:
    key = str(path[-1])
    if _CREDENTIAL.search(key):
        return "unknown key; credentials never stand in a campaign: use AWS's environment variables or profiles"
    model = model_at(root, path[:-1])
    names = list(model.model_fields) if model else []
    if near := nearest(key.lower(), names):
        return f"unknown key; did you mean {near}?"
    homes = [dotted(home)[:-2] for home in _homes(root, key, ())]
    if homes:
        return f"unknown key; did you mean {' or '.join(homes[:3])}?"
    return f"unknown key; use one of {', '.join(names)}"


def _homes(model: type[BaseModel], key: str, path: YamlPath) -> list[YamlPath]:
    """Places of the file where a key of this name belongs."""
    found = [(*path, key)] if key in model.model_fields else []
    for name, info in model.model_fields.items():
        for kind in _parts(info.annotation):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                found += _homes(kind, key, (*path, name))
    return found


def _parts(annotation: Any) -> list[Any]:  # noqa: ANN401 - annotations are any object
    return [leaf for kind in alternatives(annotation) for leaf in (kind, *get_args(kind))]


def _shown(path: YamlPath, value: object, written: str | None) -> str:
    if isinstance(value, dict):
        return "a section of keys"
    if isinstance(value, list):
        return "a list"
    if any(_CREDENTIAL.search(str(step)) for step in path):
        return "the value given"
    text = _USERINFO.sub("", written or (str(value).lower() if isinstance(value, bool) else str(value)))
    text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
    return repr(text) if isinstance(value, str) else text


def model_at(root: type[BaseModel], path: YamlPath) -> type[BaseModel] | None:
    """The model whose keys stand under a path; None where plain values or lists stand, or nothing is known."""
    return _model(_annotation(root, path))


def field_at(root: type[BaseModel], path: YamlPath) -> FieldInfo | None:
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


def _annotation(root: type[BaseModel], path: YamlPath) -> Any:  # noqa: ANN401 - annotations are any object
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


def parse_yaml(text: str) -> YamlTree:
    """Parse one YAML document by the rules of YAML 1.2's core schema (`no` and `on` are texts).

    Tags of other languages, duplicate keys and numbers that are not finite are listed as problems.

    Raises:
        yaml.YAMLError: The text is no YAML, or holds several documents.
        ValueError: It is nested too deeply, or too large with its aliases written out.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        tree = YamlTree()
        if root is not None:
            _refuse_bombs(root)
            tree.lines[()] = root.start_mark.line + 1
            tree.data = _value(root, (), tree)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    finally:
        loader.dispose()
    return tree


class _Loader(yaml.BaseLoader):
    """Composes nodes; constructs nothing."""


_IMPLICIT: Final = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "int": (r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
}

for _name, (_pattern, _first) in _IMPLICIT.items():
    # "" stands for an empty value, which the resolver looks up under the empty first character.
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(f"(?:{_pattern})$"), ["" if char == "\0" else char for char in _first]
    )


def _refuse_bombs(root: yaml.Node) -> None:
    sizes: dict[int, int] = {}

    def size(node: yaml.Node) -> int:
        known = sizes.get(id(node))
        if known is not None:
            if known < 0:
                raise ValueError("an alias contains itself")
            return known
        sizes[id(node)] = -1
        children: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            children = node.value
        elif isinstance(node, yaml.MappingNode):
            children = [entry for pair in node.value for entry in pair]
        sizes[id(node)] = 1 + sum(size(child) for child in children)
        return sizes[id(node)]

    if size(root) > MAX_VALUES:
        raise ValueError(f"it holds more than {MAX_VALUES} values, its aliases written out")


def _value(node: yaml.Node, path: YamlPath, tree: YamlTree) -> object:
    if isinstance(node, yaml.MappingNode) and node.tag == _TAG + "map":
        return _mapping(node, path, tree)
    if isinstance(node, yaml.SequenceNode) and node.tag == _TAG + "seq":
        items = []
        for index, child in enumerate(node.value):
            tree.lines[(*path, index)] = child.start_mark.line + 1
            items.append(_value(child, (*path, index), tree))
        return items
    if isinstance(node, yaml.ScalarNode) and node.tag.startswith(_TAG):
        return _scalar(node, path, tree)
    return _problem(node, path, tree, f"the tag {node.tag} is not allowed; write the value alone")


def _mapping(node: yaml.MappingNode, path: YamlPath, tree: YamlTree) -> dict[str, object]:
    result: dict[str, object] = {}
    for key_node, value_node in sorted(node.value, key=lambda pair: pair[0].value == "<<"):
        if not isinstance(key_node, yaml.ScalarNode):
            _problem(key_node, path, tree, "a key must be a text")
            continue
        key = str(key_node.value)
        here = (*path, key)
        if key == "<<":
            bases = value_node.value if isinstance(value_node, yaml.SequenceNode) else [value_node]
            for base in bases:
                apart = YamlTree(problems=tree.problems)
                merged = _value(base, path, apart)
                tree.texts.update({at: text for at, text in apart.texts.items() if at not in tree.lines})
                tree.lines.update({at: line for at, line in apart.lines.items() if at not in tree.lines})
                if isinstance(merged, dict):
                    result = merged | result
            continue
        if here in tree.lines and key in result:
            first = tree.lines[here]
            _problem(key_node, here, tree, f"given twice, first in line {first}; keep one")
            continue
        tree.lines[here] = key_node.start_mark.line + 1
        result[key] = _value(value_node, here, tree)
    return result


def _scalar(node: yaml.ScalarNode, path: YamlPath, tree: YamlTree) -> object:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
    if kind != "str":
        tree.texts[path] = text
    try:
        match kind:
            case "str":
                return text
            case "null":
                return None
            case "bool":
                return text.lower() == "true"
            case "int":
                # A base of 0 would refuse leading zeros.
                return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
            case "float":
                number = float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
                return number if math.isfinite(number) else _problem(node, path, tree, "must be a finite number")
    except ValueError:
        return _problem(node, path, tree, f"is no {kind}")
    return _problem(node, path, tree, f"the tag {node.tag} is not allowed; write the value alone")


def _problem(node: yaml.Node, path: YamlPath, tree: YamlTree, words: str) -> object:
    """Note a problem; the value is None, so that what follows finds no second one."""
    tree.problems.append((path, node.start_mark.line + 1, words))
    return None
