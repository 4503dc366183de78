"""Keeps the rounds of certification: declared groups, their draws, the calibrator of each round, the count of tests.

Each test of a validation sample spends a part of delta, so each is written down before its result is used. The
calibrator by which validation labels were drawn is kept: one fitted again after they were seen could depend on them
through what was reviewed next, and the thresholds of a declared sequence would mean other labels as well.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Campaign, Strict
from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError
from vouch_labels.schemas.policy import LogMark, Policy
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import ReviewPlan, Stage
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.arrow import distinct
from vouch_labels.tasks.certify.active import usable_policy
from vouch_labels.tasks.certify.data import Candidates, RunReviews, in_order
from vouch_labels.tasks.certify.fit import Fit, calibrator_fingerprint, fit_verdicts
from vouch_labels.tasks.certify.monitor import contradicted, expired_reason
from vouch_labels.tasks.policy import (
    EXPIRED,
    FOLDER,
    LabelNumbers,
    among,
    changed_inputs,
    parse_policy,
    policy_key,
    read_population,
    weaker_guarantee,
)
from vouch_labels.tasks.reviews import log
from vouch_labels.tasks.reviews.log import CertificationTest, every_test
from vouch_labels.tasks.reviews.plans import Plans
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, Answers
from vouch_labels.tasks.statistics.bounds import Bools, Floats
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.fit_calibrator import FEWEST_LABELS
from vouch_labels.tasks.store.store import Store

_REMEDY: Final = "restore it, or draw a new certification sample: vouch plan-reviews CAMPAIGN --stage certify --fresh"

_BOXES: Final = {"image decoding", "detector weights", "prompts", "detector settings"}
"""Inputs that make boxes and classes, and so label ids."""


@dataclass(frozen=True)
class Round:
    """All certification tasks of one declaration of groups."""

    plans: tuple[ReviewPlan, ...]
    """Ascending; all with the same groups, calibrator, gate and population."""
    parts: tuple[pa.Table, ...]
    """Certification tasks and honeypots of each plan, rows of schemas.reviews.TASKS."""

    @cached_property
    def tasks(self) -> pa.Table:
        """Those of all plans, each label once."""
        return distinct(pa.concat_tables(self.parts), ["label_id"])

    @property
    def plan(self) -> ReviewPlan:
        """The last plan."""
        return self.plans[-1]

    @property
    def certify(self) -> pa.Table:
        """Certification tasks."""
        return self.tasks.filter(pc.equal(self.tasks["purpose"], "certify"))

    @cached_property
    def in_order(self) -> pa.Table:
        """Certification tasks in a random order, see `data.in_order`."""
        return in_order(tuple(zip(self.plans, self.parts, strict=True)))

    @property
    def any_time(self) -> bool:
        """Whether the sample is tested after any answer; with honeypots only the whole one is."""
        return self.plan.any_time_delta > 0 and not self.honeypots.num_rows

    def answered(self, answers: Answers) -> int:
        """Certification tasks with an answer in that order, up to the first without one."""
        missing = answers.wrong_of(self.in_order["label_id"]) == NO_ANSWER
        return int(np.argmax(missing)) if missing.any() else len(missing)

    @property
    def honeypots(self) -> pa.Table:
        """Honeypots."""
        return self.tasks.filter(pc.equal(self.tasks["purpose"], "plant"))

    def unanswered(self, answers: Answers) -> int:
        """Tasks without an answer, honeypots included: the others cannot be told from them."""
        return int((answers.wrong_of(self.tasks["label_id"]) == NO_ANSWER).sum())

    def counts(self) -> list[int]:
        """Labels drawn so far, as `draw_counts` takes them."""
        names = self.certify["class_name"].to_pylist()
        if self.plan.gate == "delivered":
            return [len(names)]
        return [sum(name in group.classes for name in names) for group in self.plan.groups]


def last_round(plans: Plans) -> Round | None:
    """Gather the last round of a run; None before any certification task was drawn.

    Planners at work at the same time may have drawn a label twice, or declared a round twice: a label counts once, and
    the declaration of the last plan holds.
    """
    number = max((plan.round for plan, _ in plans), default=0)
    if not number:
        return None
    of_number = [(plan, tasks) for plan, tasks in plans if plan.round == number]
    last = of_number[-1][0]
    chosen = [(plan, tasks) for plan, tasks in of_number if _declared(plan) == _declared(last)]
    tables = [tasks.filter(pc.is_in(tasks["purpose"], pa.array(["certify", "plant"]))) for _, tasks in chosen]
    return Round(tuple(plan for plan, _ in chosen), tuple(tables))


def _declared(plan: ReviewPlan) -> tuple[object, ...]:
    return plan.inputs, plan.gate, plan.seed, plan.population, plan.calibrator, plan.groups


class KeptCalibrator(Strict):
    """runs/<run>/calibrators/<fingerprint>.json."""

    calibrator: dict[str, Any] = Field(description="As tasks.statistics.calibrator.Calibrator.to_dict gives it.")
    labels: int = Field(ge=0, description="Reviewed labels that it was fitted to.")
    brier: float = Field(ge=0, description="Held-out mean of (p - correct)^2.")
    brier_of_rate: float = Field(ge=0, description="The same of the constant share of correct labels.")


@dataclass(frozen=True)
class RoundLabels:
    """A run's labels as a round sees them."""

    candidates: Candidates
    kept: KeptCalibrator
    whole: bool
    """Whether all labels that were drawn from are there: none has gone since."""


