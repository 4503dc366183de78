"""Reads YAML into plain values that remember their lines; trusts nothing in it."""

import math
import re
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import yaml

Path: TypeAlias = tuple[str | int, ...]

MAX_VALUES: Final = 200_000
"""Most values of a document with its aliases written out: a few lines of aliases can name billions."""

_TAG: Final = "tag:yaml.org,2002:"


@dataclass
class YamlTree:
    """A document as plain dicts, lists, texts, numbers, booleans and None."""

    data: object = None
    lines: dict[Path, int] = field(default_factory=dict)
    """Path -> line, counted from 1, of the key or list item that stands there."""
    problems: list[tuple[Path, int, str]] = field(default_factory=list)
    """What cannot be taken as it stands, with its path and line."""

    def line(self, path: Path) -> int:
        """Line of a path, or of the nearest thing around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def parse_yaml(text: str) -> YamlTree:
    """Parse one YAML document by the rules of YAML 1.2's core schema (`no` and `on` are texts).

    Tags of other languages, duplicate keys and numbers that are not finite are listed as problems.

    Args:
        text: One document.

    Returns:
        Its values, their lines, and what is wrong with them.

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


def _value(node: yaml.Node, path: Path, tree: YamlTree) -> object:
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


def _mapping(node: yaml.MappingNode, path: Path, tree: YamlTree) -> dict[str, object]:
    result: dict[str, object] = {}
    for key_node, value_node in _merged_last(node):
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


def _merged_last(node: yaml.MappingNode) -> list[tuple[yaml.Node, yaml.Node]]:
    return sorted(node.value, key=lambda pair: pair[0].value == "<<")


def _scalar(node: yaml.ScalarNode, path: Path, tree: YamlTree) -> object:
    text, kind = str(node.value), node.tag.removeprefix(_TAG)
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


def _problem(node: yaml.Node, path: Path, tree: YamlTree, words: str) -> object:
    """Note a problem; the value is None, so that what follows finds no second one."""
    tree.problems.append((path, node.start_mark.line + 1, words))
    return None
