"""Figures in words never claim more than they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas import text

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("share", "words"), [(None, text.NONE), (1.0, "100%"), (0.0, "0%"), (0.95, "95%"), (0.848, "84.8%")]
)
def test_shares(share, words):
    assert text.pct(share) == words


@given(SHARES)
def test_bounds_are_never_rounded_in_their_favour(share):
    assert float(text.least(share)[:-1]) <= 100 * share + 1e-6
    assert float(text.most(share)[:-1]) >= 100 * share - 1e-6


@given(SHARES)
def test_nearly_all_is_not_all_and_hardly_any_is_not_none(share):
    assert (text.pct(share) == "100%") == (share == 1)
    assert (text.pct(share) == "0%") == (share == 0)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min"), (90000, "1 d 1 h")],
)
def test_durations(seconds, words):
    assert text.duration(seconds) == words


def test_rules_are_spoken():
    assert text.rule("clip_probability >= 0.5, sam_iou >= 0.8") == "CLIP probability ≥ 0.5, SAM IoU ≥ 0.8"


def test_thresholds_are_cut():
    assert text.cut(0.9129) == "0.912"
