"""Collects the figures of the report from the workspace; no model is loaded, no image opened.

The figures of every report are kept at reports/<run>/<number>.json, so that the next one can say what changed.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pydantic import ValidationError

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.evaluation import Quality
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.report import (
    Accepted,
    Change,
    Changes,
    ClassReport,
    Histogram,
    Images,
    Interval,
    Picture,
    Provenance,
    Report,
    ReviewedReliability,
    TruthReport,
)
from vouch_labels.schemas.reviews import LABEL_VERDICTS
from vouch_labels.schemas.text import least, most, pct, plural
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.certify.monitor import expired
from vouch_labels.tasks.evaluate.evaluate import evaluate_campaign
from vouch_labels.tasks.evaluate.ground_truth import Truth, read_truth
from vouch_labels.tasks.evaluate.json_lists import OnBytes
from vouch_labels.tasks.evaluate.metrics import reliability_bins
from vouch_labels.tasks.evaluate.run_truth import truth_of_run
from vouch_labels.tasks.labels.arrays import RunLabels, StoredLabels, current_of, read_run_labels
from vouch_labels.tasks.labels.totals import Totals, add_up
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import among, read_coverage, read_policy
from vouch_labels.tasks.report.figures_reviews import (
    Reviewed,
    asked,
    audit_reports,
    drift_report,
    expiry_report,
    guarantee_sentence,
    of_this_run,
    policy_report,
    recall_report,
    reviewed_labels,
    time_report,
    verdicts_report,
)
from vouch_labels.tasks.reviews.log import record_numbers
from vouch_labels.tasks.reviews.plans import read_plans
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, Answers, missed_and_checked, resolve
from vouch_labels.tasks.reviews.verdicts import read_verdicts
from vouch_labels.tasks.shard.numbers import SIGNALS
from vouch_labels.tasks.statistics.bounds import Bools, Floats, Ints, shrunken_shares
from vouch_labels.tasks.statistics.calibrator import reliability
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

EDGES: Final = (0, 0.01, 0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1)
"""Of p(correct): narrow towards both ends, where calibrated probabilities crowd."""
SCORE_EDGES: Final = tuple(place / 25 for place in range(26))
RELIABILITY_BINS: Final = 10
IN_A_BIN: Final = 20
"""Reviewed labels that a bin of the reliability diagram takes; fewer say little."""
LEAST_REVIEWED: Final = 20
"""Fewer labels make no reliability diagram."""

POLICY_STATUSES: Final = {
    "empty": "no labels",
    "nothing_accepted": "nothing accepted",
    "user_thresholds": "user thresholds, not certified",
    "certified": "certified",
    "simulated": "simulated reviewer, not certified",
    "expired": "expired",
}
_COUNTS: Final[dict[str, Callable[[Report], int]]] = {
    "images labelled": lambda report: report.images.done,
    "images failed": lambda report: report.images.failed,
    "labels": lambda report: report.automation.labels,
    "labels accepted": lambda report: report.automation.accepted,
    "labels with a verdict": lambda report: report.verdicts.labels,
    "images searched": lambda report: report.verdicts.images,
}
_SHARES: Final[dict[str, Callable[[Report], float | None]]] = {
    "automation": lambda report: report.automation.share,
    "automation of the covered labels": lambda report: report.covered.share if report.covered else None,
    "audited precision": lambda report: _value(next((one.precision for one in report.audits if one.precision), None)),
    "recall": lambda report: _value(report.recall.delivered),
    "true precision of accepted labels": lambda report: report.truth.accepted.precision if report.truth else None,
}
_TEXTS: Final[dict[str, Callable[[Report], str]]] = {
    "policy": lambda report: report.policy.version,
    "standing": lambda report: POLICY_STATUSES[report.policy.standing],
    "precision asked for": lambda report: f"{100 * report.policy.precision:.4g}%",
    "confidence asked for": lambda report: f"{100 * report.policy.confidence:.4g}%",
}

PACKAGES: Final = ("torch", "transformers", "groundingdino-py", "segment-anything", "open-clip-torch", "numpy",
                   "scikit-learn", "prefect")  # fmt: skip

EACH: Final = 12
"""Labels of each kind."""
_KINDS: Final = ("accepted", "routed", "wrong")


def collect(
    campaign: Campaign,
    truth_file: Path | None = None,
    progress: Callable[[int], None] | None = None,
    reading: OnBytes | None = None,
) -> tuple[Report, dict[str, str]]:
    """Gather a report, and of the images shown: key -> SHA-256 of the content that was labelled.

    The report's number and what changed are left to `keep_report`. progress is called with the images compared so far,
    reading with the bytes of the truth that are read and all of them.

    Raises:
        UserError: The campaign has not been run yet, or the truth does not fit it.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    declared = [entry for entry in campaign.classes if entry.key in current.classes]
    policy = read_policy(workspace, current.policy, declared)
    plans = read_plans(workspace, run)
    given = None if truth_file is None else read_truth(truth_file, progress=reading)
    with Ledger.load(workspace, run) as ledger:
        labels = read_run_labels(workspace, run, ledger, current)
        verdicts = read_verdicts(workspace)
        mine = of_this_run(verdicts, labels, asked(plans))
        answers = resolve(mine)
        codes = labels.said(answers.ids, answers.wrong_of(answers.ids), NO_ANSWER)
        answered = codes != NO_ANSWER
        known = _known_answers(labels, answers, _true_answers(workspace, run, ledger, current, given))
        outside = _outside(workspace, labels, policy) & ~answered
        pictures = with_reasons(labels, choose_labels(labels, known, outside, campaign.routing.seed))
        totals = add_up(workspace, run, ledger, current.fingerprint)
    truth = None if given is None else _against_truth(campaign, given, progress)
    new = policy.certification is not None and bool(policy.certification.covers) and bool(outside.any())
    images = missed_and_checked(mine)
    expiry = expiry_report(policy, plans, answers)
    reviewed = reviewed_labels(labels, plans, answers)
    has_expired = expired(policy, plans, answers) is not None
    about_policy = policy_report(policy, campaign.routing, labels.count, expired=has_expired)
    report = Report(
        run=run,
        workspace=workspace.uri,
        source=campaign.source.uri,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        images=_images(totals, current),
        automation=_accepted(labels, answered, np.ones(labels.count, np.bool_)),
        covered=_accepted(labels, answered, ~outside) if policy.certification else None,
        outside=int(outside.sum()) if policy.certification else None,
        guarantee=guarantee_sentence(about_policy),
        policy=about_policy,
        audits=audit_reports(policy, plans, answers, about_policy.confidence),
        expiry=expiry,
        recall=recall_report(labels, plans, images, answers, current.inputs, campaign.routing),
        drift=drift_report(policy, labels, outside if new else ~outside),
        reliability=reviewed_reliability(labels, reviewed),
        histogram=score_histogram(labels, policy),
        classes=class_reports(labels, reviewed),
        pictures=pictures,
        verdicts=verdicts_report(mine, verdicts, labels, answers, images),
        time=time_report(mine, labels, codes),
        truth=truth,
        provenance=provenance(campaign, current),
        bundled=campaign.models.bundled,
    )
    return report, _contents(labels, pictures)


