"""What is asked for, checked."""

import pytest

from schemas.campaign import RoutingConfig
from schemas.errors import UserError
from tasks.simulate.question import ask

PLAIN = {"precisions": None, "reviews": "200,400", "draws": 10, "gate": None, "missed": 0.0, "automate": 0.5}


def test_the_campaign_says_the_rest():
    found = ask(RoutingConfig(precision=0.97, confidence=0.8, gate="accepted"), **PLAIN)
    assert (found.precisions, found.confidence, found.gate, found.reviews) == ((0.97,), 0.8, "accepted", (200, 400))


def test_lists_are_sorted_and_each_number_is_once():
    found = ask(RoutingConfig(), **PLAIN | {"precisions": "0.98, .95 0.95", "reviews": "400,200,400"})
    assert (found.precisions, found.reviews) == ((0.95, 0.98), (200, 400))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"precisions": "95"}, "--precision: 95 is not between 0.5 and 1"),
        ({"precisions": ""}, "--precision: '' is no list of numbers; write 0.95,0.98"),
        ({"precisions": "nan"}, "--precision: nan is not between"),
        ({"reviews": "1e3"}, "--reviews: '1e3' is no list of numbers"),
        ({"reviews": "0,5"}, "--reviews: 0 is no number of labels"),
        ({"draws": 0}, "--draws: 0 is not between 1 and 100,000"),
        ({"gate": "B"}, "--gate: 'B' is none; choose delivered or accepted"),
        ({"missed": 1.5}, "--missed: 1.5 is no share"),
        ({"plants": -1}, "--plants: -1 is no number of labels"),
        ({"automate": float("nan")}, "--automate: nan is no share"),
    ],
)
def test_nonsense_is_told_in_one_line(change, words):
    with pytest.raises(UserError, match=words):
        ask(RoutingConfig(), **PLAIN | change)
