"""Tests a validation sample: which thresholds keep the guarantee, group by group, and what counts as a test of it."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, Literal, NamedTuple

import numpy as np
import pyarrow.compute as pc

from vouch_labels.schemas.policy import Reviewers, TestBasis
from vouch_labels.schemas.reviews import HONEYPOT_ROUTED, GroupPlan
from vouch_labels.tasks.arrow import numbers
from vouch_labels.tasks.certify.data import Candidates, Guarantee, RunReviews, bets_of, exact_test
from vouch_labels.tasks.certify.rounds import Round, RoundLabels, last_round, read_tests, same_boxes
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.policy import among, read_population
from vouch_labels.tasks.reviews.log import CertificationTest
from vouch_labels.tasks.reviews.plans import Plans, read_plans, runs_with_plans
from vouch_labels.tasks.reviews.resolve import CORRECT, NO_ANSWER, Answers
from vouch_labels.tasks.statistics.betting import PART
from vouch_labels.tasks.statistics.bounds import TRUSTED, Bools, Floats, ReviewerError, reviewer_error
from vouch_labels.tasks.statistics.planning import Certificate, Precisions, both_precisions, certify
from vouch_labels.tasks.statistics.threshold_tests import (
    Evidence,
    Sample,
    accepted_counts,
    certified_step,
    delta_of_test,
)
from vouch_labels.tasks.store.store import Store

Test = Literal["exact", "any time"]

_NO_GRID: Final = (
    "no threshold was likely to pass with so few reviews when the sample was planned, or no label has a p(correct), so "
    "none was drawn; plan with more minutes"
)


@dataclass(frozen=True)
class Reviewed:
    """The certification sample with its verdicts."""

    scores: Floats
    """(n,) p(correct) by the calibrator of the round; NaN: never accepted."""
    wrong: Bools
    """(n,) verdicts; disputed labels count as wrong."""
    classes: tuple[str, ...]
    """(n,) class of each."""


@dataclass(frozen=True)
class Judged:
    """The result for one declared group."""

    plan: GroupPlan
    classes: tuple[str, ...]
    """Those of the group that the guarantee is about."""
    left_out: tuple[str, ...]
    """Those without a label in the sample: they go to people."""
    certificate: Certificate
    precisions: Precisions
    limit: float
    """Share of errors that was tested at the threshold shown."""
    delta: float
    """Level of the test."""
    labels: int
    """Labels of `classes` in the population."""
    accepted: int
    """Of them, those that are accepted."""
    drawn: int
    """Sampled labels of the group."""
    test: Test
    """Which test the certificate is of."""
    basis: TestBasis | None = None
    """Of the exact test."""


@dataclass(frozen=True)
class _Tested:
    evidence: Evidence
    sample: Sample
    kept: tuple[str, ...]
    """Classes of the group that the guarantee is about."""
    test: Test
    basis: TestBasis | None = None


@dataclass(frozen=True)
class SampleTest:
    """A test of every group's threshold grid on its part of a validation sample.

    delta is shared out equally among the groups, after what the bounds on the reviewers' errors use up once for all.

    Under gate "accepted" a class of which no label was drawn is left out of its group, so its labels go to people.
    Which classes these are depends on the sample, so the others are no set that was fixed beforehand. With N labels of
    the group at or above a threshold, N' of them in classes that are kept, the accepted ones break the guarantee only
    if more than (1 - T) N' are wrong, and then as many are among all N; so the sample tests that of the N, whichever
    classes it happened to hold. Gate "delivered" and the test after any answer keep every class: their guarantee is
    about the group as a whole. Where gate "delivered" is to leave them to review all the same
    (`Guarantee.unsampled`), fewer wrong labels are delivered unseen and as many correct ones are delivered, so what
    holds of the group with them holds without.
    """

    reviewed: Reviewed
    """The draw with its verdicts."""
    groups: Sequence[GroupPlan]
    """As declared, before it was reviewed."""
    candidates: Candidates
    """All labels; under gate "accepted" the ones that the sample was drawn from, unless not `whole`."""
    guarantee: Guarantee
    """What is to be certified."""
    delta: float
    """The part of 1 - confidence that the exact test may spend."""
    reviewers: ReviewerError = TRUSTED
    """What they miss, at most; its bounds must hold with what they spend of this delta."""
    whole: bool = True
    """Whether all labels that were drawn from are there; if some have gone since, the test that needs no sizes is
    taken, and the guarantee is about the labels as they were."""
    exact: bool = True
    """Whether `reviewed` is the whole sample, so that the exact test may be taken."""
    any_time: float = 0.0
    """What the test after any answer may spend beside delta; 0: it is not taken. `reviewed` is then in the order in
    which it was drawn."""

    def judge(self) -> list[Judged]:
        """The result for each group; of its two certificates that which accepts more."""
        found = []
        for group in self.groups:
            results = [self._described(group, tested) for tested in self._evidence(group)]
            # Of those that certify nothing the one that needs fewer reviews; of equal ones the first.
            found.append(min(results, key=lambda one: (-one.accepted, one.certificate.more_reviews or np.inf)))
        return found

    def passes(self) -> bool:
        """Whether `judge` would certify any group: that alone, which takes less time."""
        return any(
            certified_step(tested.evidence) is not None for group in self.groups for tested in self._evidence(group)
        )

    def _evidence(self, group: GroupPlan) -> Iterator[_Tested]:
        """Take the tests of a group, each when it is asked for."""
        if self.exact:
            yield self._exact(group)
        if self.any_time:
            sample = self._sample(group)
            kept = group.classes if self.guarantee.unsampled == "accept" else self._sampled(group)
            bets = bets_of(sample, group, self.guarantee, self.any_time / len(self.groups))
            yield _Tested(bets, sample, kept, "any time")

    def _sample(self, group: GroupPlan) -> Sample:
        part = np.isin(np.array(self.reviewed.classes, dtype=np.str_), group.classes)
        return Sample(self.reviewed.scores[part], self.reviewed.wrong[part])

    def _sampled(self, group: GroupPlan) -> tuple[str, ...]:
        """The classes of a group of which a label was drawn."""
        drawn = set(self.reviewed.classes)
        return tuple(name for name in group.classes if name in drawn)

    def _scores(self, group: GroupPlan, classes: tuple[str, ...]) -> Floats:
        """Scores of the candidates of some of a group's classes."""
        return self.candidates.scores[self.candidates.of(group.model_copy(update={"classes": classes}))]

    def _exact(self, group: GroupPlan) -> _Tested:
        # Where no threshold grid was declared, nothing was to be drawn.
        guarantee = self.guarantee
        all_kept = (guarantee.gate == "delivered" and guarantee.unsampled == "accept") or not group.thresholds
        kept = group.classes if all_kept else self._sampled(group)
        drawn_from = self._scores(group, group.classes)
        thresholds = np.array(group.thresholds, np.float64)
        basis = TestBasis(
            # gate_a and binomial_gate_b take off what the reviewers' bounds spent; here that is done once for all.
            delta=(self.delta - self.reviewers.spent) / len(self.groups) + self.reviewers.spent,
            labels=len(drawn_from),
            known_correct=group.known_correct,
            known_wrong=group.known_wrong,
            sizes=tuple(accepted_counts(drawn_from, thresholds).tolist()),
            kept=tuple(accepted_counts(self._scores(group, kept), thresholds).tolist()),
            whole=self.whole,
        )
        sample = self._sample(group)
        return _Tested(exact_test(sample, thresholds, guarantee, basis, self.reviewers), sample, kept, "exact", basis)

    def _described(self, group: GroupPlan, tested: _Tested) -> Judged:
        """What a test says of a group."""
        evidence, sample, kept, basis = tested.evidence, tested.sample, tested.kept, tested.basis
        scores = self._scores(group, kept)
        thresholds = evidence.thresholds
        certificate = certify(evidence, len(sample.scores))
        if not group.thresholds:
            certificate = replace(certificate, refusal=_NO_GRID)
        threshold = certificate.threshold
        step = 0 if threshold is None else int(np.flatnonzero(thresholds == threshold)[0])
        precisions = both_precisions(sample, threshold, 1 - self.guarantee.confidence)
        if self.guarantee.gate == "accepted":
            precisions = _delivered_of_region(precisions, scores, threshold)
        last = len(certificate.tested)
        return Judged(
            plan=group,
            classes=kept,
            left_out=tuple(name for name in group.classes if name not in kept),
            certificate=certificate,
            precisions=precisions,
            limit=float(evidence.limits[step]) if len(thresholds) else 1 - self.guarantee.precision,
            delta=evidence.delta,
            labels=len(scores),
            accepted=int((scores >= threshold).sum()) if threshold is not None else 0,
            drawn=len(sample.scores),
            test=tested.test,
            basis=basis and basis.model_copy(update={"sizes": basis.sizes[:last], "kept": basis.kept[:last]}),
        )


