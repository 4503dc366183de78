"""Records of planning and outcomes, as they are written to the workspace."""

from typing import Literal, NamedTuple

from pydantic import Field

from schemas.base import Strict

Step = Literal["fetch", "acquire", "detect", "segment", "score", "presence", "route"]


class ImageRef(NamedTuple):
    """One object of the source as the plan saw it; a tuple, since there are millions."""

    key: str
    """Key relative to the source's uri, with forward slashes."""
    etag: str
    """The store's version tag; empty when a manifest gives none."""
    size: int
    """Bytes; -1 when a manifest gives none."""


class Failed(Strict):
    """An image that could not be labelled; it can be retried alone, and one that was not fetched is, by every run."""

    step: Step = Field(description="Step that gave it up.")
    reason: str = Field(description="One line for people.")


class ShardRef(Strict):
    """One unit of work of a plan."""

    id: str = Field(description="Hex of SHA-256 over its sorted (key, etag, size) and attempt.")
    count: int = Field(ge=1, description="Images in it.")
    first_key: str = Field(description="Its least key, for people.")


class Generation(Strict):
    """What one planning added: written last, so a plan without it does not exist."""

    number: int = Field(ge=1, description="1, 2, 3 ...; of two plans that name a key the later one holds.")
    shards: tuple[ShardRef, ...] = Field(description="New units of work, in key order.")
    removed: int = Field(ge=0, description="Images that have left the source.")
    removed_id: str = Field(
        "", description="Hex of SHA-256 over their keys, in plan/<number>-<removed_id>-removed.parquet; empty if none."
    )
    listed: int = Field(ge=0, description="Images that the source had.")


class Part(Strict):
    """One table file of a shard."""

    name: str = Field(description="Key relative to the run's folder.")
    sha256: str = Field(description="Hex of SHA-256 over its bytes.")
    rows: int = Field(ge=0, description="Rows in it.")


class ClassCounts(Strict):
    """How the labels of one class were decided."""

    accepted: int = Field(0, ge=0)
    review: int = Field(0, ge=0)


class ShardCounts(Strict):
    """How a shard's images and labels ended; done + failed = images, and so for labels, over all classes."""

    images: int = Field(ge=0)
    done: int = Field(ge=0)
    failed: int = Field(ge=0)
    labels: int = Field(ge=0)
    accepted: int = Field(ge=0)
    review: int = Field(ge=0)
    classes: dict[str, ClassCounts] = Field(description="Class name -> its labels.")
    reasons: dict[str, int] = Field(description="'step: reason' -> images that failed so.")


class Marker(Strict):
    """Says that a shard is done; parts without it do not exist."""

    shard: str = Field(description="Shard id.")
    fingerprint: str = Field(description="Of everything that its rows depend on, beside the images.")
    stages: dict[str, str] = Field(description="Stage name -> key of what that stage depends on.")
    parts: dict[str, Part] = Field(description="Stage name -> its table.")
    counts: ShardCounts


class Current(Strict):
    """Which markers of a run are the ones to read: those of its last settings."""

    fingerprint: str = Field(description="As in the markers.")
    policy: str = Field(description="Version of the policy.")
    classes: tuple[str, ...] = Field(description="Class names, in the order declared.")
    inputs: dict[str, str] = Field({}, description="What labels depend on (models, prompts ...) -> its fingerprint.")
