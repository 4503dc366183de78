"""That drawing on after answers is a look, and what that keeps."""

import json

import numpy as np
import pytest
from scipy.stats import binom

from schemas.errors import NotCertifiedError, StoreError, UserError
from tasks.contract import plan_reviews as planning
from tasks.contract.certify import certify_campaign
from tasks.contract.looking import look_by_drawing
from tasks.contract.looks import read_looks
from tasks.contract.plan_reviews import Wish, plan_reviews
from tasks.reviews.plans import read_plans
from tasks.statistics.threshold_tests import delta_of_look

MORE = Wish(minutes=1, stage="certify")
ANEW = Wish(minutes=3, stage="certify", fresh=True)
SAID = "to draw on after answers is a look at them, as certifying is"


@pytest.fixture
def looks(campaigned):
    return lambda: read_looks(campaigned.workspace, "main")


@pytest.mark.parametrize("wish", [MORE, ANEW])
def test_to_draw_on_after_answers_is_a_look_and_lowers_the_next_level(campaigned, looks, wish):
    first = campaigned.fitted().sampled(minutes=2)
    assert not looks()
    planned = plan_reviews(campaigned.campaign, wish)
    (taken,) = looks()
    assert (taken.look, taken.plans, taken.precision, taken.confidence) == (1, (first.plan.number,), 0.7, 0.8)
    assert f"{SAID}: look 1; the next is tested at 0.032" in planned.words
    # The sample is another now, which nobody looked at.
    with pytest.raises(UserError, match="certification tasks still wait"):
        plan_reviews(campaigned.campaign)
    campaigned.answer()
    with pytest.raises(UserError, match=r"is answered: use `vouch certify`.* is a look at the answers as well"):
        plan_reviews(campaigned.campaign)
    found = certify_campaign(campaigned.campaign)
    assert (found.look, found.delta) == (2, pytest.approx(0.032))
    assert len(looks()) == 2


def test_a_sample_that_nobody_answered_is_drawn_anew_for_nothing(campaigned, looks):
    campaigned.fitted()
    for _ in range(3):
        planned = plan_reviews(campaigned.campaign, ANEW)
    assert planned.plan.round == 3
    assert SAID not in " ".join(planned.words)
    assert not looks()


def test_a_part_of_the_answers_is_enough(campaigned, looks):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, ANEW)
    campaigned.answer(part=0.1)
    plan_reviews(campaigned.campaign, ANEW)
    assert [look.look for look in looks()] == [1]


def test_after_a_look_at_just_these_answers_there_is_none(campaigned, looks):
    campaigned.with_routing(precision=0.93, confidence=0.8)
    campaigned.fitted().sampled(minutes=2)
    assert certify_campaign(campaigned.campaign).look == 1
    assert SAID not in " ".join(plan_reviews(campaigned.campaign, MORE).words)
    campaigned.answer()
    assert certify_campaign(campaigned.campaign).look == 2
    # Nor where less is asked of the next draw, or the promise is about other labels.
    campaigned.with_routing(precision=0.6, confidence=0.8, gate="accepted")
    assert SAID not in " ".join(plan_reviews(campaigned.campaign, ANEW).words)
    assert len(looks()) == 2


def test_after_answers_were_changed_there_is_one_again(campaigned, looks):
    campaigned.fitted().sampled(minutes=2)
    certify_campaign(campaigned.campaign)
    campaigned.answer(part=0.2, wrong=True, minutes=5)
    plan_reviews(campaigned.campaign, ANEW)
    assert [look.look for look in looks()] == [1, 2]


def test_a_look_at_a_part_counted_as_wrong_is_one_at_these_answers(campaigned, looks):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, ANEW)
    campaigned.answer(part=0.9)
    certify_campaign(campaigned.campaign, unanswered_as_wrong=True)
    plan_reviews(campaigned.campaign, ANEW)
    assert len(looks()) == 1


