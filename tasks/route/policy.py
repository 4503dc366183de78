"""Makes, keeps and reads the policies that labels are routed by."""

from collections import Counter
from collections.abc import Sequence
from typing import Final

from pydantic import ValidationError

from schemas.campaign.classes import ClassConfig
from schemas.campaign.routing import RoutingConfig
from schemas.errors import ObjectMissingError, UserError
from schemas.policy import Group, Policy
from schemas.signals import Thresholds
from tasks.fingerprint import fingerprint
from tasks.store.store import Store

_FOLDER: Final = "policies"


def default_policy(classes: Sequence[ClassConfig], routing: RoutingConfig) -> Policy:
    """Make the policy that says no more than the campaign itself.

    A class goes by its own `accept`, else by `routing.accept`; without either nothing of it is accepted. Classes with
    one rule are one group, groups come in the order of their first class.

    Args:
        classes: The declared classes.
        routing: Its `accept`; its `policy` is not looked at.

    Returns:
        A policy whose version is a fingerprint of its groups: equal rules have equal versions on every machine.
    """
    members: dict[Thresholds | None, list[str]] = {}
    for entry in classes:
        rule = entry.accept if entry.accept is not None else routing.accept
        members.setdefault(rule, []).append(entry.name)
    groups = tuple(Group(name=_spoken(rule), classes=tuple(names), accept=rule) for rule, names in members.items())
    return Policy(version=f"user-{fingerprint([group.model_dump(mode='json') for group in groups])}", groups=groups)


def choose_policy(classes: Sequence[ClassConfig], routing: RoutingConfig, workspace: Store) -> Policy:
    """Read the policy that `routing.policy` names, or make the default one and keep it.

    Raises:
        UserError: As `read_policy` and `write_policy`.
    """
    if routing.policy is not None:
        return read_policy(workspace, routing.policy, classes)
    policy = default_policy(classes, routing)
    write_policy(workspace, policy)
    return policy


def read_policy(workspace: Store, version: str, classes: Sequence[ClassConfig]) -> Policy:
    """Read policies/<version>.json.

    Args:
        workspace: Where policies are kept.
        version: Its name.
        classes: The declared classes; the policy may know more.

    Raises:
        UserError: There is no such policy, it cannot be read, is filed under another's name, has no rule for a declared
            class or two for one.
    """
    key = _key(version)
    try:
        policy = Policy.model_validate_json(workspace.get(key).data)
    except ObjectMissingError:
        raise UserError(
            f"routing.policy: {workspace.uri} has no {key}; name a policy that is there, or leave it empty"
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in problem["loc"])
        detail = f"{place}: {problem['msg']}" if place else problem["msg"]
        raise UserError(f"routing.policy: {key} is damaged or no policy ({detail}); restore or replace it") from None
    if policy.version != version:
        raise UserError(f"routing.policy: {key} holds the policy {policy.version!r}; rename one or the other")
    counts = Counter(name for group in policy.groups for name in group.classes)
    missing = [entry.name for entry in classes if entry.name not in counts]
    if missing:
        raise UserError(
            f"routing.policy: {version} has no rule for {', '.join(missing)}; add each to a group of {key}, "
            "or leave routing.policy empty"
        )
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(f"routing.policy: {version} has several rules for {', '.join(twice)}; keep one in {key}")
    return policy


def write_policy(workspace: Store, policy: Policy) -> None:
    """Keep a policy as policies/<version>.json; a version, once written, never changes.

    Raises:
        UserError: Another policy has this version already.
    """
    key, data = _key(policy.version), policy.model_dump_json(indent=2).encode() + b"\n"
    if not workspace.put(key, data, if_absent=True) and workspace.get(key).data != data:
        raise UserError(f"{workspace.uri} has another policy of version {policy.version}; give this one another name")


def _key(version: str) -> str:
    return f"{_FOLDER}/{version}.json"


def _spoken(rule: Thresholds | None) -> str:
    if rule is None:
        return "review only"
    return ", ".join(f"{name} >= {value:g}" for name, value in rule.required().items())
