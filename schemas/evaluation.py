"""Defines the results of evaluation against ground truth, of simulated reviews, and of the speed benchmark."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from pydantic import Field

from vouch_labels.schemas.campaign import Gate, Strict, nearest
from vouch_labels.schemas.text import (
    Block,
    Columns,
    Table,
    assumption_text,
    count,
    guarantee_text,
    mebibytes,
    pct,
    plural,
    policy_name,
    score,
    share,
    some,
)

MOST_CELLS: Final = 8
"""Classes of a confusion matrix that is still shown whole; of larger ones the most frequent confusions are."""
MOST_PAIRS: Final = 15
COVERAGE_ROWS: Final = 10


MOST_LEFT_OUT: Final = 0.01
"""Share of annotations, or of the labels that a guarantee is about, without which there still is a verdict on it: they
can shift the precision by as much, and targets lie further apart."""


class TruthFile(Strict):
    """What a ground-truth file holds, and what of it cannot be used."""

    annotations: int = Field(0, ge=0, description="Annotations in the file.")
    unknown_image: int = Field(0, ge=0, description="Left out: their image_id is that of no image of the file.")
    unknown_category: int = Field(
        0, ge=0, description="Left out: their category_id is that of no category of the file."
    )
    examples: dict[str, tuple[str, ...]] = Field({}, description="Some of those left out, under the names above.")
    ignored: int = Field(0, ge=0, description="Annotations with ignore: 1, which are taken as crowd regions.")
    hints: tuple[str, ...] = Field((), description="What is wrong with the boxes as a whole, a line each.")

    @property
    def left_out(self) -> int:
        """Annotations that are not compared."""
        return self.unknown_image + self.unknown_category

    def doubts(self) -> Iterator[str]:
        """Why no verdict on a guarantee can rest on it, a line each."""
        if self.left_out > MOST_LEFT_OUT * self.annotations:
            share = pct(self.left_out / self.annotations)
            yield f"{share} of the annotations name an image or a category that the truth does not list"
        yield from self.hints

    def lines(self) -> Iterator[str]:
        """What was left out or taken otherwise, and what is wrong with it."""
        texts = {"unknown_image": "an image_id", "unknown_category": "a category_id"}
        for why, text in texts.items():
            if number := getattr(self, why):
                named = ", ".join(self.examples.get(why, ()))
                yield (
                    f"left out: {number:,} of {plural(self.annotations, 'annotation')}: {text} that the truth does not "
                    f"list: {named}{' ...' if number > len(self.examples.get(why, ())) else ''}"
                )
        if self.ignored:
            yield plural(
                self.ignored,
                "annotation has ignore: 1, and is taken as a crowd region",
                "annotations have ignore: 1, and are taken as crowd regions",
            )
        yield from (f"the truth looks wrong: {hint}" for hint in self.hints)


class ImagePairs(Strict):
    """Which images were compared, and which were left out."""

    rule: str = Field(
        description="file_name: whole keys were equal; path_end: the last parts of the paths were; both: some so, some "
        "so."
    )
    evaluated: int = Field(ge=0, description="Images compared.")
    without_truth: int = Field(ge=0, description="Labelled images that the truth does not name.")
    not_labelled: int = Field(ge=0, description="Images of the truth that the run has not labelled.")
    ambiguous: int = Field(ge=0, description="Labelled images that fit several file names, or share one.")
    other_size: int = Field(ge=0, description="Images whose width or height differs, so boxes would not fit.")
    examples: dict[str, tuple[str, ...]] = Field(description="Some of those left out, under the names above.")

    def warning(self) -> Iterator[str]:
        """Say that most labelled images are not compared, where it is so."""
        labelled = self.evaluated + self.without_truth + self.ambiguous + self.other_size
        if 2 * self.evaluated < labelled:
            yield (
                f"ONLY {self.evaluated:,} of {plural(labelled, 'labelled image')} compared; the figures say nothing of "
                "the others"
            )


class ClassPairs(Strict):
    """Which classes were compared, and which were left out."""

    common: tuple[str, ...] = Field(description="Classes of the run that the truth has too.")
    without_truth: dict[str, int] = Field(description="Classes of the run alone -> labels left out.")
    not_labelled: dict[str, int] = Field(description="Categories of the truth alone -> annotations left out.")
    former: dict[str, str] = Field({}, description="Category that has a former name of a class -> its name now.")

    def lines(self) -> Iterator[str]:
        """What was paired by a former name, and what of either side is alone, a line each."""
        if self.former:
            pairs = [f"{name} is {present} now" for name, present in self.former.items()]
            yield f"paired by former names of classes: {some(pairs, MOST_PAIRS)}"
        if self.without_truth:
            named = [f"{name} ({number:,})" for name, number in self.without_truth.items()]
            classes = plural(len(named), "class of the run", "classes of the run")
            yield f"left out: {classes} alone: {some(named, MOST_PAIRS)}"
        if self.not_labelled:
            # Those that may be slips come first.
            meant = {name: self._meant(name) for name in self.not_labelled}
            named = [
                f"{name} ({self.not_labelled[name]:,}{f'; did you mean {meant[name]}?' if meant[name] else ''})"
                for name in sorted(self.not_labelled, key=lambda name: not meant[name])
            ]
            categories = plural(len(named), "category of the truth", "categories of the truth")
            yield f"left out: {categories} alone: {some(named, MOST_PAIRS)}"

    def _meant(self, category: str) -> str:
        """The class that a category of the truth may mean: more alike where the truth has that class by its name."""
        return nearest(category, self.without_truth) or nearest(category, self.common, 0.8)


class ClassAp(Strict):
    """Average precision of one class; None when the truth has no object of it."""

    objects: int = Field(ge=0, description="Objects in the truth, crowds aside.")
    ap: float | None = Field(description="Mean over IoU 0.50, 0.55 ... 0.95.")
    ap50: float | None = Field(description="At IoU 0.50.")
    recall50: float | None = Field(description="Greatest recall at IoU 0.50.")
    precision_at_recall: tuple[float, ...] = Field(description="At IoU 0.50 and recall 0, 0.01 ... 1; empty if none.")


class AveragePrecision(Strict):
    """COCO's detection figures over all labels, accepted or not; None when the truth holds no object."""

    map: float | None = Field(description="Mean of the classes' AP.")
    ap50: float | None = Field(description="The same at IoU 0.50 alone.")
    ap75: float | None = Field(description="The same at IoU 0.75 alone.")
    ar100: float | None = Field(description="Mean greatest recall, at most 100 labels of a class in an image.")
    classes: dict[str, ClassAp] = Field(description="Class name -> its figures.")


