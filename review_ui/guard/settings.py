"""What a guard is told: whose desk it guards, and who may come in how."""

from typing import Literal

from pydantic import Field

from schemas.campaign import Strict


class GuardSettings(Strict):
    """One reviewer's guard. Holds the key that signs sessions: it goes to the server's process, never into a file."""

    queue: str = Field(description="The queue whose images may be seen.")
    reviewer: str = Field(description="Who works here.")
    desk: str = Field(description="Name of the FiftyOne dataset that may be read and changed.")
    port: int = Field(description="Port of the server; cookies of one host reach all of its ports.")
    token_sha256: str = Field(repr=False, description="Hex of SHA-256 of the reviewer's token.")
    session_key: str = Field(repr=False, description="Signs sessions; lives as long as the review that was started.")
    session_hours: float = Field(12.0, gt=0, description="How long a login lasts.")
    hosts: tuple[str, ...] = Field((), description="Names that the server may be asked by, beside those of loopback.")
    trust_header: str | None = Field(None, description="Header in which a proxy says who has logged in there.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks of proxies that are believed.")
    media: Literal["redirect", "proxy"] = Field(
        "redirect", description="Images of a bucket: a short-lived address for the browser, or through this server."
    )
    url_seconds: int = Field(60, ge=5, le=3600, description="How long such an address works.")
    image_origin: str | None = Field(None, description="Where such addresses lead, as https://host.")

    max_pixels: int = Field(120_000_000, gt=0, description="Images of more pixels are not converted.")
