"""As a program: has the kernel end it when its parent process dies, and becomes the command that follows."""

import ctypes
import os
import signal
import sys
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
"""Linux, <sys/prctl.h>: the signal that a process gets when the thread that started it ends."""


def main(parent: int, command: list[str]) -> None:
    """Become the command, which gets SIGTERM when its parent dies, even by SIGKILL; nothing else may be imported."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() == parent:  # else it died before its end could be heard
        os.execv(command[0], command)  # noqa: S606 - the command is ours, and a shell would only be one process more


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
