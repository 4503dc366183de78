"""One Ray on the loopback interface for the tests of a module."""

import os
import secrets
from importlib.util import find_spec

import pytest

# As a run sets them before it imports Ray; here a test may import it first.
os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
os.environ.setdefault("RAY_AUTH_MODE", "token")


@pytest.fixture(scope="session")
def ray_installed():
    """Skip where the extra is not installed. Ray is not imported for that: how it is, is a part of what is tested."""
    if find_spec("ray") is None:
        pytest.skip("Ray is not installed: pip install 'vouch-labels[ray]'")


@pytest.fixture(scope="module")
def cluster(ray_installed):
    """A cluster of four CPUs that are not there; runs with `address: local` use it as well."""
    from vouch_labels.schemas.campaign import RunConfig
    from vouch_labels.tasks.nodes import Connection, Size

    with Connection(RunConfig(workers=4), Size(1, 0)):
        yield
