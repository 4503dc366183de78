"""Gathers every figure of the report from the workspace; no model is loaded, no image opened."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from schemas.campaign import Campaign
from schemas.evaluation import Quality
from schemas.policy import Policy
from schemas.records import Current
from schemas.report import Accepted, Images, Picture, Report, TruthReport
from schemas.reviews import LABEL_VERDICTS
from tasks.evaluate.evaluate import evaluate_campaign
from tasks.evaluate.truth import read_truth
from tasks.labels.arrays import RunLabels, current_of, read_run_labels
from tasks.plan.ledger import Ledger
from tasks.policy import read_policy
from tasks.report.audited import audit_reports, expiry_report
from tasks.report.choose import choose_labels, with_reasons
from tasks.report.classes import class_reports
from tasks.report.drift import drift_report
from tasks.report.people import of_this_run, time_report, verdicts_report
from tasks.report.policy import policy_report, promise_sentence
from tasks.report.provenance import provenance
from tasks.report.recall import recall_report
from tasks.report.reviewed import asked, reviewed_labels
from tasks.report.scores import reviewed_reliability, score_histogram
from tasks.reviews.plans import read_plans
from tasks.reviews.resolve import NO_ANSWER, Answers, missed_and_checked, resolve
from tasks.reviews.verdicts import read_verdicts
from tasks.simulate.truth import truth_of_run
from tasks.statistics.bounds import Bools
from tasks.status import read_status
from tasks.store.open import open_store
from tasks.store.store import Store


@dataclass(frozen=True)
class Collected:
    """A report, and what its pictures are cut by."""

    report: Report
    contents: dict[str, str]
    """Key -> SHA-256 of the content that was labelled, of the images shown."""


def collect(
    campaign: Campaign, truth_file: Path | None = None, progress: Callable[[int], None] | None = None
) -> Collected:
    """Gather a report; its number and what changed are left to `history.keep_report`.

    Args:
        campaign: Has been run.
        truth_file: COCO ground truth to hold the labels against, if any.
        progress: Called with the number of images compared with the truth so far.

    Raises:
        UserError: The campaign has not been run yet, or the truth does not fit it.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_store(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    declared = [entry for entry in campaign.classes if entry.name in current.classes]
    policy = read_policy(workspace, current.policy, declared)
    plans = read_plans(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
        verdicts = read_verdicts(workspace)
        mine = of_this_run(verdicts, labels, asked(plans))
        answers = resolve(mine)
        answered = answers.wrong_of(labels.label_ids) != NO_ANSWER
        spoken = _spoken(labels, answers, _true_answers(workspace, run, ledger, current, truth_file))
        kept = _fit_side(labels, policy)
        pictures = with_reasons(
            choose_labels(labels, spoken, kept, campaign.routing.seed), workspace, run, ledger, current
        )
    truth = None if truth_file is None else _against_truth(campaign, truth_file, progress)
    images = missed_and_checked(mine)
    expiry = expiry_report(policy, plans, answers)
    reviewed = reviewed_labels(labels, plans, answers)
    spoken_policy = policy_report(policy, campaign.routing, labels.count, expired=expiry is not None and expiry.expired)
    status = read_status(campaign)
    report = Report(
        run=run,
        workspace=workspace.uri,
        source=campaign.source.uri,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        images=Images(
            total=status.images, done=status.done, failed=status.failed, pending=status.pending, reasons=status.reasons
        ),
        automation=_accepted(labels, answered, np.ones(labels.count, np.bool_)),
        certify_side=_accepted(labels, answered, ~kept) if policy.certification else None,
        fit_side=_accepted(labels, answered, kept) if policy.certification else None,
        promise=promise_sentence(spoken_policy),
        policy=spoken_policy,
        audits=audit_reports(policy, plans, answers, spoken_policy.confidence),
        expiry=expiry,
        recall=recall_report(labels, plans, images, answers, current.inputs, campaign.routing),
        drift=drift_report(policy, labels, ~kept),
        reliability=reviewed_reliability(labels, reviewed),
        histogram=score_histogram(labels, policy),
        classes=class_reports(labels, reviewed),
        pictures=pictures,
        verdicts=verdicts_report(mine, verdicts, labels, answers, images),
        time=time_report(mine, labels, answers),
        truth=truth,
        provenance=provenance(campaign, current),
    )
    return Collected(report, _contents(labels, pictures))


def _fit_side(labels: RunLabels, policy: Policy) -> Bools:
    """Labels of images that were kept for fitting, (N,)."""
    promise = policy.certification
    return labels.fit_side(promise.fit_share, promise.seed) if promise else np.zeros(labels.count, np.bool_)


def _accepted(labels: RunLabels, answered: Bools, among: Bools) -> Accepted:
    accepted = labels.accepted & among
    return Accepted(labels=int(among.sum()), accepted=int(accepted.sum()), answered=int((accepted & answered).sum()))


def _true_answers(
    workspace: Store, run: str, ledger: Ledger, current: Current, truth_file: Path | None
) -> Sequence[str] | None:
    if truth_file is None:
        return None
    _, truth = truth_of_run(workspace, run, ledger, current, read_truth(truth_file))
    return [LABEL_VERDICTS[code] if 0 <= code < len(LABEL_VERDICTS) else "" for code in truth.verdict.tolist()]


def _spoken(labels: RunLabels, answers: Answers, truth: Sequence[str] | None) -> list[str]:
    """What is known of each label: the truth where there is one, else the verdict."""
    verdicts = [*answers.verdict, ""]
    said = [verdicts[place] for place in answers.places(labels.label_ids).tolist()]
    return said if truth is None else [true or own for true, own in zip(truth, said, strict=True)]


def _against_truth(campaign: Campaign, truth_file: Path, progress: Callable[[int], None] | None) -> TruthReport:
    found = evaluate_campaign(campaign, truth_file, progress=progress)
    return TruthReport(
        file=truth_file.name,
        images=found.images.evaluated,
        iou_threshold=found.iou_threshold,
        accepted=Quality.model_validate(found.accepted.model_dump(exclude={"classes"})),
        everything=Quality.model_validate(found.accepted_and_review.model_dump(exclude={"classes"})),
        contract=found.contract,
    )


def _contents(labels: RunLabels, pictures: Sequence[Picture]) -> dict[str, str]:
    wanted = {picture.key for picture in pictures}
    pairs = zip(labels.keys.to_pylist(), labels.contents.to_pylist(), strict=True)
    return {key: sha256 for key, sha256 in pairs if key in wanted}