class Quality(Strict):
    """How many labels are right, and how many objects they find."""

    labels: int = Field(ge=0, description="correct + wrong + ignored.")
    correct: int = Field(ge=0, description="Class right, IoU with an object large enough, no duplicate.")
    wrong: int = Field(ge=0)
    ignored: int = Field(ge=0, description="On a crowd region: neither right nor wrong.")
    objects: int = Field(ge=0, description="Objects in the truth, crowds aside.")
    precision: float | None = Field(description="correct / (correct + wrong); None without labels.")
    recall: float | None = Field(description="correct / objects; None without objects.")


def quality_table(title: str, rows: Mapping[str, Quality]) -> Table:
    """Lay out how right sets of labels are."""
    names = ("labels", "correct", "wrong", "ignored", "objects")
    columns: Columns = {"": str, **dict.fromkeys(names, count), "precision": share, "recall": share}
    values = [(name, *(getattr(one, column) for column in list(columns)[1:])) for name, one in rows.items()]
    return Table(title, columns, values)


class LabelQuality(Quality):
    """The same over all classes and for each."""

    classes: dict[str, Quality] = Field(description="Class name -> its figures.")


class SweepRow(Strict):
    """What would stay if only labels at or above a threshold were kept."""

    threshold: float
    labels: int = Field(ge=0, description="Labels kept, those on crowd regions aside.")
    share: float = Field(description="Of all labels.")
    precision: float | None
    recall: float | None