def _delivered_of_region(found: Precisions, scores: Floats, threshold: float | None) -> Precisions:
    """Precision B where only labels of a region were drawn.

    Labels that people keep count as correct, so B is at least A, and so is its lower bound; the estimate takes the
    routed labels to be correct as often as their p(correct) says.
    """
    if threshold is None:
        return Precisions(found.accepted, found.accepted_at_least, float("nan"), 0.0)
    routed = float(np.nansum(scores[~(scores >= threshold)]))
    accepted = int((scores >= threshold).sum())
    wrong = (1 - found.accepted) * accepted
    delivered = 1 - wrong / (accepted + routed) if accepted + routed else float("nan")
    return replace(found, delivered=delivered, delivered_at_least=found.accepted_at_least)


@dataclass(frozen=True)
class RoundResult:
    """The test of a sample."""

    delta: float
    """The part of 1 - confidence that the test spends."""
    judged: list[Judged]
    """Each declared group."""
    reviewed: Reviewed
    reviewers: Reviewers
    """What they miss."""
    whole: bool
    """Whether the whole sample was tested; else its beginning, up to the first label without an answer."""

    @property
    def certifies(self) -> bool:
        """Whether any group has a threshold."""
        return any(one.certificate.threshold is not None for one in self.judged)


def judge_round(
    reviews: RunReviews,
    found: Round,
    of_round: RoundLabels,
    number: int,
    *,
    began: int | None = None,
    unanswered_as_wrong: bool = False,
    if_correct: bool = False,
) -> RoundResult:
    """Test a sample by its answers, disputed and missing ones counting as wrong, as the test of this number.

    A sample that is tested after any answer is tested up to the first label without one, in the order drawn, by that
    test alone, and where all are answered by the exact test as well. began: the number of the test that it goes on
    with; None: it begins.

    if_correct takes every answer as "correct", to see whether the sample could certify anything. That is known without
    the verdicts on the sample, so nothing is given away by it.
    """
    asked = _asked(reviews, found, of_round, number, began, unanswered_as_wrong, if_correct)
    return RoundResult(asked.delta, asked.test.judge(), asked.test.reviewed, asked.reviewers, asked.test.exact)


