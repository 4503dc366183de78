"""Evaluates the labels of a run against a COCO ground-truth file: quality, and whether the certified guarantee held.

Writes the figures and plots into a folder.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.evaluation import (
    MOST_LEFT_OUT,
    ClassPairs,
    ContractTruth,
    Evaluation,
    GroupTruth,
    ImagePairs,
    TruePrecision,
)
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.text import pct
from vouch_labels.tasks.evaluate.ground_truth import BoxCheck, Truth, objects_of, read_truth
from vouch_labels.tasks.evaluate.json_lists import OnBytes
from vouch_labels.tasks.evaluate.metrics import SCORE, Comparison
from vouch_labels.tasks.evaluate.pairing import PairedClasses, PairedImages
from vouch_labels.tasks.evaluate.plots import write_plots
from vouch_labels.tasks.evaluate.run_truth import EXAMPLES, RunTruth, check_objects, pair_with_run, truth_of_run
from vouch_labels.tasks.labels.arrays import RunLabels, current_of
from vouch_labels.tasks.labels.read import SIGNAL_STAGES, LabelArrays, label_arrays
from vouch_labels.tasks.matching import IOU_THRESHOLD, ImageLabels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.policy import Coverage, among, label_numbers, read_coverage, read_policy
from vouch_labels.tasks.reviews.resolve import NO_ANSWER, resolve
from vouch_labels.tasks.reviews.resolve import WRONG as WRONG_ANSWER
from vouch_labels.tasks.reviews.verdicts import present_verdicts
from vouch_labels.tasks.statistics.bounds import Ints
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.store import Store

PROBABILITY: Final = "p_correct"

_ROUNDING: Final = 1e-9
"""So that 19 of 20 are 0.95."""

FILE = "evaluation.json"


def evaluate_campaign(
    campaign: Campaign,
    truth: Path | Truth,
    signals: Sequence[str] = (),
    progress: Callable[[int], None] | None = None,
    reading: OnBytes | None = None,
) -> Evaluation:
    """Compare what the last run of a campaign left with ground truth; nothing is labelled.

    The truth (a COCO instances file, or what was read of one, with masks) is held in memory, the run's labels are not.
    signals are columns to draw curves of, beside the detector's score and, where there is one, p_correct. progress is
    called with the images compared so far, reading with the bytes of the file that are read and all of them.

    Raises:
        UserError: The run has no labels, the file is no COCO file, the two share no image or no class, or there is
            no such signal.
        StoreError: The workspace cannot be read.
    """
    for name in signals:
        if name not in SIGNAL_STAGES:
            raise UserError(f"--signal: there is no signal {name!r}; choose among {', '.join(SIGNAL_STAGES)}")
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    if isinstance(truth, Path):
        truth = read_truth(truth, progress=reading)
    wanted = list(dict.fromkeys((SCORE, PROBABILITY, *signals)))
    with Ledger.load(workspace, run) as ledger:
        keys = [key for shard in ledger.shards() for key in sorted(ledger.keys_of(shard.id))]
        classes, pairs = pair_with_run(truth, keys, current.shown, current.former)
        session = _Session(truth, classes, pairs, wanted)
        for labels in label_arrays(workspace, run, ledger, current.fingerprint, wanted):
            session.add(labels.with_names(current.names))
            if progress is not None:
                progress(session.compared)
        if not session.compared:
            raise UserError(session.nothing_compared(run))
        check_objects(truth)
        contract = _contract(campaign, workspace, ledger, current, truth)
    return session.evaluation(run, workspace.uri, current, signals, contract)


def _contract(
    campaign: Campaign, workspace: Store, ledger: Ledger, current: Current, truth: Truth
) -> ContractTruth | None:
    """Hold the guarantee of a certified policy against the truth; only then all labels are held in memory."""
    run = campaign.run.name
    declared = [entry for entry in campaign.classes if entry.key in current.classes]
    policy = read_policy(workspace, current.policy, declared)
    if policy.certification is None:
        return None
    labels, of_labels = truth_of_run(workspace, run, ledger, current, truth)
    codes = resolve(present_verdicts(workspace, current)).wrong_of(labels.label_ids).astype(np.int64)
    return contract_truth(labels, of_labels, policy, read_coverage(workspace, policy), codes)


class _Session:
    """What is gathered while the images go by."""

    def __init__(self, truth: Truth, classes: PairedClasses, pairs: PairedImages, signals: Sequence[str]) -> None:
        self._truth = truth
        self._classes = classes
        self._pairs = pairs
        self._places = {name: place for place, name in enumerate(classes.common)}
        self._class_of_category = classes.by_place(list(truth.categories))
        common = np.concatenate([self._common(place) for place in pairs.places.values()])
        self._masks_missing = int((~truth.has_mask[common]).sum())
        # Without the masks of some objects, a mask on one of them would count as wrong.
        self._masks = bool(len(common)) and not self._masks_missing
        self._comparison = Comparison(classes.common, signals, self._masks)
        self._check = BoxCheck()
        self._left: dict[str, list[str]] = defaultdict(list)
        self._left_count: Counter[str] = Counter()
        self._unknown: Counter[str] = Counter()
        self._met: set[int] = set()
        self._ambiguous = frozenset(pairs.ambiguous)
        self._crowds = self.compared = 0

    def add(self, labels: LabelArrays) -> None:
        place = self._pairs.places.get(labels.key)
        if place is None:
            self._leave("ambiguous" if labels.key in self._ambiguous else "without_truth", labels.key)
            return
        image = self._truth.images[place]
        self._met.add(place)
        size = (labels.height, labels.width)
        if (image.height or labels.height, image.width or labels.width) != size:
            self._leave("other_size", labels.key)
            return
        rows = self._common(place)
        classes = self._class_of_category[self._truth.category[rows]]
        objects = objects_of(self._truth, rows, classes, size, self._masks)
        self._check.add(objects.xywh, size)
        self._crowds += int(objects.crowd.sum())
        self._comparison.add(place, self._labels(labels), objects)
        self.compared += 1

    def _common(self, place: int) -> NDArray[np.int64]:
        """Annotations of an image of the truth that are of classes compared."""
        rows = self._truth.rows(place)
        return rows[self._class_of_category[self._truth.category[rows]] >= 0]

    def _labels(self, labels: LabelArrays) -> ImageLabels:
        """The labels of common classes; the others are counted."""
        self._unknown.update(name for name in labels.class_name if name not in self._places)
        kept = np.array([name in self._places for name in labels.class_name], np.bool_)
        size = [labels.height, labels.width]
        counts = [counts for counts, keep in zip(labels.rle_counts, kept, strict=True) if keep]
        return ImageLabels(
            class_index=np.array([self._places[n] for n in labels.class_name if n in self._places], np.int64),
            xyxy=labels.xyxy[kept],
            accepted=labels.accepted[kept],
            signals={name: values[kept] for name, values in labels.signals.items()},
            masks=[{"size": size, "counts": one} for one in counts] if self._masks else None,
        )

    def _leave(self, why: str, name: str) -> None:
        self._left_count[why] += 1
        if len(self._left[why]) < EXAMPLES:
            self._left[why].append(name)

    def nothing_compared(self, run: str) -> str:
        if self._left_count["other_size"]:
            return (
                f"{self._truth.path}: gives every image another width or height than it has; was it made for resized "
                "images?"
            )
        return f"{self._truth.path}: run {run!r} has labelled none of its images yet; use `vouch run` first"

    def evaluation(
        self, run: str, workspace: str, current: Current, asked: Sequence[str], contract: ContractTruth | None
    ) -> Evaluation:
        figures = self._comparison.figures()
        curves = figures.signals
        if PROBABILITY not in asked and curves[PROBABILITY].missing == curves[PROBABILITY].labels:
            # No calibrator yet.
            curves = {name: curve for name, curve in curves.items() if name != PROBABILITY}
        for place, image in enumerate(self._truth.images):
            if place not in self._met:
                self._leave("not_labelled", image.file_name)
        annotations = self._truth.counts()
        return Evaluation(
            truth=str(self._truth.path),
            run=run,
            workspace=workspace,
            version=current.fingerprint,
            policy=current.policy,
            iou_threshold=IOU_THRESHOLD,
            file=self._truth.file.model_copy(update={"hints": self._check.hints()}),
            images=ImagePairs(
                rule=self._pairs.rule,
                evaluated=self.compared,
                **{why: self._left_count[why] for why in ("without_truth", "not_labelled", "ambiguous", "other_size")},
                examples={why: tuple(names) for why, names in self._left.items()},
            ),
            classes=ClassPairs(
                common=self._classes.common,
                without_truth={name: self._unknown[name] for name in self._classes.run_only},
                not_labelled={name: annotations[name] for name in self._classes.truth_only},
                former=self._classes.former,
            ),
            crowds=self._crowds,
            masks_missing=self._masks_missing,
            contract=contract,
            **figures._replace(signals=curves)._asdict(),
        )


def contract_truth(
    labels: RunLabels, truth: RunTruth, policy: Policy, covered: Coverage | None, codes: Ints
) -> ContractTruth | None:
    """Hold the guarantee of a policy against the truth; None where the policy is not a certified one.

    The guarantee is about the labels that the policy covers, as `read_coverage` gives them, group by group, as they
    were routed; about delivered labels also of those that people have looked at. codes (N,) is what they said, as
    `Answers.wrong_of` has it: what they called wrong is corrected, so nobody accepts it any more. A label is correct as
    `truth.truth_of_labels` has it, and the delivered set is what people leave who answer right. A guarantee with
    confidence 1 - delta may be broken, by chance, in a share delta of campaigns.

    No verdict is given where the truth lacks more than MOST_LEFT_OUT of what it is about, or looks wrong.
    """
    certification = policy.certification
    if certification is None:
        return None
    if covered is None:
        # Of before 2026-12: it is about the images that were not kept for fitting.
        side = ~labels.fit_side(certification.fit_share, certification.seed)
    else:
        side = among(label_numbers(labels.label_ids), covered.labels)
        if certification.gate == "delivered":
            side |= codes != NO_ANSWER
    labels = labels.with_accepted(labels.accepted & (codes != WRONG_ANSWER))
    place_of = {name: place for place, group in enumerate(policy.groups) for name in group.classes}
    group_of = np.array([place_of[name] for name in labels.class_names], np.int64)[labels.class_index]
    doubts = [*truth.file.doubts()]
    dropped, count = int((truth.dropped & side).sum()), int(side.sum())
    if dropped > MOST_LEFT_OUT * count:
        share = f"{pct(dropped / count)} of the {count:,} labels that it is about"
        doubts.append(f"{share} have no truth for their image or class")
    no_verdict = tuple(doubts)
    groups = tuple(
        _group(labels, truth, group, side & (group_of == place), certification.gate, certification.precision)
        for place, group in enumerate(policy.groups)
    )
    if no_verdict:
        groups = tuple(group.model_copy(update={"kept": None}) for group in groups)
    kept = [group.kept for group in groups if group.kept is not None]
    return ContractTruth(
        policy=policy.version,
        precision=certification.precision,
        confidence=certification.confidence,
        gate=certification.gate,
        simulated=certification.simulated,
        held=all(kept) if kept else None,
        no_verdict=no_verdict,
        groups=groups,
        covered=true_precision(labels.accepted, truth.correct, truth.counted & side),
        whole_run=true_precision(labels.accepted, truth.correct, truth.counted),
        without_truth=dict(truth.left_out),
    )


def true_precision(accepted: NDArray[np.bool_], correct: NDArray[np.bool_], among: NDArray[np.bool_]) -> TruePrecision:
    """Give both true precisions of the labels marked in `among`, (N,); accepted are those without a review."""
    right, all_accepted = int((accepted & correct & among).sum()), int((accepted & among).sum())
    kept, count = int((~accepted & correct & among).sum()), int(among.sum())
    return TruePrecision(
        labels=count,
        accepted=all_accepted,
        automation=_share(all_accepted, count),
        accepted_precision=_share(right, all_accepted),
        delivered_precision=_share(right + kept, all_accepted + kept),
    )


def is_kept(found: TruePrecision, gate: str, precision: float) -> bool | None:
    """Say whether a guarantee is kept; None where nothing was accepted, so nothing guaranteed."""
    value = found.accepted_precision if gate == "accepted" else found.delivered_precision
    return None if not found.accepted or value is None else value >= precision - _ROUNDING


def _group(
    labels: RunLabels, truth: RunTruth, group: Group, among: NDArray[np.bool_], gate: str, precision: float
) -> GroupTruth:
    found = true_precision(labels.accepted, truth.correct, truth.counted & among)
    certificate = group.certificate
    certified = 1 - certificate.bound if certificate is not None and group.p_correct is not None else None
    return GroupTruth(
        name=group.name,
        threshold=group.p_correct,
        certified=certified,
        kept=is_kept(found, gate, precision),
        **found.model_dump(),
    )


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def check_folder(folder: Path) -> None:
    """Make the folder, so that a wrong one is known before the work.

    Raises:
        UserError: It cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"--out: {folder} is no folder ({error.strerror}); choose another one") from error


def write_evaluation(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write evaluation.json and the plots; files of an earlier evaluation are replaced.

    Raises:
        UserError: The folder cannot be written.
    """
    check_folder(folder)
    path = folder / FILE
    try:
        path.write_text(evaluation.model_dump_json(indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); choose another folder for --out") from error
    return [path, *write_plots(evaluation, folder)]
