"""Makes, stores and loads routing policies, and describes on what basis they accept labels.

Certified policies are named by their content, so that a later change of theirs is noticed.
"""

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from pydantic import ValidationError

from vouch_labels.schemas.campaign import ClassConfig, RoutingConfig, Thresholds
from vouch_labels.schemas.errors import ObjectMissingError, UserError
from vouch_labels.schemas.policy import Certification, Group, Policy
from vouch_labels.schemas.text import guarantee_text
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.store.store import Store

_EXPIRED: Final = "the policy has expired; certify again"
_LONGEST_VERSION: Final = 100
FOLDER: Final = "policies"
CERTIFY_AGAIN: Final = (
    "set routing.policy: none to label without it, then certify again (vouch plan-reviews tells what to review)"
)

_DIGITS: Final = 8
_NAME: Final = re.compile(rf"certified-\d+-([0-9a-f]{{{_DIGITS}}})")

EXPIRED: Final = "expired-"
"""How the version begins of a policy that sends everything to review because another one has expired."""


def default_policy(classes: Sequence[ClassConfig], routing: RoutingConfig) -> Policy:
    """Make the policy that states no more than the campaign itself.

    A class goes by its own `accept`, else by `routing.accept`; without either nothing of it is accepted. Classes with
    one rule are one group, groups come in the order of their first class. The version is a fingerprint of the groups:
    equal rules have equal versions on every machine.
    """
    members: dict[Thresholds | None, list[str]] = {}
    for entry in classes:
        rule = entry.accept if entry.accept is not None else routing.accept
        members.setdefault(rule, []).append(entry.key)
    groups = tuple(Group(name=_rule_text(rule), classes=tuple(names), accept=rule) for rule, names in members.items())
    return Policy(version=f"user-{fingerprint([group.model_dump(mode='json') for group in groups])}", groups=groups)


def expired_policy(policy: Policy) -> Policy:
    """Make the policy that takes the place of a certified one whose guarantee has ended.

    It gives labels the same p_correct and accepts none; its version tells which policy it stands for.
    """
    groups = tuple(
        group.model_copy(
            update={
                "p_correct": None,
                "certificate": group.certificate and group.certificate.model_copy(update={"refusal": _EXPIRED}),
            }
        )
        for group in policy.groups
    )
    version = f"{EXPIRED}{policy.version}"
    if len(version) > _LONGEST_VERSION:
        version = f"{EXPIRED}{fingerprint(policy.version)}"
    return policy.model_copy(update={"version": version, "groups": groups})


def read_policy(
    workspace: Store, version: str, classes: Sequence[ClassConfig], named_by: str = "routing.policy"
) -> Policy:
    """Read policies/<version>.json; the policy may know more than the declared classes.

    `named_by` is what asks for it, for messages.

    Raises:
        UserError: There is no such policy, it cannot be read, is filed under another's name, has no rule for a declared
            class or two for one.
    """
    key = policy_key(version)
    policy = parse_policy(workspace, version, named_by)
    counts = Counter(name for group in policy.groups for name in group.classes)
    missing = [entry.key for entry in classes if entry.key not in counts]
    if missing and policy.certification is not None:
        raise UserError(f"{named_by}: {version} was certified without {', '.join(missing)}; {CERTIFY_AGAIN}")
    if missing:
        raise UserError(
            f"{named_by}: {version} has no rule for {', '.join(missing)}; add each to a group of {key}, "
            "or leave routing.policy empty"
        )
    twice = sorted(name for name, count in counts.items() if count > 1)
    if twice:
        raise UserError(f"{named_by}: {version} has several rules for {', '.join(twice)}; keep one in {key}")
    return policy


def parse_policy(workspace: Store, version: str, named_by: str) -> Policy:
    """Read policies/<version>.json, whatever classes it is for.

    Raises:
        UserError: There is no such policy, it cannot be read or used, or is filed under another's name.
    """
    key = policy_key(version)
    try:
        data = workspace.get(key).data
        policy = Policy.model_validate_json(data)
        _try_calibrator(policy)
        if not is_as_named(version, data):
            raise _DamagedError("its content is not the one that it was named by, so it is not the certified one")
    except ObjectMissingError:
        raise UserError(
            f"{named_by}: {workspace.uri} has no {key}; name a policy that is there, or set routing.policy: none"
        ) from None
    except (ValidationError, _DamagedError) as error:
        raise UserError(
            f"{named_by}: {key} is damaged or no policy ({_detail(error)}); restore or replace it"
        ) from None
    if policy.version != version:
        raise UserError(f"{named_by}: {key} holds the policy {policy.version!r}; rename one or the other")
    return policy


def check_fits(policy: Policy, inputs: Mapping[str, str]) -> None:
    """Refuse a certified policy for labels that come from other models, prompts or settings than it was certified with.

    `inputs` is what the labels depend on, as `Pipeline.inputs` and `Current.inputs` have it.

    Raises:
        UserError: Inputs have changed; it names them.
    """
    if policy.certification is None:
        return
    changed = changed_inputs(policy.certification.inputs, inputs)
    if changed:
        raise UserError(
            f"policy {policy.version} was certified with other {', '.join(changed)}, so it says nothing of these "
            f"labels; {CERTIFY_AGAIN}"
        )


