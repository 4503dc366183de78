"""What some tests need beyond the set-up: they are left out where it is missing, and the end of the run says so."""

import os
import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from vouch_labels.review_ui.queue.database import missing_library, mongod_binary
from vouch_labels.schemas.errors import UserError

# Debian keeps the server's programs out of the search path, a folder for each of its versions.
POSTGRESQL = shutil.which("initdb") or next(map(str, Path("/usr/lib/postgresql").glob("*/bin/initdb")), None)
CHROMIUM = Path(os.environ.get("CHROMIUM", "/usr/bin/chromium"))


def _missing_mongod() -> str | None:
    try:
        return missing_library(mongod_binary())
    except UserError as error:
        return str(error)


def _missing_s3_server() -> str | None:
    if os.environ.get("S3_TEST_ENDPOINT"):
        return None
    return (
        "no S3 server (Debian's radosgw, ceph-mon, ceph-osd and ceph-common bring one, which "
        'eval "$(tests/radosgw.sh start)" starts)'
    )


def _missing_browser() -> str | None:
    return None if CHROMIUM.exists() else f"no {CHROMIUM} (Debian's package chromium brings it; CHROMIUM names another)"


def _missing_postgresql() -> str | None:
    return None if POSTGRESQL else "no PostgreSQL server (Debian's package postgresql brings it)"


def _missing_ray() -> str | None:
    return None if find_spec("ray") else "Ray is not installed: pip install 'vouch-labels[ray]'"


# Marker -> one line that says what is missing and which package brings it; None where it is there.
MISSING: dict[str, Callable[[], str | None]] = {
    "mongod": _missing_mongod,
    "s3": _missing_s3_server,
    "browser": _missing_browser,
    "postgresql": _missing_postgresql,
    "ray": _missing_ray,
}
# A test that uses one of these fixtures needs what the marker names.
FIXTURES = {"mongo": "mongod", "real_store": "s3", "browser": "browser", "postgresql": "postgresql"}
