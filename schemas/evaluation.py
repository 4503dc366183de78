"""Defines the results of evaluation against ground truth, of simulated reviews, and of the speed benchmark."""

from pydantic import Field

from vouch_labels.schemas.campaign import Gate, Strict


class ImagePairs(Strict):
    """Which images were compared, and which were left out."""

    rule: str = Field(description="file_name: whole keys were equal; path_end: the last parts of the paths were.")
    evaluated: int = Field(ge=0, description="Images compared.")
    without_truth: int = Field(ge=0, description="Labelled images that the truth does not name.")
    not_labelled: int = Field(ge=0, description="Images of the truth that the run has not labelled.")
    ambiguous: int = Field(ge=0, description="Labelled images that fit several file names, or share one.")
    other_size: int = Field(ge=0, description="Images whose width or height differs, so boxes would not fit.")
    examples: dict[str, tuple[str, ...]] = Field(description="Some of those left out, under the names above.")


class ClassPairs(Strict):
    """Which classes were compared, and which were left out."""

    common: tuple[str, ...] = Field(description="Classes of the run that the truth has too.")
    without_truth: dict[str, int] = Field(description="Classes of the run alone -> labels left out.")
    not_labelled: dict[str, int] = Field(description="Categories of the truth alone -> annotations left out.")


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


class Confusion(Strict):
    """Which class was labelled as which; the last row and column are background."""

    names: tuple[str, ...] = Field(description="Classes, then background.")
    counts: tuple[tuple[int, ...], ...] = Field(
        description="counts[i][j]: labels of class i on objects of class j; row background: objects not found; column "
        "background: labels on no object, or on one that was found already."
    )


class TruePrecision(Strict):
    """How a set of labels was routed, and what came of it; labels that have no truth are not in it."""

    labels: int = Field(ge=0, description="Labels.")
    accepted: int = Field(ge=0, description="Of them, accepted.")
    automation: float | None = Field(description="accepted / labels; None without labels.")
    accepted_precision: float | None = Field(description="A: share of the accepted labels that is correct.")
    delivered_precision: float | None = Field(
        description="B: share of the delivered labels that is correct: the accepted ones and the correct ones among "
        "the others, for people remove or mend the wrong ones."
    )


class GroupTruth(TruePrecision):
    """The promise about one group of classes, and what is true."""

    name: str = Field(description="Name of the group.")
    threshold: float | None = Field(description="Least p(correct) that is accepted; None: nothing is.")
    certified: float | None = Field(
        description="Precision that the reviewed sample showed, as reviewers see it; None: nothing was certified."
    )
    kept: bool | None = Field(description="Whether the precision is what was promised; None: nothing was accepted.")


class ContractTruth(Strict):
    """Whether the promise of a certified policy holds."""

    policy: str = Field(description="Version of the policy.")
    precision: float = Field(description="T.")
    confidence: float = Field(description="Of the promise, for all groups together.")
    gate: Gate = Field(description="What the promise is about.")
    simulated: bool = Field(description="The policy rests on a simulated reviewer.")
    held: bool | None = Field(description="Every group's promise is kept; None: nothing was accepted.")
    groups: tuple[GroupTruth, ...] = Field(description="On the side that was certified, which the promise is about.")
    certified_side: TruePrecision = Field(description="All groups together.")
    whole_run: TruePrecision = Field(description="The images kept for fitting included, whose labels go to review.")
    without_truth: dict[str, int] = Field(description="Why -> labels left out.")


class Evaluation(Strict):
    """The whole comparison."""

    truth: str = Field(description="The ground-truth file.")
    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    version: str = Field(description="Fingerprint of the settings that made the labels.")
    policy: str = Field(description="Version of the policy that decided.")
    iou_threshold: float = Field(description="From here on a label is on an object, where nothing else is said.")
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
    broken: float = Field(ge=0, le=1, description="Share of draws whose promise is broken, in any group.")
    broken_interval: tuple[float, float] = Field(description="Clopper and Pearson's 95% interval of it.")
    review_minutes: float = Field(ge=0, description="Median time of the reviews, plants included.")
    seconds_per_box: float | None = Field(
        description="Median time that people spend on reviews and routed labels, over delivered boxes, those that they "
        "mended included; None without any."
    )
    oracle: float = Field(ge=0, le=1, description="Median automation of who knows every label and ranks as we do.")
    naive: float = Field(ge=0, le=1, description="Median automation of the loosest threshold that looked good enough.")
    naive_broken: float = Field(ge=0, le=1, description="Share of draws in which that threshold broke the promise.")


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
    images: int = Field(ge=0, description="Images with truth.")
    labels: int = Field(ge=0, description="Labels with truth, which the draws were played on.")
    correct: float | None = Field(description="Share of them that is correct; None without labels.")
    without_truth: dict[str, int] = Field(description="Why -> labels left out.")
    gate: Gate
    confidence: float
    draws: int = Field(ge=1)
    missed: float = Field(ge=0, le=1, description="Share of wrong labels that the simulated reviewer calls correct.")
    plants: int = Field(0, ge=0, description="Known-wrong labels mixed in to see what the reviewer misses.")
    seconds_per_box_by_hand: float | None = Field(description="The same time where people look at every label.")
    rows: tuple[SimulatedRow, ...]
    answers: tuple[PlanningAnswer, ...]


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
