"""Makes, stores and loads routing policies, and describes on what basis they accept labels, and which they cover.

Certified policies are named by their content, so that a later change of theirs is noticed. They accept no label but
those that their certificates cover: the populations that random samples were drawn from, kept as sets of label ids.
"""

import hashlib
import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import ValidationError

from vouch_labels.schemas.campaign import ClassConfig, RoutingConfig, Thresholds
from vouch_labels.schemas.errors import ObjectMissingError, StoreError, UserError
from vouch_labels.schemas.policy import Certification, Covered, Group, Policy
from vouch_labels.schemas.text import coverage_text, guarantee_text
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
    """Say where a certified policy guarantees less than the campaign asks for: "precision 0.95, not 0.98".

    The gate of an earlier version's policy is no matter where the campaign names none: what was the default then was
    meant, and such a policy routes on without a guarantee.
    """
    guarantee = policy.certification
    if guarantee is None:
        return []
    less = [
        f"{name} {getattr(guarantee, name):g}, not {getattr(routing, name):g}"
        for name in ("precision", "confidence")
        if getattr(guarantee, name) < getattr(routing, name)
    ]
    measured = guarantee.reviewers.planted > 0
    if guarantee.covers and not measured and guarantee.reviewers.assumed < routing.missed:
        less.append(f"missed {guarantee.reviewers.assumed:g}, not {routing.missed:g}")
    as_by_default_then = not guarantee.covers and "gate" not in routing.model_fields_set
    if guarantee.gate != routing.gate and not as_by_default_then:
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


def keep_certified(workspace: Store, groups: tuple[Group, ...], certification: Certification) -> Policy:
    """Write a policy, unless it is there already."""
    rules = [group.model_dump(mode="json") for group in groups]
    version = content_name(certification.look, rules, certification.model_dump(mode="json"))
    policy = Policy(version=version, basis="certified", groups=groups, certification=certification)
    try:
        return Policy.model_validate_json(workspace.get(policy_key(version)).data)
    except ObjectMissingError:
        write_policy(workspace, policy)
        return policy


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
    text = guarantee_text(found.precision, found.gate, found.confidence, found.reviewers.assumed)
    # Labels that people keep are part of what is delivered, so before they are decided it holds less.
    text += ", once people have decided those that wait" if found.gate == "delivered" else ""
    labels, images = sum(one.labels for one in found.covers), sum(one.images for one in found.covers)
    return f"{text}; {coverage_text(labels, images, found.covers[-1].created)}" if found.covers else text


LabelNumbers = NDArray[np.uint64]
"""Labels as numbers that stand for their ids: 8 bytes each, so that ten million are held and stored with ease."""

_ID_LENGTH: Final = 32
_ODD: Final = np.array([0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x27D4EB2F165667C5], np.uint64)
"""Multipliers that keep ids apart; any odd numbers would do, and these must never change."""


def label_numbers(label_ids: pa.Array | pa.ChunkedArray) -> LabelNumbers:
    """Numbers of labels by their ids, (n,).

    Ids are hexadecimal digits of a hash, so that two of n labels have one number with a chance of n^2 / 2^65.
    """
    words = _letters(label_ids).view("<u8").reshape(len(label_ids), len(_ODD)).astype(np.uint64, copy=False)
    return np.asarray((words * _ODD).sum(axis=1, dtype=np.uint64), np.uint64)


def _letters(label_ids: pa.Array | pa.ChunkedArray) -> NDArray[np.uint8]:
    """The bytes of ids, each filled up to the same length; as they lie in memory where all have that already."""
    ids = label_ids.combine_chunks() if isinstance(label_ids, pa.ChunkedArray) else label_ids
    if ids.type == pa.string() and not ids.null_count:
        offsets = np.frombuffer(ids.buffers()[1] or b"", np.int32)[ids.offset : ids.offset + len(ids) + 1]
        if len(ids) and (np.diff(offsets) == _ID_LENGTH).all():
            return np.frombuffer(ids.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    return np.array(ids.to_pylist(), f"S{_ID_LENGTH}").view(np.uint8)


def keep_population(workspace: Store, label_ids: pa.Array | pa.ChunkedArray) -> str:
    """Keep which labels a random sample is drawn from, as populations/<name>.parquet, and give the name."""
    return keep_numbers(workspace, label_numbers(label_ids))


def keep_numbers(workspace: Store, labels: LabelNumbers) -> str:
    """As `keep_population`, of labels as `label_numbers` has them."""
    ascending = np.sort(labels)
    name = _population_name(ascending)
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"label": ascending}), sink, compression="zstd", use_dictionary=False)
    workspace.put(_population_key(name), sink.getvalue().to_pybytes(), if_absent=True)
    return name