class RiskPoint(Strict):
    """The share of labels kept when the best are kept first, and how many of them are right."""

    coverage: float = Field(description="Share of all labels.")
    precision: float
    threshold: float = Field(description="Least value of the signal among them.")


class ReliabilityBin(Strict):
    """Labels of similar score."""

    labels: int = Field(ge=1)
    score: float = Field(description="Their mean score.")
    precision: float = Field(description="Share of them that is right.")


class Reliability(Strict):
    """Whether a score means what it says."""

    ece: float = Field(description="Expected calibration error: mean |score - precision| over the bins.")
    bins: tuple[ReliabilityBin, ...] = Field(description="Of equal mass as far as ties allow.")


class SignalCurves(Strict):
    """How well one signal tells right labels from wrong ones."""

    labels: int = Field(ge=0, description="Labels, those on crowd regions aside.")
    missing: int = Field(ge=0, description="Of them, those without a value; they are kept by no threshold.")
    sweep: tuple[SweepRow, ...]
    risk_coverage: tuple[RiskPoint, ...]
    aurc: float | None = Field(
        description="Area under the curve of risk (1 - precision) over coverage; less is better."
    )
    reliability: Reliability | None = Field(description="None for a signal that is no number from 0 to 1.")

    def blocks(self, name: str) -> Iterator[Block]:
        """The curves of the signal of that name."""
        digits = max((len(f"{row.threshold:.10g}".partition(".")[2]) for row in self.sweep), default=0)
        columns: Columns = {f"least {name}": f"{{:.{digits}f}}".format, "labels": count}
        columns |= dict.fromkeys(("share", "precision", "recall"), share)
        swept = [(row.threshold, row.labels, row.share, row.precision, row.recall) for row in self.sweep]
        title = f"{name}: labels at or above a threshold, of accepted + review"
        yield Table(title, columns, swept)
        if self.missing:
            yield f"{self.missing:,} of {plural(self.labels, 'label')} without {name}; no threshold keeps them"
        area = "" if self.aurc is None else f", area under risk {self.aurc:.4f}"
        columns = {"share kept, best first": share, "precision": share, f"least {name}": "{:.4g}".format}
        kept = [(one.coverage, one.precision, one.threshold) for one in self._some_points()]
        yield Table(f"{name}: risk and coverage{area}", columns, kept)
        if self.reliability is not None:
            columns = {f"mean {name}": score, "labels": count, "precision": share}
            bins = [(one.score, one.labels, one.precision) for one in self.reliability.bins]
            yield Table(f"{name}: reliability, equal-mass ECE {self.reliability.ece:.4f}", columns, bins)

    def _some_points(self) -> list[RiskPoint]:
        """The first points that keep a tenth of the labels, two tenths and so on."""
        found: list[RiskPoint] = []
        for row in range(1, COVERAGE_ROWS + 1):
            wanted = row / COVERAGE_ROWS - 1e-9
            point = next((point for point in self.risk_coverage if point.coverage >= wanted), None)
            if point is not None and point not in found:
                found.append(point)
        return found


