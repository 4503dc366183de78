"""The most memory that a process has held."""

import resource
import sys
from pathlib import Path


def peak_bytes(process: int | None = None) -> int:
    """Peak resident memory of a process that still runs, files mapped into it included.

    Linux counts it for each program image of its own (VmHWM in /proc/PID/status). The figure of getrusage and wait4
    is not used there: it starts from what the parent held when it started the process.

    Args:
        process: Id of the process; None for this one.

    Returns:
        Bytes; for another process 0 where the system does not tell.
    """
    status = Path(f"/proc/{process or 'self'}/status")
    if status.is_file():
        lines = status.read_text(encoding="utf-8").splitlines()
        return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)
    if process is not None:
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_bytes_of_children() -> int:
    """Sum of the peaks of all processes that this one has started and that still run."""
    import psutil

    return sum(peak_bytes(child.pid) for child in psutil.Process().children(recursive=True))
