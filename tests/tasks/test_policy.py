import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vouch_labels.schemas.campaign import ClassConfig, RoutingConfig, Thresholds
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.tasks.policy import (
    accepts,
    basis,
    check_fits,
    check_guarantee,
    content_name,
    default_policy,
    is_as_named,
    read_policy,
    write_policy,
)
from vouch_labels.tasks.store.local import LocalStore

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
    policy = default_policy(CLASSES, RoutingConfig(accept=LOW))
    write_policy(workspace, policy)
    write_policy(workspace, policy)
    assert read_policy(workspace, policy.version, CLASSES) == policy
    assert [info.key for info in workspace.list()] == [f"policies/{policy.version}.json"]


def test_a_policy_may_know_more_classes(workspace: LocalStore) -> None:
    policy = default_policy(CLASSES, RoutingConfig())
    write_policy(workspace, policy)
    assert read_policy(workspace, policy.version, CLASSES[:1]) == policy


def test_a_version_never_changes(workspace: LocalStore) -> None:
    write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=LOW),)))
    with pytest.raises(UserError, match="another policy of version v1"):
        write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=HIGH),)))


def test_missing_class_is_refused(workspace: LocalStore) -> None:
    write_policy(workspace, Policy(version="v1", groups=(Group(name="a", classes=("dog",), accept=LOW),)))
    with pytest.raises(UserError, match="no rule for cat, car, bus"):
        read_policy(workspace, "v1", CLASSES)


def test_two_rules_are_refused(workspace: LocalStore) -> None:
    groups = (Group(name="a", classes=("dog",), accept=LOW), Group(name="b", classes=("dog",), accept=HIGH))
    write_policy(workspace, Policy(version="v1", groups=groups))
    with pytest.raises(UserError, match="several rules for dog"):
        read_policy(workspace, "v1", CLASSES[:1])


def test_absent_policy(workspace: LocalStore) -> None:
    with pytest.raises(UserError, match=r"has no policies/v9\.json"):
        read_policy(workspace, "v9", CLASSES)


def test_policy_under_another_name(workspace: LocalStore) -> None:
    policy = default_policy(CLASSES, RoutingConfig())
    write_policy(workspace, policy)
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


def test_a_certified_policy_comes_back_as_it_was(workspace: LocalStore, certified: Callable[..., Policy]) -> None:
    policy = certified({"dog": 0.9, "cat": None, "car": 0.8, "bus": 0.7})
    write_policy(workspace, policy)
    # JSON knows no tuples.
    assert read_policy(workspace, policy.version, CLASSES).model_dump_json() == policy.model_dump_json()


def test_a_class_declared_later_is_not_certified(workspace: LocalStore, certified: Callable[..., Policy]) -> None:
    policy = certified({"dog": 0.9, "car": 0.8, "bus": 0.7})
    write_policy(workspace, policy)
    with pytest.raises(UserError, match=r"certified-1-test was certified without cat; set routing\.policy: none"):
        read_policy(workspace, policy.version, CLASSES)


@pytest.mark.parametrize(
    "damage",
    [
        {"calibrator": {}},
        {"means": []},
        {"weights": ["much"]},
        {"weights": [float("nan")]},
        {"offsets": {"dog": "1"}},
        {"offsets": {"dog": None}},
        {"offsets": ["dog"]},
        {"knots": [[0.1, 2.0]]},
        {"knots": [[0.1]]},
        {"intercept": "x"},
        {"more": 1},
    ],
    ids=str,
)
def test_a_damaged_calibrator_is_one_line(
    workspace: LocalStore, certified: Callable[..., Policy], damage: dict[str, Any]
) -> None:
    policy = certified({"dog": 0.9, "cat": None, "car": 0.8, "bus": 0.7})
    assert policy.certification is not None
    calibrator = {} if "calibrator" in damage else policy.certification.calibrator | damage
    broken = policy.certification.model_copy(update={"calibrator": calibrator})
    write_policy(workspace, policy.model_copy(update={"certification": broken}))
    with pytest.raises(UserError, match=r"certified-1-test\.json is damaged or no policy") as caught:
        read_policy(workspace, policy.version, CLASSES)
    assert "\n" not in str(caught.value)


