"""Declaring, drawing and judging: one campaign on plain arrays.

That drawing on after answers is a test, and what that keeps.
"""

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binom

from vouch_labels.schemas.errors import NotCertifiedError, StoreError, UserError
from vouch_labels.schemas.reviews import GroupPlan
from vouch_labels.tasks.certify import plan_reviews as planning
from vouch_labels.tasks.certify.certify import certify_campaign
from vouch_labels.tasks.certify.data import (
    Candidates,
    Guarantee,
    declare_groups,
    draw_groups,
    region_of,
    reviews_to_start,
)
from vouch_labels.tasks.certify.fit import fit_rows
from vouch_labels.tasks.certify.judge import Reviewed, SampleTest, drawing_as_test
from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews
from vouch_labels.tasks.certify.rounds import read_tests
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.statistics.bounds import TRUSTED, ReviewerError
from vouch_labels.tasks.statistics.sampling import first_sample
from vouch_labels.tasks.statistics.threshold_tests import delta_of_test


def fitted(world, seed, reviews=200):
    labels = world.labels
    drawn = first_sample(labels.signals[:, 0].astype(np.float64), reviews, seed)
    fit = fit_rows(labels, drawn.rows, world.wrong[drawn.rows], 1 / drawn.inclusion, seed)
    population = np.ones(labels.count, np.bool_)
    population[drawn.rows] = False
    return fit, Candidates(fit.scores, labels.class_index, labels.class_names, population)


def played(world, guarantee, seed, reviews=500, look=1):
    fit, candidates = fitted(world, seed)
    fit_classes = world.labels.class_index[fit.rows]
    groups = declare_groups(
        candidates, fit.labels, fit_classes, guarantee, reviews, delta_of_test(1 - guarantee.confidence, look)
    )
    rows = draw_groups(candidates, groups, guarantee.gate, reviews, seed, 0).rows
    return candidates, groups, rows


def reviewed(world, candidates, rows):
    names = tuple(world.labels.class_names[place] for place in world.labels.class_index[rows])
    return Reviewed(candidates.scores[rows], world.wrong[rows], names)


def broken(world, candidates, found, guarantee, rows=()):
    """Whether something is accepted that breaks the guarantee, and how much is accepted.

    Of the sampled rows those that are wrong are corrected; people's answers before count as delivered.
    """
    left = np.ones(len(world.wrong), np.bool_)
    left[np.asarray(rows, np.int64)] = ~world.wrong[np.asarray(rows, np.int64)]
    kept_guarantee, accepted = True, 0
    for one in found:
        if one.certificate.threshold is None:
            continue
        inside = candidates.of(one.plan.model_copy(update={"classes": one.classes}))
        taken = inside & (candidates.scores >= one.certificate.threshold)
        delivered = (taken & left) | (inside & ~world.wrong) if guarantee.gate == "delivered" else taken & left
        count = int(delivered.sum()) + (one.plan.known_correct if guarantee.gate == "delivered" else 0)
        accepted += int(taken.sum())
        assert one.accepted == taken.sum()
        kept_guarantee &= (taken & left & world.wrong).sum() <= (1 - guarantee.precision) * count + 1e-9
    return not kept_guarantee, accepted


@pytest.mark.parametrize("gate", ["delivered", "accepted"])
def test_a_campaign_certifies(make_world, gate):
    world, guarantee = make_world(images=2_000, share_wrong=0.15), Guarantee(0.9, 0.9, gate)
    candidates, groups, rows = played(world, guarantee, seed=1, reviews=800)
    assert sorted(name for group in groups for name in group.classes) == ["class 0", "class 1"]
    assert candidates.population[rows].all()
    assert len(set(rows.tolist())) == len(rows) <= 800
    found = SampleTest(reviewed(world, candidates, rows), groups, candidates, guarantee, 0.08).judge()
    wrongly, accepted = broken(world, candidates, found, guarantee)
    assert not wrongly
    assert accepted > 0.3 * candidates.population.sum()
    for one in found:
        assert one.precisions.accepted_at_least <= one.precisions.accepted <= 1
        assert one.precisions.delivered_at_least <= one.precisions.delivered <= 1
        assert one.delta == pytest.approx(0.08 / len(groups))
        if gate == "accepted":
            assert one.plan.power >= 0.8
            assert (candidates.scores[rows] >= min(group.region for group in groups)).all()