def labels_of_round(reviews: RunReviews, found: Round) -> RoundLabels:
    """Score all labels by the round's calibrator, and find those that it was drawn from.

    Raises:
        UserError: The sample was drawn by an earlier version of Vouch, which did not keep what it was drawn from.
        StoreError: The calibrator, or the record of the population, is missing or damaged.
    """
    plan, labels = found.plan, reviews.labels
    assert plan.calibrator is not None
    if plan.population is None:
        raise UserError(drawn_by_earlier_version(plan))
    calibrator, kept = read_calibrator(reviews.workspace, reviews.run, plan.calibrator)
    scores = labels.probabilities(calibrator)
    population = among(reviews.numbers, read_population(reviews.workspace, plan.population.population))
    whole = int(population.sum()) == plan.population.labels
    return RoundLabels(candidates_of(reviews, scores, population), kept, whole)


def drawn_by_earlier_version(plan: ReviewPlan) -> str:
    """Say that a plan's sample certifies nothing, as nobody knows what it was drawn from."""
    return (
        f"the validation sample of review plan {plan.number} was drawn by an earlier version of Vouch, which did not "
        "keep which labels it stands for; its answers serve to fit: vouch plan-reviews CAMPAIGN --stage certify"
    )


def candidates_of(reviews: RunReviews, scores: Floats, population: Bools) -> Candidates:
    """All labels of a run with these scores; population: (N,) those to draw from."""
    labels = reviews.labels
    return Candidates(scores, labels.class_index, labels.class_names, population, labels.draw_order)


def keep_calibrator(workspace: Store, run: str, fit: Fit) -> str:
    """Keep a fitted calibrator, and give its fingerprint."""
    kept = KeptCalibrator(
        calibrator=fit.calibrator.to_dict(),
        labels=fit.fitted.labels,
        brier=fit.fitted.brier,
        brier_of_rate=fit.fitted.brier_of_rate,
    )
    name = calibrator_fingerprint(fit.calibrator)
    workspace.put(_calibrator_key(run, name), kept.model_dump_json(indent=1).encode() + b"\n", if_absent=True)
    return name


