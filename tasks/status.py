"""Reports the status of a campaign from its workspace alone: images and labels, policy, reviews, and what to do next.

No model is loaded and no source listed.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign, shown_names, unknown_classes
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import ClassCounts, Current, ExportStatus, PolicyStatus, ReviewStatus, RunStatus
from vouch_labels.schemas.reviews import TASKS, ReviewPlan
from vouch_labels.schemas.text import plural, policy_with_basis, some
from vouch_labels.tasks.arrow import distinct
from vouch_labels.tasks.certify.active import declared_inputs, find_policy, usable_policy
from vouch_labels.tasks.certify.monitor import expired
from vouch_labels.tasks.certify.rounds import Round, last_round, newest_certified, read_tests
from vouch_labels.tasks.certify.top_up import extension
from vouch_labels.tasks.export.export import read_summary
from vouch_labels.tasks.labels.read import Decisions
from vouch_labels.tasks.labels.totals import Totals, add_up, by_shown_name, first_failed
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.same_campaign import ACCEPT, FEW, dropped_classes, other_campaign
from vouch_labels.tasks.policy import accepts, basis, changed_inputs, weaker_guarantee
from vouch_labels.tasks.reviews.class_changes import answers_without_label, class_changes
from vouch_labels.tasks.reviews.log import CertificationTest
from vouch_labels.tasks.reviews.open_tasks import open_tasks
from vouch_labels.tasks.reviews.plans import Plans, read_plans
from vouch_labels.tasks.reviews.resolve import Answers, missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import of_classes_now, read_verdicts
from vouch_labels.tasks.shard.files import read_current
from vouch_labels.tasks.store.lock import LockRecord
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

SILENT_S = 120.0
"""A holder on another machine that has not renewed its lock for so many seconds is taken for dead."""

_PLAN: Final = "vouch plan-reviews CAMPAIGN"
_REVIEW: Final = f"vouch review CAMPAIGN draws them and asks in the browser; for other tools {_PLAN}"

_FIRST_RUN: Final = "label the images: vouch run CAMPAIGN"


def read_status(campaign: Campaign) -> RunStatus:
    """Add up what stands in the workspace.

    Raises:
        StoreAccessError: The workspace cannot be reached.
        StoreError: A marker, a table, a review plan, a file of verdicts or the record of a policy is damaged.
    """
    return status_of(campaign, open_workspace(campaign.workspace))


def status_of(campaign: Campaign, workspace: Store) -> RunStatus:
    """As `read_status`, where the workspace is open."""
    run = campaign.run.name
    current = read_current(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        totals = _totals(workspace, run, ledger, current)
        failed = first_failed(workspace, run, ledger, current.fingerprint) if current and totals.failed else []
        unfit = {} if current is None else answers_without_label(workspace, run, ledger, current)
    state = _read_state(campaign, workspace, current)
    declared = {entry.name: ClassCounts() for entry in campaign.classes}
    running = _holder(workspace, run)
    return RunStatus(
        run=run,
        workspace=workspace.uri,
        running=running,
        **totals.figures(),
        shards_done=totals.shards_done,
        classes=declared if current is None else by_shown_name(totals.classes, current),
        failed_images=failed,
        skipped=dict((totals.skipped + Counter(current.skipped if current else {})).most_common()),
        policy=current.policy if current is not None else None,
        in_force=state.policy,
        reviews=state.reviews,
        answers_without_label=unfit,
        export=_export(workspace, campaign.export.first_name),
        other_campaign=other_campaign(workspace, campaign, current.classes if current is not None else ()),
        bundled=campaign.models.bundled,
        unknown_classes=unknown_classes(campaign),
        next=_next_step(campaign, state, totals, current, running=running is not None),
    )


def _totals(workspace: Store, run: str, ledger: Ledger, current: Current | None) -> Totals:
    if current is None:
        # Planned at most: a plan is written before its settings.
        return Totals(images=ledger.count(), shards=len(ledger.shards()))
    return add_up(workspace, run, ledger, current.fingerprint)


def _holder(workspace: Store, run: str) -> str | None:
    try:
        record = LockRecord.model_validate_json(workspace.get(f"runs/{run}/lock.json").data)
    except (ObjectMissingError, ValidationError):
        return None
    return None if record.has_ended(SILENT_S) else f"process {record.pid} on {record.host}"


def _export(workspace: Store, name: str) -> ExportStatus | None:
    summary = read_summary(workspace, name)
    if summary is None:
        return None
    uri = f"{workspace.uri.rstrip('/')}/exports/{name}"
    return ExportStatus(uri=uri, images=summary.images, annotations=summary.annotations, usable=summary.usable)


@dataclass(frozen=True)
class _State:
    policy: PolicyStatus
    reviews: ReviewStatus
    plans: list[tuple[ReviewPlan, pa.Table]]
    """Those about the labels as they are."""
    open: dict[int, pa.Table]
    """Number of each of these plans -> its tasks that wait."""
    answers: Answers
    tests: list[CertificationTest]
    news: bool
    """Whether answered audits extend the active policy to new labels."""


def _read_state(campaign: Campaign, workspace: Store, current: Current | None) -> _State:
    run = campaign.run.name
    every, verdicts = read_plans(workspace, run), read_verdicts(workspace)
    said = of_classes_now(verdicts, current)
    answers, images = resolve(said), missed_and_checked(said)
    plans = [(plan, tasks) for plan, tasks in every if current is not None and plan.inputs == current.inputs]
    accepts = Decisions(workspace, run).accepts
    waiting = {plan.number: open_tasks(tasks, answers, images, accepts) for plan, tasks in plans}
    once = distinct(pa.concat_tables([TASKS.empty_table(), *waiting.values()]), ["label_id", "key", "class_name"])
    reviews = ReviewStatus(
        plans=len(every),
        open=once.num_rows,
        open_of={number: tasks.num_rows for number, tasks in waiting.items() if tasks.num_rows},
        verdicts=verdicts.num_rows,
        simulated=int(pc.sum(verdicts["simulated"]).as_py() or 0),
    )
    policy = _policy(campaign, workspace, current)
    newest = None if current is None else newest_certified(campaign, workspace, current)
    if current and newest and _waits(newest, policy, campaign, current) and not expired(newest, every, answers):
        policy = policy.model_copy(update={"waiting": newest.version})
    tests = read_tests(workspace, run)
    return _State(policy, reviews, plans, waiting, answers, tests, _has_news(campaign, workspace, plans, answers))


def _has_news(campaign: Campaign, workspace: Store, plans: Plans, answers: Answers) -> bool:
    try:
        found = extension(workspace, find_policy(campaign, workspace).policy, plans, answers)
    except UserError:
        return False
    return found is not None and found.passes


def _policy(campaign: Campaign, workspace: Store, current: Current | None) -> PolicyStatus:
    try:
        chosen = usable_policy(campaign, workspace, {} if current is None else current.inputs)
    except UserError as error:
        return PolicyStatus(version=None, basis="", certified=False, simulated=False, problem=str(error))
    policy, guarantee = chosen.policy, chosen.policy.certification
    simulated = guarantee is not None and guarantee.simulated
    found = PolicyStatus(
        version=policy.version,
        basis=basis(policy),
        certified=guarantee is not None and not simulated and not chosen.expired and accepts(policy),
        simulated=simulated,
        expired=chosen.expired,
    )
    if guarantee is None:
        return found
    terms = {"precision": guarantee.precision, "confidence": guarantee.confidence, "gate": guarantee.gate}
    return found.model_copy(update=terms | {"created": guarantee.created})


def _waits(newest: Policy, policy: PolicyStatus, campaign: Campaign, current: Current) -> bool:
    """Whether a certified policy fits, and was made after the one active, if that is certified itself."""
    guarantee = newest.certification
    if guarantee is None or campaign.routing.policy is not None or newest.version == policy.version:
        return False
    if changed_inputs(guarantee.inputs, current.inputs) or weaker_guarantee(newest, campaign.routing):
        return False
    return policy.created is None or bool(policy.expired) or guarantee.created >= policy.created


def _next_step(
    campaign: Campaign, state: _State, totals: Totals, current: Current | None, *, running: bool = False
) -> str:
    """Say what to do next, and why; CAMPAIGN stands for the campaign file.

    `vouch plan-reviews` decides by the labels themselves; this goes by the records alone, and so by less: it cannot see
    labels that have come or gone since a sample was drawn.
    """
    if running:
        return "the run goes on; look again when it has ended"
    if current is None or totals.pending or not totals.shards:
        pending = plural(totals.pending, "image that is", "images that are")
        return f"label the {pending} pending: vouch run CAMPAIGN" if current else _FIRST_RUN
    if dropped := dropped_classes(current.classes, campaign.classes):
        # A plain run refuses this; and no command is named, lest it be taken for the next step without a thought.
        return (
            f"say what becomes of the labels of {some(dropped, FEW)}: was: in the campaign file, where the class has "
            f"another name now; or leave them out by the option {ACCEPT} of vouch run"
        )
    policy = state.policy
    changed, works = _changed(campaign, current)
    if policy.problem:
        first = f"{changed}, and vouch run CAMPAIGN has to follow; but " if changed else ""
        return f"{first}the policy cannot be used: {policy.problem}"
    if changed:
        why = "the models have to look at the images for that" if works else "no model has to work for that"
        return f"{changed}: vouch run CAMPAIGN ({why})"
    if not totals.labels:
        if "detector" in campaign.models.bundled:
            return (
                "no label was found, and the bundled detector knows drawn things alone: take an official checkpoint "
                "(vouch models list, vouch models pull), and vouch run CAMPAIGN again"
            )
        return "no label was found, so there is nothing to review; try other prompts, and vouch run CAMPAIGN again"
    if policy.waiting:
        return f"activate the certified policy {policy.waiting}: vouch apply CAMPAIGN"
    if policy.version != current.policy and not policy.expired:
        by = policy_with_basis(policy.version or "", policy.basis)
        return f"decide the labels by what is active now, {by}: vouch run CAMPAIGN"
    return _next_review(campaign, state, totals)


def _changed(campaign: Campaign, current: Current) -> tuple[str, bool]:
    """What the campaign says otherwise than the labels were made by, in words, and whether models have to work for it.

    Empty where nothing of classes, prompts and settings of the models is changed, as far as the records tell.
    """
    if changes := class_changes(campaign.classes, current):
        return changes, True
    declared = declared_inputs(campaign)
    if others := changed_inputs({name: current.inputs.get(name, value) for name, value in declared.items()}, declared):
        return f"the campaign has other {', '.join(others)} than the labels were made by", True
    names = shown_names(campaign.classes)
    renamed = [
        f"class {shown} is called {now} now"
        for name, shown in zip(current.classes, current.shown, strict=True)
        if (now := names.get(name, name)) != shown
    ]
    return some(renamed, FEW), False


def _next_review(campaign: Campaign, state: _State, totals: Totals) -> str:
    policy = state.policy
    if fit := {number for number, tasks in state.open.items() if "fit" in tasks["purpose"].to_pylist()}:
        return _answer(state, fit, "for the calibrator is fitted to them")
    if policy.precision is not None and not policy.expired:
        if state.news:
            return "the audits of new labels extend the certificate to them: vouch certify CAMPAIGN"
        if state.reviews.open:
            return _answer(
                state, set(state.reviews.open_of), "which show whether the guarantee holds and fix the data set"
            )
        if totals.outside:
            return (
                f"ask for a top-up sample of what is new: {_PLAN}; then vouch certify CAMPAIGN extends the certificate"
            )
        return f"ask for low-confidence labels: {_PLAN}; vouch report CAMPAIGN shows how the run stands"
    last = last_round(state.plans)
    if last is not None and _goes_on(campaign, state, last):
        if last.unanswered(state.answers):
            numbers = {plan.number for plan in last.plans if state.reviews.open_of.get(plan.number)}
            return _answer(state, numbers, "for a part of a sample certifies nothing")
        if not _was_tested(campaign, state, last):
            return "the certification sample is answered: vouch certify CAMPAIGN"
        if not policy.expired:
            return f"the certification sample was too small or too often wrong; draw more of it: {_PLAN}"
    if policy.expired:
        return f"the guarantee of the policy has ended: {policy.expired} ({_PLAN} draws what that takes)"
    if any(plan.counts.get("fit") for plan, _ in state.plans):
        return f"have labels reviewed that certify a precision of {campaign.routing.precision:g}: {_REVIEW}"
    return f"have labels reviewed, so that a precision of {campaign.routing.precision:g} can be certified: {_REVIEW}"


def _goes_on(campaign: Campaign, state: _State, last: Round) -> bool:
    """Whether a round still serves: drawn for the gate that is asked for, with all that was reviewed to fit."""
    fitted_since = any(plan.number > last.plans[0].number and plan.counts.get("fit") for plan, _ in state.plans)
    return last.plan.gate == campaign.routing.gate and not fitted_since


def _was_tested(campaign: Campaign, state: _State, last: Round) -> bool:
    asked = (campaign.routing.precision, campaign.routing.confidence)
    return any(last.plan.number in test.plans and (test.precision, test.confidence) == asked for test in state.tests)


def _answer(state: _State, numbers: set[int], why: str) -> str:
    """Ask for the answers to the tasks of some plans, those of the last plan first."""
    number = max(numbers)
    last = max(plan.number for plan, _ in state.plans)
    which = "" if number == last else f" --plan {number}"
    return (
        f"have the {plural(state.reviews.open_of[number], 'open task')} of review plan {number} answered, {why}: "
        f"vouch review CAMPAIGN asks in the browser; for other tools vouch verdicts CAMPAIGN --tasks FILE{which} hands "
        "them out, and vouch verdicts CAMPAIGN FILE takes the answers"
    )
