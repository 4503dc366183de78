"""Settings of the guard, the session that it guards, its refusals and the headers of every answer."""

from typing import Final, Literal, Protocol

from pydantic import Field
from starlette.datastructures import MutableHeaders
from starlette.responses import JSONResponse, Response
from starlette.types import Message, Send

from vouch_labels.schemas.campaign import Strict

_KEPT: Final = ("/assets/", "/datasets/assets/")
"""Paths whose files carry a hash in their names, so that they may be kept."""


class GuardSettings(Strict):
    """One reviewer's guard. Holds the key that signs cookies: it goes to the server's process, never into a file."""

    queue: str = Field(description="The queue whose images may be seen.")
    reviewer: str = Field(description="Who works here.")
    dataset: str = Field(description="Name of the FiftyOne dataset that may be read and changed.")
    port: int = Field(description="Port of the server; cookies of one host reach all of its ports.")
    token_sha256: str = Field(repr=False, description="Hex of SHA-256 of the reviewer's token.")
    cookie_key: str = Field(repr=False, description="Signs cookies; lives as long as the review that was started.")
    login_hours: float = Field(12.0, gt=0, description="How long a login lasts.")
    hosts: tuple[str, ...] = Field((), description="Names that the server may be asked by, beside those of loopback.")
    trust_header: str | None = Field(None, description="Header in which a proxy names who has logged in there.")
    trusted_proxies: tuple[str, ...] = Field((), description="Addresses or networks of trusted proxies.")
    media: Literal["redirect", "proxy"] = Field(
        "redirect", description="Images of a bucket: a short-lived address for the browser, or through this server."
    )
    url_seconds: int = Field(60, ge=5, le=3600, description="How long such an address works.")
    image_origin: str | None = Field(None, description="Where such addresses lead, as https://host.")

    max_pixels: int = Field(120_000_000, gt=0, description="Images of more pixels are not converted.")
    batch: int = Field(25, gt=0, description="Items that the session is opened with.")
    certified: str = Field("", description="What stood certified when the review started, a sentence.")
    commands: tuple[tuple[str, str], ...] = Field((), description="What comes after the review: command, what it does.")
    max_image_mb: float = Field(100.0, gt=0, description="Larger files are not sent; megabytes.")


class GuardedSession(Protocol):
    """A review session as the guard sees it. Every method may wait for the database; call it from a thread."""

    @property
    def dataset_id(self) -> str:
        """Hex id of its dataset."""

    def item_of(self, sample_id: str) -> str | None:
        """The item that a sample of the session shows; None when there is no such sample."""

    def open(self, count: int) -> str | None:
        """The sample of the item that comes first; takes up to `count` items where there is none (0: takes none)."""

    def holds(self, item: str) -> bool:
        """Whether the reviewer holds the lease of an item now."""

    def has_image(self, key: str) -> bool:
        """Whether a key is an image of the queue."""

    def log(self, method: str, path: str, body: bytes, status: int) -> None:
        """Keep a change that was asked for, and what became of it."""


class RefusedError(Exception):
    """A request that is not let through."""

    def __init__(self, status: int, message: str) -> None:
        """Take the HTTP status and a line for people."""
        super().__init__(message)
        self.status = status
        self.message = message

    def response(self) -> Response:
        """The answer: a JSON object with the line."""
        return JSONResponse({"error": self.message}, self.status)


def policy(image_origin: str | None) -> str:
    """The Content-Security-Policy: nothing comes from, or goes to, another host but a bucket's images."""
    images = f" {image_origin}" if image_origin else ""
    return "; ".join(
        (
            "default-src 'self'",
            # The App compiles WebAssembly (image codecs), and its renderer makes shader programs out of text.
            "script-src 'self' 'wasm-unsafe-eval' 'unsafe-eval' blob:",
            "worker-src 'self' blob:",
            "style-src 'self' 'unsafe-inline'",
            f"img-src 'self' data: blob:{images}",
            f"connect-src 'self' data: blob:{images}",
            "font-src 'self' data:",
            "object-src 'none'",
            "base-uri 'self'",
            "form-action 'self'",
            "frame-ancestors 'none'",
        )
    )


def with_headers(send: Send, path: str, csp: str) -> Send:
    """Add our headers, and the Content-Security-Policy, to whatever is sent."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = csp
            headers["Cross-Origin-Resource-Policy"] = "same-origin"
            # With no-referrer browsers send forms with "Origin: null", which is refused.
            headers["Referrer-Policy"] = "same-origin"
            headers["X-Content-Type-Options"] = "nosniff"
            headers["X-Frame-Options"] = "DENY"
            if not path.startswith(_KEPT):
                headers["Cache-Control"] = "no-store"
        await send(message)

    return sending