def _images(totals: Totals, current: Current) -> Images:
    return Images(
        total=totals.images,
        done=totals.done,
        failed=totals.failed,
        pending=totals.pending,
        reasons=dict(totals.reasons.most_common()),
        skipped=dict((totals.skipped + Counter(current.skipped)).most_common()),
        misnamed=totals.misnamed,
    )


def _outside(workspace: Store, labels: RunLabels, policy: Policy) -> Bools:
    """Labels that the policy does not cover, (N,); of before 2026-12 those of images that were kept for fitting."""
    guarantee = policy.certification
    covered = read_coverage(workspace, policy)
    if covered is not None:
        return ~among(labels.numbers, covered.labels)
    return labels.fit_side(guarantee.fit_share, guarantee.seed) if guarantee else np.zeros(labels.count, np.bool_)


def _accepted(labels: RunLabels, answered: Bools, among: Bools) -> Accepted:
    accepted = labels.accepted & among
    return Accepted(labels=int(among.sum()), accepted=int(accepted.sum()), answered=int((accepted & answered).sum()))


def _true_answers(
    workspace: Store, run: str, ledger: Ledger, current: Current, given: Truth | None
) -> Sequence[str] | None:
    if given is None:
        return None
    _, truth = truth_of_run(workspace, run, ledger, current, given)
    return [LABEL_VERDICTS[code] if 0 <= code < len(LABEL_VERDICTS) else "" for code in truth.verdict.tolist()]


def _known_answers(labels: RunLabels, answers: Answers, truth: Sequence[str] | None) -> dict[int, str]:
    """What is known of labels: row -> the truth where there is one, else the verdict."""
    rows = zip(labels.places(answers.ids).tolist(), answers.verdict, strict=True)
    reviewed = {row: verdict for row, verdict in rows if row >= 0}
    return reviewed | {row: true for row, true in enumerate(truth or ()) if true}


