import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import SIGNALS, Thresholds
from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.policy import Group, Policy
from vouch_labels.schemas.tables import DECISIONS, DETECTIONS, IMAGES, MASKS, SCORES
from vouch_labels.tasks.policy import Coverage, label_numbers
from vouch_labels.tasks.route import KNOWN, OUTSIDE, decide_by_probability, route
from vouch_labels.tasks.statistics.calibrator import Calibrator
from vouch_labels.tasks.statistics.sampling import on_fit_side

IN_TABLE = {
    "detector_score": DETECTIONS,
    "detector_margin": DETECTIONS,
    "sam_iou": MASKS,
    "mask_stability": MASKS,
    "mask_box_iou": MASKS,
    "clip_probability": SCORES,
    "clip_margin": SCORES,
}
FILLER = {pa.string(): "", pa.binary(): b"", pa.int64(): 0, pa.int8(): 0, pa.float32(): 0.5}


def tables(classes: list[str], **signals: Any) -> list[Any]:
    """The four tables of N labels on one image, with every signal not given at 0.5."""
    ids = [f"label-{index}" for index in range(len(classes))]
    columns: dict[str, list[Any]] = {"label_id": ids, "class_name": classes, **signals}
    images = pa.table({"key": pa.array([""], pa.string()), "sha256": pa.array(["0"], pa.string())})
    return [images] + [
        pa.table(
            [pa.array(columns.get(field.name, [FILLER[field.type]] * len(ids)), field.type) for field in schema],
            schema=pa.schema([field.with_nullable(True) for field in schema]),
        )
        for schema in (DETECTIONS, MASKS, SCORES)
    ]


def policy(**rules: Thresholds | None) -> Policy:
    groups = tuple(Group(name=name, classes=(name,), accept=rule) for name, rule in rules.items())
    return Policy(version="v1", groups=groups)


