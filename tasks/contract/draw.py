"""What a stage of reviewing asks, before it is written as a plan."""

from dataclasses import dataclass, replace

import pyarrow as pa
import pyarrow.compute as pc

from schemas.errors import UserError
from schemas.reviews import AuditPlan, GroupPlan
from tasks.contract.looks import Look
from tasks.contract.run_reviews import RunReviews
from tasks.statistics.bounds import Floats


@dataclass(frozen=True)
class Draw:
    """What is asked, and what the plan says of it."""

    tables: tuple[pa.Table, ...]
    """Rows of TASKS in any order of `place`."""
    words: tuple[str, ...]
    fit_share: float
    scores: Floats
    """(N,) p(correct) that the draw went by."""
    calibrator: str | None = None
    groups: tuple[GroupPlan, ...] = ()
    round: int = 0
    look: Look | None = None
    """What the drawing amounts to; to be taken before the plan is written."""
    audit: AuditPlan | None = None
    nothing: str = "nothing is left to ask"
    """Why there is nothing to ask, where there is nothing."""

    @property
    def seconds(self) -> float:
        """Expected time."""
        return float(sum(pc.sum(table["seconds"]).as_py() or 0 for table in self.tables))

    def beside(self, other: "Draw") -> "Draw":
        """Ask both; what the plan says of draws is this one's."""
        return replace(self, tables=(*self.tables, *other.tables), words=(*self.words, *other.words))


def share_of(reviews: RunReviews) -> float:
    """Share of images kept for fitting.

    Raises:
        UserError: No plan has fixed it yet.
    """
    if reviews.fit_share is None:
        raise UserError("nothing was reviewed to fit to yet; begin with vouch plan-reviews CAMPAIGN --stage first")
    return reviews.fit_share