def test_changed_inputs_are_named(certified: Callable[..., Policy]) -> None:
    policy = certified({"dog": 0.9}, inputs={"prompts": "1", "detector weights": "2", "gone": "3"})
    check_fits(policy, {"prompts": "1", "detector weights": "2", "gone": "3"})
    check_fits(default_policy(CLASSES, RoutingConfig()), {"prompts": "other"})
    with pytest.raises(UserError, match="certified with other prompts, scorer texts, gone, so it says nothing"):
        check_fits(policy, {"prompts": "9", "detector weights": "2", "scorer texts": "4"})


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"precision": 0.98}, "precision 0.95, not 0.98"),
        ({"confidence": 0.95}, "confidence 0.9, not 0.95"),
        ({"gate": "accepted"}, "gate delivered, not accepted"),
    ],
)
def test_a_lesser_guarantee_is_refused(certified: Callable[..., Policy], asked: dict[str, Any], problem: str) -> None:
    policy = certified({"dog": 0.9})
    check_guarantee(policy, RoutingConfig())
    check_guarantee(policy, RoutingConfig(precision=0.9, confidence=0.8))
    with pytest.raises(UserError, match=problem):
        check_guarantee(policy, RoutingConfig(**asked))


@pytest.fixture
def document(certified):
    return json.loads(certified({"dog": 0.9, "cat": None}).model_dump_json())


def name(document):
    return content_name(3, document["groups"], document["certification"])


def data(document):
    return json.dumps(document).encode()


def test_it_follows_all_but_the_time(document):
    version = name(document)
    assert version.startswith("certified-3-")
    assert is_as_named(version, data(document))
    document["certification"]["created"] = "2027-01-01T00:00:00+00:00"
    assert is_as_named(version, data(document))
    document["groups"][0]["p_correct"] = 0.1
    assert name(document) != version
    assert not is_as_named(version, data(document))


def test_names_of_another_kind_say_nothing_of_the_content(document):
    for version in ("user-0a1b2c3d0a1b2c3d", "mine", "expired-certified-1-0a1b2c3d"):
        assert is_as_named(version, data(document))


@pytest.mark.parametrize(
    "other", ["{}", "[]", '{"groups": 1, "certification": 2}', '{"groups": NaN, "certification": {}}']
)
def test_what_is_no_policy_is_not_as_named(other):
    assert not is_as_named("certified-1-0a1b2c3d", other.encode())


def test_users_word():
    groups = (Group(name="all", classes=("dog",)),)
    nothing = Policy(version="v1", groups=groups)
    something = Policy(version="v1", groups=(groups[0].model_copy(update={"accept": Thresholds(sam_iou=0.5)}),))
    assert (accepts(nothing), accepts(something)) == (False, True)
    assert basis(something) == "user thresholds, not certified"
    assert basis(nothing) == "no thresholds: everything goes to review"


@pytest.mark.parametrize(
    ("least", "how", "words"),
    [
        (0.9, {}, "certified: at least 0.95 of delivered labels correct, confidence 0.9, once people have decided"),
        (0.9, {"gate": "accepted", "precision": 0.98}, "certified: at least 0.98 of accepted labels correct"),
        (0.9, {"simulated": True}, "simulated reviewer, so nothing is certified; would be at least 0.95"),
        (None, {}, "certified for no class"),
        (None, {"version": "expired-certified-1"}, "an expired certificate"),
    ],
)
def test_certified(certified, least, how, words):
    policy = certified({"dog": least}, **how)
    assert basis(policy).startswith(words)
    assert accepts(policy) == (least is not None)
    assert ("those that wait" in basis(policy)) == ("of delivered" in basis(policy))