class Confusion(Strict):
    """Which class was labelled as which; the last row and column are background."""

    names: tuple[str, ...] = Field(description="Classes, then background.")
    counts: tuple[tuple[int, ...], ...] = Field(
        description="counts[i][j]: labels of class i on objects of class j; row background: objects not found; column "
        "background: labels on no object, or on one that was found already."
    )

    def blocks(self, what: str) -> Iterator[Block]:
        """The matrix of such labels, or of many classes the most frequent confusions."""
        if len(self.names) <= MOST_CELLS + 1:
            title = f"confusion of {what} labels: rows are labels, columns the truth"
            rows = [
                (name, *(number or None for number in counts))
                for name, counts in zip(self.names, self.counts, strict=True)
            ]
            yield Table(title, {"": str, **dict.fromkeys(self.names, count)}, rows)
            return
        background = len(self.names) - 1
        # What was missed, or on nothing, is in other tables; here it would hide the rest.
        pairs = sorted(
            (-self.counts[row][column], row, column)
            for row in range(background)
            for column in range(background)
            if row != column and self.counts[row][column]
        )
        if pairs:
            columns: Columns = {"labelled as": str, "true class": str, "labels": count}
            named = [(self.names[row], self.names[column], -number) for number, row, column in pairs[:MOST_PAIRS]]
            yield Table(f"most frequent confusions of {what} labels", columns, named)
        swapped, nowhere = -sum(number for number, _, _ in pairs), sum(row[background] for row in self.counts)
        yield (
            f"{what} labels on an object of another class: {swapped:,}, on no object or on one found already: "
            f"{nowhere:,}; {plural(sum(self.counts[background]), 'object')} not found"
        )


class TruePrecision(Strict):
    """How a set of labels was routed, and what came of it; labels that have no truth are not in it."""

    labels: int = Field(ge=0, description="Labels.")
    accepted: int = Field(ge=0, description="Of them, accepted.")
    automation: float | None = Field(description="accepted / labels; None without labels.")
    accepted_precision: float | None = Field(description="A: share of the accepted labels that is correct.")
    delivered_precision: float | None = Field(
        description="B: share of the delivered labels that is correct: the accepted ones and the correct ones among "
        "the others, for people remove or fix the wrong ones."
    )


class GroupTruth(TruePrecision):
    """The guarantee about one group of classes, and what is true."""

    name: str = Field(description="Name of the group.")
    threshold: float | None = Field(description="Least p(correct) that is accepted; None: nothing is.")
    certified: float | None = Field(
        description="Precision that the reviewed sample showed, as reviewers see it; None: nothing was certified."
    )
    kept: bool | None = Field(
        description="Whether the precision is what was guaranteed; None: nothing was accepted, or no verdict is given."
    )


class ContractTruth(Strict):
    """Whether the guarantee of a certified policy holds."""

    policy: str = Field(description="Version of the policy.")
    precision: float = Field(description="T.")
    confidence: float = Field(description="Of the guarantee, for all groups together.")
    gate: Gate = Field(description="What the guarantee is about.")
    simulated: bool = Field(description="The policy rests on a simulated reviewer.")
    held: bool | None = Field(
        description="Every group's guarantee is kept; None: nothing was accepted, or no verdict is given."
    )
    no_verdict: tuple[str, ...] = Field((), description="Why no verdict is given, a line each; empty: one is.")
    groups: tuple[GroupTruth, ...] = Field(description="Of the labels that the guarantee covers.")
    covered: TruePrecision = Field(description="All groups together.")
    whole_run: TruePrecision = Field(description="All labels, those that it does not cover included.")
    without_truth: dict[str, int] = Field(description="Why -> labels left out.")

    def blocks(self) -> Iterator[Block]:
        """What the policy guaranteed, and what is true."""
        whose = ", certified by a simulated reviewer" if self.simulated else ""
        asked = guarantee_text(self.precision, self.gate, self.confidence)
        columns: Columns = {"group": str, "labels": count, "accepted": count, "automation": share, "precision A": share}
        columns |= {"precision B": share, "certified": share, "kept": lambda kept: "yes" if kept else "NO"}
        rows = [_true_row(one.name, one, one.certified, one.kept) for one in self.groups]
        rows += [_true_row("covered", self.covered), _true_row("whole run", self.whole_run)]
        yield Table(f"guarantee of {policy_name(self.policy)}{whose}: {asked}", columns, rows)
        for why in self.no_verdict:
            yield f"NO VERDICT on the guarantee is given: {why}"
        chance = pct(1 - self.confidence)
        held = {
            None: "no verdict is given" if self.no_verdict else "nothing was accepted, so nothing was guaranteed",
            True: "the guarantee held",
            False: f"the guarantee is BROKEN; chance alone does that in up to {chance} of campaigns",
        }[self.held]
        yield f"{held}. Precision A: of the accepted labels; B: of those delivered, wrong ones under review removed."
        for why, labels in self.without_truth.items():
            yield f"left out of the guarantee: {plural(labels, 'label')}, {why}"