def decide(rule: Thresholds | None, **signals: Any) -> list[tuple[str, str]]:
    count = len(next(iter(signals.values())))
    table = route(*tables(["dog"] * count, **signals), policy=policy(dog=rule))
    return list(zip(table["decision"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_the_tables_hold_every_signal() -> None:
    assert set(IN_TABLE) == set(SIGNALS)
    assert all(name in schema.names for name, schema in IN_TABLE.items())


def test_accept_and_review_with_figures() -> None:
    rule = Thresholds(sam_iou=0.8, clip_probability=0.6)
    assert decide(rule, sam_iou=[0.9, 0.9, 0.7, 0.8], clip_probability=[0.7, 0.41, 0.412, 0.6]) == [
        ("accept", "sam_iou >= 0.80, clip_probability >= 0.60"),
        ("review", "clip_probability 0.41 < 0.60"),
        ("review", "sam_iou 0.70 < 0.80, clip_probability 0.41 < 0.60"),
        ("accept", "sam_iou >= 0.80, clip_probability >= 0.60"),
    ]


@pytest.mark.parametrize("value", [None, math.nan, math.inf, -math.inf])
def test_missing_signals_are_never_accepted(value: float | None) -> None:
    rule = Thresholds(detector_score=0.1, sam_iou=0.0)
    assert decide(rule, sam_iou=[value]) == [("review", "sam_iou missing")]
    assert decide(rule, sam_iou=[value], detector_score=[0.0]) == [
        ("review", "detector_score 0.00 < 0.10, sam_iou missing")
    ]


def test_nothing_allowed() -> None:
    assert decide(None, sam_iou=[1.0]) == [("review", "no threshold allows this class")]


def test_figures_always_read_as_less() -> None:
    below = float(np.nextafter(np.float32(0.6), np.float32(0)))
    assert decide(Thresholds(sam_iou=0.6), sam_iou=[below, 0.599]) == [("review", "sam_iou 0.59 < 0.60")] * 2
    assert decide(Thresholds(sam_iou=0.9955), sam_iou=[0.995]) == [("review", "sam_iou 0.9950 < 0.9955")]
    assert decide(Thresholds(clip_margin=0.0), clip_margin=[-0.25]) == [("review", "clip_margin -0.25 < 0.00")]
    assert decide(Thresholds(clip_margin=-0.5), clip_margin=[-0.75, -0.5]) == [
        ("review", "clip_margin -0.75 < -0.50"),
        ("accept", "clip_margin >= -0.50"),
    ]


@pytest.mark.parametrize("name", SIGNALS)
def test_every_signal_can_be_asked_for(name: str) -> None:
    rule = Thresholds(**{name: 0.7})
    assert decide(rule, **{name: [0.7, 0.2]}) == [
        ("accept", f"{name} >= 0.70"),
        ("review", f"{name} 0.20 < 0.70"),
    ]


def test_groups_and_order() -> None:
    classes = ["dog", "cat", "car", "dog", "cat"]
    rules = policy(cat=Thresholds(sam_iou=0.9), dog=Thresholds(detector_score=0.4), car=None)
    table = route(*tables(classes, sam_iou=[0.0, 0.95, 1, 1, 0.5], detector_score=[0.5, 0, 1, 0.3, 1]), policy=rules)
    assert table.schema.equals(DECISIONS)
    assert table["label_id"].to_pylist() == [f"label-{index}" for index in range(5)]
    assert table["decision"].to_pylist() == ["accept", "accept", "review", "review", "review"]
    assert table["reason"].to_pylist() == [
        "detector_score >= 0.40",
        "sam_iou >= 0.90",
        "no threshold allows this class",
        "detector_score 0.30 < 0.40",
        "sam_iou 0.50 < 0.90",
    ]
    assert table["policy"].to_pylist() == ["v1"] * 5
    assert table["p_correct"].null_count == 5


def test_chunked_tables_route_alike() -> None:
    whole = tables(["dog", "cat", "dog"], sam_iou=[0.1, 0.9, 0.9])
    rules = policy(dog=Thresholds(sam_iou=0.5), cat=None)
    cut = [pa.concat_tables([table.slice(0, 2), table.slice(2)]) for table in whole]
    assert route(*cut, policy=rules).equals(route(*whole, policy=rules))


def test_no_labels() -> None:
    empty = [schema.empty_table() for schema in (IMAGES, DETECTIONS, MASKS, SCORES)]
    table = route(*empty, policy=policy(dog=Thresholds(sam_iou=0.5)))
    assert table.num_rows == 0
    assert table.schema.equals(DECISIONS)
    assert route(*tables([]), policy=policy(dog=None)).num_rows == 0


def test_tables_of_other_labels_are_refused() -> None:
    images, detect, segment, score = tables(["dog", "dog"])
    with pytest.raises(VouchError, match="not of the same labels"):
        route(images, detect, segment.slice(0, 1), score, policy(dog=None))
    with pytest.raises(VouchError, match="not of the same labels"):
        route(images, detect, segment, score.take([1, 0]), policy(dog=None))


def test_class_without_a_rule_is_refused() -> None:
    with pytest.raises(UserError, match="v1 has no rule for cat"):
        route(*tables(["dog", "cat"]), policy=policy(dog=None))


values = st.one_of(st.none(), st.floats(-1, 1, width=32), st.sampled_from([math.nan, math.inf]))
rules = st.fixed_dictionaries(
    {}, optional={name: st.floats(-1 if "margin" in name else 0, 1, allow_subnormal=False) for name in SIGNALS}
)


@settings(deadline=None)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(SIGNALS, values)), min_size=1, max_size=20), rules)
def test_decisions_agree_with_the_plain_rule(rows: list[dict[str, float | None]], rule: dict[str, float]) -> None:
    found = decide(Thresholds(**rule) if rule else None, **{name: [row[name] for row in rows] for name in SIGNALS})
    for row, (decision, reason) in zip(rows, found, strict=True):
        holds = {
            name: row[name] is not None and math.isfinite(row[name]) and np.float32(row[name]) >= np.float32(least)
            for name, least in rule.items()
        }
        assert decision == ("accept" if rule and all(holds.values()) else "review")
        if decision == "review" and rule:
            assert [part.split()[0] for part in reason.split(", ")] == [
                name for name in SIGNALS if name in rule and not holds[name]
            ]
            for part in reason.split(", "):
                words = part.split()
                assert words[1:] == ["missing"] or float(words[1]) < float(words[3])


@settings(deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=2, max_size=20),
    st.floats(0, 1, allow_subnormal=False),
    st.floats(0, 1, allow_subnormal=False),
)
def test_more_is_asked_for_less_is_accepted(scores: list[float], one: float, other: float) -> None:
    low, high = sorted((one, other))
    lenient = decide(Thresholds(sam_iou=low), sam_iou=scores)
    strict = decide(Thresholds(sam_iou=high), sam_iou=scores)
    accepted = [score for score, (decision, _) in zip(scores, lenient, strict=True) if decision == "accept"]
    rejected = [score for score, (decision, _) in zip(scores, lenient, strict=True) if decision == "review"]
    assert not accepted or not rejected or min(accepted) > max(rejected)
    assert all(first[0] == "accept" for first, second in zip(lenient, strict, strict=True) if second[0] == "accept")


