"""What is known of the verdicts of a workspace, in figures, and what an import of more of them did."""

from pydantic import Field

from schemas.base import Strict


class ImportOutcome(Strict):
    """How the rows of one file ended; they sum to its rows."""

    file: str = Field(description="The file.")
    rows: int = Field(ge=0, description="Rows in it.")
    imported: int = Field(ge=0, description="Verdicts that are new.")
    known: int = Field(ge=0, description="Verdicts that the workspace had already, or the file had twice.")
    unanswered: int = Field(ge=0, description="Rows without a verdict.")
    refused: int = Field(ge=0, description="Rows that are no verdicts; left out because that was asked for.")
    refused_file: str | None = Field(None, description="Where the refused rows stand, with reasons.")
    unknown_labels: int = Field(
        ge=0, description="Of the new and known verdicts, those on labels that neither the run nor a plan has; kept."
    )
    unknown_images: int = Field(ge=0, description="The same of verdicts on images; kept.")


class ReviewerFigures(Strict):
    """The verdicts of one reviewer that hold."""

    labels: int = Field(ge=0, description="Labels with a verdict.")
    correct: int = Field(ge=0, description="Of them, called correct.")
    images: int = Field(ge=0, description="Verdicts about images: checked, or an object missed.")
    seconds: float = Field(ge=0, description="Time of all, where it was given.")


class VerdictFigures(Strict):
    """What the verdicts of a workspace say of one run."""

    run: str = Field(description="Name of the run.")
    verdicts: int = Field(ge=0, description="Rows, those that later ones replace included.")
    labels: int = Field(ge=0, description="Labels of the run that have an answer.")
    answers: dict[str, int] = Field(description="Answer, disputed included -> labels of the run.")
    classes: dict[str, dict[str, int]] = Field(description="Class of the label -> answer -> labels of the run.")
    reviewers: dict[str, ReviewerFigures] = Field(description="Reviewer -> figures, over all labels.")
    doubly_reviewed: int = Field(ge=0, description="Labels with verdicts of two reviewers or more.")
    agreement: float | None = Field(None, description="Of them, the share on which verdicts and classes are equal.")
    disputed: list[str] = Field(description="Ids of the run's labels on which reviewers disagree, a hundred at most.")
    images_checked: int = Field(ge=0, description="Images that were searched for every class.")
    missed_objects: int = Field(ge=0, description="Objects that no label showed.")
    planted: int = Field(ge=0, description="Answers on labels that a plan made up to test reviewers.")
    unknown_labels: int = Field(ge=0, description="Answers on labels that neither the run nor a plan has.")
    simulated: int = Field(ge=0, description="Rows of simulated reviewers.")
    seconds: float = Field(ge=0, description="Time of all verdicts, where it was given.")
