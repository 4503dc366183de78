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
from typing import NamedTuple, Self

from pydantic import Field, ValidationError

from vouch_labels.schemas.campaign import Strict
from vouch_labels.schemas.errors import ObjectMissingError, VouchError, WorkspaceBusyError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.store.store import Store

logger = logging.getLogger(__name__)

PROC = Path("/proc")
WATCH_S = 1.0
"""Seconds between two looks at a lock that is watched."""


class LockRecord(Strict):
    """The holder of a run, as runs/<run>/lock.json has it."""

    token: str = Field(description="Random name of this holding.")
    host: str = Field(description="Host name, for people.")
    place: str = Field(description="Machine, boot and process namespace within which pid means something.")
    pid: int = Field(description="Process.")
    started: str = Field(description="Start of the process in kernel ticks; tells it from a later one of that pid.")
    since: float = Field(description="When the lock was taken, in seconds since 1970.")
    heartbeat: float = Field(description="When it was last renewed, in seconds since 1970.")

    def has_ended(self, stale_s: float) -> bool | None:
        """Whether the holder has ended; None where that has to be seen: it is of another place and not long silent."""
        alive = is_alive(ProcessId(self.place, self.pid, self.started))
        if alive is not None:
            return not alive
        return True if time.time() - self.heartbeat > stale_s else None


class WorkspaceLock:
    """Holds `runs/<run>/lock.json` for the length of a with block.

    The lock of a process of this machine that no longer runs is taken over at once. One of another machine or
    container (a replaced one, perhaps) is watched: when its heart beats it is in use, and when it does not for
    `silent_s` it is taken over. That asks nothing of the store, of which not all can compare and swap, nor of the two
    clocks. A daemon thread renews it.
    """

    def __init__(
        self,
        store: Store,
        run: str,
        *,
        renew_s: float = 5.0,
        silent_s: float = 30.0,
        stale_s: float = 120.0,
        settle_s: float = 1.0,
    ) -> None:
        """Prepare the lock of a run; nothing is written before the block is entered.

        Args:
            store: The workspace.
            run: Name of the run.
            renew_s: Seconds between two heartbeats.
            silent_s: Seconds for which another machine's lock is watched. Earlier versions renewed every 20 s.
            stale_s: Age in seconds from which another machine's heartbeat counts as dead without watching.
            settle_s: Seconds after a takeover before looking whether another process took it over as well.
        """
        self._store = store
        self._run = run
        self._key = lock_key(run)
        self._renew_s, self._silent_s, self._stale_s, self._settle_s = renew_s, silent_s, stale_s, settle_s
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False

    @property
    def token(self) -> str:
        """Random name of this holding, once the lock is taken."""
        return self._record.token

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

    def __exit__(self, *_: object) -> None:
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
        if holder is not None and not self._has_ended(holder):
            raise WorkspaceBusyError(self._complaint(holder))
        if holder is not None:
            logger.warning("taking over run %r from process %d on %s", self._run, holder.pid, holder.host)
        self._store.put(self._key, self._bytes())
        # Of several that take over at once the last writer has it; the others find that out here.
        time.sleep(self._settle_s)
        holder = self._read()
        if holder is not None and holder.token != self._record.token:
            raise WorkspaceBusyError(self._complaint(holder))

    def _has_ended(self, holder: LockRecord) -> bool:
        ended = holder.has_ended(self._stale_s)
        if ended is not None:
            return ended
        logger.warning(
            "run %r was last in use by process %d on %s: looking for up to %.0f s whether it still runs",
            self._run, holder.pid, holder.host, self._silent_s,
        )  # fmt: skip
        end = time.monotonic() + self._silent_s
        while time.monotonic() < end:
            time.sleep(min(WATCH_S, self._silent_s))
            if self._read() != holder:
                # It beats, or another one was faster; unless it was given back.
                return self._store.stat(self._key) is None
        return True

    def _complaint(self, holder: LockRecord) -> str:
        since = datetime.fromtimestamp(holder.since, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
        return (
            f"run {self._run!r} in {self._store.uri} is in use by process {holder.pid} on {holder.host} since {since};"
            f" wait for it, stop it, or choose another run name"
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


def lock_key(run: str) -> str:
    """Key of the record that names the holder of a run."""
    return f"runs/{run}/lock.json"


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
