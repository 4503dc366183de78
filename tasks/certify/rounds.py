"""Keeps the rounds of certification: declared groups, their draws, the calibrator of each round, the count of tests.

Each test of a validation sample spends a part of delta, so each is written down before its result is used. The
calibrator by which validation labels were drawn is kept: one fitted again after they were seen could depend on them
through what was reviewed next, and the thresholds of a declared sequence would mean other labels as well.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Campaign, Strict
from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import ReviewPlan, Stage
from vouch_labels.schemas.text import plural
from vouch_labels.tasks.arrow import distinct, numbers
from vouch_labels.tasks.certify.active import usable_policy
from vouch_labels.tasks.certify.data import Candidates, RunReviews, draw_counts
from vouch_labels.tasks.certify.fit import Fit, calibrator_fingerprint, fit_verdicts
from vouch_labels.tasks.certify.monitor import contradicted
from vouch_labels.tasks.policy import EXPIRED, FOLDER, changed_inputs, parse_policy, policy_key, weaker_guarantee
from vouch_labels.tasks.reviews.plans import Plans, record_numbers
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, Answers
from vouch_labels.tasks.statistics.bounds import Floats
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.fit_calibrator import FEWEST_LABELS
from vouch_labels.tasks.store.store import Store

_REMEDY: Final = "restore it, or draw a new certification sample: vouch plan-reviews CAMPAIGN --stage certify --fresh"


@dataclass(frozen=True)
class Round:
    """All certification tasks of one declaration of groups."""

    plans: tuple[ReviewPlan, ...]
    """Ascending; all with the same groups, calibrator, gate and split."""
    tasks: pa.Table
    """Rows of schemas.reviews.TASKS: certification tasks, then honeypots."""

    @property
    def plan(self) -> ReviewPlan:
        """The last plan."""
        return self.plans[-1]

    @property
    def certify(self) -> pa.Table:
        """Certification tasks."""
        return self.tasks.filter(pc.equal(self.tasks["purpose"], "certify"))

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
    return Round(tuple(plan for plan, _ in chosen), distinct(pa.concat_tables(tables), ["label_id"]))


def _declared(plan: ReviewPlan) -> tuple[object, ...]:
    return plan.inputs, plan.gate, plan.seed, plan.fit_share, plan.calibrator, plan.groups


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
    """Whether the certify side is the one that was drawn from: no label has come or gone since."""


def labels_of_round(reviews: RunReviews, found: Round) -> RoundLabels:
    """Score all labels by the round's calibrator, and draw again to see whether they are the ones drawn from.

    Raises:
        StoreError: The calibrator is missing or damaged.
    """
    plan, labels = found.plan, reviews.labels
    assert plan.calibrator is not None
    calibrator, kept = read_calibrator(reviews.workspace, reviews.run, plan.calibrator)
    scores = calibrator.probabilities(labels.signals, labels.class_index, labels.class_names)
    candidates = candidates_of(reviews, scores)
    again = draw_counts(candidates, plan.groups, plan.gate, found.counts(), plan.seed, plan.round)
    places = labels.places(found.certify["label_id"].to_pylist())
    # The beginning of a random order may be the same with a few labels more; the probabilities tell.
    stored = np.unique(numbers(found.certify["inclusion"], np.float64))
    whole = np.array_equal(np.sort(places), np.sort(again.rows)) and np.isin(again.inclusion, stored).all()
    return RoundLabels(candidates, kept, bool(whole))


def candidates_of(reviews: RunReviews, scores: Floats) -> Candidates:
    """All labels of a run with these scores."""
    labels = reviews.labels
    return Candidates(scores, labels.class_index, labels.class_names, ~reviews.fit_side())


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


class CertificationTest(Strict):
    """runs/<run>/looks/<number>.json."""

    number: int = Field(ge=1, description="1, 2, 3 ... within the run.")
    look: int = Field(ge=1, description="The same among tests of labels of these inputs: what delta is shared out by.")
    key: str = Field(description="Fingerprint of all that the result depends on: the same key is the same test.")
    inputs: dict[str, str] = Field(description="What the labels depended on -> its fingerprint.")
    plans: tuple[int, ...] = Field(description="Numbers of the review plans whose verdicts were tested.")
    precision: float = Field(description="T that was tested.")
    confidence: float = Field(description="1 - delta that was asked for.")
    created: str = Field(description="Date and time, ISO 8601, UTC.")


def read_tests(workspace: Store, run: str) -> list[CertificationTest]:
    """Read the tests of a run in their order.

    Raises:
        StoreError: A record is damaged.
    """
    return [_read(workspace, run, number) for number in record_numbers(workspace, f"runs/{run}/looks/", digits=1)]


def newest_certified(campaign: Campaign, workspace: Store, current: Current) -> Policy | None:
    """Read the newest certified policy of the run; those that people's verdicts certified go before simulated ones.

    Of those that fit the labels and guarantee what the campaign asks for; else of those that fit; else of all.

    Raises:
        UserError: A policy is damaged.
        StoreError: A record of a test is.
    """
    ordered = sorted(_certified(workspace, campaign.run.name), key=lambda entry: entry[0])
    policies = [policy for _, policy in ordered]
    fitting = [policy for policy in policies if not changed_inputs(_inputs(policy), current.inputs)]
    keeping = [policy for policy in fitting if not weaker_guarantee(policy, campaign.routing)]
    return next(reversed(keeping or fitting or policies), None)


def _certified(workspace: Store, run: str) -> Iterator[tuple[tuple[bool, str], Policy]]:
    """Every policy that was certified for a run, with what orders them: whether people answered, and the time."""
    # Runs share a workspace, and a policy of another one says nothing of these labels, though their inputs be equal.
    tests = {(test.created, test.look, test.plans) for test in read_tests(workspace, run)}
    for info in workspace.list(f"{FOLDER}/"):
        version = info.key.removeprefix(f"{FOLDER}/").removesuffix(".json")
        if not version.startswith(("user-", EXPIRED)):
            policy = parse_policy(workspace, version, "looking for the newest policy (--policy names one)")
            made = policy.certification
            if made is not None and (made.created, made.look, made.plans) in tests:
                yield (not made.simulated, made.created), policy


def _inputs(policy: Policy) -> dict[str, str]:
    return {} if policy.certification is None else policy.certification.inputs


def number_of_test(workspace: Store, run: str, test: CertificationTest) -> int:
    """Which test this is, or would be, among tests of labels of its inputs; nothing is written.

    Raises:
        StoreError: A record is damaged.
    """
    same = next((one.look for one in read_tests(workspace, run) if one.key == test.key), None)
    return same or 1 + count_tests(workspace, run, test.inputs)


def count_tests(workspace: Store, run: str, inputs: dict[str, str]) -> int:
    """How many tests of labels of these inputs were taken.

    Raises:
        StoreError: A record is damaged.
    """
    return sum(one.inputs == inputs for one in read_tests(workspace, run))


def record_test(workspace: Store, run: str, test: CertificationTest) -> CertificationTest:
    """Write a test down under the next number, unless there is one of its key.

    Other precisions asked of the same labels are other tests, for each is another chance to be wrong. Labels of other
    models are other labels with a guarantee of their own, so delta is shared out among tests of equal inputs. Returned
    is the test with its numbers set.

    Raises:
        StoreError: A record is damaged, or the workspace cannot be written.
    """
    while True:
        tests = read_tests(workspace, run)
        if same := next((one for one in tests if one.key == test.key), None):
            return same
        number = max((one.number for one in tests), default=0) + 1
        alike = sum(one.inputs == test.inputs for one in tests)
        taken = test.model_copy(update={"number": number, "look": alike + 1})
        if workspace.put(_test_key(run, number), taken.model_dump_json(indent=1).encode() + b"\n", if_absent=True):
            return taken


def _read(workspace: Store, run: str, number: int) -> CertificationTest:
    key = _test_key(run, number)
    try:
        return CertificationTest.model_validate_json(workspace.get(key).data)
    except ValidationError:
        raise StoreError(
            f"{workspace.uri}/{key} is damaged; restore it: without it the confidence that is spent is unknown"
        ) from None


def _test_key(run: str, number: int) -> str:
    return f"runs/{run}/looks/{number}.json"


def next_stage(reviews: RunReviews, fresh: bool = False) -> Stage:
    """Decide what to draw next.

    Fit labels first; then a certification sample, or another one where the labels, the gate or what the calibrator was
    fitted to have changed, or audits have ended the policy that it certified; more of it after a test that certified
    nothing; audits and low-confidence labels once a certified policy is active.

    Raises:
        UserError: Earlier tasks come first, or another command does.
    """
    share = reviews.fit_share
    if share is None:
        return "first"
    verdicts = len(fit_verdicts(reviews.labels, reviews.answers, share, reviews.seed)[0])
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
    if policy_in_force(reviews) is not None and reviews.labels.accepted.any():
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
            f"policy {certified[-1].version} is certified and not active: use `vouch apply` (or --stage certify to "
            "review on, for a policy that may accept more)"
        )
    return "certify"


def continues(reviews: RunReviews, last: Round) -> bool:
    """Whether the next certification labels belong to the round that is there.

    They do not where the labels are others now, the gate is, more was reviewed to fit, or audits contradict what the
    round has certified.

    Raises:
        UserError: Its tasks still wait for an answer.
    """
    plan = last.plan
    if changed_inputs(plan.inputs, reviews.current.inputs) or plan.gate != reviews.guarantee.gate:
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