def test_a_larger_draw_begins_with_the_smaller(make_world):
    world = make_world(images=1_000)
    for gate in ("delivered", "accepted"):
        candidates, groups, small = played(world, Guarantee(0.8, 0.9, gate), seed=3, reviews=300)
        large = draw_groups(candidates, groups, gate, 600, 3, 0).rows
        other = draw_groups(candidates, groups, gate, 300, 3, 1).rows
        assert set(small.tolist()) < set(large.tolist())
        assert set(other.tolist()) != set(small.tolist())
        if gate == "accepted":
            inside = np.any([region_of(candidates, group) for group in groups], axis=0)
            assert inside[large].all()


@pytest.mark.parametrize("gate", ["delivered", "accepted"])
def test_all_wrong_and_all_right(make_world, gate):
    for wrong in (True, False):
        world = make_world(images=500)
        world.wrong[:] = wrong
        guarantee = Guarantee(0.95, 0.9, gate)
        candidates, groups, rows = played(world, guarantee, seed=0, reviews=400)
        found = SampleTest(reviewed(world, candidates, rows), groups, candidates, guarantee, 0.08).judge()
        for one in found:
            if wrong:
                assert one.certificate.threshold is None
                assert one.certificate.refusal
            else:
                assert one.accepted == one.labels
        assert len(rows) == 0 or gate == "delivered" or not wrong


def test_gate_a_says_how_many_reviews_would_give_a_start(make_world):
    world, guarantee = make_world(images=3_000, share_wrong=0.1), Guarantee(0.95, 0.9, "accepted")
    fit, candidates = fitted(world, 0, 400)
    classes = world.labels.class_index[fit.rows]
    groups = declare_groups(candidates, fit.labels, classes, guarantee, 20, 0.072)
    assert not any(group.thresholds for group in groups)
    assert len(draw_groups(candidates, groups, "accepted", 20, 0, 0).rows) == 0
    more = reviews_to_start(candidates, fit.labels, classes, guarantee, 20, 0.072)
    assert more is not None
    assert any(group.thresholds for group in declare_groups(candidates, fit.labels, classes, guarantee, more, 0.072))


def test_a_class_without_a_sampled_label(make_world):
    """Left out of what is accepted, where the guarantee is about that; the guarantee of all that is delivered holds."""
    world, guarantee = make_world(images=800, classes=3, share_wrong=0.1), Guarantee(0.9, 0.9, "accepted")
    candidates, _, rows = played(world, Guarantee(0.9, 0.9, "delivered"), seed=2, reviews=400)
    rows = rows[world.labels.class_index[rows] != 2]
    thresholds = tuple(np.unique(candidates.scores[candidates.population])[::-1][::40].tolist())
    group = GroupPlan(name="all classes", classes=world.labels.class_names, thresholds=thresholds)
    (found,) = SampleTest(reviewed(world, candidates, rows), (group,), candidates, guarantee, 0.08).judge()
    assert found.left_out == ("class 2",)
    assert found.classes == ("class 0", "class 1")
    assert found.labels == (candidates.population & (world.labels.class_index != 2)).sum()
    guarantee = Guarantee(0.9, 0.9, "delivered")
    (found,) = SampleTest(reviewed(world, candidates, rows), (group,), candidates, guarantee, 0.08).judge()
    assert (found.left_out, found.classes) == ((), world.labels.class_names)
    assert found.labels == candidates.population.sum()
    # Left to review if that is asked for: the same test, and the same threshold of the others.
    guarantee = replace(guarantee, unsampled="review")
    (other,) = SampleTest(reviewed(world, candidates, rows), (group,), candidates, guarantee, 0.08).judge()
    assert (other.left_out, other.classes) == (("class 2",), ("class 0", "class 1"))
    assert other.certificate.threshold == found.certificate.threshold is not None
    assert 0 < other.accepted < found.accepted


