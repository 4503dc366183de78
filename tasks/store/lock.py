"""Locks a workspace against a second run; saves work and confusion, correctness never depends on it.

A lock names its process, so that others can tell whether it still runs.
"""

import logging
import os
import secrets
import socket
import threading
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.errors import ObjectMissingError, VouchError, WorkspaceBusyError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

PROC = Path("/proc")


class LockRecord(Strict):
    """The holder of a run, as runs/<run>/lock.json has it."""

    token: str = Field(description="Random name of this holding.")
    host: str = Field(description="Host name, for people.")
    place: str = Field(description="Machine, boot and process namespace within which pid means something.")
    pid: int = Field(description="Process.")
    started: str = Field(description="Start of the process in kernel ticks; tells it from a later one of that pid.")
    since: float = Field(description="When the lock was taken, in seconds since 1970.")
    heartbeat: float = Field(description="When it was last renewed, in seconds since 1970.")

    def is_stale(self, silent_s: float) -> bool:
        """Whether the holder has ended; one of another machine counts as ended after so many seconds of silence."""
        alive = is_alive(ProcessId(self.place, self.pid, self.started))
        return time.time() - self.heartbeat > silent_s if alive is None else not alive


class WorkspaceLock:
    """Holds `runs/<run>/lock.json` for the length of a with block.

    The lock of a process of this machine that no longer runs is taken over at once, that of another machine when
    its heartbeat is older than `stale_s`. A daemon thread renews it.
    """

    def __init__(
        self, store: Store, run: str, *, renew_s: float = 20.0, stale_s: float = 120.0, settle_s: float = 1.0
    ) -> None:
        """Prepare the lock of a run; nothing is written before the block is entered.

        Args:
            store: The workspace.
            run: Name of the run.
            renew_s: Seconds between two heartbeats.
            stale_s: Age in seconds from which another machine's heartbeat counts as dead.
            settle_s: Seconds after a takeover before looking whether another process took it over as well.
        """
        self._store = store
        self._run = run
        self._key = f"runs/{run}/lock.json"
        self._renew_s, self._stale_s, self._settle_s = renew_s, stale_s, settle_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    def __enter__(self) -> Self:
        """Take the lock.

        Raises:
            WorkspaceBusyError: Another run holds it.
        """
        place, pid, started = this_process()
        now = time.time()
        self._record = LockRecord(
            token=secrets.token_hex(16), host=socket.gethostname(), place=place, pid=pid, started=started,
            since=now, heartbeat=now,
        )  # fmt: skip
        self._take()
        self.lost = False
        self._stop.clear()
        self._thread = threading.Thread(target=self._renew, name=f"lock {self._run}", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the lock back, if it is still ours."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
        # After a fork the child leaves the block too, and must not give away its parent's lock.
        if os.getpid() != self._record.pid:
            return
        try:
            holder = self._read()
            if holder is not None and holder.token == self._record.token:
                self._store.delete(self._key)
        except VouchError as problem:
            logger.warning("the lock of run %r stays behind and will be taken over: %s", self._run, problem)

    def _take(self) -> None:
        if self._store.put(self._key, self._bytes(), if_absent=True):
            return
        holder = self._read()
        if holder is not None and not holder.is_stale(self._stale_s):
            raise WorkspaceBusyError(self._complaint(holder))
        if holder is not None:
            logger.warning("taking over run %r from process %d on %s", self._run, holder.pid, holder.host)
        self._store.put(self._key, self._bytes())
        # Of several that take over at once the last writer has it; the others find that out here.
        time.sleep(self._settle_s)
        holder = self._read()
        if holder is not None and holder.token != self._record.token:
            raise WorkspaceBusyError(self._complaint(holder))

    def _complaint(self, holder: LockRecord) -> str:
        since = datetime.fromtimestamp(holder.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"run {self._run!r} in {self._store.uri} is in use by process {holder.pid} on {holder.host} since {since};"
            f" wait for it, stop it, or choose another run name (a dead one on another machine is taken over"
            f" after {self._stale_s:.0f} s)"
        )

    def _renew(self) -> None:
        while not self._stop.wait(self._renew_s):
            try:
                holder = self._read()
                if holder is not None and holder.token != self._record.token:
                    self.lost = True
                    logger.error("run %r was taken over: %s", self._run, self._complaint(holder))
                    return
                self._record = self._record.model_copy(update={"heartbeat": time.time()})
                self._store.put(self._key, self._bytes())
            except VouchError as problem:
                logger.warning("could not renew the lock of run %r: %s", self._run, problem)

    def _read(self) -> LockRecord | None:
        try:
            return LockRecord.model_validate_json(self._store.get(self._key).data)
        except ObjectMissingError:
            return None
        except ValidationError:
            logger.warning("%s/%s is no lock record and is replaced", self._store.uri, self._key)
            return None

    def _bytes(self) -> bytes:
        return self._record.model_dump_json().encode()


class ProcessId(NamedTuple):
    """A process that cannot be mistaken for a later one with the same number."""

    place: str
    """Hex name of the machine, its boot and its process namespace: only within one place can a pid be looked up."""
    pid: int
    """Number of the process."""
    started: str
    """Start time in the kernel's ticks since boot; empty where the system does not tell."""


def this_process() -> ProcessId:
    """Name the running process; right after a fork as well."""
    return process_id(os.getpid())


def process_id(pid: int) -> ProcessId:
    """Name a process that runs here."""
    return ProcessId(_place(), pid, _start_time(pid) or "")


def is_alive(process: ProcessId) -> bool | None:
    """Say whether a process runs; None when it belongs to another place and cannot be looked up from here."""
    if process.place != _place():
        return None
    if (PROC / "self/stat").exists():
        return _start_time(process.pid) == process.started
    try:
        os.kill(process.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


@cache
def _place() -> str:
    # Containers can share a host name, and a pid means nothing in another container or after a reboot.
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
        namespace = str((PROC / "self/ns/pid").readlink())
    except OSError:
        boot = namespace = ""
    return fingerprint(socket.gethostname(), boot, namespace)


def _start_time(pid: int) -> str | None:
    try:
        text = (PROC / f"{pid}/stat").read_text(encoding="utf-8")
    except OSError:
        return None
    # The name in parentheses may itself hold spaces and parentheses; field 3 is the state, field 22 the start.
    fields = text[text.rfind(")") + 2 :].split()
    return None if fields[0] in "ZX" else fields[19]
