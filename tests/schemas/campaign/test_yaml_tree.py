import json
import re

import pytest
import yaml
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.campaign.yaml_tree import parse_yaml

plain = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs"), exclude_characters="\ufeff\u2028\u2029")),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text("abcé 1:#", min_size=1), inner, max_size=4),
    max_leaves=20,
)


@given(plain)
def test_json_reads_as_itself(value):
    tree = parse_yaml(json.dumps(value, ensure_ascii=False))
    assert tree.data == value
    assert not tree.problems


class Quoting(yaml.SafeDumper):
    """Quotes texts like 1e5 and 0o7 too: numbers in YAML 1.2, and none in the YAML 1.1 that PyYAML writes."""


Quoting.add_implicit_resolver(
    "newer number", re.compile(r"[-+]?[0-9.]+[eE][-+]?[0-9]+$|0o[0-7]+$"), list("-+.0123456789")
)


@given(plain)
@example(["1e5", "0o7", "-.5E+3", {"a": "0E0"}])
def test_what_pyyaml_writes_reads_as_itself(value):
    assert parse_yaml(yaml.dump(value, Dumper=Quoting, allow_unicode=True)).data == value


@pytest.mark.parametrize(
    ("text", "value"),
    [("1e-3", 0.001), ("007", 7), ("0x1f", 31), ("0o17", 15), ("-.5", -0.5), ("1_000", "1_000"), ("yes", "yes"),
     ("TRUE", True), ("~", None), ('""', ""), ('"1"', "1"), ("!!str 5", "5"), ("=", "=")],
)  # fmt: skip
def test_scalars(text, value):
    assert parse_yaml(f"a: {text}").data == {"a": value}


def test_lines():
    tree = parse_yaml("a:\n  b: 1\n  c:\n    - x\n    - d: 2\n")
    assert tree.line(("a",)) == 1
    assert tree.line(("a", "b")) == 2
    assert tree.line(("a", "c", 1)) == 5
    assert tree.line(("a", "c", 1, "d")) == 5
    assert tree.line(("a", "c", 0, "nothing", "there")) == 4


@pytest.mark.parametrize("text", ["!!binary aGk=", "!x 5", "!!set {a}", "!!float x", "!!timestamp 2020-01-01"])
def test_tags_are_problems(text):
    tree = parse_yaml(f"a: {text}")
    assert [path for path, _, _ in tree.problems] == [("a",)]


def test_merge_keeps_own_values_and_lines():
    tree = parse_yaml("base: &b {x: 1, y: 2}\nother: &o {y: 3, z: 4}\na:\n  x: 9\n  <<: [*b, *o]\n")
    assert tree.data["a"] == {"x": 9, "y": 2, "z": 4}
    assert tree.line(("a", "x")) == 4
