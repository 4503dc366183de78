"""Keeps the terminal for Vouch's own words while other packages talk."""

import io
import os
import sys
import unicodedata
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from rich.console import Console

from flows.console.encoding import PLAIN
from flows.console.log import log_path


@dataclass(frozen=True)
class Terminal:
    """The two streams of the command, whatever else is redirected."""

    out: TextIO
    """Standard output: results."""
    err: TextIO
    """Standard error: progress and remarks."""

    def results(self) -> Console:
        """Console for what the command answers; tables are drawn 100 wide when nobody looks."""
        return _console(self.out)

    def remarks(self) -> Console:
        """Console for progress and remarks."""
        return _console(self.err)


def _console(stream: TextIO) -> Console:
    # Class names and keys come from outside: "[/x]" and ":car:" in them are no markup.
    return Console(file=stream, width=None if stream.isatty() else 100, markup=False, emoji=False)


def printable(text: str) -> str:
    """Replace control characters, by which a key or an answer could command the terminal; line ends stay."""
    return "".join(letter if letter == "\n" or unicodedata.category(letter) != "Cc" else "\ufffd" for letter in text)


def terminal() -> Terminal:
    """The streams as they are now."""
    return Terminal(sys.stdout, sys.stderr)


@contextmanager
def quiet() -> Iterator[Terminal]:
    """Send what is printed inside, by Python, by libraries in C and by child processes, to the log file.

    Yields:
        The streams as they were outside.
    """
    with ExitStack() as stack:
        file = stack.enter_context(_log_file())
        out = stack.enter_context(_set_aside(sys.stdout, file))
        err = stack.enter_context(_set_aside(sys.stderr, file))
        stack.enter_context(redirect_stdout(file))
        stack.enter_context(redirect_stderr(file))
        yield Terminal(out, err)


def _log_file() -> TextIO:
    try:
        return log_path().open("a", encoding="utf-8", errors="replace", buffering=1)
    except OSError:
        # A log that cannot be written is no reason not to work.
        return Path(os.devnull).open("w", encoding="utf-8")


@contextmanager
def _set_aside(stream: TextIO, file: TextIO) -> Iterator[TextIO]:
    """Point the stream's descriptor to the file and give a stream on what it was."""
    stream.flush()
    try:
        number = stream.fileno()
    except (OSError, io.UnsupportedOperation):
        # Not a file of the system's: a test's, or a notebook's. There is nothing below Python's level.
        yield stream
        return
    kept = os.dup(number)
    os.dup2(file.fileno(), number)
    try:
        with os.fdopen(os.dup(kept), "w", encoding=stream.encoding, errors=PLAIN, buffering=1) as aside:
            yield aside
    finally:
        os.dup2(kept, number)
        os.close(kept)
