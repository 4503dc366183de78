"""What `vouch simulate` reports: what certifying would come to, played many times with a simulated reviewer."""

from pydantic import Field

from schemas.base import Strict
from schemas.campaign.routing import Gate


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