def changed_inputs(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Name the inputs that differ, those that one side lacks included."""
    names = dict.fromkeys([*after, *before])
    return [name for name in names if before.get(name) != after.get(name)]


def check_guarantee(policy: Policy, routing: RoutingConfig) -> None:
    """Refuse a certified policy that guarantees less than the campaign asks for, or something else.

    Raises:
        UserError: Its precision or confidence is lower, or its gate is the other one: neither guarantee contains the
            other, since people who keep wrong labels are no fault of the accepted ones.
    """
    less = weaker_guarantee(policy, routing)
    if less:
        raise UserError(
            f"policy {policy.version} certifies {', '.join(less)}; change routing to what it certifies, or "
            f"{CERTIFY_AGAIN}"
        )


def weaker_guarantee(policy: Policy, routing: RoutingConfig) -> list[str]:
    """Say where a certified policy guarantees less than the campaign asks for: "precision 0.95, not 0.98"."""
    guarantee = policy.certification
    if guarantee is None:
        return []
    less = [
        f"{name} {getattr(guarantee, name):g}, not {getattr(routing, name):g}"
        for name in ("precision", "confidence")
        if getattr(guarantee, name) < getattr(routing, name)
    ]
    if guarantee.gate != routing.gate:
        less.append(f"gate {guarantee.gate}, not {routing.gate}")
    return less


def write_policy(workspace: Store, policy: Policy) -> None:
    """Keep a policy as policies/<version>.json; a version, once written, never changes.

    Raises:
        UserError: Another policy has this version already.
    """
    key, data = policy_key(policy.version), policy.model_dump_json(indent=2).encode() + b"\n"
    if not workspace.put(key, data, if_absent=True) and workspace.get(key).data != data:
        raise UserError(f"{workspace.uri} has another policy of version {policy.version}; give this one another name")


def policy_key(version: str) -> str:
    """Key of a policy in the workspace."""
    return f"{FOLDER}/{version}.json"


class _DamagedError(ValueError):
    """A policy that its schema allows and that cannot be used."""


def _try_calibrator(policy: Policy) -> None:
    """Its schema says little of a calibrator, so it is tried on one label of each class."""
    if policy.certification is None:
        return
    classes = tuple(name for group in policy.groups for name in group.classes)
    try:
        calibrator = Calibrator.from_dict(policy.certification.calibrator)
        signals = np.array([calibrator.means] * len(classes), np.float64).reshape(len(classes), -1)
        # A sigmoid is from 0 to 1 of any number, so that its package need not be imported, which takes a while.
        sound = not np.isnan(calibrator.logits(signals, np.arange(len(classes)), classes)).any()
        sound &= all(0 <= x <= 1 and 0 <= y <= 1 for x, y in calibrator.knots)
    except (UserError, TypeError, ValueError):
        sound = False
    if not sound:
        raise _DamagedError("certification.calibrator: gives no probabilities")


def _detail(error: Exception) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    problem = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in problem["loc"])
    return f"{place}: {problem['msg']}" if place else problem["msg"]


def _rule_text(rule: Thresholds | None) -> str:
    if rule is None:
        return "review only"
    return ", ".join(f"{name} >= {value:g}" for name, value in rule.required().items())


def content_name(test: int, groups: list[dict[str, Any]], certification: dict[str, Any]) -> str:
    """Version of a certified policy, certified-<test>-<hash>, by the test that it came from and its values as JSON.

    When the certification was made does not count.
    """
    return f"certified-{test}-{_hash(groups, certification)}"


def is_as_named(version: str, data: bytes) -> bool:
    """Whether a policy's file is as it was when it was named; one with a name of another kind always is.

    The JSON is read as it is, so that this stays true when the schema gets new fields.
    """
    name = _NAME.fullmatch(version)
    if name is None:
        return True
    policy = json.loads(data)
    try:
        return _hash(policy["groups"], policy["certification"]) == name[1]
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _hash(groups: list[dict[str, Any]], certification: dict[str, Any]) -> str:
    timeless = {name: value for name, value in certification.items() if name != "created"}
    return fingerprint(groups, timeless)[:_DIGITS]


def accepts(policy: Policy) -> bool:
    """Whether a policy can accept anything."""
    return any(group.accept is not None or group.p_correct is not None for group in policy.groups)


def basis(policy: Policy) -> str:
    """On what basis a policy accepts labels, in one phrase."""
    guarantee = policy.certification
    if guarantee is None:
        return "user thresholds, not certified" if accepts(policy) else "no thresholds: everything goes to review"
    if policy.version.startswith(EXPIRED):
        return "an expired certificate: everything goes to review"
    if not accepts(policy):
        return "certified for no class: everything goes to review"
    if guarantee.simulated:
        return f"simulated reviewer, so nothing is certified; would be {_guarantee(guarantee)}"
    return f"certified: {_guarantee(guarantee)}"


def _guarantee(found: Certification) -> str:
    text = guarantee_text(found.precision, found.gate, found.confidence)
    # Labels that people keep are part of what is delivered, so before they are decided it holds less.
    return f"{text}, once people have decided those that wait" if found.gate == "delivered" else text