def read_population(workspace: Store, name: str) -> LabelNumbers:
    """Read which labels a random sample was drawn from: (M,) ascending, as `label_numbers` has them.

    Raises:
        StoreError: The record is missing, damaged, or not the one that was kept.
    """
    key = _population_key(name)
    try:
        table = pq.read_table(pa.BufferReader(workspace.get(key).data))
        found = np.asarray(table["label"].to_numpy(), np.uint64)
    except ObjectMissingError:
        raise StoreError(f"{workspace.uri}/{key} is missing; {_LOST}") from None
    except (pa.ArrowException, OSError, KeyError):
        raise StoreError(f"{workspace.uri}/{key} is damaged; {_LOST}") from None
    if _population_name(found) != name:
        raise StoreError(f"{workspace.uri}/{key} is not the record that was kept; {_LOST}")
    return found


_LOST: Final = "restore it: without it nobody knows which labels were certified"


def _population_name(ascending: LabelNumbers) -> str:
    return hashlib.sha256(ascending.astype("<u8").tobytes()).hexdigest()[:16]


def _population_key(name: str) -> str:
    return f"populations/{name}.parquet"


@dataclass(frozen=True)
class Coverage:
    """The labels that a policy covers, and those that need no policy; as `label_numbers` has them, ascending."""

    labels: LabelNumbers
    known: LabelNumbers
    """Labels that people had looked at when the others were drawn from."""


def read_coverage(workspace: Store, policy: Policy) -> Coverage | None:
    """Read which labels a policy covers; None where that limits nothing: it is not certified, or old.

    Raises:
        StoreError: A record is missing or damaged.
    """
    found = policy.certification
    if found is None or not found.covers:
        return None
    parts = [covered_labels(workspace, one) for one in found.covers]
    known = [read_population(workspace, one.known) for one in found.covers if one.known is not None]
    return Coverage(_union(parts), _union(known))


def covered_labels(workspace: Store, covered: Covered) -> LabelNumbers:
    """Read which labels one sample covers: what it was drawn from, less those of it without an answer; ascending.

    Raises:
        StoreError: A record is missing or damaged.
    """
    population = read_population(workspace, covered.population)
    if covered.without is None:
        return population
    return np.setdiff1d(population, read_population(workspace, covered.without))


def coverage_of_run(workspace: Store, policy: Policy) -> Coverage | None:
    """As `read_coverage`, kept for the next shard: records are named by their content, and never change."""
    covers = policy.certification.covers if policy.certification else ()
    place = (workspace.uri, *(one.model_dump_json() for one in covers))
    if place not in _last_coverage:
        found = read_coverage(workspace, policy)
        _last_coverage.clear()
        _last_coverage[place] = found
        return found
    return _last_coverage[place]


def _union(parts: Sequence[LabelNumbers]) -> LabelNumbers:
    # One is ascending already, and to sort a million again takes longer than to read them.
    return parts[0] if len(parts) == 1 else np.unique(np.concatenate([np.zeros(0, np.uint64), *parts]))


_last_coverage: dict[tuple[str, ...], Coverage | None] = {}


def among(labels: LabelNumbers, ascending: LabelNumbers) -> NDArray[np.bool_]:
    """Say of labels whether they are in an ascending set, (n,)."""
    if not len(ascending):
        return np.zeros(len(labels), np.bool_)
    places = np.minimum(np.searchsorted(ascending, labels), len(ascending) - 1)
    return np.asarray(ascending[places] == labels)