def test_without_a_sampled_label_nothing_is_certified(make_world):
    world, guarantee = make_world(images=200), Guarantee(0.9, 0.9, "delivered")
    candidates, groups, _ = played(world, guarantee, seed=2, reviews=100)
    for one in SampleTest(
        reviewed(world, candidates, np.zeros(0, np.int64)), groups, candidates, guarantee, 0.08
    ).judge():
        assert one.certificate.threshold is None
        assert one.certificate.more_reviews
        assert one.accepted == 0


def test_reviewers_who_miss_wrong_labels_cost_and_their_bounds_are_paid_once(make_world):
    world, guarantee = make_world(images=2_000, share_wrong=0.15), Guarantee(0.9, 0.9, "delivered")
    candidates, _, rows = played(world, guarantee, seed=1, reviews=800)
    groups = tuple(
        GroupPlan(name=name, classes=(name,), thresholds=tuple(np.linspace(1, 0, 50).tolist()))
        for name in world.labels.class_names
    )
    tired = ReviewerError(0.1, 0.1, 0.016)
    sample = reviewed(world, candidates, rows)
    trusting = SampleTest(sample, groups, candidates, guarantee, 0.08, TRUSTED).judge()
    careful = SampleTest(sample, groups, candidates, guarantee, 0.08, tired).judge()
    assert sum(one.accepted for one in careful) < sum(one.accepted for one in trusting)
    # Gate B takes half of what is left for the bound on the routed labels.
    assert careful[0].delta == pytest.approx((0.08 - 0.016) / 2 / 2)


def test_without_the_labels_drawn_from_the_binomial_test_is_taken(make_world):
    world, guarantee = make_world(images=400, share_wrong=0.05), Guarantee(0.9, 0.9, "accepted")
    candidates, groups, rows = played(world, guarantee, seed=1, reviews=900)
    sample = reviewed(world, candidates, rows)
    exact = SampleTest(sample, groups, candidates, guarantee, 0.08).judge()
    plain = SampleTest(sample, groups, candidates, guarantee, 0.08, whole=False).judge()
    assert exact[0].certificate.p_value < plain[0].certificate.p_value


def test_a_label_without_a_probability_is_never_accepted_and_still_delivered_by_people(make_world):
    world, guarantee = make_world(images=800, share_wrong=0.1), Guarantee(0.9, 0.9, "delivered")
    candidates, groups, rows = played(world, guarantee, seed=2, reviews=400)
    candidates.scores[::2] = np.nan
    found = SampleTest(reviewed(world, candidates, rows), groups, candidates, guarantee, 0.08).judge()
    assert not broken(world, candidates, found, guarantee)[0]
    for one in found:
        inside = candidates.of(one.plan)
        assert 0 < one.accepted <= (inside & ~np.isnan(candidates.scores)).sum()
        assert one.certificate.reviewed > (candidates.scores[rows[inside[rows]]] >= one.certificate.threshold).sum()


def test_a_group_for_which_nothing_was_drawn_says_why(make_world):
    world, guarantee = make_world(images=200), Guarantee(0.9, 0.9, "accepted")
    candidates, _, _ = played(world, guarantee, seed=2, reviews=100)
    group = GroupPlan(name="all classes", classes=world.labels.class_names, thresholds=())
    (found,) = SampleTest(
        reviewed(world, candidates, np.zeros(0, np.int64)), (group,), candidates, guarantee, 0.08
    ).judge()
    assert "no threshold was likely to pass" in found.certificate.refusal
    assert (found.classes, found.left_out) == (world.labels.class_names, ())


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["delivered", "accepted"])
def test_the_guarantee_is_kept_as_often_as_guaranteed(make_world, gate):
    """Three looks at a growing sample, until something is certified: violations stay within delta."""
    draws, broke, automated = 200, 0, []
    guarantee = Guarantee(0.9, 0.8, gate)
    for seed in range(draws):
        world = make_world(images=400, share_wrong=0.2, seed=seed)
        fit, candidates = fitted(world, seed, 150)
        groups = declare_groups(candidates, fit.labels, world.labels.class_index[fit.rows], guarantee, 300, 0.144)
        for look in (1, 2, 3):
            rows = draw_groups(candidates, groups, gate, 150 * look, seed, 0).rows
            delta = delta_of_test(1 - guarantee.confidence, look)
            found = SampleTest(reviewed(world, candidates, rows), groups, candidates, guarantee, delta).judge()
            wrongly, accepted = broken(world, candidates, found, guarantee, rows)
            if accepted:
                break
        broke += wrongly
        automated.append(accepted / candidates.population.sum())
    delta = 1 - guarantee.confidence
    assert broke / draws <= delta + 2 * np.sqrt(delta * (1 - delta) / draws)
    assert np.mean(automated) > (0.3 if gate == "delivered" else 0.05)


