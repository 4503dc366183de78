"""Figures in words never claim more than they are."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.tasks.report import plots

SHARES = st.floats(0, 1)


@pytest.mark.parametrize(
    ("share", "words"), [(None, plots.NONE), (1.0, "100%"), (0.0, "0%"), (0.95, "95%"), (0.848, "84.8%")]
)
def test_shares(share, words):
    assert plots.pct(share) == words


@given(SHARES)
def test_bounds_are_never_rounded_in_their_favour(share):
    assert float(plots.least(share)[:-1]) <= 100 * share + 1e-6
    assert float(plots.most(share)[:-1]) >= 100 * share - 1e-6


@given(SHARES)
def test_nearly_all_is_not_all_and_hardly_any_is_not_none(share):
    assert (plots.pct(share) == "100%") == (share == 1)
    assert (plots.pct(share) == "0%") == (share == 0)


@pytest.mark.parametrize(
    ("seconds", "words"), [(0, "0 s"), (59, "59 s"), (59.6, "1.0 min"), (600, "10 min"), (36_000, "10.0 h")]
)
def test_durations(seconds, words):
    assert plots.duration(seconds) == words


def test_commands_in_prose_are_code_and_the_rest_is_escaped():
    assert plots.prose("use `vouch run` on <b>") == "Use <code>vouch run</code> on &lt;b&gt;."


def test_rules_are_spoken():
    assert plots.rule("clip_probability >= 0.5, sam_iou >= 0.8") == "CLIP probability ≥ 0.5, SAM IoU ≥ 0.8"


def test_thresholds_are_cut():
    assert plots.cut(0.9129) == "0.912"
