"""The whole campaign."""

from collections import Counter

from pydantic import Field, field_validator

from schemas.base import Strict
from schemas.campaign.classes import ClassConfig
from schemas.campaign.export import ExportConfig
from schemas.campaign.models import ModelsConfig
from schemas.campaign.review import ReviewConfig
from schemas.campaign.routing import RoutingConfig
from schemas.campaign.run import RunConfig
from schemas.campaign.storage import Source, Workspace


class Campaign(Strict):
    """What campaign.yaml says."""

    source: Source = Field(description="The images to label.")
    workspace: Workspace = Field(description="Where plans, labels, policies and exports are kept.")
    classes: tuple[ClassConfig, ...] = Field(min_length=1, description="What is to be found.")
    models: ModelsConfig = Field(ModelsConfig(), description="Detector, segmenter and scorer.")
    routing: RoutingConfig = Field(RoutingConfig(), description="Which labels are accepted.")
    review: ReviewConfig = Field(ReviewConfig(), description="How people review.")
    export: ExportConfig = Field(ExportConfig(), description="The data set that comes out.")
    run: RunConfig = Field(RunConfig(), description="How the work is cut and run.")

    @field_validator("classes")
    @classmethod
    def _names_differ(cls, value: tuple[ClassConfig, ...]) -> tuple[ClassConfig, ...]:
        counts = Counter(entry.name.casefold() for entry in value)
        twice = sorted(name for name, count in counts.items() if count > 1)
        if twice:
            raise ValueError(f"class declared twice: {', '.join(twice)}; give all its prompts to one class")
        return value
