"""Defines the items and status of the review queue, and the result of applying reviews."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal

from pydantic import Field

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.policy import Certified
from vouch_labels.schemas.records import ApplySummary
from vouch_labels.schemas.reviews import PURPOSES, Purpose
from vouch_labels.schemas.text import Block, Columns, Table, count, duration, pct, plural

Kind = Literal["label", "possible_miss", "image"]
"""What people see: is this label right; is there one of this class; find every object. Why something is asked is no
part of it, so audits, honeypots and low-confidence labels look alike."""
State = Literal["open", "leased", "answered", "gone"]
"""open: somebody may take it; leased: all who may answer hold it; gone: not asked any more."""
Box = tuple[float, float, float, float]
"""xyxy, pixels of the EXIF-oriented original, right and bottom exclusive."""

VerdictRow = Mapping[str, Any]
"""Columns of schemas.reviews.VERDICTS, but reviewer, seconds, reviewed_at and simulated, which the queue adds; a column
that is left out is null."""


class KnownLabel(Strict):
    """A current label of an image: people's corrections go before the models' labels."""

    label_id: str = Field(description="Of the run; missed-... of an object that people drew.")
    class_name: str = Field(description="Class.")
    box: Box = Field(description="Box.")
    rle: bytes | None = Field(None, description="Compressed COCO RLE counts of the image's size; None without a mask.")


class Item(Strict):
    """One question, leased to one reviewer; what it shows is the same whatever it is asked for."""

    id: str = Field(description="The label's id; '<key><tab><class or nothing>' of a question about an image.")
    place: int = Field(description="Order in which to ask; numbers have gaps.")
    kind: Kind = Field(description="What is asked.")
    key: str = Field(description="Of the image, relative to the source.")
    width: int = Field(description="Pixels of the EXIF-oriented original.")
    height: int = Field(description="Pixels of the EXIF-oriented original.")
    class_name: str | None = Field(description="The label's class, or the one to search for; None: every class.")
    label_id: str | None = Field(description="None for a question about an image.")
    box: Box | None = Field(description="None for a question about an image.")
    rle: bytes | None = Field(description="Mask of the label: compressed COCO RLE counts of the image's size.")
    reason: str = Field(description="What the models say of it; may be empty. Shown only when asked for.")
    seconds: float = Field(description="Expected time.")
    epoch: int = Field(description="Number of the lease; an answer names it.")
    others: tuple[KnownLabel, ...] = Field(description="The other current labels of the image.")


class Progress(Strict):
    """The progress of the queue, seen by one reviewer: it counts alike whether others have read an item or not."""

    open: int = Field(description="Items that this reviewer may take, skipped ones included.")
    leased: int = Field(description="Items that this reviewer holds, or that others hold so that they cannot be taken.")
    answered: int = Field(description="Items that this reviewer has answered, or that need nobody any more.")
    mine: int = Field(description="Items leased to this reviewer.")
    answered_by_me: int = Field(description="Answers of this reviewer, without those taken back.")
    by_class: dict[str, int] = Field(description="Class -> open items; '' is every class.")
    by_kind: dict[Kind, int] = Field(description="Kind -> open items.")
    minutes_left: float = Field(
        description="For the open items and those of the reviewer: own median of each kind once 10 of it are answered, "
        "else the plan's seconds."
    )
    seconds_each: float | None = Field(description="Own median of all kinds; None before the first answer.")
    certified: str | None = Field(None, description="What the answers certify so far, in one line; None: unknown.")


class Left(Strict):
    """What is left of the queue for some reviewers."""

    items: int = Field(description="Items that one of them may answer, or that are leased.")
    second: int = Field(description="Items that all of them have answered, and that wait for somebody else.")


class PurposeCounts(Strict):
    """The items of one purpose by state."""

    open: int = Field(0, description="Somebody may take them.")
    leased: int = Field(0, description="All who may answer hold them.")
    answered: int = Field(0, description="Need nobody any more.")
    gone: int = Field(0, description="Not asked any more.")


class ReviewerProgress(Strict):
    """What one reviewer did."""

    answered: int = Field(description="Answers, without those taken back.")
    mine: int = Field(description="Items leased.")
    seconds: float = Field(description="Time of the answers.")


class QueueStatus(Strict):
    """The progress of the queue, for who runs it; people who review are not to see it."""

    queue: str = Field(description="Id of the queue.")
    run: str = Field(description="Run whose labels are asked about.")
    purposes: dict[Purpose, PurposeCounts] = Field(description="Purpose -> its items.")
    reviewers: dict[str, ReviewerProgress] = Field(description="Reviewer -> what they did.")
    twice: int = Field(description="Items that two people have answered.")
    agreement: float | None = Field(description="Share of them on which verdict and class are the same.")
    hinted: int = Field(description="Answers before which the reviewer asked what the models say.")
    edited: int = Field(description="Boxes that answers corrected.")
    edit_iou: float | None = Field(description="Median IoU of these boxes as they were asked about and as corrected.")
    minutes_left: float = Field(
        description="For what is open or leased: the reviewers' median of each kind once 10 of it are answered, else "
        "the plans' seconds."
    )
    own_pace: bool = Field(description="Whether the reviewers' own pace is known for some of that.")
    unpulled: int = Field(description="Answers that are not in the workspace yet.")
    late: int = Field(description="Answers to what was another's or answered otherwise; kept, and not counted.")
    certified: str | None = Field(None, description="What the answers certify so far, in one line; None: unknown.")

    def blocks(self) -> Iterator[Block]:
        """How far the queue is, by purpose and by reviewer."""
        yield f"review queue {self.queue} of run {self.run}"
        rows = [(PURPOSES[why], one.open, one.leased, one.answered, one.gone) for why, one in self.purposes.items()]
        names = ("open", "in review", "answered", "not asked any more")
        yield Table("", {"why": str, **dict.fromkeys(names, count)}, rows)
        if self.reviewers:
            columns: Columns = {"reviewer": str, "answered": count, "in review": count, "time": duration}
            people = [(name, one.answered, one.mine, one.seconds) for name, one in self.reviewers.items()]
            yield Table("", columns, people)
        if self.twice:
            agreed = "" if self.agreement is None else f", and agree on {pct(self.agreement)}"
            yield f"two people answered {plural(self.twice, 'item')}{agreed}"
        if self.hinted:
            yield f"before {plural(self.hinted, 'answer')} the reviewer had asked what the models say"
        if self.edit_iou is not None:
            boxes = plural(self.edited, "box was", "boxes were")
            yield f"{boxes} corrected, with a median IoU of {self.edit_iou:.2f} of old and new"
        if self.unpulled:
            yield (
                f"{plural(self.unpulled, 'answer')} {'is' if self.unpulled == 1 else 'are'} not in the workspace yet: "
                "vouch review CAMPAIGN --pull"
            )
        if self.late:
            yield f"{plural(self.late, 'answer')} came too late, and {'does' if self.late == 1 else 'do'} not count"
        if self.certified:
            yield self.certified
        pace = "reviewers' own" if self.own_pace else "usual"
        yield f"about {duration(self.minutes_left * 60)} left at the {pace} pace"


class FillOutcome(Strict):
    """What filling a queue did."""

    queue: str = Field(description="Id of the queue.")
    added: int = Field(description="Items that are new, or are asked again after they had left.")
    kept: int = Field(description="Items that were there and are still asked.")
    removed: int = Field(description="Items that left: answered elsewhere, or not asked any more.")
    leased_but_gone: int = Field(description="Items not asked any more that stay until their lease ends.")
    again: int = Field(description="Items that are asked again, since reviewers disagree.")
    images: int = Field(description="Images that were written, new or with labels that changed.")
    lines: tuple[str, ...] = Field(description="What people should know, a sentence each.")


class PullOutcome(Strict):
    """What pulling a queue's answers into the workspace did."""

    verdicts: int = Field(description="Verdicts that were added to the workspace.")
    answers: int = Field(description="Answers that they came from.")
    known: int = Field(description="Verdicts that were there already.")
    earlier: int = Field(description="Answers that earlier pulls brought.")
    undone: int = Field(description="Answers that were taken back, and left out.")
    late: int = Field(description="Answers to what was another's or answered otherwise; kept, and left out.")
    late_items: tuple[str, ...] = Field(description="The items of the last of these.")
    file: str = Field(description="Name of the file in reviews/; empty when nothing was new.")

    def blocks(self) -> Iterator[Block]:
        """What came into the workspace."""
        if self.answers:
            yield f"{plural(self.verdicts, 'new verdict')} of {plural(self.answers, 'answer')} came into the workspace"
        elif self.earlier:
            verb = "is" if self.earlier == 1 else "are"
            yield f"nothing new: {plural(self.earlier, 'answer')} {verb} in the workspace already"
        else:
            yield "nothing new: there is no answer yet"
        if self.known:
            yield plural(self.known, "was there already", "were there already")
        if self.late:
            named = ", ".join(self.late_items)
            verb = "does" if self.late == 1 else "do"
            yield f"{plural(self.late, 'answer')} came too late and {verb} not count: {named}"


class AppliedReviews(Strict):
    """What the flow `vouch-apply-reviews` did; what it did not do yet is in `words`."""

    pulled: PullOutcome | None = Field(description="What came into the workspace; None: there is no queue.")
    certified: Certified | None = Field(description="What was certified; None: it is too early, or nothing could be.")
    applied: ApplySummary | None = Field(description="What the policy changed; None: there is no new one to apply.")
    words: tuple[str, ...] = Field(description="What was not done and why, a sentence each.")

    def blocks(self) -> Iterator[Block]:
        """What people's answers changed: verdicts, decisions, what was not done, the certificates."""
        if self.pulled is not None:
            yield from self.pulled.blocks()
        if self.applied is not None:
            yield from self.applied.blocks()
        yield from self.words
        if self.certified is not None:
            yield from self.certified.blocks()
