import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import (
    boxes_of,
    distinct,
    first_places,
    first_rows,
    flat,
    numbers,
    places_in,
    rows_of_keys,
)


@pytest.mark.parametrize(
    "column",
    [pa.array([1.5, None, 2.0], pa.float32()), pa.chunked_array([[1.5, None], [2.0]], pa.float32())],
    ids=["array", "chunked"],
)
def test_null_is_nan(column):
    assert np.array_equal(numbers(column, np.float64), [1.5, np.nan, 2.0], equal_nan=True)
    assert numbers(column, np.float32).dtype == np.float32


def test_small_integers_and_booleans():
    assert np.array_equal(numbers(pa.array([3, None], pa.int8()), np.float32), [3, np.nan], equal_nan=True)
    assert numbers(pa.chunked_array([[True], [False]]), np.bool_).tolist() == [True, False]


def test_no_chunk_at_all():
    empty = pa.chunked_array([], pa.string())
    assert flat(empty).equals(pa.array([], pa.string()))
    assert numbers(pa.chunked_array([], pa.int64()), np.int64).shape == (0,)
    assert flat(pa.chunked_array([["a"], ["b"]])).to_pylist() == ["a", "b"]


def test_boxes():
    table = pa.table({side: [value, None] for side, value in zip(BOX, (1.0, 2.0, 3.5, 4.0), strict=True)})
    assert np.array_equal(boxes_of(table), [[1, 2, 3.5, 4], [np.nan] * 4], equal_nan=True)


letters = st.sampled_from(["a", "b", "c", "d", None])


@given(st.lists(letters, max_size=9), st.lists(letters, max_size=9), st.booleans())
def test_places_are_the_first_ones(wanted, ids, chunked):
    column = pa.array(wanted, pa.string())
    given_column = pa.chunked_array([column[:2], column[2:]]) if chunked else column
    found = places_in(given_column, pa.array(ids, pa.string()))
    assert found.dtype == np.int64
    assert found.tolist() == [-1 if one is None or one not in ids else ids.index(one) for one in wanted]


numbers_or_none = st.sampled_from([None, 0.5, float("nan"), 2.0])


@given(st.lists(st.tuples(letters, numbers_or_none, st.booleans()), max_size=12))
def test_first_rows_with_the_same_values(rows):
    names = ("letter", "number")
    columns = {name: [row[place] for row in rows] for place, name in enumerate((*names, "other"))}
    table = pa.table(columns, pa.schema([("letter", pa.string()), ("number", pa.float32()), ("other", pa.bool_())]))
    pairs = [str(row[:2]) for row in rows]
    expected = [pairs.index(pair) for pair in pairs]
    assert first_places(table, names).tolist() == expected
    assert first_rows(table, names).tolist() == sorted(set(expected))
    assert distinct(table, names)["other"].to_pylist() == [rows[place][2] for place in sorted(set(expected))]


@pytest.mark.parametrize(
    ("keys", "rows"), [("", {}), ("a", {"a": [0]}), ("aabccc", {"a": [0, 1], "b": [2], "c": [3, 4, 5]})]
)
def test_rows_of_keys(keys, rows):
    found = rows_of_keys(pa.table({"key": pa.array(list(keys), pa.string())}))
    assert {key: list(range(len(keys)))[part] for key, part in found.items()} == rows
