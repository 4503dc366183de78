"""Which policy is in force in a run: runs/<run>/policy.json."""

from typing import Final

from pydantic import Field, ValidationError

from schemas.campaign import Strict
from schemas.errors import ObjectMissingError, StoreError
from tasks.store.store import Store

_REMEDY: Final = "delete it to route by the thresholds of the campaign, or use `vouch apply` to put a policy in force"


class InForce(Strict):
    """runs/<run>/policy.json."""

    version: str | None = Field(description="Version of the policy; None: the thresholds of the campaign.")


def version_in_force(workspace: Store, run: str) -> str | None:
    """Read the version of the policy that a run is routed by while routing.policy is empty; None: there is none.

    Raises:
        StoreError: The record is damaged.
    """
    key = _key(run)
    try:
        return InForce.model_validate_json(workspace.get(key).data).version
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; {_REMEDY}") from None


def put_in_force(workspace: Store, run: str, version: str | None) -> None:
    """Route a run by a policy from now on; None: by the thresholds of the campaign."""
    workspace.put(_key(run), InForce(version=version).model_dump_json().encode() + b"\n")


def _key(run: str) -> str:
    return f"runs/{run}/policy.json"
