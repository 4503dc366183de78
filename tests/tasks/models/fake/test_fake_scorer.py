import subprocess
import sys

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from schemas.campaign import ScorerConfig
from tasks.models.fake.scorer import load
from tasks.models.registry import load_scorer
from tasks.models.runtime import Runtime

RUNTIME = Runtime("cpu", "fp32")


def test_texts_have_fixed_places_of_their_own() -> None:
    scorer = load(ScorerConfig(backend="fake"), RUNTIME)
    first, again = scorer.embed_texts(["dog", "cat", "dog"]), load_scorer(ScorerConfig(backend="fake"), RUNTIME)
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    np.testing.assert_array_equal(first, again.embed_texts(["dog", "cat", "dog"]))
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1, atol=1e-6)
    assert scorer.fingerprint == again.fingerprint


def test_nothing_to_embed() -> None:
    scorer = load(ScorerConfig(), RUNTIME)
    assert scorer.embed_texts([]).shape == (0, 32)
    assert scorer.embed_crops([]).shape == (0, 32)


def test_near_colours_near_places() -> None:
    scorer = load(ScorerConfig(), RUNTIME)
    grey, paler, red = (np.full((20, 30, 3), colour, np.uint8) for colour in (100, 105, (255, 0, 0)))
    one, two, three = scorer.embed_crops([grey, paler, red])
    assert one @ two > one @ three


@given(arrays(np.uint8, array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda shape: (*shape, 3))), st.booleans())
def test_every_crop_has_a_place(pixels: np.ndarray, turned: bool) -> None:
    scorer = load(ScorerConfig(), RUNTIME)
    (place,) = scorer.embed_crops([pixels.transpose(1, 0, 2) if turned else pixels])
    assert np.isfinite(place).all()
    assert abs(np.linalg.norm(place) - 1) < 1e-5


def test_no_torch_is_needed() -> None:
    code = (
        "import sys, numpy as np; from tasks.models.fake.scorer import FakeScorer; "
        "FakeScorer().embed_crops([np.zeros((4, 4, 3), np.uint8)]); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
