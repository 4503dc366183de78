"""The headers that every answer carries."""

from typing import Final

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send

_KEPT: Final = ("/assets/", "/datasets/assets/")
"""Paths whose files carry a hash in their names, so that they may be kept."""


def policy(image_origin: str | None) -> str:
    """The Content-Security-Policy: nothing comes from, or goes to, another host but a bucket's images.

    Args:
        image_origin: Where images are redirected to, as https://host; None: nowhere.
    """
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
    """Add the headers to whatever is sent.

    Args:
        send: Where the answer goes.
        path: The request's.
        csp: What `policy` gave.
    """

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