def _true_row(
    name: str, found: TruePrecision, certified: float | None = None, kept: bool | None = None
) -> tuple[object, ...]:
    precisions = (found.automation, found.accepted_precision, found.delivered_precision)
    return (name, found.labels, found.accepted, *precisions, certified, kept)


class Evaluation(Strict):
    """The whole comparison."""

    truth: str = Field(description="The ground-truth file.")
    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    version: str = Field(description="Fingerprint of the settings that made the labels.")
    policy: str = Field(description="Version of the policy that decided.")
    iou_threshold: float = Field(description="From here on a label is on an object, where nothing else is said.")
    file: TruthFile = Field(description="What the ground-truth file holds, and what of it was left out.")
    images: ImagePairs
    classes: ClassPairs
    crowds: int = Field(ge=0, description="Crowd regions of the truth; what lies on them is neither right nor wrong.")
    boxes: AveragePrecision
    masks: AveragePrecision | None = Field(description="None when the truth has no masks.")
    masks_missing: int = Field(ge=0, description="Annotations compared that have no mask.")
    accepted: LabelQuality = Field(description="Of the accepted labels alone.")
    accepted_and_review: LabelQuality = Field(description="Of all labels.")
    contract: ContractTruth | None = Field(description="None where no certified policy decided.")
    signals: dict[str, SignalCurves] = Field(description="Signal -> what thresholds on it would do.")
    confusion_accepted: Confusion
    confusion_accepted_and_review: Confusion

    def blocks(self, every: bool = False, signals: Sequence[str] = ()) -> Iterator[Block]:
        """What was compared, and the figures: those that matter first and the curves of `signals`, or every one."""
        yield from self._pairs()
        columns: Columns = {"": str, "mAP": score, "AP50": score, "AP75": score, "AR100": score}
        kinds = {"boxes": self.boxes, "masks": self.masks}
        rows = [(name, one.map, one.ap50, one.ap75, one.ar100) for name, one in kinds.items() if one is not None]
        yield Table("COCO average precision of all labels, by detector_score", columns, rows)
        sets = {"accepted": self.accepted, "accepted + review": self.accepted_and_review}
        yield quality_table(f"labels at IoU {self.iou_threshold}", sets)
        if self.contract is not None:
            yield from self.contract.blocks()
        names = ("accepted", "precision of accepted", "recall of accepted", "all", "precision of all", "recall of all")
        columns = {"class": str, **dict(zip(names, (count, share, share) * 2, strict=True))}
        by_class = [
            (name, one.labels, one.precision, one.recall, every.labels, every.precision, every.recall)
            for name, every in self.accepted_and_review.classes.items()
            for one in (self.accepted.classes[name],)
        ]
        yield Table("labels by class: of accepted alone, then of accepted + review", columns, by_class)
        for name in self.signals if every else signals:
            yield from self.signals[name].blocks(name)
        if not every:
            yield "--all shows every table: average precision by class, thresholds and reliability of scores, confusion"
            return
        yield self._class_ap()
        yield from self.confusion_accepted.blocks("accepted")
        yield from self.confusion_accepted_and_review.blocks("accepted + review")

    def _pairs(self) -> Iterator[str]:
        images, classes = self.images, self.classes
        how = {"file_name": "by file_name", "path_end": "by the last parts of their paths"}.get(
            images.rule, "by file_name, and some by the last parts of their paths"
        )
        yield from images.warning()
        yield f"run {self.run} against {self.truth}"
        shared = plural(len(classes.common), "class", "classes")
        yield f"{plural(images.evaluated, 'image')} compared, paired {how}; {shared}, by name"
        yield from self._left_out()
        if self.crowds:
            yield f"{plural(self.crowds, 'crowd region')}: labels there are neither right nor wrong"
        if not self.accepted_and_review.labels:
            yield "there are no labels of these classes on these images; what needs one is left empty"
        if self.masks is None:
            missing = self.masks_missing
            why = (
                plural(missing, "annotation has no mask", "annotations have no mask")
                if missing
                else "the truth has no annotation here"
            )
            yield f"masks are not compared: {why}"

    def remarks(self) -> Iterator[str]:
        """What of either side is not compared, and what is wrong with the truth, a line each."""
        yield from self.images.warning()
        yield from self._left_out()

    def _left_out(self) -> Iterator[str]:
        images = self.images
        yield from self.file.lines()
        for why, text in _LEFT.items():
            if number := getattr(images, why):
                named = ", ".join(images.examples.get(why, ()))
                yield f"left out: {plural(number, *text)}: {named}{' ...' if number > 3 else ''}"
        yield from self.classes.lines()

    def _class_ap(self) -> Table:
        rows = []
        for name, boxes in self.boxes.classes.items():
            masks = (None, None) if self.masks is None else (self.masks.classes[name].ap, self.masks.classes[name].ap50)
            rows.append((name, boxes.objects, boxes.ap, boxes.ap50, *masks))
        names = ("AP", "AP50", "mask AP", "mask AP50")
        return Table(
            "average precision by class", {"class": str, "objects": count, **dict.fromkeys(names, score)}, rows
        )


