"""`vouch review` as a process of its own, and what it prints."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.waiting import HANG_S

ROOT = Path(__file__).parents[3]


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