def could_certify(
    reviews: RunReviews,
    found: Round,
    of_round: RoundLabels,
    number: int,
    *,
    began: int | None = None,
    unanswered_as_wrong: bool = False,
) -> bool:
    """Whether `judge_round` would certify anything if every answer were "correct"."""
    asked = _asked(reviews, found, of_round, number, began, unanswered_as_wrong, if_correct=True)
    return asked.test.passes()


class _Asked(NamedTuple):
    """What a test of a sample is asked of."""

    delta: float
    """The part of 1 - confidence that it spends."""
    reviewers: Reviewers
    test: SampleTest


def _asked(
    reviews: RunReviews,
    found: Round,
    of_round: RoundLabels,
    number: int,
    began: int | None,
    unanswered_as_wrong: bool,
    if_correct: bool,
) -> _Asked:
    any_answer = found.any_time and not reviews.guarantee.leaves_out
    whole = unanswered_as_wrong or not any_answer or not found.unanswered(reviews.answers)
    tasks = found.in_order if whole else found.in_order[: found.answered(reviews.answers)]
    wrong = reviews.answers.wrong_of(tasks["label_id"]) != CORRECT
    if if_correct:
        wrong = np.zeros(len(wrong), np.bool_)
    reviewed = Reviewed(numbers(tasks["p_correct"], np.float64), wrong, tuple(tasks["class_name"].to_pylist()))
    delta = delta_of_test(1 - reviews.guarantee.confidence, number) * (1 - PART if found.plan.any_time_delta else 1)
    any_time = delta_of_test(1 - reviews.guarantee.confidence, began or number) * PART
    if not any_answer or (unanswered_as_wrong and found.unanswered(reviews.answers)):
        # Which labels count as wrong for want of an answer may depend on the others.
        any_time = 0.0
    reviewers, bounds = _reviewers(reviews, found, delta)
    test = SampleTest(
        reviewed, _with_known(reviews, found), of_round.candidates, reviews.guarantee, delta, bounds, of_round.whole,
        whole, any_time,
    )  # fmt: skip
    return _Asked(delta if whole else any_time, reviewers, test)


