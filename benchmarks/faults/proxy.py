"""A proxy before an S3 server that fails as busy stores and bad networks do; every request goes through it."""

import http.client
import random
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs, urlsplit

ON_ANY: Final = ("500", "503", "reset", "delay")
ON_READS: Final = ("broken off", "cut, length fits", "flipped byte", "wrong ETag")
ON_WRITES: Final = ("answer lost",)
KINDS: Final = (*ON_ANY, *ON_READS, *ON_WRITES)

NOT_PASSED_ON: Final = {"connection", "expect", "keep-alive", "transfer-encoding"}


class FaultyProxy:
    """Passes requests on to a server, and spoils a share of them; use it in a with block.

    The `Host` header stays as the client wrote it, since S3's signatures cover it.
    """

    def __init__(
        self, endpoint: str, rate: float, *, kinds: tuple[str, ...] = KINDS, delay_s: float = 0.2, seed: int = 0
    ) -> None:
        """Take the server and how it shall fail.

        Args:
            endpoint: http://host:port of the server.
            rate: Share of the requests that are spoilt, 0 to 1.
            kinds: Of KINDS, those that occur; each as often as the others, where a request can have it.
            delay_s: Seconds that a delayed answer is late.
            seed: Of the choices.
        """
        upstream = urlsplit(endpoint)
        self._host, self._port = upstream.hostname or "127.0.0.1", upstream.port or 80
        self.rate, self.kinds, self.delay_s = rate, kinds, delay_s
        self.stale = False
        """Whether listings are those of the last time that they were asked for."""
        self.spoilt: Counter[str] = Counter()
        self.requests = 0
        self._listings: dict[str, tuple[int, list[tuple[str, str]], bytes]] = {}
        self._random, self._lock = random.Random(seed), threading.Lock()
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # Headers and body in one segment, or the client waits for the second.
            wbufsize = 1 << 16

            def pass_on(self) -> None:
                proxy._handle(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        for method in ("GET", "PUT", "HEAD", "DELETE", "POST"):
            setattr(Handler, f"do_{method}", Handler.pass_on)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> Self:
        """Begin to listen."""
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Listen no longer."""
        self._server.shutdown()
        self._server.server_close()

    def _choose(self, method: str, is_object: bool) -> str | None:
        possible = [*ON_ANY]
        if method == "GET" and is_object:
            possible += ON_READS
        if method == "PUT":
            possible += ON_WRITES
        with self._lock:
            self.requests += 1
            kinds = [kind for kind in possible if kind in self.kinds]
            if not kinds or self._random.random() >= self.rate:
                return None
            kind = self._random.choice(kinds)
            self.spoilt[kind] += 1
            return kind

    def _handle(self, handler: BaseHTTPRequestHandler) -> None:
        body = handler.rfile.read(int(handler.headers.get("Content-Length") or 0))
        where = urlsplit(handler.path)
        # A path within a bucket, and none of the questions that are asked by the query.
        is_object = where.path.strip("/").count("/") > 0 and not where.query.startswith("list-type")
        kind = self._choose(handler.command, is_object)
        if kind in ("500", "503"):
            _answer(handler, int(kind), [], b"")
            return
        if kind == "reset":
            _reset(handler)
            return
        if kind == "delay":
            time.sleep(self.delay_s)
        status, headers, content = self._ask(handler, body)
        if kind == "answer lost":
            _reset(handler)
        elif kind in ON_READS and status == http.HTTPStatus.OK and content:
            _spoil(handler, kind, headers, content)
        else:
            _answer(handler, status, headers, content)

    def _ask(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self._host, self._port, timeout=60)
        try:
            connection.putrequest(handler.command, handler.path, skip_host=True, skip_accept_encoding=True)
            for name, value in handler.headers.items():
                if name.lower() not in NOT_PASSED_ON:
                    connection.putheader(name, value)
            connection.endheaders(body or None)
            answer = connection.getresponse()
            headers = [(name, value) for name, value in answer.getheaders() if name.lower() not in NOT_PASSED_ON]
            found = answer.status, headers, answer.read()
        finally:
            connection.close()
        listed = parse_qs(urlsplit(handler.path).query)
        if not self.stale or "list-type" not in listed:
            return found
        with self._lock:
            before = self._listings.get(handler.path)
            self._listings[handler.path] = found
        return before or found


def _answer(handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
    length = next((value for name, value in headers if name.lower() == "content-length"), str(len(content)))
    _send(handler, status, headers, length, content)


def _send(
    handler: BaseHTTPRequestHandler, status: int, headers: list[tuple[str, str]], length: str, content: bytes
) -> None:
    with suppress(OSError):
        handler.send_response_only(status)
        for name, value in headers:
            if name.lower() != "content-length":
                handler.send_header(name, value)
        if status != http.HTTPStatus.NO_CONTENT:
            handler.send_header("Content-Length", length)
        handler.end_headers()
        if handler.command != "HEAD":
            handler.wfile.write(content)
        handler.wfile.flush()


def _spoil(handler: BaseHTTPRequestHandler, kind: str, headers: list[tuple[str, str]], content: bytes) -> None:
    half = content[: len(content) // 2]
    if kind == "broken off":
        _send(handler, http.HTTPStatus.OK, headers, str(len(content)), half)
        handler.close_connection = True
    elif kind == "cut, length fits":
        _send(handler, http.HTTPStatus.OK, headers, str(len(half)), half)
    elif kind == "flipped byte":
        flipped = bytearray(content)
        flipped[len(content) // 2] ^= 0xFF
        _answer(handler, http.HTTPStatus.OK, headers, bytes(flipped))
    else:
        other = [(name, '"' + "0" * 32 + '"' if name.lower() == "etag" else value) for name, value in headers]
        _answer(handler, http.HTTPStatus.OK, other, content)


def _reset(handler: BaseHTTPRequestHandler) -> None:
    """End the connection at once, as a crashed server's machine does."""
    with suppress(OSError):
        handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    handler.close_connection = True
    with suppress(OSError):
        handler.connection.close()