def read_calibrator(workspace: Store, run: str, fingerprint: str) -> tuple[Calibrator, KeptCalibrator]:
    """Read a kept calibrator.

    Raises:
        StoreError: It is missing, damaged, or not the one that was kept.
    """
    key = _calibrator_key(run, fingerprint)
    try:
        kept = KeptCalibrator.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        raise StoreError(f"{workspace.uri}/{key} is missing; {_REMEDY}") from None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; {_REMEDY}") from None
    calibrator = Calibrator.from_dict(kept.calibrator)
    if calibrator_fingerprint(calibrator) != fingerprint:
        raise StoreError(f"{workspace.uri}/{key} is not the calibrator that was kept; {_REMEDY}")
    return calibrator, kept


def _calibrator_key(run: str, fingerprint: str) -> str:
    return f"runs/{run}/calibrators/{fingerprint}.json"


def read_tests(workspace: Store, run: str) -> list[CertificationTest]:
    """Read the tests of a run in their order.

    Raises:
        StoreError: The log is damaged.
    """
    return [test for test in every_test(workspace) if test.run == run]


def newest_certified(campaign: Campaign, workspace: Store, current: Current) -> Policy | None:
    """Read the newest certified policy of the run; those that people's verdicts certified go before simulated ones.

    Of those that fit the labels, guarantee what the campaign asks for and have not expired; else of those that do but
    the last; else of those that fit; else of all.

    Raises:
        UserError: A policy is damaged.
        StoreError: A record of a test is.
    """
    ordered = sorted(_certified(workspace, campaign.run.name), key=lambda entry: entry[0])
    policies = [policy for _, policy in ordered]
    fitting = [policy for policy in policies if not changed_inputs(_inputs(policy), current.inputs)]
    keeping = [policy for policy in fitting if not weaker_guarantee(policy, campaign.routing)]
    run = campaign.run.name
    holding = (policy for policy in reversed(keeping) if expired_reason(workspace, run, policy) is None)
    return next(holding, None) or next(reversed(keeping or fitting or policies), None)


def _certified(workspace: Store, run: str) -> Iterator[tuple[tuple[bool, tuple[str, int], int], Policy]]:
    """Policies that were certified for a run, with what orders them: whether people answered, time, what they cover."""
    # Runs share a workspace, and a policy of another one says nothing of these labels, though their inputs be equal.
    tests = {(test.created, test.look, test.plans) for test in read_tests(workspace, run)}
    found = []
    for info in workspace.list(f"{FOLDER}/"):
        version = info.key.removeprefix(f"{FOLDER}/").removesuffix(".json")
        if not version.startswith(("user-", EXPIRED)):
            policy = parse_policy(workspace, version, "looking for the newest policy (--policy names one)")
            if policy.certification is not None:
                found.append((policy, policy.certification))
    own = {policy.version for policy, made in found if (made.created, made.look, made.plans) in tests}
    for policy, made in found:
        if policy.version in own or made.extends in own:
            yield (not made.simulated, _made(policy), len(made.covers)), policy


def _inputs(policy: Policy) -> dict[str, str]:
    return {} if policy.certification is None else policy.certification.inputs


def number_of_test(reviews: RunReviews, test: CertificationTest) -> int:
    """Which test of the same labels this is, or would be; nothing is written.

    Raises:
        StoreError: The log is damaged.
    """
    tests = every_test(reviews.workspace)
    same = next((one.look for one in tests if (one.run, one.key) == (test.run, test.key)), None)
    return same or _number(reviews, test, tests)


def _number(reviews: RunReviews, test: CertificationTest, tests: Sequence[CertificationTest]) -> int:
    """The next number; that of the tests that it goes on with, where what it asks for was not asked under that."""
    if test.began is not None:
        under = [one for one in tests if (one.run, one.plans[0], one.look) == (test.run, test.plans[0], test.began)]
        if not test.whole or not any(one.whole for one in under):
            return test.began
    return 1 + _spent(reviews, _labels_of(reviews, test.population), tests)


def count_tests(reviews: RunReviews, labels: LabelNumbers) -> int:
    """How many tests spent a part of the delta that these labels have.

    Raises:
        StoreError: The log is damaged.
    """
    return _spent(reviews, labels, every_test(reviews.workspace))


