"""How the work is cut, retried and run."""

from typing import Literal

from pydantic import Field

from schemas.base import Strict


class RunConfig(Strict):
    """Orchestration."""

    name: str = Field("main", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$", description="Folder under workspace/runs.")
    shard_size: int = Field(1000, ge=1, le=100_000, description="Images in one unit of work.")
    runner: Literal["in_process"] = Field("in_process", description="What works off the shards.")
    retries: int = Field(2, ge=0, le=20, description="Times a failed shard is tried again.")
    retry_delay_s: float = Field(5.0, ge=0, description="Seconds before the first retry; doubled each time.")
    shard_timeout_s: float = Field(6 * 3600, gt=0, description="A shard that takes longer is given up.")
    fetch_threads: int = Field(8, ge=1, le=256, description="Threads that fetch and decode ahead.")
