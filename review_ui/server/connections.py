"""Closes connections that send no whole head of a request in time, and bounds how many may be waited for."""

import asyncio
from typing import Final

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0
"""From a connection, or the first byte of another request on it, to the end of the request's head."""
MOST_WAITING: Final = 100
"""Connections whose head has not come; above that the one that has had most time is closed."""


def protocol(head_s: float = HEAD_S, most: int = MOST_WAITING) -> type[H11Protocol]:
    """Make uvicorn's protocol with these limits; they are shared by all connections of a server."""
    waiting: dict[H11Protocol, asyncio.TimerHandle] = {}

    class Limited(H11Protocol):
        """uvicorn itself waits for the head of a request for as long as the connection is open."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's
            super().connection_made(transport)
            self._wait()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._stop_waiting()
            else:
                self._wait()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_waiting()
            super().connection_lost(exc)

        def _wait(self) -> None:
            if self in waiting or self.transport.is_closing():
                return
            if len(waiting) >= most:
                first = next(iter(waiting))
                waiting.pop(first).cancel()
                first.transport.abort()
            waiting[self] = asyncio.get_running_loop().call_later(head_s, self.transport.abort)

        def _stop_waiting(self) -> None:
            if timer := waiting.pop(self, None):
                timer.cancel()

    return Limited
