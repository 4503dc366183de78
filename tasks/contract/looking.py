"""Looks at a certification sample: their record, the test of one, and what amounts to one."""

import itertools
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow.compute as pc

from schemas.policy import Reviewers
from schemas.reviews import PLANTED_ROUTED
from tasks.columns import numbers
from tasks.contract.declare import Promise
from tasks.contract.judge import Judged, Reviewed, judge
from tasks.contract.looks import Look, read_looks
from tasks.contract.rounds import Round, RoundLabels, last_round
from tasks.contract.run_reviews import RunReviews
from tasks.fingerprint import fingerprint
from tasks.reviews.resolve import CORRECT, NO_ANSWER
from tasks.route.policy import changed_inputs
from tasks.statistics.bounds import TRUSTED, ReviewerError, reviewer_error
from tasks.statistics.threshold_tests import delta_of_look


@dataclass(frozen=True)
class Tested:
    """The test of a sample at one look."""

    delta: float
    """The part of 1 - confidence that the look spends."""
    judged: list[Judged]
    """Each declared group."""
    reviewed: Reviewed
    reviewers: Reviewers
    """What they miss."""

    @property
    def certifies(self) -> bool:
        """Whether any group has a threshold."""
        return any(one.certificate.threshold is not None for one in self.judged)


def tested_round(reviews: RunReviews, found: Round, of_round: RoundLabels, number: int) -> Tested:
    """Test a sample by its answers, at the look of this number."""
    return _test(reviews, found, of_round, _reviewed(reviews, found), number)


def tested_if_correct(reviews: RunReviews, found: Round, of_round: RoundLabels, number: int) -> Tested:
    """Test a sample as if every answer were "correct", to see whether it could certify anything.

    That is known without a look at the verdicts on the sample, so nothing is given away by it.
    """
    reviewed = _reviewed(reviews, found)
    perfect = replace(reviewed, wrong=np.zeros(len(reviewed.wrong), np.bool_))
    return _test(reviews, found, of_round, perfect, number)


def look_by_drawing(reviews: RunReviews) -> Look | None:
    """Give the look that drawing certification labels now amounts to.

    Whoever draws more of an answered sample, or a new one, may do so because of the answers: a campaign that is
    certified only when they please tests as often as it draws, whether or not `vouch certify` was called. So drawing is
    a look at what is there. It is none while nothing of the last sample is answered, nor after a look at just these
    answers, whatever was asked of them. A sample that is too small to certify anything is no exception: its answers
    can choose the size of the next, which alone breaks the promise up to 1.7 times as often as its confidence allows.

    Args:
        reviews: The run.

    Returns:
        The look to be taken before the drawing is written; None where drawing is none.

    Raises:
        StoreError: A look is damaged.
    """
    # Labels of other models are other labels, whose looks are counted by themselves.
    last = last_round([one for one in reviews.plans if not changed_inputs(one[0].inputs, reviews.current.inputs)])
    if last is None or last.unanswered(reviews.answers) == last.tasks.num_rows:
        return None
    looks = read_looks(reviews.workspace, reviews.run)
    if any(one.key in _keys(reviews, last, one) for one in looks if one.plans == _numbers(last)):
        return None
    asked = replace(reviews.promise, gate=last.plan.gate)
    return _look(reviews, last, asked, rule=last.unanswered(reviews.answers) > 0, whole=True)


def look_of(reviews: RunReviews, found: Round, of_round: RoundLabels, *, unanswered_as_wrong: bool) -> Look:
    """Describe a look at a round as it is answered now; its numbers are set when it is taken."""
    # Answers that are all there need no such rule, so it makes no other look of them.
    rule = unanswered_as_wrong and found.unanswered(reviews.answers) > 0
    # Gate "delivered" needs no sizes, so labels that come or go do not change its tests.
    whole = of_round.whole or reviews.promise.gate == "delivered"
    return _look(reviews, found, reviews.promise, rule=rule, whole=whole)


def _look(reviews: RunReviews, found: Round, promise: Promise, *, rule: bool, whole: bool) -> Look:
    return Look(
        number=1,
        look=1,
        key=fingerprint(
            reviews.current.inputs,
            _numbers(found),
            verdicts_of(reviews, found),
            found.plan.calibrator,
            [promise.precision, promise.confidence, promise.gate],
            [rule, whole],
        ),
        inputs=reviews.current.inputs,
        plans=_numbers(found),
        precision=promise.precision,
        confidence=promise.confidence,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _keys(reviews: RunReviews, found: Round, taken: Look) -> set[str]:
    """Every key that a look has if it was one at just these answers, at what was asked of them then."""
    asked = Promise(taken.precision, taken.confidence, found.plan.gate)
    ways = itertools.product((False, True), repeat=2)
    return {_look(reviews, found, asked, rule=rule, whole=whole).key for rule, whole in ways}


def _numbers(found: Round) -> tuple[int, ...]:
    return tuple(plan.number for plan in found.plans)


def verdicts_of(reviews: RunReviews, found: Round) -> str:
    """Fingerprint of the resolved verdicts of a round."""
    ids = found.tasks["label_id"].to_pylist()
    codes = reviews.answers.wrong_of(found.tasks["label_id"]).tolist()
    return fingerprint(sorted([label, code] for label, code in zip(ids, codes, strict=True)))


def _test(reviews: RunReviews, found: Round, of_round: RoundLabels, reviewed: Reviewed, number: int) -> Tested:
    delta = delta_of_look(1 - reviews.promise.confidence, number)
    reviewers, bounds = _reviewers(reviews, found, delta)
    groups, candidates = found.plan.groups, of_round.candidates
    judged = judge(reviewed, groups, candidates, reviews.promise, delta, bounds, whole=of_round.whole)
    return Tested(delta, judged, reviewed, reviewers)


def _reviewed(reviews: RunReviews, found: Round) -> Reviewed:
    """The certification sample: disputed labels and those without an answer are wrong."""
    tasks = found.certify
    scores = numbers(tasks["p_correct"], np.float64)
    wrong = reviews.answers.wrong_of(tasks["label_id"]) != CORRECT
    return Reviewed(scores, wrong, tuple(tasks["class_name"].to_pylist()))


def _reviewers(reviews: RunReviews, found: Round, delta: float) -> tuple[Reviewers, ReviewerError]:
    """Bound what reviewers miss, by the plants of the round; one without an answer counts as missed."""
    counts = []
    plants = found.plants
    routed = pc.equal(plants["stratum"], PLANTED_ROUTED)
    for chosen in (pc.invert(routed), routed):
        codes = reviews.answers.wrong_of(plants.filter(chosen)["label_id"])
        counts.append((len(codes), int(((codes == CORRECT) | (codes == NO_ANSWER)).sum())))
    (planted, missed), (planted_routed, missed_routed) = counts
    if not planted + planted_routed:
        return Reviewers(), TRUSTED
    bounds = reviewer_error(planted, missed, delta, planted_routed, missed_routed)
    found_reviewers = Reviewers(
        planted=planted + planted_routed,
        missed=missed + missed_routed,
        accepted=bounds.accepted,
        routed=bounds.routed,
        spent=bounds.spent,
    )
    return found_reviewers, bounds
