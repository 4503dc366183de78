"""Signals that end a command, and the errors that hide them."""

from typing import Final, NamedTuple

HUNG_UP: Final = 129
INTERRUPTED: Final = 130
TERMINATED: Final = 143


class Ended(NamedTuple):
    """How a signal ends a command."""

    code: int
    """Exit code, 128 + the signal's number."""
    word: str
    """What to call it."""


def signal_behind(error: BaseException) -> Ended | None:
    """The signal that an error came of, as Prefect's errors do when one interrupts its calls; None: of none."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, KeyboardInterrupt):
            return Ended(INTERRUPTED, "interrupted")
        # Prefect's, by name: importing it takes seconds.
        if type(cause).__name__ == "TerminationSignal":
            return Ended(TERMINATED, "terminated")
        if isinstance(cause, SystemExit) and cause.code in (HUNG_UP, TERMINATED):
            return Ended(cause.code, "terminated")
        cause = cause.__context__
    return None
