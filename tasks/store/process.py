"""Names a process so that others can tell whether it still runs."""

import os
import socket
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tasks.fingerprint import fingerprint

PROC = Path("/proc")


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
