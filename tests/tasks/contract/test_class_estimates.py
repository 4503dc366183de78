"""Estimates of classes beside the certificates."""

import numpy as np
import pytest

from schemas.reviews import GroupPlan
from tasks.contract.class_estimates import class_estimates
from tasks.contract.declare import Candidates, Promise
from tasks.contract.judge import Reviewed, judge


@pytest.fixture
def estimates():
    """Of a group of cats, dogs and owls: 40 of 50 accepted cats are reviewed, 2 of 20 dogs below what is accepted."""
    scores = np.repeat([0.9, 0.9, 0.2, 0.9], [50, 5, 15, 30])
    candidates = Candidates(scores, np.repeat([0, 1, 2], [50, 20, 30]), ("cat", "dog", "owl"), np.ones(100, np.bool_))
    group = GroupPlan(name="animals", classes=("cat", "dog", "owl"), thresholds=(0.5,), region=0.5, power=0.9)
    reviewed = Reviewed(
        scores=np.repeat([0.9, 0.2, 0.9], [40, 2, 30]),
        wrong=np.arange(72) == 0,
        classes=("cat",) * 40 + ("dog",) * 2 + ("owl",) * 30,
    )
    judged = judge(reviewed, (group,), candidates, Promise(0.8, 0.8, "accepted"), 0.2)
    return {one.name: one for one in class_estimates(judged, reviewed, candidates)}


def test_a_class_of_which_nothing_accepted_was_reviewed_has_no_estimate(estimates) -> None:
    dog = estimates["dog"]
    assert (dog.accepted, dog.reviewed, dog.precision) == (5, 0, None)


def test_the_others_are_drawn_towards_their_group(estimates) -> None:
    cat, owl = estimates["cat"], estimates["owl"]
    assert (cat.reviewed, cat.errors, owl.reviewed, owl.errors) == (40, 1, 30, 0)
    assert 39 / 40 < owl.precision < 1
    assert 0.95 < cat.precision <= owl.precision
