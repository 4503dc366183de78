"""Runs the MongoDB server that FiftyOne keeps its data sets in, on the loopback interface."""

import logging
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from schemas.errors import UserError, VouchError

START_TIMEOUT_S: Final = 60.0
STOP_TIMEOUT_S: Final = 60.0
PORT_ATTEMPTS: Final = 5
CACHE_GB: Final = 1.0
"""Memory for mongod's cache; its own default is half of the machine."""

logger = logging.getLogger(__name__)


@contextmanager
def mongod(folder: Path) -> Iterator[str]:
    """Run a MongoDB server on a free port of the loopback interface for as long as the block lasts.

    One server serves any number of FiftyOne processes: give them its URI as FIFTYONE_DATABASE_URI. It logs to
    <folder>/mongod.log and is ended, and waited for, when the block ends.

    Args:
        folder: Where its data are kept; created when absent.

    Yields:
        Its mongodb:// URI.

    Raises:
        UserError: There is no mongod for this platform, or another one uses the folder.
        VouchError: The server does not start.
    """
    binary = _binary()
    folder.mkdir(parents=True, exist_ok=True)
    process, uri = _start(binary, folder)
    try:
        yield uri
    finally:
        _stop(process)


def _binary() -> Path:
    # Found without importing fiftyone, which takes seconds.
    package = find_spec("fiftyone")
    for place in (package and package.submodule_search_locations) or ():
        path = Path(place) / "db" / "bin" / "mongod"
        if path.is_file():
            return path
    installed = shutil.which("mongod")
    if installed is None:
        raise UserError("review needs MongoDB and this platform has no bundled mongod; install mongod 6.0+ on the PATH")
    return Path(installed)


def _start(binary: Path, folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    log = folder / "mongod.log"
    command: list[str | Path]
    for _ in range(PORT_ATTEMPTS):
        port = _free_port()
        log.unlink(missing_ok=True)
        command = [binary, "--dbpath", folder, "--port", str(port), "--bind_ip", "127.0.0.1", "--nounixsocket"]
        command += ["--logpath", log, "--wiredTigerCacheSizeGB", str(CACHE_GB)]
        process = subprocess.Popen(  # noqa: S603 - our own binary, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            # So that Ctrl-C in the terminal reaches only us, and we end it in order.
            start_new_session=True,
        )
        uri = f"mongodb://127.0.0.1:{port}"
        try:
            if _answers(process, uri):
                return process, uri
        except BaseException:
            _stop(process)
            raise
        said = log.read_text(errors="replace") if log.exists() else ""
        if "DBPathInUse" in said:
            raise UserError(f"another mongod uses {folder}; end that review first, or choose another folder")
        if "Address already in use" not in said:
            break
    raise VouchError(f"mongod ended with code {process.returncode} instead of starting; see {log}")


def _answers(process: subprocess.Popen[bytes], uri: str) -> bool:
    """Wait until the server answers; False when it ended instead."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=250) as client:
            try:
                client.admin.command("ping")
            except PyMongoError:
                continue
            # The one that answers might be another that took the port first.
            return process.poll() is None
    raise VouchError(f"mongod did not answer within {START_TIMEOUT_S:.0f} s; is the machine overloaded?")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        logger.warning("mongod (pid %d) did not end in %.0f s and is killed", process.pid, STOP_TIMEOUT_S)
        process.kill()
        process.wait()