KEYS = [f"{number}.jpg" for number in range(40)]
CONTENTS = [f"{number:064x}" for number in range(40)]


def certified_tables(sam_iou, classes=None, images=None):
    """Tables of N labels, the Nth on image images[N]."""
    count = len(sam_iou)
    ids = pa.array([f"label-{number}" for number in range(count)], pa.string())
    keys = pa.array([KEYS[image] for image in images or [0] * count], pa.string())
    detect = pa.table({"label_id": ids, "key": keys, "class_name": pa.array(classes or ["dog"] * count, pa.string())})
    segment = pa.table({"label_id": ids, "sam_iou": pa.array(sam_iou, pa.float32())})
    return pa.table({"key": KEYS, "sha256": CONTENTS}), detect, segment, pa.table({"label_id": ids})


def decided(table):
    return list(zip(table["decision"].to_pylist(), table["reason"].to_pylist(), strict=True))


def test_decisions_and_stored_probabilities(certified, calibrator):
    values = [0.95, 0.5, None, math.nan, math.inf]
    table = route(*certified_tables(values), policy=certified({"dog": 0.8}))
    assert table.schema.equals(DECISIONS)
    assert decided(table) == [
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", "p_correct 0.500 < 0.800"),
        *[("review", "p_correct missing")] * 3,
    ]
    expected = calibrator.probabilities(np.array([[0.95], [0.5]], np.float32), np.zeros(2, np.int64), ("dog",))
    assert table["p_correct"].to_pylist() == [*expected.tolist(), None, None, None]
    assert table["policy"].to_pylist() == ["certified-1-test"] * 5


def test_a_threshold_is_met_by_its_own_label_and_by_no_lesser(certified, calibrator):
    values = np.linspace(0, 1, 200, dtype=np.float32)
    found = calibrator.probabilities(values[:, None], np.zeros(200, np.int64), ("dog",))
    for least in found[::20]:
        table = route(*certified_tables(values.tolist()), policy=certified({"dog": float(least)}))
        accepted = np.array(table["decision"].to_pylist()) == "accept"
        np.testing.assert_array_equal(accepted, found >= least)
        np.testing.assert_array_equal(accepted, table["p_correct"].to_numpy() >= np.float32(least))


