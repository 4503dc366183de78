import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from vouch_labels.schemas.campaign import ClassConfig, RoutingConfig, Thresholds
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.policy import Covered, Group, Policy
from vouch_labels.tasks.policy import (
    accepts,
    among,
    basis,
    check_fits,
    check_guarantee,
    content_name,
    default_policy,
    is_as_named,
    keep_population,
    label_numbers,
    read_coverage,
    read_policy,
    read_population,
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
        ({"precision": 0.98, "gate": "delivered"}, "precision 0.95, not 0.98"),
        ({"confidence": 0.95, "gate": "delivered"}, "confidence 0.9, not 0.95"),
        ({"gate": "accepted"}, "gate delivered, not accepted"),
        ({"precision": 0.98}, "precision 0.95, not 0.98"),
    ],
)
def test_a_lesser_guarantee_is_refused(certified: Callable[..., Policy], asked: dict[str, Any], problem: str) -> None:
    policy = certified({"dog": 0.9}, gate="delivered")
    check_guarantee(policy, RoutingConfig(gate="delivered"))
    check_guarantee(policy, RoutingConfig(gate="delivered", precision=0.9, confidence=0.8))
    with pytest.raises(UserError, match=problem):
        check_guarantee(policy, RoutingConfig(**asked))


def test_the_gate_of_an_earlier_version_stays_where_the_campaign_names_none(
    workspace: LocalStore, certified: Callable[..., Policy]
) -> None:
    """Its default was delivered, so a campaign file of then goes on; a policy of today is held against the default."""
    check_guarantee(certified({"dog": 0.9}, gate="delivered"), RoutingConfig())
    check_guarantee(certified({"dog": 0.9}, gate="accepted"), RoutingConfig())
    today = certified({"dog": 0.9}, gate="delivered", covers=covering(workspace, (1,)))
    with pytest.raises(UserError, match="gate delivered, not accepted"):
        check_guarantee(today, RoutingConfig())
    check_guarantee(today, RoutingConfig(gate="delivered", missed=0))


def test_a_policy_that_assumes_better_reviewers_is_refused(
    workspace: LocalStore, certified: Callable[..., Policy]
) -> None:
    covers = covering(workspace, (1,))
    careful = certified({"dog": 0.9}, covers=covers, reviewers={"assumed": 0.1})
    check_guarantee(careful, RoutingConfig())
    check_guarantee(certified({"dog": 0.9}, covers=covers, reviewers={"planted": 40, "missed": 1}), RoutingConfig())
    with pytest.raises(UserError, match=r"certifies missed 0\.1, not 0\.2;"):
        check_guarantee(careful, RoutingConfig(missed=0.2))


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
        (
            0.9,
            {"gate": "delivered"},
            "certified: at least 0.95 of delivered labels correct, confidence 0.9, once people have decided",
        ),
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


@pytest.mark.parametrize(
    ("assumed", "words"),
    [(0.0, ""), (0.05, ", if reviewers miss at most 5% of the wrong labels"), (0.001, "miss at most 0.1%")],
)
def test_what_reviewers_are_assumed_to_miss_is_part_of_the_sentence(certified, assumed, words):
    said = basis(certified({"dog": 0.9}, gate="accepted", reviewers={"assumed": assumed}))
    assert words in said
    assert ("if reviewers" in said) == bool(assumed)


def ids(*numbers):
    """Label ids as the detection stage gives them."""
    return pa.array([hashlib.sha256(str(number).encode()).hexdigest()[:24] for number in numbers], pa.string())


def test_labels_have_a_number_each():
    found = label_numbers(ids(*range(5000)))
    assert found.dtype == np.uint64
    assert len(np.unique(found)) == 5000
    assert np.array_equal(label_numbers(pa.chunked_array([ids(*range(7)), ids(*range(7, 5000))])), found)
    assert label_numbers(ids()).shape == (0,)


def test_numbers_never_change():
    """They are stored, so that a later version finds the labels again."""
    few = pa.array(["", "a", "0123456789abcdef01234567"], pa.string())
    assert [f"{number:016x}" for number in label_numbers(few).tolist()] == KNOWN_NUMBERS


KNOWN_NUMBERS = ["0000000000000000", "f3051f493b3903f5", "e1917d87c719e0e8"]


def test_one_other_digit_is_another_number():
    """Anywhere in the id."""
    base = ids(0)[0].as_py()
    others = [base[:place] + ("0" if base[place] != "0" else "1") + base[place + 1 :] for place in range(len(base))]
    assert len(set(label_numbers(pa.array([base, *others])).tolist())) == 1 + len(base)


