"""Runs the MongoDB server that FiftyOne keeps its data sets in, on the loopback interface."""

import logging
import re
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

START_TIMEOUT_S: Final = 600.0
"""Without a word in its log; a server that recovers says how far it is, and may take as long as it likes."""
STOP_TIMEOUT_S: Final = 60.0
PORT_ATTEMPTS: Final = 5
CACHE_GB: Final = 1.0
"""Memory for mongod's cache; its own default is half of the machine."""

_NEEDS_OTHER_VERSION: Final = 62
"""mongod's exit code for data of a version that it cannot work with."""
_OTHER_VERSION: Final = ("UPGRADE PROBLEM", "unsupported upgrade or downgrade")
"""What its log says where that is found out too late for the code."""

_LIBRARY_PACKAGES: Final = {"libcurl.so.4": "libcurl4", "libssl.so.3": "libssl3", "libcrypto.so.3": "libssl3"}
"""Debian's and Ubuntu's package of each system library that the bundled mongod loads and a small system may lack."""

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
        UserError: There is no mongod for this platform, it lacks a system library, or another one uses the folder.
        VouchError: The server does not start.
    """
    process, uri = start_mongod(folder)
    try:
        yield uri
    finally:
        stop_mongod(process)


def start_mongod(folder: Path, port: int | None = None) -> tuple[subprocess.Popen[bytes], str]:
    """Start a MongoDB server that goes on until somebody stops it.

    Args:
        folder: Where its data are kept; created when absent.
        port: Of the loopback interface; None: a free one.

    Returns:
        The process, which answers already, and its mongodb:// URI.

    Raises:
        UserError: There is no mongod for this platform, it lacks a system library, another one uses the folder, or one
            of another version wrote what is in it.
        VouchError: It does not start.
    """
    binary = mongod_binary()
    folder.mkdir(parents=True, exist_ok=True)
    return _start(binary, folder, port)


def mongod_binary() -> Path:
    """The mongod that FiftyOne's package brings, else the one on the PATH.

    Raises:
        UserError: There is none.
    """
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


def missing_library(binary: Path) -> str | None:
    """Which system library keeps a mongod from being loaded, and how it is installed; None where it loads."""
    asked = subprocess.run([binary, "--version"], capture_output=True, text=True, errors="replace", check=False)  # noqa: S603 - our own binary, no shell
    # The words of the dynamic loader, glibc's and musl's.
    found = re.search(r"(?:shared libraries: |shared library )(\S+?):", asked.stderr)
    if found is None:
        return None
    library = Path(found[1]).name
    package = _LIBRARY_PACKAGES.get(library)
    install = f"on Debian and Ubuntu: apt install {package}" if package else "install the package that brings it"
    return f"the review database (mongod) needs the system library {library}, which is missing; {install}"


def _start(binary: Path, folder: Path, wanted: int | None) -> tuple[subprocess.Popen[bytes], str]:
    log = folder / "mongod.log"
    command: list[str | Path]
    for _ in range(PORT_ATTEMPTS):
        port = wanted or _free_port()
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
            if _answers(process, uri, log):
                return process, uri
        except BaseException:
            stop_mongod(process)
            raise
        said = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
        if "DBPathInUse" in said:
            raise UserError(f"another mongod uses {folder}; end that review first, or choose another folder")
        if process.returncode == _NEEDS_OTHER_VERSION or any(sign in said for sign in _OTHER_VERSION):
            raise UserError(
                f"the database in {folder} was written by another version of MongoDB; install that version, or "
                "move the folder away and begin anew (verdicts that are in the workspace stay there)"
            )
        if "Address already in use" not in said:
            break
        if wanted is not None:
            raise VouchError(f"another program has taken port {port} of the review database; run the command again")
    if library := missing_library(binary):
        raise UserError(library)
    raise VouchError(f"mongod ended with code {process.returncode} instead of starting; see {log}")


def _answers(process: subprocess.Popen[bytes], uri: str, log: Path) -> bool:
    """Wait until the server answers; False when it ended instead."""
    from pymongo import MongoClient
    from pymongo.errors import PyMongoError

    patience_s, said, heard = 0.25, 0, time.monotonic()
    while time.monotonic() - heard < START_TIMEOUT_S:
        if process.poll() is not None:
            return False
        with MongoClient[dict[str, object]](uri, serverSelectionTimeoutMS=int(patience_s * 1000)) as client:
            try:
                client.admin.command("ping")
            except PyMongoError:
                # Where connecting takes longer than this, the next try gives it more time.
                patience_s = min(1.5 * patience_s, 10.0)
            else:
                # The one that answers might be another that took the port first.
                return process.poll() is None
        if (size := log.stat().st_size if log.exists() else 0) != said:
            said, heard = size, time.monotonic()
    raise VouchError(f"mongod neither answered nor logged anything for {START_TIMEOUT_S:.0f} s; see {log}")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def stop_mongod(process: subprocess.Popen[bytes]) -> None:
    """End a server that this process started, and wait until it has written everything."""
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        logger.warning("mongod (pid %d) did not end in %.0f s and is killed", process.pid, STOP_TIMEOUT_S)
        process.kill()
        process.wait()