def record_test(reviews: RunReviews, test: CertificationTest) -> tuple[CertificationTest, LogMark]:
    """Log a test, unless the run has one of its key; give it with its number set, and its entry.

    Other precisions asked of the same labels are other tests, for each is another chance to be wrong. Labels of other
    boxes are other labels with a guarantee of their own, so delta is shared out among tests of the same labels.

    Raises:
        StoreError: The log is damaged, or the workspace cannot be written.
    """
    return log.record_test(reviews.workspace, test, lambda tests: _number(reviews, test, tests) - 1)


def _labels_of(reviews: RunReviews, population: str | None) -> LabelNumbers:
    """The labels that a sample stands for; where an earlier version kept none, all of the run."""
    return reviews.numbers if population is None else read_population(reviews.workspace, population)


def _spent(reviews: RunReviews, labels: LabelNumbers, tests: Sequence[CertificationTest]) -> int:
    """How many tests spent a part of the delta that these labels have, in whatever run of the workspace.

    One spends of it that was about any of the same labels. Policies of before there was a log tell at least which test
    they came from.
    """
    found = {_spender(one) for one in tests if _shares(reviews, one, labels)}
    return max([len(found), *_numbers_in_old_policies(reviews)])


def _spender(test: CertificationTest) -> tuple[object, ...]:
    """What spends a part of delta: a test, or all tests that go on with each other under one number."""
    return (test.run, test.key) if test.answered is None else (test.run, test.plans[0], test.look)


def _shares(reviews: RunReviews, test: CertificationTest, labels: LabelNumbers) -> bool:
    """Whether a test was about any of these labels; in doubt it was.

    Labels of images that moved since have other ids, so within a run equal boxes are enough.
    """
    if (test.run == reviews.run or test.population is None) and same_boxes(reviews, test.inputs):
        return True
    if test.population is None:
        return False
    try:
        return bool(among(labels, read_population(reviews.workspace, test.population)).any())
    except StoreError:
        return True


def same_boxes(reviews: RunReviews, inputs: Mapping[str, str]) -> bool:
    """Whether the run's labels are those of these inputs, whatever else has changed: ids name boxes and classes."""
    return not set(changed_inputs(inputs, reviews.current.inputs)) & _BOXES


def _numbers_in_old_policies(reviews: RunReviews) -> Iterator[int]:
    for info in reviews.workspace.list(f"{FOLDER}/certified-"):
        with suppress(ValidationError):
            found = Policy.model_validate_json(reviews.workspace.get(info.key).data).certification
            if found is not None and found.log is None and same_boxes(reviews, found.inputs):
                yield found.look


def next_stage(reviews: RunReviews, fresh: bool = False) -> Stage:
    """Decide what to draw next.

    Fit labels first; then a certification sample, or another one where the labels, the gate or what the calibrator was
    fitted to have changed, or audits have ended the policy that it certified; more of it after a test that certified
    nothing; audits and low-confidence labels once a certified policy is active.

    Raises:
        UserError: Earlier tasks come first, or another command does.
    """
    if not reviews.plans:
        return "first"
    verdicts = len(fit_verdicts(reviews.labels, reviews.answers)[0])
    if waiting := _waiting(reviews, "fit"):
        raise UserError(
            f"{plural(waiting, 'label to fit to still waits', 'labels to fit to still wait')} for an answer; answer "
            "first, or go on with those answered: "
            "--stage certify"
        )
    if verdicts < FEWEST_LABELS:
        return "first"
    last = last_round(reviews.plans)
    if fresh or last is None:
        return "certify"
    policy = policy_in_force(reviews)
    covers = policy is not None and policy.certification is not None and policy.certification.covers
    if policy is not None and covers and not contradicted(policy, reviews.plans, reviews.answers):
        return "queue"
    if not continues(reviews, last):
        return "certify"
    if not any(last.plan.number in test.plans for test in read_tests(reviews.workspace, reviews.run)):
        raise UserError(
            "the certification sample is answered: use `vouch certify` (or --stage certify to draw more of it, which "
            "is a test of the answers as well, and spends as much of the confidence)"
        )
    if certified := [policy for policy in _policies_of(reviews, last) if _is_asked_for(reviews, last, policy)]:
        raise UserError(
            f"policy {max(certified, key=_made).version} is certified and not active: use `vouch apply` (or --stage "
            "certify to review on, for a policy that may accept more)"
        )
    return "certify"