def test_a_population_is_kept_by_its_content(workspace: LocalStore) -> None:
    name = keep_population(workspace, ids(3, 1, 2))
    assert keep_population(workspace, ids(1, 2, 3)) == name
    assert keep_population(workspace, ids(1, 2)) != name
    assert len(list(workspace.list("populations/"))) == 2
    found = read_population(workspace, name)
    assert found.tolist() == sorted(label_numbers(ids(1, 2, 3)).tolist())


def test_a_population_of_nothing(workspace: LocalStore) -> None:
    found = read_population(workspace, keep_population(workspace, ids()))
    assert found.shape == (0,)
    assert among(label_numbers(ids(1, 2)), found).tolist() == [False, False]


def test_only_labels_of_the_population_are_among_it(workspace: LocalStore) -> None:
    kept = read_population(workspace, keep_population(workspace, ids(*range(0, 1000, 2))))
    assert among(label_numbers(ids(*range(1000))), kept).tolist() == [number % 2 == 0 for number in range(1000)]
    assert among(label_numbers(ids()), kept).shape == (0,)
    ends = np.array([0, 2**64 - 1], np.uint64)
    assert among(ends, kept).tolist() == [False, False]


def stored(*numbers: int) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"label": pa.array(numbers, pa.uint64())}), sink)
    return sink.getvalue().to_pybytes()


def other_column() -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"labels": [1]}), sink)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "is missing"),
        (b"", "is damaged"),
        (b"PAR1 but no more", "is damaged"),
        (stored(1, 2, 3)[:-20], "is damaged"),
        (other_column(), "is damaged"),
        (stored(), "is not the record that was kept"),
        (stored(1, 2, 3), "is not the record that was kept"),
    ],
    ids=["missing", "empty", "cut", "truncated", "foreign", "nothing", "others"],
)
def test_a_population_that_is_not_what_was_kept_is_refused(workspace: LocalStore, data: bytes, words: str) -> None:
    """A label could be accepted otherwise that no certificate covers."""
    name = keep_population(workspace, ids(1, 2, 3))
    key = f"populations/{name}.parquet"
    workspace.delete(key)
    if data is not None:
        workspace.put(key, data)
    with pytest.raises(StoreError, match=rf"{key} {words}; restore it") as caught:
        read_population(workspace, name)
    assert "\n" not in str(caught.value)


def covering(workspace, *populations):
    return tuple(
        Covered(population=keep_population(workspace, ids(*numbers)), labels=len(numbers), images=1, plan=place,
                created="2026-01-01T00:00:00+00:00")
        for place, numbers in enumerate(populations, 2)
    )  # fmt: skip


def test_a_policy_covers_all_its_populations(workspace, certified, tmp_path):
    policy = certified({"dog": 0.9}, covers=covering(workspace, (1, 2), (2, 3)))
    found = read_coverage(workspace, policy).labels
    assert found.tolist() == sorted(label_numbers(ids(1, 2, 3)).tolist())
    assert np.array_equal(read_coverage(workspace, policy).labels, found)
    # Another policy, and the same one in another workspace, have a coverage of their own.
    assert len(read_coverage(workspace, certified({"dog": 0.9}, covers=covering(workspace, (1,)))).labels) == 1
    assert np.array_equal(read_coverage(workspace, policy).labels, found)
    with pytest.raises(StoreError, match="is missing"):
        read_coverage(LocalStore(tmp_path / "other"), policy)


def test_a_policy_knows_what_people_had_looked_at(workspace, certified):
    first, second = covering(workspace, (1, 2), (3, 4))
    known = [keep_population(workspace, ids(*numbers)) for numbers in ((7, 8), (1, 2, 7, 9))]
    covers = tuple(one.model_copy(update={"known": name}) for one, name in zip((first, second), known, strict=True))
    found = read_coverage(workspace, certified({"dog": 0.9}, covers=covers))
    assert found.labels.tolist() == sorted(label_numbers(ids(1, 2, 3, 4)).tolist())
    assert found.known.tolist() == sorted(label_numbers(ids(1, 2, 7, 8, 9)).tolist())
    assert read_coverage(workspace, certified({"dog": 0.9}, covers=(first, second))).known.shape == (0,)
    workspace.delete(f"populations/{known[0]}.parquet")
    with pytest.raises(StoreError, match="is missing"):
        read_coverage(workspace, certified({"dog": 0.9}, covers=covers[:1]))


def test_coverage_limits_no_other_policy(workspace, certified):
    """Not thresholds of the user's, nor what versions certified that kept no populations."""
    assert read_coverage(workspace, default_policy(CLASSES, RoutingConfig(accept=LOW))) is None
    assert read_coverage(workspace, certified({"dog": 0.9}, fit_share=0.3)) is None
