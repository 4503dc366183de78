"""Ends the programs of this package alike: an exit code, and one line where something went wrong."""

import sys
from collections.abc import Callable

from vouch_labels.schemas.errors import VouchError


def exit_code(work: Callable[[], str]) -> int:
    """Do the work of a program: print the text that it returns, or the message of its VouchError to standard error."""
    try:
        text = work()
    except VouchError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    sys.stdout.write(f"{text}\n")
    return 0
