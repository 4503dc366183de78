import pytest

from schemas.campaign import Thresholds
from schemas.policy import Group, Policy
from tasks.route.spoken import accepts, basis


def test_users_word():
    groups = (Group(name="all", classes=("dog",)),)
    nothing = Policy(version="v1", groups=groups)
    something = Policy(version="v1", groups=(groups[0].model_copy(update={"accept": Thresholds(sam_iou=0.5)}),))
    assert (accepts(nothing), accepts(something)) == (False, True)
    assert basis(something) == "user thresholds, not certified"
    assert basis(nothing) == "no thresholds: everything goes to review"


@pytest.mark.parametrize(
    ("least", "how", "words"),
    [
        (0.9, {}, "certified: at least 0.95 of delivered labels correct, confidence 0.9, once people have decided"),
        (0.9, {"gate": "accepted", "precision": 0.98}, "certified: at least 0.98 of accepted labels correct"),
        (0.9, {"simulated": True}, "simulated reviewer, so nothing is certified; would be at least 0.95"),
        (None, {}, "certified for no class"),
        (None, {"version": "expired-certified-1"}, "an expired certificate"),
    ],
)
def test_certified(certified, least, how, words):
    policy = certified({"dog": least}, **how)
    assert basis(policy).startswith(words)
    assert accepts(policy) == (least is not None)
    assert ("those that wait" in basis(policy)) == ("of delivered" in basis(policy))