def _against_truth(campaign: Campaign, given: Truth, progress: Callable[[int], None] | None) -> TruthReport:
    found = evaluate_campaign(campaign, given, progress=progress)
    return TruthReport(
        file=given.path.name,
        images=found.images.evaluated,
        iou_threshold=found.iou_threshold,
        accepted=Quality.model_validate(found.accepted.model_dump(exclude={"classes"})),
        everything=Quality.model_validate(found.accepted_and_review.model_dump(exclude={"classes"})),
        contract=found.contract,
        remarks=tuple(found.remarks()),
    )


def _contents(labels: StoredLabels, pictures: Sequence[Picture]) -> dict[str, str]:
    keys = pa.array(sorted({picture.key for picture in pictures}), pa.string())
    images = labels.images_of(labels.places([picture.label_id for picture in pictures]), {"key": keys})
    return dict(zip(images["key"].to_pylist(), images["sha256"].to_pylist(), strict=True))


class Tile(NamedTuple):
    """A figure at the head of the page."""

    figure: str
    """Empty where there is none."""
    basis: str
    """What it rests on, or why there is none."""
    of_accepted: bool = False
    """Of accepted labels alone, where the figure is a precision."""


def precision_tile(report: Report) -> Tile:
    """The guarantee where there is one, else the best that is known."""
    policy, truth = report.policy, report.truth
    found = f"; ground truth says {pct(truth.accepted.precision)}" if truth and truth.accepted.labels else ""
    if policy.standing == "certified":
        groups = sum(group.p_correct is not None for group in policy.groups)
        number = plural(groups, "group")
        return Tile(
            f"≥ {pct(policy.precision)}",
            f"certified for {number} of classes with {pct(policy.confidence)} confidence{found}",
            of_accepted=policy.gate == "accepted",
        )
    audited = next((audit.precision for audit in report.audits if audit.precision), None)
    if policy.standing != "simulated" and audited is not None and audited.value is not None:
        basis = f"audited: {audited.ends()} with {pct(audited.confidence)} confidence; not certified{found}"
        return Tile(pct(audited.value), basis, of_accepted=True)
    if truth and truth.accepted.precision is not None:
        basis = f"against ground truth on {plural(truth.images, 'image')}; no certificate"
        return Tile(pct(truth.accepted.precision), basis, of_accepted=True)
    why = {
        "simulated": "the verdicts came from a simulated reviewer",
        "expired": "the policy has expired; certify again",
        "nothing_accepted": "nothing is accepted, so there is nothing to certify",
        "empty": "there are no labels yet",
    }
    return Tile("", why.get(policy.standing, "no reviewed sample stands behind the thresholds"))


def recall_tile(report: Report) -> Tile:
    """Recall from searched images, else against ground truth."""
    found, truth = report.recall.delivered, report.truth
    if found is not None and found.value is not None:
        sure = f"at least {least(found.low)} and at most {most(found.high)} with {pct(found.confidence)} confidence"
        basis = f"of objects have a label, accepted or waiting: {sure}, {report.recall.basis()}"
        return Tile(pct(found.value), basis)
    if truth and truth.everything.recall is not None:
        basis = "of the objects in the ground truth have a label, accepted or waiting"
        return Tile(pct(truth.everything.recall), basis)
    return Tile("", "it takes images that people have searched for every object")


def class_reports(labels: RunLabels, reviewed: Reviewed) -> tuple[ClassReport, ...]:
    """Describe every class, the one with the most labels first."""
    names = labels.shown
    counts, accepted = (
        np.bincount(labels.class_index[chosen], minlength=len(names))
        for chosen in (np.ones(labels.count, np.bool_), labels.accepted)
    )
    use = labels.accepted[reviewed.rows]
    place = labels.class_index[reviewed.rows[use]]
    drawn = np.bincount(place, minlength=len(names))
    wrong = np.bincount(place, reviewed.wrong[use], minlength=len(names)).astype(np.int64)
    precision = 1 - shrunken_shares(wrong, drawn)
    order = np.lexsort((np.arange(len(names)), -counts))
    return tuple(
        ClassReport(
            name=names[row],
            labels=int(counts[row]),
            accepted=int(accepted[row]),
            reviewed=int(drawn[row]),
            wrong=int(wrong[row]),
            precision=float(precision[row]) if accepted[row] and drawn.any() else None,
        )
        for row in order.tolist()
    )


