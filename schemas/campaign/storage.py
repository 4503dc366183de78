"""Where images come from and where results go."""

from typing import Literal

from pydantic import Field, model_validator

from schemas.base import Strict

IMAGE_GLOBS = ("**/*.jpg", "**/*.jpeg", "**/*.png", "**/*.webp", "**/*.tif", "**/*.tiff", "**/*.bmp")


class S3Options(Strict):
    """How to speak to an S3-compatible store; credentials come from boto3's own chain, never from here."""

    endpoint_url: str | None = Field(
        None, examples=["https://s3.example.org"], description="Endpoint of an S3-compatible store; empty for AWS."
    )
    region: str | None = Field(
        None, examples=["eu-central-1"], description="Region name; empty for boto3's own choice."
    )
    path_style: bool = Field(False, description="Address buckets as host/bucket, not bucket.host.")
    checksums: Literal["when_supported", "when_required"] = Field(
        "when_supported",
        description="Request and response checksums; other vendors often need when_required.",
    )
    threads: int = Field(16, ge=1, le=256, description="Concurrent requests; the connection pool is as large.")
    connect_timeout_s: float = Field(5.0, gt=0, description="Seconds to wait for a connection.")
    read_timeout_s: float = Field(60.0, gt=0, description="Seconds to wait for the next bytes of an answer.")
    max_attempts: int = Field(5, ge=1, le=20, description="Attempts of one request, the first included.")
    retry_mode: Literal["standard", "adaptive"] = Field("standard", description="boto3's retry mode.")


class Location(Strict):
    """A folder or an s3://bucket/prefix; a plain string stands for its uri alone."""

    uri: str = Field(
        min_length=1,
        examples=["./images"],
        description="s3://bucket/prefix, or a folder relative to the campaign file.",
    )
    s3: S3Options = Field(S3Options(), description="How to speak to the S3-compatible store.")

    @model_validator(mode="before")
    @classmethod
    def _from_string(cls, value: object) -> object:
        return {"uri": value} if isinstance(value, str) else value


class Source(Location):
    """The images to label."""

    include: tuple[str, ...] = Field(
        IMAGE_GLOBS, description="Globs of keys to take, relative to the uri, matched without regard to case."
    )
    exclude: tuple[str, ...] = Field(
        (), examples=[["**/thumbnails/**"]], description="Globs of keys to leave out, after include."
    )
    manifest: str | None = Field(
        None,
        examples=["s3://bucket/manifest.parquet"],
        description="File that names the keys instead of a listing: .txt, .csv, .jsonl or .parquet, "
        "local or s3://, with a column key and optionally etag and size.",
    )
    max_image_mb: float = Field(100.0, gt=0, description="Larger files fail with a reason; megabytes.")
    max_pixels: int = Field(
        120_000_000, gt=0, description="Images of more pixels fail with a reason (decompression bombs)."
    )


class Workspace(Location):
    """Where plans, label tables, policies and exports are kept."""
