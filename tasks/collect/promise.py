"""Reads what a run's policy promises of its labels."""

from pydantic import ValidationError

from schemas.errors import ObjectMissingError, StoreError
from schemas.policy import Policy
from tasks.export.records import Promise
from tasks.policy import policy_key
from tasks.store.store import Store


def promise_of(workspace: Store, version: str) -> Promise | None:
    """Read the promise of a policy; None if it is not certified, or is no file of the workspace.

    Raises:
        StoreError: The policy is damaged.
    """
    key = policy_key(version)
    try:
        policy = Policy.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        return None
    except ValidationError:
        raise StoreError(f"{workspace.uri}/{key} is damaged; restore it, or use `vouch apply` with another") from None
    said = policy.certification
    if said is None:
        return None
    return Promise(
        policy=version,
        precision=said.precision,
        confidence=said.confidence,
        gate=said.gate,
        simulated=said.simulated,
    )