def test_classes_left_out_by_chance_take_no_right_labels_from_the_test():
    """Many rare classes without an error, most of them left out; all errors are in the class that is always drawn."""
    names = tuple(f"class {place}" for place in range(201))
    classes = np.concatenate([np.zeros(1000, np.int64), np.repeat(np.arange(1, 201), 5)])
    wrong, scores = np.arange(2000) < 80, np.full(2000, 0.9)
    candidates = Candidates(scores, classes, names, np.ones(2000, np.bool_))
    group = GroupPlan(name="all", classes=names, thresholds=(0.9,), region=0.9)
    rng, broken_guarantees, draws = np.random.default_rng(0), 0, 200
    for _ in range(draws):
        rows = rng.permutation(2000)[:200]
        sample = Reviewed(scores[rows], wrong[rows], tuple(names[place] for place in classes[rows]))
        (found,) = SampleTest(sample, [group], candidates, Guarantee(0.95, 0.9, "accepted"), 0.1).judge()
        kept = np.isin(np.array(names)[classes], found.classes)
        assert len(found.left_out) > 50
        assert found.limit == pytest.approx(0.05 * kept.mean())
        broken_guarantees += found.certificate.threshold is not None and wrong[kept].mean() > 0.05
    assert broken_guarantees <= 0.1 * draws


MORE = ReviewRequest(minutes=1, stage="certify")
AGAIN = ReviewRequest(minutes=3, stage="certify", fresh=True)
NOTE = "to draw on after answers is a test of them, as certifying is"


@pytest.fixture
def looks(campaigned):
    return lambda: read_tests(campaigned.workspace, "main")


@pytest.mark.parametrize("wanted", [MORE, AGAIN])
def test_to_draw_on_after_answers_is_a_look_and_lowers_the_next_level(campaigned, looks, wanted):
    first = campaigned.fitted().sampled(minutes=2)
    assert not looks()
    planned = plan_reviews(campaigned.campaign, wanted)
    (taken,) = looks()
    assert (taken.look, taken.plans, taken.precision, taken.confidence) == (1, (first.plan.number,), 0.7, 0.8)
    assert f"{NOTE}: test 1; the next is tested at 0.016" in planned.words
    # The sample is another now, which was not reviewed.
    with pytest.raises(UserError, match="certification tasks still wait"):
        plan_reviews(campaigned.campaign)
    campaigned.answer()
    with pytest.raises(UserError, match=r"is answered: use `vouch certify`.* is a test of the answers as well"):
        plan_reviews(campaigned.campaign)
    found = certify_campaign(campaigned.campaign)
    assert (found.look, found.delta) == (2, pytest.approx(0.016))
    assert len(looks()) == 2


def test_a_sample_that_nobody_answered_is_drawn_anew_for_nothing(campaigned, looks):
    campaigned.fitted()
    for _ in range(3):
        planned = plan_reviews(campaigned.campaign, AGAIN)
    assert planned.plan.round == 3
    assert NOTE not in " ".join(planned.words)
    assert not looks()


def test_a_part_of_the_answers_is_enough(campaigned, looks):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, AGAIN)
    campaigned.answer(part=0.1)
    plan_reviews(campaigned.campaign, AGAIN)
    assert [look.look for look in looks()] == [1]


def test_after_a_look_at_just_these_answers_there_is_none(campaigned, looks):
    campaigned.with_routing(precision=0.93, confidence=0.8)
    campaigned.fitted().sampled(minutes=2)
    assert certify_campaign(campaigned.campaign).look == 1
    assert NOTE not in " ".join(plan_reviews(campaigned.campaign, MORE).words)
    campaigned.answer()
    assert certify_campaign(campaigned.campaign).look == 2
    # Nor where less is asked of the next draw, or the guarantee is about other labels.
    campaigned.with_routing(precision=0.6, confidence=0.8, gate="accepted")
    assert NOTE not in " ".join(plan_reviews(campaigned.campaign, AGAIN).words)
    assert len(looks()) == 2


