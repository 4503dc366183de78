"""Ends every command the same way: an exit code, and one line on standard error when it is not 0; help epilogs."""

import functools
import logging
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Final, ParamSpec

import typer

from vouch_labels.flows.console.output import log_path, printable, start_log
from vouch_labels.flows.prefect_server import signal_behind
from vouch_labels.schemas.errors import CampaignError, VouchError

logger = logging.getLogger(__name__)

OK: Final = 0
FAILURE: Final = 1

_RESUMED: Final = ("run", "demo", "apply", "train")
"""Commands that go on where they were interrupted; the others start again."""

Arguments = ParamSpec("Arguments")

EXIT_CODES: Final = (
    "Exit codes: 0 done, 1 failure, 2 a mistake in what was asked for, 3 nothing could be certified, "
    "130 interrupted. "
    "Details of failures are in the log file, ~/.local/state/vouch/vouch.log or VOUCH_LOG."
)
_epilogs: Final[dict[object, str]] = {}
"""Command -> what its help ends with."""


def reported(*examples: str) -> Callable[[Callable[Arguments, None]], Callable[Arguments, None]]:
    """Decorate a command: start the log file, turn errors into a line and an exit code, end its help with examples.

    A VouchError is for the user to read; anything else is a bug, whose traceback goes to the log file.
    """

    def decorate(command: Callable[Arguments, None]) -> Callable[Arguments, None]:
        @functools.wraps(command)
        def run(*args: Arguments.args, **kwargs: Arguments.kwargs) -> None:
            log = start_log()
            logger.info("vouch %s", " ".join(sys.argv[1:]))
            code = OK
            try:
                command(*args, **kwargs)
            except VouchError as error:
                logger.info("ended with an error", exc_info=True)
                code = error.exit_code
                # The lines of a campaign's problems begin with file and line, so that editors and terminals link them.
                text = str(error) if isinstance(error, CampaignError) else f"vouch: {error}"
                print(printable(text), file=sys.stderr)
            except (KeyboardInterrupt, SystemExit) as error:
                # Otherwise it is rich, which ends a command so when the reader of its output has gone.
                if ended := signal_behind(error):
                    code = _say_ended(ended, command.__name__)
            except BrokenPipeError:
                # The reader of the output has gone (`vouch status ... | head`); the interpreter must not flush to it.
                os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            except Exception as error:
                if ended := signal_behind(error):
                    logger.info("%s, hidden by %s: %s", ended[1], type(error).__name__, error)
                    code = _say_ended(ended, command.__name__)
                else:
                    logger.exception("unexpected error")
                    code = FAILURE
                    message = " ".join(str(error).split()) or "no further words"
                    _say(f"unexpected {type(error).__name__}: {message[:300]} (traceback in {log or log_path()})")
            if code != OK:
                raise typer.Exit(code)

        _epilogs[run] = epilog(*examples)
        return run

    return decorate


def add(app: typer.Typer, *commands: Callable[..., None]) -> None:
    """Let a program have these commands, which `reported` decorates, under the names of their functions."""
    for command in commands:
        # A name that Python has taken ends with an underscore there.
        name = command.__name__.rstrip("_").replace("_", "-")
        app.command(name, epilog=_epilogs[command])(command)


def _say_ended(ended: tuple[int, str], command: str) -> int:
    code, name = ended
    kept = "; finished work is kept: run the same command again to resume" if command in _RESUMED else ""
    _say(f"{name}{kept}")
    return code


def _say(message: str) -> None:
    # The terminal may be closed already.
    with suppress(OSError):
        print(printable(f"vouch: {message}"), file=sys.stderr)


def epilog(*examples: str) -> str:
    """Examples, one a line, and the exit codes."""
    if not examples:
        return EXIT_CODES
    # \b keeps the lines as they are.
    return "\b\nExamples:\n" + "\n".join(f"  {example}" for example in examples) + f"\n\n{EXIT_CODES}"
