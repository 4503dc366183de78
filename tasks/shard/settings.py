"""All that a worker must be told to work off a shard."""

from dataclasses import dataclass

from schemas.campaign import Campaign
from schemas.policy import Policy


@dataclass(frozen=True)
class ShardSettings:
    """Small and picklable, so that it can travel to another process or machine."""

    campaign: Campaign
    """With absolute paths, as load_campaign gives it."""
    policy: Policy
    """What decides over labels."""

    @property
    def run(self) -> str:
        """Name of the run."""
        return self.campaign.run.name
