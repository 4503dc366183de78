"""Prints results as JSON or as lines and tables; keeps other packages' output off the terminal, in a log file.

The log holds the tracebacks as well, and never a secret.
File names are UTF-8 whatever the locale says, and a terminal that cannot show a sign gets a plain one.
"""

import codecs
import io
import json
import logging
import os
import re
import sys
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TextIO

from rich.console import Console
from rich.table import Table as RichTable

from vouch_labels.schemas.text import Block, Result
from vouch_labels.tasks.store.private import FOLDER_MODE, PrivateLog

PLAIN: Final = "vouch.plain"
"""Name of the error handler for streams."""

_PLAIN_SIGNS: Final = {"≥": ">=", "…": "...", "\u2013": "-"}
MAX_BYTES: Final = 5 * 2**20
KEPT: Final = 3
"""Older files that are kept, as vouch.log.1 and so on."""

_COMMAND: Final = re.compile(r"(\bvouch [a-z-]+ )CAMPAIGN\b")
_IN_ADDRESS: Final = re.compile(r"(?<=://)[^/@\s]+@|(?<=\w)\?[^\s\"'<>]*(?i:signature|token|secret|key)=[^\s\"'<>]*")


def read_names_as_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where the locale has another encoding.

    Python itself does so in the C locale, unless PYTHONUTF8=0 keeps it from that: names of files could not be read
    then, be it in a campaign, in a table or in the data set. The output stays in the encoding that was asked for.
    """
    if sys.flags.utf8_mode or codecs.lookup(sys.getfilesystemencoding()).name == "utf-8":
        return
    os.environ["PYTHONUTF8"] = "1"  # for children
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - ourselves, no shell


def show_plain_signs() -> None:
    """Let standard output and error replace what their encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        return codecs.backslashreplace_errors(error)
    part = error.object[error.start : error.end]
    try:
        # Bytes of a file's name that could not be read in the locale's encoding (PEP 383) are mostly UTF-8.
        part = part.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)
    part = "".join(_PLAIN_SIGNS.get(sign, sign) for sign in part)
    return part.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end


codecs.register_error(PLAIN, _plain)


@dataclass(frozen=True)
class Terminal:
    """The two streams of the command, whatever else is redirected."""

    out: TextIO
    """Standard output: results."""
    err: TextIO
    """Standard error: progress and remarks."""

    def results(self) -> Console:
        """Console for what the command answers; tables are drawn 100 wide where there is no terminal."""
        return _console(self.out)

    def remarks(self) -> Console:
        """Console for progress and remarks."""
        return _console(self.err)


def print_json(terminal: Terminal, value: object) -> None:
    """Write a value that JSON can say to standard output, as one line; escaped where its encoding cannot say it."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(terminal.out.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value)
    terminal.out.write(f"{text}\n")
    terminal.out.flush()


def print_rows(terminal: Terminal, rows: Iterable[Sequence[str]]) -> None:
    """Write rows to standard output as they come, fields between tabs, without control characters."""
    for row in rows:
        terminal.out.write("\t".join(printable(" ".join(field.split("\n"))) for field in row) + "\n")
    terminal.out.flush()


def say(console: Console, line: str) -> None:
    """Print a line as it is: no markup, no colours, and left to the terminal to wrap."""
    console.print(printable(line), highlight=False, markup=False, soft_wrap=True)


def answer(terminal: Terminal, found: Result, as_json: bool, campaign: Path | None = None) -> None:
    """Print what a command found: for machines its fields, for people its lines and tables."""
    if as_json:
        print_json(terminal, found.model_dump(mode="json"))
    else:
        show(terminal.results(), found.blocks(), campaign)


def show(console: Console, blocks: Iterable[Block], campaign: Path | None = None) -> None:
    """Print lines and tables; the path of a campaign file then stands for CAMPAIGN in the commands."""

    def named(text: str) -> str:
        return text if campaign is None else _COMMAND.sub(lambda found: found[1] + str(campaign), text)

    for place, block in enumerate(blocks):
        if isinstance(block, str):
            say(console, named(block))
            continue
        if block.title:
            # A line of its own: a table's title would be wrapped to its width.
            say(console, f"\n{block.title}" if place else block.title)
        table = RichTable(show_header=any(name.strip() for name in block.columns))
        for number, name in enumerate(block.columns):
            # Names may be long, the others are figures.
            column: dict[str, Any] = {"justify": "right"} if number else {"overflow": "fold"}
            table.add_column(printable(name), **column)
        for row in block.cells():
            table.add_row(*(printable(named(cell)) for cell in row))
        console.print(table)


def _console(stream: TextIO) -> Console:
    # Class names and keys come from outside: "[/x]" and ":car:" in them are no markup.
    # Jupyter gets plain text where the stream leads, and no HTML beside it.
    wide = None if stream.isatty() else 100
    return Console(file=stream, width=wide, markup=False, emoji=False, force_jupyter=False)


def printable(text: str) -> str:
    """Replace control characters, by which a key or an answer could command the terminal; line ends stay."""
    return "".join(letter if letter == "\n" or unicodedata.category(letter) != "Cc" else "\ufffd" for letter in text)


def terminal() -> Terminal:
    """The streams as they are now."""
    return Terminal(sys.stdout, sys.stderr)


@contextmanager
def quiet() -> Iterator[Terminal]:
    """Send what is printed inside, by Python, by libraries in C and by child processes, to the log file.

    Yields the streams as they were outside.
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
    if not isinstance(stream, io.TextIOWrapper):
        # A notebook's, whose descriptor is that of its server's log.
        yield stream
        return
    try:
        number = stream.fileno()
    except (OSError, io.UnsupportedOperation):
        # Not a file of the system's: a test's. There is nothing below Python's level.
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


_SECRETS: Final = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "HF_TOKEN",
    "PREFECT_API_KEY",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_SERVER_API_AUTH_STRING",
    "PREFECT_SERVER_DATABASE_PASSWORD",
    "VOUCH_MONGODB_URI",
    "VOUCH_REVIEW_TOKEN",
)


def log_path() -> Path:
    """VOUCH_LOG where it is set, else vouch/vouch.log in XDG_STATE_HOME (~/.local/state)."""
    chosen = os.environ.get("VOUCH_LOG")
    if chosen:
        return Path(chosen).expanduser()
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "vouch" / "vouch.log"


def start_log() -> Path | None:
    """Send the root logger, from INFO up, and Python's warnings to the log file; returns it, None without any.

    Must run before prefect is imported: it leaves a root logger alone that has a handler already.
    """
    path = log_path()
    handler: logging.Handler = logging.NullHandler()
    try:
        path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
        handler = PrivateLog(path, maxBytes=MAX_BYTES, backupCount=KEPT, encoding="utf-8", delay=False)
    except OSError:
        path = None  # type: ignore[assignment]  # no file, said by the return type
    handler.setFormatter(_Redacting("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    for old in [old for old in root.handlers if getattr(old, "of_vouch", False)]:
        root.removeHandler(old)
        old.close()
    handler.of_vouch = True  # type: ignore[attr-defined]  # so that a second start replaces it
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    # One line a request, thousands a run.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    return path


class _Redacting(logging.Formatter):
    """Blots out what must not lie in a file, in messages and in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        text = _IN_ADDRESS.sub("", super().format(record))
        for name in _SECRETS:
            secret = os.environ.get(name)
            if secret and len(secret) > 5:
                text = text.replace(secret, f"<{name}>")
        return text
