"""Work that is killed in its middle, at a moment that does not depend on how fast the machine is."""

import os
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Final

_COUNTED: Final = frozenset({"open", "os.rename", "os.link", "os.remove"})


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
        _work(work, number, tell)
    os.close(tell)
    with os.fdopen(told, "rb") as counts:
        count = int(counts.read() or 0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), count


def _work(work: Callable[[], None], number: int, tell: int) -> None:
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
