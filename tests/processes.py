"""How tests wait for processes, kill them at work, run as an ordinary user, and start `vouch review`."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

HANG_S: Final = 1800
"""Seconds after which whatever a test waits for is taken to hang.

No wait of a test takes more than a minute on a quiet machine, so one that is thirty times as slow passes as well. A
whole test has twice as long, see pyproject.toml.
"""
_COUNTED: Final = frozenset({"open", "os.rename", "os.link", "os.remove"})
NOBODY = 65534
ROOT = Path(__file__).parents[1]


def until(happened: Callable[[], object]) -> None:
    """Wait until something has happened."""
    end = time.monotonic() + HANG_S
    while not happened():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)


def killed_at(work: Callable[[], None], number: int = 0) -> tuple[int, int]:
    """Do work in a child of this process, which must have no threads, and kill -9 it at a file operation.

    Args:
        work: What to do.
        number: Of the operation that is not done any more, counted from 1; 0: the work is done to its end.

    Returns:
        The child's exit code, negative for a signal, and how many operations it counted if it came to its end.
    """
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        _do_counted(work, number, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as counts:
        count = int(counts.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def _do_counted(work: Callable[[], None], number: int, tell: int) -> None:
    count = 0

    def hook(event: str, _: object) -> None:
        nonlocal count
        if event in _COUNTED:
            count += 1
            if count == number:
                os.kill(os.getpid(), signal.SIGKILL)

    try:
        sys.addaudithook(hook)
        work()
        os.write(tell, str(count).encode())
        os._exit(0)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)


@contextmanager
def folder_of_an_ordinary_user() -> Iterator[Path]:
    """Make a folder and be its owner, who is not root, inside the block; no other folder's rights are touched."""
    with tempfile.TemporaryDirectory() as name:
        if os.geteuid() != 0:
            yield Path(name)
            return
        os.chown(name, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, 0)  # os.access asks for the real user
        try:
            if not os.access(name, os.X_OK):
                pytest.skip("the folder for temporary files is root's alone")
            yield Path(name)
        finally:
            os.seteuid(0)
            os.setresuid(0, 0, 0)


class Running:
    """The command, and what it printed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process

    def line(self) -> dict:
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        assert said, self.process.stderr.read()
        return json.loads(said)

    def end(self, number: int = signal.SIGINT) -> tuple[int, str]:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=HANG_S)
        return self.process.returncode, out + err


@contextmanager
def running(campaign: Path, *words: str) -> Iterator[Running]:
    command = [sys.executable, "-m", "vouch_labels.flows.cli", "review", str(campaign), "--json", *words]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # Tests that a shell runs in the background would hand on that Ctrl-C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        yield Running(process)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=HANG_S)
