"""Changes what FiftyOne answers: lists get shorter, tracebacks go, a change is noted before its answer is told."""

import json
from collections.abc import Awaitable, Callable

from starlette.datastructures import MutableHeaders
from starlette.types import Message, Send


class Sending:
    """What `send` does, and whether an answer has begun."""

    def __init__(self, send: Send) -> None:
        """Take where the answer goes."""
        self._send = send
        self.begun = False

    async def __call__(self, message: Message) -> None:
        """Pass a message on."""
        if message["type"] == "http.response.start":
            self.begun = True
        await self._send(message)


class _WithoutTraceback(Sending):
    """Replaces the answer of a failure."""

    _failed = False

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 500:
            self.begun = self._failed = True
            body = json.dumps({"error": "FiftyOne failed at this; the log of the review says why"}).encode()
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await self._send({"type": message["type"], "status": message["status"], "headers": headers})
            await self._send({"type": "http.response.body", "body": body})
        elif not self._failed:
            await super().__call__(message)


class _Filtered(Sending):
    """Rewrites the whole body of an answer that is well."""

    def __init__(self, send: Send, change: Callable[[bytes], bytes]) -> None:
        super().__init__(send)
        self._change = change
        self._start: Message | None = None
        self._parts: list[bytes] = []

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            self._start = message
        elif message["type"] == "http.response.body" and self._start is not None:
            self._parts.append(message.get("body", b""))
            if not message.get("more_body"):
                await self._finish(self._start)
        else:
            await super().__call__(message)

    async def _finish(self, start: Message) -> None:
        body = self._change(b"".join(self._parts))
        MutableHeaders(scope=start)["content-length"] = str(len(body))
        self.begun = True
        await self._send(start)
        await self._send({"type": "http.response.body", "body": body})


def without_traceback(send: Send) -> Sending:
    """Say of a failure only that it happened."""
    return _WithoutTraceback(send)


def filtered(send: Send, change: Callable[[bytes], bytes]) -> Sending:
    """Have the body of a good answer changed."""
    return _Filtered(send, change)


def told_first(send: Send, tell: Callable[[int], Awaitable[None]]) -> Send:
    """Tell the status of an answer, and wait until that is done, before the client hears of it."""

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            await tell(message["status"])
        await send(message)

    return sending