def score_histogram(labels: RunLabels, policy: Policy) -> Histogram | None:
    """Count labels by p(correct), or by the detector's score where there is no calibrator; None without labels."""
    if not labels.count:
        return None
    if np.isfinite(labels.p_correct).any():
        least = [group.p_correct for group in policy.groups if group.p_correct is not None]
        return _histogram("p_correct", labels.p_correct, labels.accepted, least, EDGES)
    rules = [group.accept.required() for group in policy.groups if group.accept is not None]
    least = [rule["detector_score"] for rule in rules if "detector_score" in rule]
    return _histogram("detector_score", detector_scores(labels), labels.accepted, least, SCORE_EDGES)


def detector_scores(labels: RunLabels) -> NDArray[np.float32]:
    """Score of each label, (N,)."""
    return labels.signal("detector_score")


def reviewed_reliability(labels: RunLabels, reviewed: Reviewed) -> ReviewedReliability:
    """Hold p(correct) against verdicts that the calibrator has not seen."""
    rows = reviewed.rows[reviewed.held_out]
    known = np.isfinite(labels.p_correct[rows])
    if not np.isfinite(labels.p_correct).any():
        return ReviewedReliability(missing="there is no calibrator yet; it comes with the first certified policy")
    if known.sum() < LEAST_REVIEWED:
        missing = f"only {int(known.sum())} reviewed labels were kept from the calibrator; {LEAST_REVIEWED} are needed"
        return ReviewedReliability(labels=int(known.sum()), missing=missing)
    wrong, weights = reviewed.wrong[reviewed.held_out][known], reviewed.weights[reviewed.held_out][known]
    bins_wanted = max(1, min(RELIABILITY_BINS, int(known.sum()) // IN_A_BIN))
    found = reliability(labels.p_correct[rows][known], ~wrong, weights, bins_wanted)
    return ReviewedReliability(found=reliability_bins(found), brier=found.brier, labels=int(known.sum()))


def _histogram(
    signal: str,
    values: Floats | NDArray[np.float32],
    accepted: Bools,
    least: Sequence[float],
    edges: Sequence[float],
) -> Histogram:
    known = np.isfinite(values)

    def count(chosen: Bools) -> tuple[int, ...]:
        return tuple(np.histogram(np.clip(values[chosen & known], 0, 1), edges)[0].tolist())

    return Histogram(
        signal=signal,
        edges=tuple(edges),
        accepted=count(accepted),
        review=count(~accepted),
        thresholds=tuple(sorted(set(least))),
        missing=int((~known).sum()),
    )


def compared(before: Report, now: Report) -> Changes:
    """List the figures of two reports of a run that differ."""
    return Changes(since=before.created, number=before.number, changes=tuple(_changes(before, now)))


def _changes(before: Report, now: Report) -> Iterator[Change]:
    for name, text in _TEXTS.items():
        if text(before) != text(now):
            yield Change(name=name, before=text(before), now=text(now), direction="other")
    for name, count in _COUNTS.items():
        step = count(now) - count(before)
        if step:
            difference = f"{abs(step):,} {'more' if step > 0 else 'fewer'}"
            yield _moved(name, f"{count(before):,}", f"{count(now):,}", step, difference)
    for name, share in _SHARES.items():
        first, second = share(before), share(now)
        if _percent(first) == _percent(second):
            continue
        if first is None or second is None:
            yield Change(name=name, before=_percent(first), now=_percent(second), direction="other")
            continue
        points = 100 * (second - first)
        yield _moved(name, _percent(first), _percent(second), points, f"{abs(points):.1f} points")


def _moved(name: str, before: str, now: str, step: float, difference: str) -> Change:
    return Change(name=name, before=before, now=now, direction="up" if step > 0 else "down", words=difference)


def _value(found: Interval | None) -> float | None:
    return found.value if found else None


def _percent(share: float | None) -> str:
    return "none" if share is None else f"{100 * share:.1f}%"


def earlier_reports(workspace: Store, run: str) -> list[Report]:
    """Read the last two reports of a run, the latest first; those of another version of Vouch are left out."""
    found: list[Report] = []
    for number in reversed(record_numbers(workspace, f"reports/{run}/")):
        try:
            found.append(Report.model_validate_json(workspace.get(_key(run, number)).data))
        except ValidationError:
            continue
        if len(found) == 2:
            break
    return found


def numbered(report: Report, earlier: list[Report], last: int) -> tuple[Report, bool]:
    """Give a report its number and say what changed, and whether it is to be kept.

    A report that says the same as the last one keeps its number, and is held against the one before. earlier are as
    `earlier_reports` gives them; last is the greatest number in use, 0 if none.
    """
    same = bool(earlier) and not compared(earlier[0], report).changes
    number = earlier[0].number if same else last + 1
    before = next(iter(earlier[1:] if same else earlier), None)
    changes = {} if before is None else {"changes": compared(before, report)}
    return report.model_copy(update={"number": number, **changes}), not same


def keep_report(workspace: Store, report: Report) -> Report:
    """Keep a report's figures and say what changed; another's record is never replaced.

    Raises:
        StoreError: The workspace cannot be read or written.
    """
    run = report.run
    while True:
        numbers = record_numbers(workspace, f"reports/{run}/")
        found, new = numbered(report, earlier_reports(workspace, run), max(numbers, default=0))
        data = found.model_dump_json(indent=1).encode() + b"\n"
        if not new or workspace.put(_key(run, found.number), data, if_absent=True):
            return found


def _key(run: str, number: int) -> str:
    return f"reports/{run}/{number:04d}.json"


def provenance(campaign: Campaign, current: Current) -> Provenance:
    """Name versions, models and settings; packages are those that make the report, not those that made the labels."""
    models, routing, export = campaign.models, campaign.routing, campaign.export
    return Provenance(
        vouch=_version("vouch-labels"),
        packages={name: _version(name) for name in PACKAGES},
        fingerprint=current.fingerprint,
        inputs=dict(current.inputs),
        models={role: getattr(models, role).checkpoint for role in ("detector", "segmenter", "scorer")},
        settings={
            "classes": f"{len(current.classes):,}",
            "least detector score": f"{models.detector.min_score:g}",
            "precision asked for": f"{routing.precision:g}",
            "confidence asked for": f"{routing.confidence:g}",
            "gate": routing.gate,
            "seed of draws": str(routing.seed),
            "undecided boxes in the data set": export.undecided or "as each format can say",
        },
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def choose_labels(
    labels: RunLabels, answers: Mapping[int, str], kept: Bools, seed: int, each: int = EACH
) -> list[Picture]:
    """Choose labels to show: accepted ones and waiting ones at random, and wrong ones, the accepted among them first.

    answers are members of LABEL_VERDICTS or "disputed", by rows. Labels kept for fitting wait whatever their score, so
    others are shown before them. The same labels and seed give the same pictures, their reasons empty.
    """
    order = np.random.default_rng([seed, labels.count]).permutation(labels.count)
    wrong = np.zeros(labels.count, np.bool_)
    wrong[[row for row, answer in answers.items() if answer != LABEL_VERDICTS[0]]] = True
    chosen = (
        _first(order, labels.accepted, labels.accepted, each),
        _first(order, ~labels.accepted, ~kept, each),
        _first(order, wrong, labels.accepted, each),
    )
    return [
        picture for kind, rows in zip(_KINDS, chosen, strict=True) for picture in _pictures(labels, rows, kind, answers)
    ]


def with_reasons(labels: StoredLabels, pictures: Sequence[Picture]) -> tuple[Picture, ...]:
    """Look up why each label was accepted or waits.

    Raises:
        StoreError: A table is missing or damaged.
    """
    found = labels.columns(labels.places([picture.label_id for picture in pictures]), ["reason"])
    reasons = found["reason"].to_pylist()
    pairs = zip(pictures, reasons, strict=True)
    return tuple(picture.model_copy(update={"reason": reason}) for picture, reason in pairs)


def _first(order: Ints, chosen: Bools, preferred: Bools, count: int) -> Ints:
    """The first few chosen rows of an order, preferred ones before the others."""
    parts = [order[np.flatnonzero((chosen & mask)[order])[:count]] for mask in (preferred, ~preferred)]
    return np.concatenate(parts)[:count]


def _pictures(labels: RunLabels, rows: Ints, kind: str, answers: Mapping[int, str]) -> Iterator[Picture]:
    table = labels.table_of(rows)
    scores = labels.signals_of(rows)[:, SIGNALS.index("detector_score")].tolist()
    boxes = boxes_of(table).tolist()
    ids, keys = table["label_id"].to_pylist(), table["key"].to_pylist()
    for row, label_id, key, box, score in zip(rows.tolist(), ids, keys, boxes, scores, strict=True):
        p_correct = float(labels.p_correct[row])
        yield Picture.model_validate(
            {
                "kind": kind,
                "label_id": label_id,
                "key": key,
                "class_name": labels.shown[int(labels.class_index[row])],
                "box": tuple(box),
                "accepted": bool(labels.accepted[row]),
                "p_correct": None if np.isnan(p_correct) else p_correct,
                "detector_score": None if np.isnan(score) else score,
                "reason": "",
                "answer": answers.get(row, ""),
            }
        )