_LEFT: Final = {
    "without_truth": ("labelled image is not in the truth", "labelled images are not in the truth"),
    "not_labelled": ("image of the truth has not been labelled", "images of the truth have not been labelled"),
    "ambiguous": ("labelled image fits no file_name alone", "labelled images fit no file_name alone"),
    "other_size": ("image has another size in the truth", "images have another size in the truth"),
}


class Spread(Strict):
    """A figure over all draws."""

    median: float
    tenth: float = Field(description="Nine draws in ten reach at least this.")
    worst: float = Field(description="The least of all draws.")


class SimulatedRow(Strict):
    """What so many reviews came to at one precision."""

    precision: float = Field(description="T.")
    reviews: int = Field(ge=0, description="Labels that were to be reviewed, those for fitting included.")
    reviewed: float = Field(ge=0, description="Median of those that were: fewer where a side has no more.")
    certified: float = Field(ge=0, le=1, description="Share of draws that certified something.")
    automation: Spread = Field(description="Share of all labels accepted; 0 where nothing was certified.")
    accepted_precision: Spread | None = Field(
        description="A: true precision of the accepted labels, over draws that accepted any; None: none did."
    )
    delivered_precision: Spread | None = Field(description="B: that of the delivered labels, over the same draws.")
    broken: float = Field(ge=0, le=1, description="Share of draws whose guarantee is broken, in any group.")
    broken_interval: tuple[float, float] = Field(description="Clopper and Pearson's 95% interval of it.")
    review_minutes: float = Field(ge=0, description="Median time of the reviews, honeypots included.")
    seconds_per_box: float | None = Field(
        description="Median time that people spend on reviews and routed labels, over delivered boxes, those that they "
        "corrected included; None without any."
    )
    oracle: float = Field(ge=0, le=1, description="Median automation of who knows every label and ranks as we do.")
    naive: float = Field(ge=0, le=1, description="Median automation of the loosest threshold that looked good enough.")
    naive_broken: float = Field(ge=0, le=1, description="Share of draws in which that threshold broke the guarantee.")


class PlanningAnswer(Strict):
    """How many reviews automate so much, at one precision."""

    precision: float
    automate: float = Field(description="Share of labels that shall be accepted in the median draw.")
    reviews: int | None = Field(description="Fewest of those tried that do; None: none does.")
    words: str = Field(description="The answer as a sentence.")


