"""Ends the programs of this package alike: an exit code, and one line where something went wrong."""

import sys
from collections.abc import Callable

from vouch_labels.schemas.errors import VouchError


def exit_code(work: Callable[[], str]) -> int:
    """Do the work of a program.

    Args:
        work: Returns what is to be printed at the end.

    Returns:
        0, or the exit code of the VouchError that it raised, whose message goes to standard error.
    """
    try:
        text = work()
    except VouchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{text}\n")
    return 0
