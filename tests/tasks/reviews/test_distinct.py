import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from tasks.reviews.distinct import places_in

letters = st.sampled_from(["a", "b", "c", "d", None])


@given(st.lists(letters, max_size=9), st.lists(letters, max_size=9), st.booleans())
def test_places_are_the_first_ones(wanted, ids, chunked):
    column = pa.array(wanted, pa.string())
    given_column = pa.chunked_array([column[:2], column[2:]]) if chunked else column
    found = places_in(given_column, pa.array(ids, pa.string()))
    assert found.dtype == np.int64
    assert found.tolist() == [-1 if one is None or one not in ids else ids.index(one) for one in wanted]
