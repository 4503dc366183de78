"""How far a campaign is."""

from pydantic import Field

from schemas.base import Strict
from schemas.records import ClassCounts


class ExportStatus(Strict):
    """The data set that the campaign names, as it was last written."""

    uri: str = Field(description="Folder or s3:// uri of the data set.")
    images: int = Field(ge=0, description="Images in it.")
    annotations: int = Field(ge=0, description="Annotations in it, crowd regions included.")


class RunStatus(Strict):
    """What the workspace says about a run; done + failed + pending = images."""

    run: str = Field(description="Name of the run.")
    workspace: str = Field(description="Uri of the workspace.")
    running: str | None = Field(description="Process and machine that hold the run now; None: it rests.")
    images: int = Field(ge=0, description="Images of the source, as of the last plan.")
    done: int = Field(ge=0, description="Of them, labelled.")
    failed: int = Field(ge=0, description="Of them, given up with a reason.")
    pending: int = Field(ge=0, description="Of them, in shards that are not done.")
    shards: int = Field(ge=0, description="Shards planned.")
    shards_done: int = Field(ge=0, description="Of them, done under the settings last used.")
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so, the most frequent first.")
    policy: str | None = Field(description="Version of the policy that decided; None before the first run.")
    export: ExportStatus | None = Field(description="The data set; None before it is written.")