class Simulation(Strict):
    """All that was played."""

    truth: str = Field(description="The ground-truth file.")
    run: str = Field(description="Name of the run.")
    file: TruthFile = Field(TruthFile(), description="What the ground-truth file holds, and what of it was left out.")
    images: int = Field(ge=0, description="Images with truth.")
    labelled: int = Field(0, ge=0, description="Images of the run.")
    labels: int = Field(ge=0, description="Labels with truth, which the draws were played on.")
    correct: float | None = Field(description="Share of them that is correct; None without labels.")
    without_truth: dict[str, int] = Field(description="Why -> labels left out.")
    gate: Gate
    confidence: float
    draws: int = Field(ge=1)
    missed: float = Field(ge=0, le=1, description="Share of wrong labels that the simulated reviewer calls correct.")
    honeypots: int = Field(0, ge=0, description="Known-wrong labels mixed in to see what the reviewer misses.")
    assumed: float = Field(0, ge=0, lt=1, description="Share of wrong labels assumed to be missed; 0 with honeypots.")
    seconds_per_box_by_hand: float | None = Field(description="The same time where people look at every label.")
    rows: tuple[SimulatedRow, ...]
    answers: tuple[PlanningAnswer, ...]

    def blocks(self) -> Iterator[Block]:
        """What was played, the tables, how to read them, and the answers."""
        yield f"run {self.run} against {self.truth}, played with a simulated reviewer: a plan, not a certificate"
        right = "" if self.correct is None else f", {pct(self.correct)} of them correct"
        few = (
            f"ONLY {self.images:,} of {plural(self.labelled, 'labelled image')}: "
            if 2 * self.images < self.labelled
            else ""
        )
        yield f"{few}{plural(self.labels, 'label')} of {plural(self.images, 'image')} with truth{right}"
        yield from self.file.lines()
        for why, labels in self.without_truth.items():
            yield f"left out: {plural(labels, 'label')}, {why}"
        if self.missed:
            known = (
                f"measured with {plural(self.honeypots, 'honeypot')}" if self.honeypots else "and nobody measures it"
            )
            yield f"the reviewer calls {pct(self.missed)} of the wrong labels correct, {known}"
        assumed = f", {assumption_text(self.assumed)}" if self.assumed else ""
        yield (
            f"{self.draws:,} draws each; the guarantee: at least T of the {self.gate} labels correct, confidence "
            f"{self.confidence:g}{assumed}"
        )
        first: Columns = {"T": "{:g}".format, "reviews": str}
        names = ("certified", "automation", "9 of 10", "worst", "oracle", "naive")
        columns = first | dict.fromkeys(names, pct)
        columns |= {"review min": "{:.0f}".format, "s a box": "{:.2f}".format}
        yield Table("what is automated", columns, [(*_asked(row), *_automated(row)) for row in self.rows])
        precisions = ("A worst", "A 9 of 10", "B worst", "B 9 of 10")
        columns = first | dict.fromkeys(precisions, share) | {"broken": pct, "95% interval": str, "naive broken": pct}
        yield Table("what is true", columns, [(*_asked(row), *_true(row)) for row in self.rows])
        yield (
            "Automation: share of all labels accepted: median, what nine draws in ten reach, worst. A, B: true "
            "precision of the accepted, and of the delivered labels. Broken: share of draws whose guarantee is not "
            f"kept; chance may break {pct(1 - self.confidence)}."
        )
        yield (
            "Oracle: who knows every label, and ranks as we do. Naive: the loosest "
            "threshold that looks good enough on as many reviews, without a test."
        )
        if self.seconds_per_box_by_hand is not None:
            yield (
                "s a box: seconds that people spend on reviews and routed labels for each delivered box; "
                f"{self.seconds_per_box_by_hand:.2f} if they look at every label."
            )
        if any(row.reviewed < row.reviews for row in self.rows):
            which = "there are" if self.gate == "delivered" else "the regions drawn from have"
            yield (
                f"In brackets: labels that were reviewed, for {which} no more ({self.labels:,} labels in "
                "all); none is drawn twice."
            )
        yield from (answer.words for answer in self.answers)


