"""`vouch run` as a process that is met at a chosen moment, what its workspace holds in the end, and a bad S3 server."""

import http.client
import json
import os
import random
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import parse_qs, urlsplit

from benchmarks.campaigns import write_campaign
from benchmarks.harness import ROOT
from vouch_labels.schemas.campaign import S3Options
from vouch_labels.schemas.errors import WorkspaceBusyError
from vouch_labels.tasks.store.open import open_uri
from vouch_labels.tasks.store.store import Store

MARK: Final = "VOUCH_FAULTS_RUN"
"""Variable by which the processes of a run are found, whoever their parent is."""
ORPHAN_S: Final = 120.0
"""Seconds after which a process that is left counts as an orphan; an embedded server ends within one or two."""
WORK: Final = ("planned", "labelling", "exporting annotations")
"""Phases in which a run works, as its lines of progress begin."""
AT_WORK: Final = 0.75
"""Share of the signals that come in one of them."""
ON_ANY: Final = ("500", "503", "reset", "delay")
ON_READS: Final = ("broken off", "cut, length fits", "flipped byte", "wrong ETag")
ON_WRITES: Final = ("answer lost",)
KINDS: Final = (*ON_ANY, *ON_READS, *ON_WRITES)

NOT_PASSED_ON: Final = {"connection", "expect", "keep-alive", "transfer-encoding"}


class Ended(NamedTuple):
    """A run that has ended."""

    code: int
    """Exit code, negative for a signal."""
    words: str
    """What it wrote on standard error."""
    met: bool
    """Whether the signal met it at work."""
    seconds: float
    orphans: int


def campaign_in(folder: Path, source: str, workspace: str, shard_size: int, s3: S3Options | None = None) -> Path:
    """Write a campaign of fake models with small shards, whose source and workspace may lie in a bucket."""
    options = {} if s3 is None else {"s3": s3.model_dump()}
    return write_campaign(
        folder,
        folder,
        source={"uri": source, **options},
        workspace={"uri": workspace, **options},
        run={"shard_size": shard_size, "retry_delay_s": 0.1},
    )


@contextmanager
def started(campaign: Path, environment: dict[str, str]) -> Iterator["subprocess.Popen[str]"]:
    """Start `vouch run` in a session of its own; what is left of it when the block ends is killed."""
    # Children inherit ignored signals, and what runs in the background of a shell ignores SIGINT.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    words = [sys.executable, "-m", "vouch_labels.flows.cli", "run", str(campaign), "--plain"]
    with subprocess.Popen(  # noqa: S603 - our own module
        words,
        cwd=ROOT,
        env=environment | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def run(
    campaign: Path,
    environment: dict[str, str],
    *,
    number: signal.Signals | None = None,
    phase: str = "",
    after_s: float = 0.0,
    file_bytes: int | None = None,
) -> Ended:
    """Run a campaign.

    Args:
        campaign: Its file.
        environment: Variables of the process.
        number: A signal to send.
        phase: What the line of progress begins with after which it is sent; empty for the start.
        after_s: Seconds from there.
        file_bytes: No file may be larger.
    """
    mark = uuid.uuid4().hex
    start_s = time.monotonic()
    with started(campaign, environment | {MARK: mark}) as process:
        assert process.stderr is not None
        if file_bytes is not None:
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
        lines: list[str] = []
        if number is not None:
            for line in process.stderr if phase else ():
                lines.append(line)
                if line.startswith(phase):
                    break
            time.sleep(after_s)
        met = number is not None and process.poll() is None
        if number is not None and met:
            process.send_signal(number)
        words = "".join([*lines, process.stderr.read()])
        code = process.wait()
    # One that came to its end before the signal did was not met.
    return Ended(code, words, met and code != 0, time.monotonic() - start_s, _orphans(mark))


def _orphans(mark: str) -> int:
    end = time.monotonic() + ORPHAN_S
    while (left := _marked(mark)) and time.monotonic() < end:
        time.sleep(0.1)
    return len(left)


def _marked(mark: str) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdigit() and f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
        except OSError:  # it has just ended, or is another user's
            continue
    return found


def timeline(campaign: Path, environment: dict[str, str]) -> dict[str, float]:
    """Run a campaign undisturbed: the seconds of each phase, by what its line of progress begins with."""
    start_s, last = time.monotonic(), ""
    taken = {"": 0.0}
    with started(campaign, environment) as process:
        assert process.stderr is not None
        lines = []
        for line in chain(process.stderr, [""]):
            lines.append(line)
            now = time.monotonic()
            taken[last] += now - start_s
            start_s, last = now, line.partition(":")[0].strip()
            taken.setdefault(last, 0.0)
        if process.wait():
            raise RuntimeError(f"the undisturbed run failed:\n{''.join(lines)}")
    return taken


def moment(chance: random.Random, taken: dict[str, float], done: bool) -> tuple[str, float]:
    """Choose a moment of a run, three in four of them when it works: a phase, and seconds within it.

    Args:
        chance: What chooses.
        taken: Seconds of each phase of an undisturbed run.
        done: Whether all is labelled, so that only the export is left of the work.
    """
    work = WORK[-1:] if done else WORK
    phases = work if chance.random() < AT_WORK else [phase for phase in taken if phase not in WORK]
    phase = chance.choices(phases, [taken[phase] for phase in phases])[0]
    return phase, chance.uniform(0, taken[phase])


def lock_is_free(campaign: Path) -> bool:
    """Whether the run's lock can be taken now."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.store.lock import WorkspaceLock

    config = load_campaign(campaign)
    store = open_uri(config.workspace.uri, config.workspace.s3)
    try:
        # Not watched: the holder ran here, so that whether it still does can be looked up.
        with WorkspaceLock(store, config.run.name, silent_s=0, settle_s=0):
            return True
    except WorkspaceBusyError:
        return False


def content_of(workspace: Store) -> dict[str, bytes]:
    """Every object of a workspace that markers or plans speak of, without locks, source, and times in the export.

    The store's own listing, so without temporary files: a process killed while it writes leaves one behind.
    """
    keys = [info.key for folder in ("runs/", "exports/", "policies/") for info in workspace.list(folder)]
    # Each campaign comes to its bucket by a proxy of its own, and notes that address.
    content = {key: workspace.get(key).data for key in keys if not key.endswith(("lock.json", "source.json"))}
    for name, data in content.items():
        if name.endswith("annotations.json"):
            document = json.loads(data)
            del document["info"]
            content[name] = json.dumps(document).encode()
    return content


def same_content(found: dict[str, bytes], expected: dict[str, bytes]) -> bool:
    """Whether two workspaces hold the same, to the byte.

    Parts without a marker and plans of shards without a generation may lie about: they are named by their content, and
    nobody reads them.
    """
    unread = {name for name in found if "/parts/" in name or ("/plan/" in name and name.endswith(".parquet"))}
    return {name: found[name] for name in found if name not in unread or name in expected} == expected


def environment_of(folder: Path, api: str | None) -> dict[str, str]:
    """The variables of a run: with a named Prefect server, or with one of its own whose database is in the folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "VOUCH_"))}
    own = {"PREFECT_HOME": str(folder / "prefect"), "VOUCH_LOG": str(folder / "vouch.log"), "OMP_NUM_THREADS": "1"}
    return kept | own | ({} if api is None else {"PREFECT_API_URL": api})


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
