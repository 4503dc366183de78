"""Binds the sockets that reviewers' servers answer on, before anything slow is started."""

import errno
import socket
from typing import Final

from schemas.errors import UserError

FIRST: Final = 5151
TRIED: Final = 200
BACKLOG: Final = 128


def bind(host: str, port: int | None, count: int) -> list[socket.socket]:
    """Bind a socket for each reviewer.

    They stay bound while a server is started again: who asks meanwhile waits, and no other program can step in.

    Args:
        host: Address or name to bind to.
        port: The first one's; the others follow. None: free ones from 5151 on.
        count: How many.

    Raises:
        UserError: A port that was asked for is taken, or the host cannot be bound to.
    """
    found: list[socket.socket] = []
    try:
        if port is not None:
            for number in range(port, port + count):
                found.append(_bound(host, number))
            return found
        for number in range(FIRST, FIRST + TRIED):
            if len(found) == count:
                break
            try:
                found.append(_bound(host, number))
            except _TakenError:
                continue
        if len(found) < count:
            raise UserError(f"ports {FIRST} to {FIRST + TRIED - 1} are taken; name a free one with --port")
        return found
    except BaseException:
        for one in found:
            one.close()
        raise


def port_of(bound: socket.socket) -> int:
    """The port that a socket is bound to."""
    number: int = bound.getsockname()[1]
    return number


class _TakenError(UserError):
    pass


def _bound(host: str, port: int) -> socket.socket:
    if not 0 < port < 65536:
        raise UserError(f"{port} is no port; choose one from 1024 to 65535")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError:
        raise UserError(f"cannot find the host {host!r}; give --host an address of this machine") from None
    bound = socket.socket(family, kind, protocol)
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(BACKLOG)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise _TakenError(f"port {port} is taken; choose another with --port, or leave --port out") from None
        if error.errno == errno.EACCES:
            raise UserError(f"port {port} needs more rights; choose one from 1024 on with --port") from None
        raise UserError(f"cannot bind to {host}: {(error.strerror or 'failed').lower()}; mend --host") from None
    return bound