def test_a_sample_that_was_too_small_is_no_exception(campaigned, looks):
    campaigned.with_routing(precision=0.99, confidence=0.8)
    campaigned.fitted()
    planned = plan_reviews(campaigned.campaign, Wish(minutes=2))
    assert "ask for more by --stage certify --fresh with more --minutes, before the first is answered" in (
        " ".join(planned.words)
    )
    campaigned.answer(wrong=False)
    with pytest.raises(
        NotCertifiedError, match=r"no look was spent on it; drawing more is one: .*--minutes \d"
    ) as said:
        certify_campaign(campaigned.campaign)
    assert not looks()
    minutes = int(str(said.value).rpartition(" ")[2])
    plan_reviews(campaigned.campaign, Wish(minutes=minutes, stage="certify"))
    assert len(looks()) == 1
    campaigned.answer(wrong=False)
    # What the refusal asks for does for the look that comes after it.
    assert certify_campaign(campaigned.campaign).look == 2


def test_labels_of_other_models_have_looks_of_their_own(campaigned, looks):
    campaigned.fitted().sampled(minutes=2)
    key = "runs/main/current.json"
    kept = campaigned.workspace.get(key).data
    current = json.loads(kept)
    current["inputs"] |= {"prompts": "another"}
    campaigned.workspace.put(key, json.dumps(current).encode())
    plan_reviews(campaigned.campaign, ANEW)
    assert not looks()
    # There and back is no way round.
    campaigned.workspace.put(key, kept)
    plan_reviews(campaigned.campaign, ANEW)
    assert [look.plans for look in looks()] == [(2,)]


def test_it_is_written_before_the_plan_and_spent_once(campaigned, looks, monkeypatch):
    campaigned.fitted().sampled(minutes=2)

    def killed(*_):
        raise StoreError("killed")

    with monkeypatch.context() as patched:
        patched.setattr(planning, "write_plan", killed)
        with pytest.raises(StoreError, match="killed"):
            plan_reviews(campaigned.campaign, MORE)
    assert (len(looks()), len(read_plans(campaigned.workspace, "main"))) == (1, 2)
    plan_reviews(campaigned.campaign, MORE)
    assert (len(looks()), len(read_plans(campaigned.workspace, "main"))) == (1, 3)


def test_a_drawing_that_is_refused_spends_nothing(campaigned, looks):
    campaigned.fitted(wrong=True).sampled(minutes=2)
    assert look_by_drawing(campaigned.reviews)
    with pytest.raises(UserError, match="--plants needs labels of the fit side"):
        plan_reviews(campaigned.campaign, Wish(minutes=2, stage="certify", plants=5))
    assert not looks()


def broken_at_worst(looks_at, delta=0.1, wrong=0.05, most=240, step=3, small_is_free=False):
    """Chance that someone who draws on as he pleases has a promise certified that is just broken.

    Dynamic programming over (look, sample size, errors): certify if that passes, else the best of drawing any number
    more and of drawing anew. Binomial tests of one threshold.
    """
    errors = np.arange(most // 8)
    chance = [binom.pmf(errors[None, :] - errors[:, None], more, wrong) for more in range(most + 1)]
    later, anew = np.zeros((most + 1, len(errors))), 0.0
    for look in range(looks_at, 0, -1):
        passes = binom.cdf(errors[None, :], np.arange(most + 1)[:, None], wrong) <= delta_of_look(delta, look)
        here = np.zeros_like(later)
        for size in range(most - most % step, -1, -step):
            free = size == 0 or (small_is_free and not passes[size].any())
            after = here if free else later
            ways = [chance[more] @ after[size + more] for more in range(step, most - size + 1, step)]
            best = np.max([np.full(len(errors), anew if size else 0.0), *ways], axis=0)
            here[size] = np.where(passes[size], 1.0, best)
        later, anew = here, here[0, 0]
    return anew


def test_nobody_breaks_the_promise_much_more_often_by_drawing_on():
    kept, free = (broken_at_worst(3, small_is_free=small) for small in (False, True))
    assert 0.08 < kept < 0.103
    # Why small samples are no exception.
    assert free > 1.4 * kept
