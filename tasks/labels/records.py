"""Defines labelled images, the records that an export is made of, and what it reports."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

from pydantic import AliasChoices, Field

from vouch_labels.schemas.campaign import Gate, Strict, Undecided

Reviewed = Literal["", "kept", "corrected", "added", "rejected", "duplicate", "unclear", "disputed"]
"""What people made of a label: nothing yet; it is right; they corrected it; they drew it; there is nothing to label; as
they corrected it, another label shows the object; an object is there, but not what or where; they disagree."""
Provenance = Literal["auto", "human", "simulated"]
"""Who decided an annotation; simulated: a reviewer who answers from ground truth."""


class ExportLabel(NamedTuple):
    """One box; a tuple, since there are millions."""

    label_id: str
    """Stable id of the label."""
    class_name: str
    """One of the categories."""
    xyxy: tuple[float, float, float, float]
    """Pixels of the EXIF-oriented original, right and bottom exclusive."""
    rle_counts: bytes | None
    """Compressed COCO RLE of the image's size; None without a mask."""
    area: int
    """Pixels of the mask; 0 without one."""
    score: float
    """Detector score in [0, 1]; NaN for one that people drew."""
    p_correct: float | None
    """Calibrated probability in [0, 1]; None before there is a calibrator."""
    decision: Literal["accept", "review"] | None
    """The policy's: accept, or leave to people; None for one that people drew."""
    policy: str | None
    """Version of the policy that decided."""
    reviewed: Reviewed = ""
    """What people made of it; goes before the decision."""
    provenance: Provenance = "auto"
    """Who decided it."""
    verdict: str | None = None
    """The verdict of people, as the annotation has it."""


class ExportImage(NamedTuple):
    """One labelled image."""

    key: str
    """Key relative to the source."""
    width: int
    """Pixels of the EXIF-oriented original."""
    height: int
    """Pixels of the EXIF-oriented original."""
    labels: list[ExportLabel]
    """In the order in which they get their ids; may be empty."""
    sha256: str | None = None
    """Hex of the file's content: images of one content share a split."""
    orientation: int = 1
    """EXIF orientation 1..8 that was applied before labelling."""
    checked: frozenset[str] = frozenset()
    """Classes that it is exhaustively annotated for."""


def with_shown_names(image: ExportImage, names: Mapping[str, str]) -> ExportImage:
    """Give the labels of an image the present names of their classes; names as in `Current.names`."""
    labels = [label._replace(class_name=names.get(label.class_name, label.class_name)) for label in image.labels]
    return image._replace(labels=labels, checked=frozenset(names.get(name, name) for name in image.checked))


class ClassCounts(Strict):
    """How the labels of one class ended, by the class after review; they sum to the labels that came in."""

    accepted: int = Field(0, ge=0, description="Written as plain labels because a policy accepted them.")
    kept: int = Field(0, ge=0, description="Written as plain labels because people called them correct.")
    corrected: int = Field(0, ge=0, description="Written as plain labels as people corrected them.")
    added: int = Field(0, ge=0, description="Written as plain labels because people drew them.")
    rejected: int = Field(0, ge=0, description="Left out because people said that there is no such object.")
    duplicate: int = Field(0, ge=0, description="Left out because, as people corrected them, another shows the object.")
    undecided: int = Field(0, ge=0, description="Written although they wait for review.")
    dropped: int = Field(0, ge=0, description="Left out because they wait for review.")
    unusable: int = Field(0, ge=0, description="Left out because their box has no extent inside the image.")
    left_out: int = Field(
        0, ge=0, description="Decided, and left out with their image because another of its labels waits for review."
    )


class AnnotationFile(Strict):
    """One annotation file; of Parquet, images.parquet belongs to annotations.parquet."""

    file: str = Field(description="Its key, relative to the workspace.")
    images: int = Field(0, ge=0, description="Images in it.")
    annotations: int = Field(0, ge=0, description="Annotations in it, crowd regions included.")


class SplitCounts(Strict):
    """What the annotation files of a split hold."""

    file: str = Field(description="Key of the first annotation file, relative to the workspace.")
    files: list[AnnotationFile] = Field([], description="All of them; those of a second format hold the same again.")
    images: int = Field(0, ge=0, description="Images in it.")
    annotations: int = Field(0, ge=0, description="Annotations in it, crowd regions included.")
    classes: dict[str, int] = Field(description="Category -> annotations, crowd regions included.")