def continues(reviews: RunReviews, last: Round) -> bool:
    """Whether the next certification labels belong to the round that is there.

    They do not where the labels are others now, the gate is, more was reviewed to fit, or audits of new labels
    contradict what the round has certified.

    Raises:
        UserError: Its tasks still wait for an answer.
    """
    plan = last.plan
    if plan.population is None or changed_inputs(plan.inputs, reviews.current.inputs):
        return False
    if plan.gate != reviews.guarantee.gate:
        return False
    if waiting := last.unanswered(reviews.answers):
        raise UserError(
            f"{plural(waiting, 'certification task still waits', 'certification tasks still wait')} for an answer; "
            "answer first, or draw again: "
            "--stage certify --fresh"
        )
    fitted_since = any(plan.number > last.plans[0].number and plan.counts.get("fit") for plan, _ in reviews.plans)
    if fitted_since or any(
        contradicted(policy, reviews.plans, reviews.answers) for policy in _policies_of(reviews, last)
    ):
        return False
    return labels_of_round(reviews, last).whole


def policy_in_force(reviews: RunReviews) -> Policy | None:
    """The certified policy that the labels were routed by, if it is the active one, can be used and has not expired."""
    try:
        chosen = usable_policy(reviews.campaign, reviews.workspace, reviews.current.inputs)
    except UserError:
        return None
    policy = chosen.policy
    holds = policy.certification is not None and not chosen.expired and policy.version == reviews.current.policy
    return policy if holds else None


def policy_of_run(reviews: RunReviews) -> Policy | None:
    """The policy that the labels were routed by; None where it is not kept."""
    try:
        return Policy.model_validate_json(reviews.workspace.get(policy_key(reviews.current.policy)).data)
    except ObjectMissingError:
        return None


def _policies_of(reviews: RunReviews, last: Round) -> list[Policy]:
    """The policies that rest on a round or its beginning."""
    numbers = {plan.number for plan in last.plans}
    found = []
    for info in reviews.workspace.list(f"{FOLDER}/certified-"):
        policy = Policy.model_validate_json(reviews.workspace.get(info.key).data)
        guarantee = policy.certification
        if guarantee and guarantee.inputs == reviews.current.inputs and set(guarantee.plans) <= numbers:
            found.append(policy)
    return found


def _made(policy: Policy) -> tuple[str, int]:
    """What orders policies by when they were certified; looks at one sample may come within a second."""
    found = policy.certification
    return ("", 0) if found is None else (found.created, found.repeat)


def _is_asked_for(reviews: RunReviews, last: Round, policy: Policy) -> bool:
    """Whether a policy rests on the whole round and guarantees what the campaign asks for."""
    found, asked = policy.certification, reviews.guarantee
    if found is None or len(found.plans) < len(last.plans):
        return False
    return (found.precision, found.confidence, found.gate) == (asked.precision, asked.confidence, asked.gate)


def _waiting(reviews: RunReviews, purpose: str) -> int:
    """Tasks of a purpose without an answer, about labels that the run still has."""
    waiting = 0
    for plan, tasks in reviews.plans:
        if plan.inputs == reviews.current.inputs:
            ids = tasks.filter(pc.equal(tasks["purpose"], pa.scalar(purpose)))["label_id"]
            there = reviews.labels.places(ids.to_pylist()) >= 0
            waiting += int((there & (reviews.answers.wrong_of(ids) == NO_ANSWER)).sum())
    return waiting
