"""The rules of the detect step, on candidates written down by hand and on ones drawn by hypothesis."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import DETECTIONS
from vouch_labels.tasks.boxes_masks import box_area, box_iou
from vouch_labels.tasks.detect import Detect, Detections, Given
from vouch_labels.tasks.models.fake import FakeDetector
from vouch_labels.tasks.models.registry import Phrase, Pixels, RawDetections

IMAGE = np.zeros((100, 200, 3), np.uint8)
ONE, NEAR, FAR = [10, 10, 60, 60], [12, 10, 62, 60], [120, 20, 180, 90]


class Scripted:
    """Answers with the candidates it is given, as a model would."""

    fingerprint = "scripted"

    def __init__(self, boxes: ArrayLike = (), scores: ArrayLike = ()) -> None:
        self.boxes = np.array(boxes, np.float32).reshape(-1, 4)
        self.scores = np.array(scores, np.float32)
        self.asked: list[tuple[list[str], float]] = []

    def check(self, phrases: Sequence[Phrase]) -> None:
        for phrase in phrases:
            if len(phrase.text) > 20:
                raise UserError(f"prompt {phrase.text!r} is too long")

    def tokens(self, text: str) -> tuple[str, ...]:
        return tuple(text.lower().rstrip(".?").split())

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        self.asked.append(([phrase.text for phrase in phrases], min_score))
        keep = ~(self.scores.max(axis=1, initial=0) < min_score)
        return [RawDetections(self.boxes[keep], self.scores[keep]) for _ in images]


def classes(*entries: str | dict[str, Any]) -> tuple[ClassConfig, ...]:
    return tuple(ClassConfig.model_validate(entry) for entry in entries)


DOG = {"name": "dog", "prompts": ["dog", "puppy"], "negatives": ["wolf"]}


def labels(detector: Scripted, of: tuple[ClassConfig, ...], **config: Any) -> Detections:
    [found] = Detect(detector, of, DetectorConfig(**config))([IMAGE])
    assert isinstance(found, Detections)
    return found


def names(found: Detections, of: tuple[ClassConfig, ...]) -> list[str]:
    return [of[index].name for index in found.class_indices]


def test_a_class_has_the_score_of_its_best_prompt() -> None:
    of = classes(DOG, "cat")  # columns: dog, puppy, cat, wolf
    found = labels(Scripted([ONE], [[0.3, 0.75, 0.5, 0.25]]), of)
    assert names(found, of) == ["dog"]
    assert found.prompts == ["puppy"]
    assert found.scores == pytest.approx([0.75])
    assert found.margins == pytest.approx([0.25])
    assert found.runners_up == ["cat"]


def test_one_object_of_several_classes_is_one_label() -> None:
    of = classes("dog", "cat")
    found = labels(Scripted([ONE, NEAR, FAR], [[0.9, 0.1], [0.2, 0.6], [0.1, 0.5]]), of)
    assert names(found, of) == ["dog", "cat"]
    np.testing.assert_array_equal(found.boxes, np.array([ONE, FAR], np.float32))
    assert found.scores == pytest.approx([0.9, 0.5])
    # The class that only the covered candidate had is the runner-up.
    assert found.margins == pytest.approx([0.3, 0.4])


def test_boxes_that_overlap_less_are_two() -> None:
    of = classes("dog")
    overlap = float(box_iou(np.array([ONE], np.float32), np.array([NEAR], np.float32))[0, 0])
    scripted = Scripted([ONE, NEAR], [[0.9], [0.8]])
    assert len(labels(scripted, of, nms_iou=overlap - 0.01).boxes) == 1
    two = labels(scripted, of, nms_iou=min(overlap + 0.01, 1))
    assert len(two.boxes) == 2
    assert two.crowding == pytest.approx([overlap, overlap])


def test_a_look_alike_is_left_out_even_when_another_pass_found_it() -> None:
    of = classes(DOG, "cat")
    assert len(labels(Scripted([ONE], [[0.7, 0, 0, 0.8]]), of).boxes) == 0
    assert len(labels(Scripted([ONE, NEAR], [[0.7, 0, 0, 0], [0, 0, 0, 0.8]]), of).boxes) == 0
    assert len(labels(Scripted([ONE, FAR], [[0.7, 0, 0, 0], [0, 0, 0, 0.8]]), of).boxes) == 1


def test_a_negative_that_scores_less_is_the_runner_up() -> None:
    of = classes(DOG, "cat")
    found = labels(Scripted([ONE], [[0.7, 0, 0.1, 0.6]]), of)
    assert found.runners_up == ["wolf"]
    assert found.margins == pytest.approx([0.1])
    equal = labels(Scripted([ONE], [[0.7, 0, 0.1, 0.7]]), of)
    assert names(equal, of) == ["dog"]
    assert equal.margins == pytest.approx([0.0])


def test_negatives_of_other_classes_do_not_count() -> None:
    of = classes(DOG, "cat")
    found = labels(Scripted([ONE], [[0.4, 0, 0.6, 0.9]]), of)
    assert names(found, of) == ["cat"]
    assert found.runners_up == ["dog"]


def test_a_single_text_has_no_runner_up() -> None:
    found = labels(Scripted([ONE], [[0.7]]), classes("dog"))
    assert found.runners_up == [None]
    assert found.margins == pytest.approx([0.7])


def test_each_class_has_its_least_score() -> None:
    of = classes({"name": "dog", "min_score": 0.6}, {"name": "cat", "min_score": 0.2}, "cow")
    scripted = Scripted([ONE, FAR, [0, 70, 30, 99]], [[0.55, 0.3, 0], [0, 0.25, 0], [0, 0, 0.45]])
    found = labels(scripted, of, min_score=0.5)
    assert names(found, of) == ["cat"]
    assert scripted.asked[0][1] == pytest.approx(0.2)
    assert names(labels(scripted, of, min_score=0.45), of) == ["cow", "cat"]


def test_most_boxes_best_first() -> None:
    of = classes("dog")
    boxes = [[10 * i, 0, 10 * i + 9, 9] for i in range(8)]
    scores = [[0.3 + 0.05 * (i * 5 % 8)] for i in range(8)]
    found = labels(Scripted(boxes, scores), of, max_boxes=3)
    assert found.scores == pytest.approx([0.65, 0.6, 0.55])


def test_equal_scores_go_to_the_class_declared_first_and_the_candidate_given_first() -> None:
    of = classes("dog", "cat")
    found = labels(Scripted([ONE, NEAR], [[0.5, 0.5], [0.5, 0.5]]), of)
    assert names(found, of) == ["dog"]
    np.testing.assert_array_equal(found.boxes, np.array([ONE], np.float32))
    assert found.margins == pytest.approx([0])


def test_geometry() -> None:
    of = classes("dog")
    boxes: list[Any] = [[0, 0, 200, 100], [0.5, 50, 20, 99.5], [50, 40, 60, 50], [150, 0, 199.5, 20]]
    found = labels(Scripted(boxes, [[0.9], [0.8], [0.7], [0.6]]), of)
    assert found.border_sides.tolist() == [4, 2, 0, 2]
    assert found.relative_areas == pytest.approx([1, 19.5 * 49.5 / 20000, 0.005, 0.0495])
    assert found.crowding == pytest.approx([0.0495, 19.5 * 49.5 / 20000, 0.005, 0.0495])


def test_an_empty_box_is_no_label() -> None:
    found = labels(Scripted([[5, 5, 5, 30], FAR], [[0.9], [0.8]]), classes("dog"))
    np.testing.assert_array_equal(found.boxes, np.array([FAR], np.float32))


def test_nothing_found_and_nothing_asked() -> None:
    step = Detect(Scripted(np.zeros((0, 4)), np.zeros((0, 4))), classes(DOG, "cat"), DetectorConfig())
    assert step([]) == []
    step._detector = Scripted([ONE], [[0, 0, 0, 0]])
    [found] = step([IMAGE])
    assert isinstance(found, Detections)
    assert len(found.boxes) == len(found.crowding) == 0
    table = step.table([("a.png", "00", found)])
    assert table.schema == DETECTIONS
    assert table.num_rows == 0
    assert step.table([]).schema == DETECTIONS


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_an_answer_that_is_not_finite_fails_the_image(bad: float) -> None:
    step = Detect(Scripted([ONE], [[bad]]), classes("dog"), DetectorConfig())
    assert step([IMAGE]) == [Failed(step="detect", reason="the detector's answer is not finite")]


def test_a_bad_prompt_names_its_class() -> None:
    with pytest.raises(UserError, match=r"^class 'cat': prompt 'a very long cat that no window holds' is too long$"):
        Detect(
            Scripted(),
            classes("dog", {"name": "cat", "prompts": ["a very long cat that no window holds"]}),
            DetectorConfig(),
        )


def test_a_prompt_of_two_classes_is_refused() -> None:
    with pytest.raises(UserError, match="classes 'dog' and 'pet' share the prompt 'Puppy'; give it to one of them"):
        Detect(Scripted(), classes(DOG, {"name": "pet", "prompts": ["cat", "Puppy"]}), DetectorConfig())
    with pytest.raises(UserError, match="class 'dog' has 'Dog' as prompt and as negative; remove one"):
        Detect(Scripted(), classes({"name": "dog", "negatives": ["Dog"]}), DetectorConfig())
    # The negative of one class may well be another class.
    Detect(Scripted(), classes({"name": "dog", "negatives": ["cat"]}, "cat"), DetectorConfig())


def test_key_follows_what_rows_depend_on() -> None:
    def key(*entries: str | dict[str, Any], **config: Any) -> str:
        return Detect(Scripted(), classes(*entries), DetectorConfig(**config)).key

    base = key(DOG, "cat")
    assert key(DOG, "cat", batch_size=2) == base
    assert key(DOG, "cat", sha256="0" * 64) == base
    others = [
        key(DOG, "cow"),
        key("cat", DOG),
        key({**DOG, "negatives": []}, "cat"),
        key({**DOG, "prompts": ["dog"]}, "cat"),
        key({**DOG, "min_score": 0.9}, "cat"),
        key(DOG, "cat", min_score=0.2),
        key(DOG, "cat", nms_iou=0.5),
        key(DOG, "cat", max_boxes=5),
    ]
    assert len({base, *others}) == 9


def test_rows_say_what_was_found() -> None:
    of = classes(DOG, "cat")
    step = Detect(Scripted([ONE, FAR], [[0.9, 0.1, 0.2, 0.3], [0.1, 0.2, 0.6, 0.9]]), of, DetectorConfig())
    first, second = step([IMAGE, IMAGE])
    assert isinstance(first, Detections)
    assert isinstance(second, Detections)
    rows = step.table([("a.png", "aa", first), ("b.png", "aa", second)]).to_pylist()
    assert [row["key"] for row in rows] == ["a.png", "a.png", "b.png", "b.png"]
    assert rows[0] | {"label_id": ""} == {
        "label_id": "",
        "key": "a.png",
        "class_name": "dog",
        "x0": 10,
        "y0": 10,
        "x1": 60,
        "y1": 60,
        "prompt": "dog",
        "detector_score": pytest.approx(0.9),
        "detector_margin": pytest.approx(0.6),
        "runner_up": "wolf",
        "relative_area": pytest.approx(0.125),
        "border_sides": 0,
        "crowding": 0,
    }
    ids = [row["label_id"] for row in rows]
    assert len(set(ids)) == 4
    assert all(len(bytes.fromhex(each)) == 12 for each in ids)
    again = step.table([("a.png", "aa", first)])["label_id"].to_pylist()
    assert again == ids[:2]
    assert step.table([("a.png", "ab", first)])["label_id"].to_pylist() != ids[:2]


@st.composite
def candidates(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(0, 25))
    corner = st.integers(0, 40)
    boxes = [[draw(corner), draw(corner), draw(corner) + 41, draw(corner) + 41] for _ in range(count)]
    score = st.integers(0, 20).map(lambda number: number / 20)
    scores = [[draw(score) for _ in range(4)] for _ in range(count)]
    return np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, 4)


@settings(deadline=None)
@given(drawn=candidates(), nms_iou=st.floats(0.1, 1), least=st.floats(0, 1), most=st.integers(1, 30))
def test_rules_hold_for_any_candidates(
    drawn: tuple[np.ndarray, np.ndarray], nms_iou: float, least: float, most: int
) -> None:
    boxes, scores = drawn
    of = classes(DOG, "cat")
    step = Detect(Scripted(boxes, scores), of, DetectorConfig(min_score=least, nms_iou=nms_iou, max_boxes=most))
    [found] = step([IMAGE])
    assert isinstance(found, Detections)
    assert len(found.boxes) <= most
    assert (found.scores >= np.float32(least)).all()
    assert (np.diff(found.scores) <= 0).all()
    assert (np.abs(found.margins) <= 1).all()
    assert (found.margins >= 0).all()  # a negative that wins leaves no label
    assert (box_area(found.boxes) > 0).all()
    overlaps = box_iou(found.boxes, found.boxes)
    np.fill_diagonal(overlaps, 0)
    assert (overlaps <= nms_iou).all()
    for box, score in zip(found.boxes, found.scores, strict=True):
        assert any((candidate == box).all() for candidate in boxes)
        assert score in scores[:, :3]
    ids = step.table([("k", "0", found)])["label_id"].to_pylist()
    assert len(set(ids)) == len(ids)


@settings(deadline=None)
@given(drawn=candidates())
def test_every_candidate_ends_under_a_stronger_one(drawn: tuple[np.ndarray, np.ndarray]) -> None:
    from vouch_labels.tasks.detect import merge_duplicates

    boxes, scores = drawn
    strengths = scores.max(axis=1, initial=0)
    kept, joint = merge_duplicates(boxes, strengths, scores, 0.5)
    assert (np.diff(strengths[kept]) <= 0).all()
    covered = box_iou(boxes, boxes[kept]) > 0.5
    for index in range(len(boxes)):
        if index not in kept:
            assert any(
                covered[index, place] and strengths[kept[place]] >= strengths[index] for place in range(len(kept))
            )
    for place, index in enumerate(kept):
        assert (joint[place] >= scores[index]).all()
        assert joint[place].max() == strengths[index]


def test_labels_that_agree_in_everything_have_ids_of_their_own() -> None:
    step = Detect(Scripted([ONE, ONE, ONE], [[0.9], [0.8], [0.7]]), classes("dog"), DetectorConfig(nms_iou=1))
    [found] = step([IMAGE])
    assert isinstance(found, Detections)
    assert len(found.boxes) == 3
    assert len(set(step.table([("k", "0", found)])["label_id"].to_pylist())) == 3


def test_order_and_company_do_not_matter() -> None:
    generator = np.random.default_rng(0)
    images = [generator.integers(0, 256, (48, 64, 3), dtype=np.uint8) // 16 * 16 for _ in range(6)]
    for number, image in enumerate(images):
        image[:16, 16 * (number % 4) : 16 * (number % 4) + 16] = 255
        image[32:] //= 8
    step = Detect(FakeDetector(), classes(DOG, "cat"), DetectorConfig(min_score=0.1))
    together, alone = step(images), [step([image])[0] for image in images]
    for one, other in zip(together, alone, strict=True):
        assert isinstance(one, Detections)
        assert isinstance(other, Detections)
        assert len(one.boxes) > 0
        assert step.table([("k", "0", one)]) == step.table([("k", "0", other)])


def of_file(boxes, class_indices, scores=None):
    return Given(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(class_indices, np.int64),
        np.full(len(class_indices), np.nan, np.float32) if scores is None else np.array(scores, np.float32),
        [f"annotation {number}" for number in range(len(class_indices))],
    )


CAT_AND_DOG = classes("cat", DOG)
"""Phrases: cat, dog, puppy, wolf (negative)."""


def decided(boxes, scores, known, **config):
    raw = RawDetections(np.array(boxes, np.float32).reshape(-1, 4), np.array(scores, np.float32).reshape(-1, 4))
    found = Detect(Scripted(), CAT_AND_DOG, DetectorConfig(**config)).decide([raw], IMAGE, known)
    assert isinstance(found, Detections)
    return found


def test_given_labels_stay_as_they_are_and_take_the_place_of_what_overlaps_them():
    found = decided(
        [ONE, FAR], [[0.2, 0.9, 0.3, 0.1], [0.8, 0.1, 0.1, 0.1]], of_file([NEAR, NEAR], [0, 0]), nms_iou=0.7
    )
    assert found.boxes.tolist() == [FAR, NEAR, NEAR]
    assert found.class_indices.tolist() == [0, 0, 0]
    assert found.prompts == ["cat", "annotation 0", "annotation 1"]
    assert found.scores.tolist() == pytest.approx([0.8, 0.2, 0.2])
    assert found.margins[1] == pytest.approx(0.2 - 0.9)
    assert found.runners_up[1] == "dog"
    assert found.crowding[1] == 1


def test_given_labels_with_scores_keep_them_and_what_is_new_is_added():
    found = decided(
        [ONE, [10, 10, 60, 30]],
        [[0.2, 0.9, 0.3, 0.1], [0.1, 0.1, 0.7, 0.1]],
        of_file([NEAR], [0], [0.25]),
    )
    assert found.prompts == ["puppy", "annotation 0"]
    assert found.scores.tolist() == pytest.approx([0.7, 0.25])
    assert found.margins[1] == pytest.approx(0.25 - 0.9)


def test_given_labels_that_no_candidate_shows_score_nothing_and_outside_the_image_there_is_none():
    found = decided([], [], of_file([FAR, [300, 10, 320, 20], [190, 90, 210, 110]], [1, 0, 0]))
    assert found.boxes.tolist() == [FAR, [190, 90, 200, 100]]
    assert found.class_indices.tolist() == [1, 0]
    assert found.scores.tolist() == [0, 0]


def test_given_labels_are_never_too_many():
    found = decided([ONE], [[0.9, 0, 0, 0]], of_file([FAR] * 5, [0] * 5), max_boxes=1)
    assert len(found.boxes) == 6
