"""What came of taking up people's answers."""

from pydantic import Field

from schemas.base import Strict
from schemas.certified import Certified
from schemas.queue import PullOutcome
from schemas.summary import ApplySummary


class AppliedReviews(Strict):
    """What the flow `vouch-apply-reviews` did; what it did not do yet is said in words."""

    pulled: PullOutcome | None = Field(description="What came into the workspace; None: there is no queue.")
    certified: Certified | None = Field(description="What was certified; None: it is too early, or nothing could be.")
    applied: ApplySummary | None = Field(description="What the policy changed; None: there is no new one to apply.")
    words: tuple[str, ...] = Field(description="What was not done and why, a sentence each.")