def test_after_answers_were_changed_there_is_one_again(campaigned, looks):
    campaigned.fitted().sampled(minutes=2)
    certify_campaign(campaigned.campaign)
    campaigned.answer(part=0.2, wrong=True, minutes=5)
    plan_reviews(campaigned.campaign, AGAIN)
    assert [look.look for look in looks()] == [1, 2]


def test_a_look_at_a_part_counted_as_wrong_is_one_at_these_answers(campaigned, looks):
    campaigned.fitted()
    plan_reviews(campaigned.campaign, AGAIN)
    campaigned.answer(part=0.9)
    certify_campaign(campaigned.campaign, unanswered_as_wrong=True)
    plan_reviews(campaigned.campaign, AGAIN)
    assert len(looks()) == 1


def test_a_sample_that_was_too_small_is_no_exception(campaigned, looks):
    campaigned.with_routing(precision=0.99, confidence=0.8)
    campaigned.fitted()
    planned = plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    assert "ask for more by --stage certify --fresh with more --minutes, before the first is answered" in (
        " ".join(planned.words)
    )
    campaigned.answer(wrong=False)
    with pytest.raises(
        NotCertifiedError, match=r"no test was spent on it; drawing more is one: .*--minutes \d"
    ) as refused:
        certify_campaign(campaigned.campaign)
    assert not looks()
    minutes = int(str(refused.value).rpartition(" ")[2])
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=minutes, stage="certify"))
    assert len(looks()) == 1
    campaigned.answer(wrong=False)
    # What the refusal asks for does for the test that comes after it.
    assert certify_campaign(campaigned.campaign).look == 2


def test_labels_of_other_models_have_looks_of_their_own(campaigned, looks):
    campaigned.fitted().sampled(minutes=2)
    key = "runs/main/current.json"
    kept = campaigned.workspace.get(key).data
    current = json.loads(kept)
    current["inputs"] |= {"prompts": "another"}
    campaigned.workspace.put(key, json.dumps(current).encode())
    plan_reviews(campaigned.campaign, AGAIN)
    assert not looks()
    # There and back is no way round.
    campaigned.workspace.put(key, kept)
    plan_reviews(campaigned.campaign, AGAIN)
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
    campaigned.fitted(wrong=True)
    plan_reviews(campaigned.campaign, ReviewRequest(minutes=2))
    campaigned.answer(wrong=True)
    assert drawing_as_test(campaigned.reviews)
    with pytest.raises(UserError, match="--honeypots needs labels that reviewers found correct"):
        plan_reviews(campaigned.campaign, ReviewRequest(minutes=2, stage="certify", honeypots=5))
    assert not looks()


def broken_at_worst(looks_at, delta=0.1, wrong=0.05, most=240, step=3, small_is_free=False):
    """Chance that someone who draws on as they please has a guarantee certified that is just broken.

    Dynamic programming over (look, sample size, errors): certify if that passes, else the best of drawing any number
    more and of drawing again. Binomial tests of one threshold.
    """
    errors = np.arange(most // 8)
    chance = [binom.pmf(errors[None, :] - errors[:, None], more, wrong) for more in range(most + 1)]
    later, again = np.zeros((most + 1, len(errors))), 0.0
    for look in range(looks_at, 0, -1):
        passes = binom.cdf(errors[None, :], np.arange(most + 1)[:, None], wrong) <= delta_of_test(delta, look)
        here = np.zeros_like(later)
        for size in range(most - most % step, -1, -step):
            free = size == 0 or (small_is_free and not passes[size].any())
            after = here if free else later
            ways = [chance[more] @ after[size + more] for more in range(step, most - size + 1, step)]
            best = np.max([np.full(len(errors), again if size else 0.0), *ways], axis=0)
            here[size] = np.where(passes[size], 1.0, best)
        later, again = here, here[0, 0]
    return again


def test_nobody_breaks_the_guarantee_much_more_often_by_drawing_on():
    kept, free = (broken_at_worst(3, small_is_free=small) for small in (False, True))
    assert 0.08 < kept < 0.103
    # Why small samples are no exception.
    assert free > 1.4 * kept
