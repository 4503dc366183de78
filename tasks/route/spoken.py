"""Says in words on what basis a policy accepts labels."""

from typing import Final

from schemas.policy import Certification, Policy

EXPIRED: Final = "expired-"
"""How the version begins of a policy that sends everything to review because another one has expired."""


def accepts(policy: Policy) -> bool:
    """Whether a policy can accept anything."""
    return any(group.accept is not None or group.p_correct is not None for group in policy.groups)


def basis(policy: Policy) -> str:
    """Say on what basis a policy accepts labels, in a few words."""
    promise = policy.certification
    if promise is None:
        return "user thresholds, not certified" if accepts(policy) else "no thresholds: everything goes to review"
    if policy.version.startswith(EXPIRED):
        return "an expired certificate: everything goes to review"
    if not accepts(policy):
        return "certified for no class: everything goes to review"
    if promise.simulated:
        return f"simulated reviewer, so nothing is certified; would be {_promise(promise)}"
    return f"certified: {_promise(promise)}"


def _promise(promise: Certification) -> str:
    words = f"at least {promise.precision:.4g} of {promise.gate} labels correct, confidence {promise.confidence:.4g}"
    # Labels that people keep are part of what is delivered, so before they are decided it holds less.
    return f"{words}, once people have decided those that wait" if promise.gate == "delivered" else words
