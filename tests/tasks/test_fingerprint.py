"""Names for what results depend on."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.tasks.fingerprint import fingerprint

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=5))
def test_the_order_of_keys_does_not_matter(value):
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


@given(st.lists(st.integers(), min_size=2, unique=True))
def test_the_order_of_lists_does(values):
    assert fingerprint(values) != fingerprint(values[::-1])


def test_parts_are_kept_apart():
    assert fingerprint("ab", "c") != fingerprint("a", "bc") != fingerprint(["ab", "c"])


def test_another_process_agrees():
    code = "from tasks.fingerprint import fingerprint; print(fingerprint({'b': 1.5, 'a': ['ä', None]}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == fingerprint({"a": ["ä", None], "b": 1.5})


def test_what_json_cannot_say_is_refused():
    with pytest.raises(ValueError, match="not JSON compliant"):
        fingerprint(float("nan"))