def test_an_earlier_policy_leaves_labels_of_images_kept_for_fitting_to_people(certified):
    images = [number // 2 for number in range(80)]
    kept = on_fit_side(CONTENTS, 0.5, 7)[images]
    assert 0 < kept.sum() < 80
    table = route(*certified_tables([0.95] * 80, images=images), policy=certified({"dog": 0.8}, fit_share=0.5, seed=7))
    assert [decision == "review" for decision in table["decision"].to_pylist()] == kept.tolist()
    assert {reason for decision, reason in decided(table) if decision == "review"} == {
        "image kept for fitting the calibrator"
    }
    assert table["p_correct"].null_count == 0


def covering(*labels, known=()):
    """What a certificate of these labels of `certified_tables` covers; known: people had looked at these before."""
    parts = (pa.array([f"label-{number}" for number in part], pa.string()) for part in (labels, known))
    return Coverage(*(np.sort(label_numbers(part)) for part in parts))


def test_labels_outside_the_certificate_wait(certified):
    tables, policy = certified_tables([0.95, 0.95, 0.5, 0.95, 0.5, None]), certified({"dog": 0.8})
    without = route(*tables, policy=policy)
    table = route(*tables, policy=policy, covered=covering(1, 2, 77))
    assert decided(table) == [
        ("review", OUTSIDE),
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", "p_correct 0.500 < 0.800"),
        ("review", OUTSIDE),
        # What the policy would not accept anyhow says so: covering it would change nothing.
        ("review", "p_correct 0.500 < 0.800"),
        ("review", "p_correct missing"),
    ]
    assert OUTSIDE == "outside the certificate: no sample of such labels was reviewed yet"
    assert table["p_correct"].equals(without["p_correct"])


def test_labels_that_people_had_looked_at_say_so(certified):
    """They need no certificate, and no top-up sample either; labels that came later do."""
    tables, policy = certified_tables([0.95, 0.95, 0.5, 0.95, 0.95]), certified({"dog": 0.8})
    table = route(*tables, policy=policy, covered=covering(0, 4, known=(1, 2, 4)))
    assert decided(table) == [
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", KNOWN),
        ("review", "p_correct 0.500 < 0.800"),
        ("review", OUTSIDE),
        # A top-up sample may cover what an earlier one left out.
        ("accept", "p_correct 0.858 >= 0.800"),
    ]


def test_a_certificate_of_nothing_accepts_nothing(certified):
    table = route(*certified_tables([0.95] * 3), policy=certified({"dog": 0.8}), covered=covering())
    assert decided(table) == [("review", OUTSIDE)] * 3


def test_coverage_gives_no_class_a_threshold(certified):
    classes = ["cat", "dog"]
    table = route(
        *certified_tables([0.95] * 2, classes), policy=certified({"dog": 0.8, "cat": None}), covered=covering(0)
    )
    assert decided(table) == [("review", "no certified threshold for this class"), ("review", OUTSIDE)]


def test_coverage_is_found_again_label_by_label_whatever_the_order(certified):
    images, detect, segment, score = certified_tables([0.95] * 300)
    order = np.random.default_rng(0).permutation(300)
    kept = order[:170]
    shuffled = [table.take(pa.array(order[::-1])) for table in (detect, segment, score)]
    for parts in ((detect, segment, score), shuffled):
        table = route(images, *parts, policy=certified({"dog": 0.8}), covered=covering(*kept.tolist()))
        accepted = table.filter(pa.array(np.array(table["decision"].to_pylist()) == "accept"))
        assert set(accepted["label_id"].to_pylist()) == {f"label-{number}" for number in kept}


def test_groups_without_a_threshold_and_their_order(certified):
    classes = ["cat", "dog", "cat", "dog"]
    table = route(*certified_tables([0.95, 0.95, 0.1, 0.1], classes), policy=certified({"dog": 0.8, "cat": None}))
    assert decided(table) == [
        ("review", "no certified threshold for this class"),
        ("accept", "p_correct 0.858 >= 0.800"),
        ("review", "no certified threshold for this class"),
        ("review", "p_correct 0.167 < 0.800"),
    ]


def test_offsets_go_by_class_names(certified, calibrator):
    values = Calibrator.from_dict(calibrator.to_dict() | {"offsets": {"cat": -20.0, "dog": 20.0}}).to_dict()
    table = route(
        *certified_tables([0.5, 0.5], ["dog", "cat"]), policy=certified({"cat": 0.5, "dog": 0.5}, calibrator=values)
    )
    assert table["decision"].to_pylist() == ["accept", "review"]


def test_a_gap_that_was_fitted_has_a_probability(certified, calibrator):
    values = calibrator.to_dict() | {"gap_weights": (3.0,)}
    table = route(*certified_tables([None]), policy=certified({"dog": 0.8}, calibrator=values))
    assert decided(table) == [("accept", "p_correct 0.952 >= 0.800")]


def test_no_labels_for_certified_rules(certified):
    table = route(*certified_tables([]), policy=certified({"dog": 0.8}, fit_share=0.5))
    assert table.num_rows == 0
    assert table.schema.equals(DECISIONS)


def test_a_label_without_its_image_is_refused(certified):
    images, detect, segment, score = certified_tables([0.9])
    with pytest.raises(VouchError, match="do not belong together"):
        route(images.slice(1), detect, segment, score, certified({"dog": 0.8}, fit_share=0.5))


def test_a_signal_that_labels_do_not_have_is_refused(certified, calibrator):
    values = calibrator.to_dict() | {"signals": ("luck",)}
    with pytest.raises(UserError, match="asks for the signal 'luck'"):
        route(*certified_tables([0.9]), policy=certified({"dog": 0.8}, calibrator=values))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30),
    st.one_of(st.floats(0, 1, width=32), st.sampled_from([0.0, 0.001, 0.912, 1.0])),
)
def test_figures_say_what_was_decided(values, least):
    none, every = np.zeros(len(values), np.bool_), np.ones(len(values), np.bool_)
    group = Group(name="g", classes=("dog",), p_correct=least)
    accepted, reasons = decide_by_probability(group, np.array(values), none, every, none)
    for value, yes, reason in zip(values, accepted.tolist(), reasons.to_pylist(), strict=True):
        assert yes == (value >= least)
        _, shown, sign, threshold = reason.split()
        assert sign == (">=" if yes else "<")
        assert (float(shown) >= float(threshold)) == yes
        assert len(threshold.partition(".")[2]) >= 3
