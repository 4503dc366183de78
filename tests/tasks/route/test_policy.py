from pathlib import Path

import pytest

from schemas.campaign.classes import ClassConfig
from schemas.campaign.routing import RoutingConfig
from schemas.errors import UserError
from schemas.policy import Group, Policy
from schemas.signals import Thresholds
from tasks.route.policy import choose_policy, default_policy, read_policy, write_policy
from tasks.store.local import LocalStore

HIGH = Thresholds(clip_probability=0.9)
LOW = Thresholds(detector_score=0.4, sam_iou=0.8)
CLASSES = (
    ClassConfig(name="dog"),
    ClassConfig(name="cat", accept=HIGH),
    ClassConfig(name="car"),
    ClassConfig(name="bus", accept=HIGH),
)


@pytest.fixture
def workspace(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


def test_nothing_is_allowed_by_itself() -> None:
    policy = default_policy((ClassConfig(name="dog"), ClassConfig(name="cat")), RoutingConfig())
    assert [(group.name, group.classes, group.accept) for group in policy.groups] == [
        ("review only", ("dog", "cat"), None)
    ]
    assert policy.basis == "user_thresholds"


def test_a_class_overrides_and_equal_rules_are_one_group() -> None:
    policy = default_policy(CLASSES, RoutingConfig(accept=LOW))
    assert [(group.classes, group.accept) for group in policy.groups] == [(("dog", "car"), LOW), (("cat", "bus"), HIGH)]
    assert policy.groups[0].name == "detector_score >= 0.4, sam_iou >= 0.8"


def test_version_follows_the_rules() -> None:
    first = default_policy(CLASSES, RoutingConfig(accept=LOW))
    assert first.version.startswith("user-")
    assert first.version == default_policy(CLASSES, RoutingConfig(accept=LOW)).version
    assert first.version != default_policy(CLASSES, RoutingConfig(accept=HIGH)).version
    assert first.version != default_policy(CLASSES[:3], RoutingConfig(accept=LOW)).version


def test_kept_and_read_again(workspace: LocalStore) -> None:
    policy = choose_policy(CLASSES, RoutingConfig(accept=LOW), workspace)
    assert choose_policy(CLASSES, RoutingConfig(accept=LOW), workspace) == policy
    assert read_policy(workspace, policy.version, CLASSES) == policy
    assert choose_policy(CLASSES, RoutingConfig(policy=policy.version), workspace) == policy
    assert [info.key for info in workspace.list()] == [f"policies/{policy.version}.json"]


def test_a_policy_may_know_more_classes(workspace: LocalStore) -> None:
    policy = choose_policy(CLASSES, RoutingConfig(), workspace)
    assert read_policy(workspace, policy.version, CLASSES[:1]) == policy


def test_a_version_never_changes(workspace: LocalStore) -> None:
    write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=LOW),)))
    with pytest.raises(UserError, match="another policy of version v1"):
        write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=HIGH),)))


def test_missing_class_is_refused(workspace: LocalStore) -> None:
    write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=LOW),)))
    with pytest.raises(UserError, match="no rule for cat, car, bus"):
        choose_policy(CLASSES, RoutingConfig(policy="v1"), workspace)


def test_two_rules_are_refused(workspace: LocalStore) -> None:
    groups = (Group(name="a", classes=("dog",), accept=LOW), Group(name="b", classes=("dog",), accept=HIGH))
    write_policy(workspace, Policy(version="v1", groups=groups))
    with pytest.raises(UserError, match="several rules for dog"):
        read_policy(workspace, "v1", CLASSES[:1])


def test_absent_policy(workspace: LocalStore) -> None:
    with pytest.raises(UserError, match=r"has no policies/v9\.json"):
        choose_policy(CLASSES, RoutingConfig(policy="v9"), workspace)


def test_policy_under_another_name(workspace: LocalStore) -> None:
    policy = choose_policy(CLASSES, RoutingConfig(), workspace)
    workspace.put("policies/best.json", workspace.get(f"policies/{policy.version}.json").data)
    with pytest.raises(UserError, match="holds the policy 'user-"):
        read_policy(workspace, "best", CLASSES)


@pytest.mark.parametrize(
    "data", [b"", b"{", b"[]", b'{"version": "v1"}', b'{"version": "v1", "groups": [], "more": 1}']
)
def test_damaged_policy_is_one_line(workspace: LocalStore, data: bytes) -> None:
    workspace.put("policies/v1.json", data)
    with pytest.raises(UserError, match=r"policies/v1\.json is damaged or no policy") as caught:
        read_policy(workspace, "v1", CLASSES)
    assert "\n" not in str(caught.value)