def _with_known(reviews: RunReviews, found: Round) -> list[GroupPlan]:
    """The groups of a round, with no more known correct labels than people still call so.

    What a simulated reviewer said counts where it answered the sample as well, so that nothing is certified in earnest.
    """
    population, labels = found.plan.population, reviews.labels
    if population is None or population.known is None:
        return list(found.plan.groups)
    right = among(reviews.numbers, read_population(reviews.workspace, population.known)) & (reviews.codes == CORRECT)
    rows = np.flatnonzero(right)
    if not reviews.answers.simulated_of(found.tasks["label_id"]).any():
        rows = rows[~reviews.answers.simulated_of(labels.table_of(rows)["label_id"])]
    counts = np.bincount(labels.class_index[rows], minlength=len(labels.class_names))
    groups = []
    for group in found.plan.groups:
        now = sum(int(n) for name, n in zip(labels.class_names, counts, strict=True) if name in group.classes)
        fewer = max(0, group.known_correct - now)
        changed = {"known_correct": group.known_correct - fewer, "known_wrong": group.known_wrong + fewer}
        groups.append(group.model_copy(update=changed))
    return groups


def drawing_as_test(reviews: RunReviews) -> tuple[CertificationTest, ...]:
    """Give the tests that drawing certification labels now amounts to, to be taken before the drawing is written.

    Drawing more of an answered sample, or a new one, may happen because of the answers: a campaign that is certified
    only when they please tests as often as it draws, whether or not `vouch certify` was called. So drawing is a test of
    what is there, be it a sample of this run or of another one of the same images. It is none while nothing of a run's
    last sample is answered, nor after a test at just these answers, whatever was asked of them. A sample that is too
    small to certify anything is no exception: its answers can choose the size of the next, which alone breaks the
    guarantee up to 1.7 times as often as its confidence allows.

    Raises:
        StoreError: The log, or a plan, is damaged.
    """
    others = (run for run in runs_with_plans(reviews.workspace) if run != reviews.run)
    plans = {reviews.run: reviews.plans} | {run: read_plans(reviews.workspace, run) for run in others}
    found = (_untested(reviews, run, of_run) for run, of_run in plans.items())
    return tuple(test for test in found if test is not None)


def _untested(reviews: RunReviews, run: str, plans: Plans) -> CertificationTest | None:
    """The test that the last sample of a run would have by its answers; None where they do not ask for one."""
    # Labels of other boxes are other labels, whose tests are counted by themselves.
    last = last_round([one for one in plans if same_boxes(reviews, one[0].inputs)])
    if last is None or last.unanswered(reviews.answers) == last.tasks.num_rows:
        return None
    if run != reviews.run and not (reviews.labels.places(last.certify["label_id"]) >= 0).any():
        return None
    tests = read_tests(reviews.workspace, run)
    if any(one.key in _keys(reviews, last, one) for one in tests if one.plans == _numbers(last)):
        return None
    asked = replace(reviews.guarantee, gate=last.plan.gate)
    return _describe(reviews, last, asked, rule=last.unanswered(reviews.answers) > 0, whole=True)


def describe_test(
    reviews: RunReviews, found: Round, of_round: RoundLabels, *, unanswered_as_wrong: bool
) -> CertificationTest:
    """Describe a test of a round as it is answered now; its numbers are set when it is taken."""
    # Answers that are all there need no such rule, so it makes no other test of them.
    rule = unanswered_as_wrong and found.unanswered(reviews.answers) > 0
    return _describe(reviews, found, reviews.guarantee, rule=rule, whole=of_round.whole)


def _describe(reviews: RunReviews, found: Round, guarantee: Guarantee, *, rule: bool, whole: bool) -> CertificationTest:
    population, verdicts = found.plan.population, verdicts_of(reviews, found)
    answered = found.answered(reviews.answers) if found.any_time and not guarantee.leaves_out else None
    before = _gone_on_with(reviews.workspace, reviews.answers, found, guarantee) if answered is not None else []
    return CertificationTest(
        run=found.plan.run,
        look=1,
        key=fingerprint(
            found.plan.inputs,
            _numbers(found),
            verdicts,
            found.plan.calibrator,
            [guarantee.precision, guarantee.confidence, guarantee.gate, guarantee.missed],
            # The whole groups and their sampled classes are two questions.
            [rule, whole, *(["sampled classes"] if guarantee.leaves_out else [])],
        ),
        inputs=found.plan.inputs,
        population=None if population is None else population.population,
        plans=_numbers(found),
        precision=guarantee.precision,
        confidence=guarantee.confidence,
        gate=guarantee.gate,
        verdicts=verdicts,
        missed=guarantee.missed,
        whole=rule or not found.unanswered(reviews.answers),
        answered=answered,
        seen="" if answered is None else _seen(reviews.answers, found, answered),
        began=before[0].look if before else None,
        repeat=len(before),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )


def _gone_on_with(workspace: Store, answers: Answers, found: Round, guarantee: Guarantee) -> list[CertificationTest]:
    """The tests after fewer of the same answers, of the same question, as which one of these answers is the same test.

    Tests of which an answer was changed or withdrawn since are other ones.
    """
    sequences: dict[int, list[CertificationTest]] = {}
    for one in looks_at(workspace, found, guarantee):
        sequences.setdefault(one.began or one.look, []).append(one)
    now = found.answered(answers)
    for tests in sequences.values():
        if all(
            one.answered is not None and one.answered <= now and one.seen == _seen(answers, found, one.answered)
            for one in tests
        ):
            return tests
    return []


def looks_at(workspace: Store, found: Round, guarantee: Guarantee) -> list[CertificationTest]:
    """The tests after any answer of a sample, of one question, whatever was answered then."""
    asked = (guarantee.precision, guarantee.confidence, guarantee.gate, guarantee.missed)
    return [
        one
        for one in read_tests(workspace, found.plan.run)
        if one.answered is not None
        and one.plans[0] == found.plans[0].number
        and one.inputs == found.plan.inputs
        and (one.precision, one.confidence, one.gate, one.missed) == asked
    ]


def any_time_part(workspace: Store, answers: Answers, found: Round, guarantee: Guarantee) -> float:
    """What the test after any answer of a sample may spend by what is answered now, no label of the run being read.

    After answers were changed, or of another question, it is another test: at most what the next of this sample has.
    """
    delta = 1 - guarantee.confidence
    if before := _gone_on_with(workspace, answers, found, guarantee):
        return delta_of_test(delta, before[0].look) * PART
    looks = [one.look for one in read_tests(workspace, found.plan.run) if one.plans[0] == found.plans[0].number]
    if looks:
        return delta_of_test(delta, 1 + max(looks)) * PART
    return found.plan.any_time_delta * delta / (1 - found.plan.confidence)


def _seen(answers: Answers, found: Round, count: int) -> str:
    """Fingerprint of what the test sees of the first labels of a sample, in the order drawn: which are wrong."""
    return fingerprint((answers.wrong_of(found.in_order["label_id"][:count]) != CORRECT).tolist())


def _keys(reviews: RunReviews, found: Round, taken: CertificationTest) -> set[str]:
    """Every key of a test at just these answers, with what was asked of them then."""
    asked = Guarantee(taken.precision, taken.confidence, found.plan.gate, float(taken.missed))
    ways = itertools.product((asked, replace(asked, unsampled="review")), (False, True), (False, True))
    return {_describe(reviews, found, each, rule=rule, whole=whole).key for each, rule, whole in ways}


def _numbers(found: Round) -> tuple[int, ...]:
    return tuple(plan.number for plan in found.plans)


def verdicts_of(reviews: RunReviews, found: Round) -> str:
    """Fingerprint of the resolved verdicts of a round."""
    ids = found.tasks["label_id"].to_pylist()
    codes = reviews.answers.wrong_of(found.tasks["label_id"]).tolist()
    return fingerprint(sorted([label, code] for label, code in zip(ids, codes, strict=True)))


def _reviewers(reviews: RunReviews, found: Round, delta: float) -> tuple[Reviewers, ReviewerError]:
    """Bound what reviewers miss, by the honeypots of the round; one without an answer counts as missed."""
    counts = []
    honeypots = found.honeypots
    routed = pc.equal(honeypots["stratum"], HONEYPOT_ROUTED)
    for chosen in (pc.invert(routed), routed):
        codes = reviews.answers.wrong_of(honeypots.filter(chosen)["label_id"])
        counts.append((len(codes), int(((codes == CORRECT) | (codes == NO_ANSWER)).sum())))
    (honeypots_accepted, missed), (honeypots_routed, missed_routed) = counts
    if not honeypots_accepted + honeypots_routed:
        return Reviewers(assumed=reviews.guarantee.missed), TRUSTED
    bounds = reviewer_error(honeypots_accepted, missed, delta, honeypots_routed, missed_routed)
    found_reviewers = Reviewers(
        planted=honeypots_accepted + honeypots_routed,
        missed=missed + missed_routed,
        accepted=bounds.accepted,
        routed=bounds.routed,
        spent=bounds.spent,
    )
    return found_reviewers, bounds