def _asked(row: SimulatedRow) -> tuple[float, str]:
    return row.precision, f"{row.reviews:,}" + (f" ({row.reviewed:,.0f})" if row.reviewed < row.reviews else "")


def _automated(row: SimulatedRow) -> tuple[float | None, ...]:
    spread = (row.automation.median, row.automation.tenth, row.automation.worst)
    return (row.certified, *spread, row.oracle, row.naive, row.review_minutes, row.seconds_per_box)


def _true(row: SimulatedRow) -> tuple[object, ...]:
    precisions: list[float | None] = []
    for one in (row.accepted_precision, row.delivered_precision):
        precisions += (None, None) if one is None else (one.worst, one.tenth)
    low, high = row.broken_interval
    return (*precisions, row.broken, f"{pct(low)} to {pct(high)}", row.naive_broken)


class StepTime(Strict):
    """One step of the work."""

    name: str = Field(description="acquire, detect, segment, score, route, tables, write or rest.")
    seconds: float = Field(description="Wall-clock time that the step took, of those below it nothing.")
    share: float = Field(description="Of the time of all steps, 0..1.")


class BenchReport(Strict):
    """Speed of the whole way from the image file to the written labels, on this machine."""

    source: str = Field(description="Where the images came from.")
    images: int = Field(description="Images in the measured part, after the warm-up.")
    distinct: int = Field(description="Different ones; fewer where a folder's were measured several times over.")
    failed: int = Field(description="Of them, those that could not be labelled.")
    labels: int = Field(description="Labels found.")
    device: str = Field(description="What the models ran on, in words.")
    precision: str = Field(description="fp32 or bf16.")
    engine: str = Field(description="fast or reference.")
    cpu_threads: int = Field(description="torch's threads.")
    fetch_threads: int = Field(description="Threads that fetched and decoded.")
    seconds: float = Field(description="Wall-clock time of the measured part.")
    images_per_second: float = Field(description="Fetched, decoded, labelled and written.")
    steps: list[StepTime] = Field(description="Where the time goes when steps follow one another.")
    fetching_ms: float = Field(description="Time of one thread to fetch an image, milliseconds.")
    decoding_ms: float = Field(description="Time of one thread to decode an image, milliseconds.")
    gpu_busy: float | None = Field(description="Share of the time in which the GPU computed, 0..1; None on a CPU.")
    peak_bytes: int = Field(description="Most memory that the process held on the host.")
    gpu_peak_bytes: int | None = Field(description="Most memory that torch held on the GPU; None on a CPU.")
    load_before: float = Field(description="Processes that wanted a core in the minute before.")
    bottleneck: str = Field(description="What limits the speed and what would help, in words.")

    def blocks(self) -> Iterator[Block]:
        """The speed, the share of each step, memory, and the bottleneck last."""
        failed = f", {self.failed} of them failed" if self.failed else ""
        repeated = f" ({self.distinct} different ones, again and again)" if self.distinct < self.images else ""
        yield f"{plural(self.images, 'image')} of {self.source}{repeated}{failed}; {plural(self.labels, 'label')}"
        steps = [(step.name, step.seconds, step.share) for step in self.steps]
        yield Table("", {"step": str, "time": "{:.2f} s".format, "share": share}, steps)
        yield (
            f"models on {self.device}, {self.precision}, engine {self.engine}; {self.cpu_threads} CPU threads; "
            f"an image takes one of {self.fetch_threads} threads {self.fetching_ms:.1f} ms to fetch and "
            f"{self.decoding_ms:.1f} ms to decode"
        )
        memory = f"memory: {mebibytes(self.peak_bytes)} on the host"
        if self.gpu_peak_bytes is not None and self.gpu_busy is not None:
            memory += f", {mebibytes(self.gpu_peak_bytes)} on the GPU, which computed {pct(self.gpu_busy)}"
        yield memory
        yield f"speed: {self.images_per_second:.2f} images/s from the file to the written labels"
        yield f"bottleneck: {self.bottleneck}"
