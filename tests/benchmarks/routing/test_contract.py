"""The guarantee on fixed seeds and few draws; the benchmark has the full ones."""

import numpy as np
import pytest

from benchmarks.routing.contract import DELTA, World, play

DRAWS = 60
LIMIT = DELTA + 2 * np.sqrt(DELTA * (1 - DELTA) / DRAWS)


@pytest.fixture(scope="module")
def plain():
    return [play(World("plain", kinds=(1.0, 0.0, 0.0, 0.0)), number) for number in range(DRAWS)]


def mean(played, rule, precision):
    """Share accepted and share broken."""
    return np.mean([one[rule, precision] for one in played], axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["A", "B"])
@pytest.mark.parametrize("precision", [0.95, 0.98, 0.99])
def test_the_guarantee_is_kept_and_the_naive_rule_breaks_it(plain, gate, precision):
    assert mean(plain, gate, precision)[1] <= LIMIT
    assert mean(plain, f"{gate} naive", precision)[1] > LIMIT


@pytest.mark.slow
@pytest.mark.parametrize(("gate", "floor"), [("A", 0.80), ("B", 0.85)])
def test_automation_is_near_the_ideal_one_and_above_that_of_the_score(plain, gate, floor):
    accepted = mean(plain, gate, 0.95)[0]
    assert accepted >= floor * mean(plain, f"{gate} ideal", 0.95)[0]
    assert accepted >= 1.25 * mean(plain, f"{gate} score", 0.95)[0]


def test_one_campaign_has_every_rule_and_repeats():
    world = World("small", images=600)
    found = play(world, 1, reviews=300)
    assert {rule for rule, _ in found} == {
        f"{gate}{rule}" for gate in "AB" for rule in ("", " naive", " oracle", " ideal")
    } | {"A score", "B score"}
    assert found == play(world, 1, reviews=300)
    assert found["A oracle", 0.95].automated <= found["B oracle", 0.95].automated


def test_tired_reviewers_break_the_guarantee_where_they_are_trusted():
    world = World("tired", images=2_000, tired=True)
    played = [play(world, number) for number in range(12)]
    assert mean(played, "B trusting", 0.95)[1] > 0.5
    assert mean(played, "B", 0.95)[1] <= DELTA + 2 * np.sqrt(0.09 / 12)