class Guarantee(Strict):
    """What a certified policy guarantees of labels; its certificates are in policies/<policy>.json."""

    policy: str = Field(description="Version of the policy.")
    precision: float = Field(description="Share of labels that are correct, at least.")
    confidence: float = Field(description="Confidence of that.")
    gate: Gate = Field(description="accepted: of the labels that no person looked at; delivered: of all plain labels.")
    missed: float = Field(0, description="Share of the wrong labels that reviewers are assumed to miss at most.")
    labels: int = Field(0, ge=0, description="Labels that it covers: when its samples were drawn nobody had seen them.")
    images: int = Field(0, ge=0, description="Images that these are on.")
    as_of: str = Field("", description="When the last of its samples was drawn, ISO 8601, UTC.")
    simulated: bool = Field(description="Verdicts came from a simulated reviewer, so nothing is guaranteed in earnest.")
    left_out: int = Field(
        0,
        ge=0,
        description="Plain labels that it is about as well and that are not in the data set, since their image is left "
        "out: it holds of both together.",
    )
    precision_of_rest: float | None = Field(
        None,
        description="Share of correct labels that this leaves for those in the data set at least, were all wrong ones "
        "among them; None: nothing is left out.",
    )
    waiting: int = Field(
        0,
        ge=0,
        description="Labels that wait for people. A guarantee about delivered labels counts those that people keep: it "
        "holds of the data set when none waits; until then more of its plain labels may be wrong.",
    )


class ExportSummary(Strict):
    """What was written; kept as datasets/<name>.json of the workspace."""

    name: str = Field(description="Name of the data set.")
    run: str = Field(description="Run whose labels they are.")
    preset: str = Field(description="Trainer it is meant for.")
    formats: list[str] = Field(["coco"], description="What it is written as.")
    undecided_as: Undecided = Field(description="What became of labels that wait for review.")
    image_root: str = Field(description="Folder or uri that file names are relative to.")
    images: int = Field(ge=0, description="Images written.")
    images_without_annotations: int = Field(ge=0, description="Of them, those without any annotation.")
    images_incomplete: int = Field(
        ge=0, description="Of them, those with a label left out: objects look like background."
    )
    images_rotated: int = Field(
        ge=0, description="Of them, those whose EXIF orientation a reader must apply, or boxes will not fit."
    )
    images_left_out: int = Field(0, ge=0, description="Images that are left out because a label in them waits.")
    images_filled: int = Field(0, ge=0, description="Of the images, those in which regions are filled with grey.")
    waiting_of_left_out: dict[int, int] = Field(
        {}, description="Labels that wait in an image that is left out -> images with so many."
    )
    annotations: int = Field(ge=0, description="Annotations written, crowd regions included.")
    classes: dict[str, ClassCounts] = Field(description="Category -> how its labels ended.")
    splits: dict[str, SplitCounts] = Field(description="all, and train, val, test where asked for.")
    images_checked: int = Field(
        0, ge=0, description="Of the images, those in which every object of every class is known."
    )
    simulated: int = Field(0, ge=0, description="Annotations that rest on the word of a simulated reviewer.")
    unreviewed: int | None = Field(
        None,
        ge=0,
        description="Annotations that wait for review and are plain labels all the same; None: written by a version "
        "that did not count them.",
    )
    guarantee: Guarantee | None = Field(
        None,
        validation_alias=AliasChoices("guarantee", "promise"),
        description="What the policy guarantees; None: nothing.",
    )
    not_guaranteed: str = Field("", description="Why a certified policy guarantees nothing of this data set.")

    @property
    def usable(self) -> int:
        """Annotations that a trainer learns from: plain labels, and no crowd regions."""
        counts = self.classes.values()
        unreviewed = self.unreviewed
        if unreviewed is None:
            unreviewed = sum(one.undecided for one in counts) if self.undecided_as == "include" else 0
        return sum(one.accepted + one.kept + one.corrected + one.added for one in counts) + unreviewed
