"""The probabilities of classes among texts."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from vouch_labels.schemas.campaign import ClassConfig, ScorerConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import SCORES
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.score import (
    LEAST_SIDE,
    Score,
    Scores,
    class_softmax,
    crop,
    embed_texts,
    fill,
    softmax,
    templates_of,
)

TEXTS = {
    "red thing": (1.0, 0.0, 0.0),
    "crimson": (0.8, 0.0, 0.6),
    "green thing": (0.0, 1.0, 0.0),
    "blue thing": (0.0, 0.0, 1.0),
    "teal": (0.0, 0.6, 0.8),
    "nothing": (-1.0, 0.0, 0.0),
}
RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)


class ColourScorer:
    """Embeds a crop by its mean colour and a text by the table above: every score can be worked out by hand."""

    fingerprint = "c0105"
    logit_scale = 2.0

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.asked: list[str] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.extend(texts)
        return np.array([TEXTS[text] for text in texts], np.float32)

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        self.calls.append(len(crops))
        means = np.array([crop.reshape(-1, 3).mean(axis=0) for crop in crops], np.float32)
        with np.errstate(invalid="ignore"):
            return means / np.linalg.norm(means, axis=1, keepdims=True)


def config(**changes: Any) -> ScorerConfig:
    return ScorerConfig(**({"templates": "plain", "background": ()} | changes))


def classes(*entries: object) -> list[ClassConfig]:
    return [ClassConfig.model_validate(entry) for entry in entries]


def painted(*colours: tuple[int, int, int]) -> np.ndarray:
    """Tiles of 40 x 40 pixels side by side."""
    return np.concatenate([np.full((40, 40, 3), colour, np.uint8) for colour in colours], axis=1)


def tile(index: int) -> list[float]:
    return [index * 40, 0, index * 40 + 40, 40]


def score_one(step: Score, colour: tuple[int, int, int], class_index: int) -> Scores:
    (result,) = step([painted(colour)], [np.array([tile(0)], np.float32)], [np.array([class_index])])
    assert isinstance(result, Scores)
    return result


def test_probability_and_margin_by_hand() -> None:
    step = Score(ColourScorer(), classes("red thing", "green thing", "blue thing"), config())
    result = score_one(step, RED, 0)
    expected = math.exp(2) / (math.exp(2) + 2)
    assert result.similarity.tolist() == [1.0]
    assert result.probability[0] == pytest.approx(expected, abs=1e-6)
    assert result.margin[0] == pytest.approx(expected - 1 / (math.exp(2) + 2), abs=1e-6)
    wrong = score_one(step, RED, 2)
    assert wrong.similarity.tolist() == [0.0]
    assert wrong.other == ["red thing"]
    assert wrong.other_probability[0] == pytest.approx(expected, abs=1e-6)
    assert wrong.margin[0] == pytest.approx((1 - math.exp(2)) / (math.exp(2) + 2), abs=1e-6)


def test_temperature_replaces_the_models_own() -> None:
    step = Score(ColourScorer(), classes("red thing", "green thing"), config(temperature=0.1))
    assert score_one(step, RED, 0).probability[0] == pytest.approx(1 / (1 + math.exp(-10)), abs=1e-6)


def test_own_negatives_compete_others_do_not() -> None:
    entries = classes({"name": "red thing", "negatives": ["blue thing"]}, "green thing")
    step = Score(ColourScorer(), entries, config())
    red = score_one(step, BLUE, 0)
    assert red.other == ["blue thing"]
    assert red.probability[0] == pytest.approx(1 / (math.exp(2) + 2), abs=1e-6)
    green = score_one(step, BLUE, 1)
    assert green.other == ["red thing"]
    assert green.probability[0] == pytest.approx(0.5, abs=1e-6)


def test_a_negative_of_two_classes_counts_once_for_each() -> None:
    entries = classes(
        {"name": "red thing", "negatives": ["teal"]}, {"name": "green thing", "negatives": ["TEAL"]}, "blue thing"
    )
    texts = embed_texts(ColourScorer(), entries, ("{}",), ())
    assert texts.names == ("red thing", "green thing", "blue thing", "teal")
    assert texts.competes[:, 3].tolist() == [True, True, False]


def test_background_competes_with_all() -> None:
    step = Score(ColourScorer(), classes("red thing", "green thing"), config(background=("nothing", "teal")))
    assert score_one(step, BLUE, 0).other == ["teal"]
    assert score_one(step, BLUE, 1).other == ["teal"]


def test_a_text_that_is_a_class_already_is_left_out() -> None:
    entries = classes({"name": "red thing", "negatives": ["Green Thing", "nothing"]}, "green thing")
    texts = embed_texts(ColourScorer(), entries, ("{}",), ("green thing", "nothing", "nothing"))
    assert texts.names == ("red thing", "green thing", "nothing")
    assert texts.competes.all()


def test_a_text_cannot_be_prompt_and_negative() -> None:
    entries = classes({"name": "fruit", "prompts": ["red thing"], "negatives": ["Red Thing"]})
    with pytest.raises(UserError, match="class fruit: 'Red Thing' is a prompt and a negative"):
        Score(ColourScorer(), entries, config()).prepare()


def test_several_prompts_count_as_the_best() -> None:
    entries = classes({"name": "warm", "prompts": ["crimson", "red thing"]}, "green thing", "blue thing")
    step = Score(ColourScorer(), entries, config())
    warm = score_one(step, RED, 0)
    assert warm.similarity.tolist() == [1.0]
    assert warm.probability[0] == pytest.approx(math.exp(2) / (math.exp(2) + 2), abs=1e-6)
    assert score_one(step, BLUE, 2).other == ["warm"]


def test_templates_are_averaged_and_made_unit_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TEXTS, "a dog", (1.0, 0.0, 0.0))
    monkeypatch.setitem(TEXTS, "the dog", (0.0, 1.0, 0.0))
    texts = embed_texts(ColourScorer(), classes("dog"), ("a {}", "the {}"), ())
    np.testing.assert_allclose(texts.vectors, [[math.sqrt(0.5), math.sqrt(0.5), 0]], atol=1e-6)


def test_one_class_alone() -> None:
    step = Score(ColourScorer(), classes("red thing"), config())
    result = score_one(step, BLUE, 0)
    assert result.probability.tolist() == result.margin.tolist() == [1.0]
    assert result.other == [None]
    table = step.table([(["a"], result)])
    assert table["clip_other"].null_count == table["clip_other_probability"].null_count == 1


def test_two_contexts() -> None:
    """The tight crop of the middle tile is all red, the wide one has a quarter of each neighbour."""
    step = Score(ColourScorer(), classes("red thing", "green thing"), config(contexts=(1.0, 3.0)))
    image = np.concatenate([painted(GREEN, RED, GREEN)] * 3)
    (result,) = step([image], [np.array([[40, 40, 80, 80]], np.float32)], [np.array([0])])
    assert result.similarity.tolist() == [1.0]
    assert result.similarity_wide[0] < result.similarity[0]
    assert result.probability_wide[0] < result.probability[0]
    assert result.margin_wide[0] < result.margin[0]


def test_crops_of_all_images_go_together_and_come_back_apart() -> None:
    scorer = ColourScorer()
    step = Score(scorer, classes("red thing", "green thing", "blue thing"), config())
    images = [painted(RED, GREEN), painted(BLUE), painted(BLUE, RED, GREEN)]
    boxes = [
        np.array([tile(0), tile(1)], np.float32),
        np.zeros((0, 4), np.float32),
        np.array([tile(2), tile(0), tile(1)], np.float32),
    ]
    found = step(images, boxes, [np.array([0, 1]), np.zeros(0, np.int64), np.array([1, 2, 1])])
    assert scorer.calls == [10]
    assert [item.similarity.round(5).tolist() for item in found] == [[1, 1], [], [1, 1, 0]]
    for image, each, indices, together in zip(
        images, boxes, [np.array([0, 1]), np.zeros(0, np.int64), np.array([1, 2, 1])], found, strict=True
    ):
        (alone,) = step([image], [each], [indices])
        # Products of other numbers of rows, summed in another order.
        np.testing.assert_allclose(alone.probability, together.probability, rtol=0, atol=1e-6)
        assert alone.other == together.other


def test_no_boxes_cost_nothing() -> None:
    scorer = ColourScorer()
    step = Score(scorer, classes("red thing"), config())
    empty = np.zeros((0, 4), np.float32)
    found = step([painted(RED)] * 2, [empty] * 2, [np.zeros(0, np.int64)] * 2)
    assert [len(item.similarity) for item in found] == [0, 0]
    assert step([], [], []) == []
    assert scorer.calls == []
    assert scorer.asked == []
    assert step.table([([], item) for item in found]).num_rows == 0
    assert step.table([]).schema.equals(SCORES)


def test_what_is_not_finite_fails_its_image_alone() -> None:
    step = Score(ColourScorer(), classes("red thing", "green thing"), config())
    black = painted((0, 0, 0), RED)  # the mean of black has no direction
    boxes = [np.array([tile(0)], np.float32), np.array([[0, 0, np.nan, 5]], np.float32)]
    found = step(
        [black, black, painted(RED)],
        [np.array([tile(0), tile(1)], np.float32), boxes[1], boxes[0]],
        [np.array([0, 0]), np.array([0]), np.array([0])],
    )
    assert found[0] == Failed(step="score", reason="CLIP gave no finite score for 1 of 2 labels")
    assert found[1] == Failed(step="score", reason="a box has a coordinate that is not finite")
    assert isinstance(found[2], Scores)
    assert step([black], [boxes[1]], [np.array([0])]) == [found[1]]


def test_infinite_embeddings_are_not_taken_for_certainty(monkeypatch: pytest.MonkeyPatch) -> None:
    scorer = ColourScorer()
    monkeypatch.setattr(scorer, "embed_crops", lambda crops: np.full((len(crops), 3), np.inf, np.float32))
    step = Score(scorer, classes("red thing", "green thing"), config())
    (found,) = step([painted(RED)], [np.array([tile(0)], np.float32)], [np.array([0])])
    assert isinstance(found, Failed)


def test_table() -> None:
    step = Score(ColourScorer(), classes("red thing", "green thing"), config())
    found = step(
        [painted(RED, GREEN), painted(GREEN)],
        [np.array([tile(0), tile(1)], np.float32), np.array([tile(0)], np.float32)],
        [np.array([0, 0]), np.array([1])],
    )
    table = step.table([(["a", "b"], found[0]), (["c"], found[1])])
    assert table.schema.equals(SCORES)
    assert table["label_id"].to_pylist() == ["a", "b", "c"]
    assert table["clip_similarity"].to_pylist() == [1, 0, 1]
    assert table["clip_other"].to_pylist() == ["green thing", "green thing", "red thing"]
    np.testing.assert_allclose(
        table["clip_margin"].to_numpy(),
        [
            a - b
            for a, b in zip(
                *(table[n].to_pylist() for n in ("clip_probability", "clip_other_probability")), strict=True
            )
        ],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("entries", "changes"),
    [
        (("red thing",), {}),
        (({"name": "red thing", "negatives": ["teal"]}, "green thing"), {}),
        (({"name": "red thing", "prompts": ["crimson"]}, "green thing"), {}),
        (("green thing", "red thing"), {}),
        (("red thing", "green thing"), {"temperature": 0.3}),
        (("red thing", "green thing"), {"templates": "photo"}),
        (("red thing", "green thing"), {"background": ("nothing",)}),
        (("red thing", "green thing"), {"contexts": (1.0, 2.0)}),
    ],
)
def test_key_follows_what_scores_depend_on(entries: tuple[object, ...], changes: dict[str, Any]) -> None:
    base = Score(ColourScorer(), classes("red thing", "green thing"), config()).key
    assert Score(ColourScorer(), classes(*entries), config(**changes)).key != base


def test_key_ignores_what_they_do_not() -> None:
    base = Score(ColourScorer(), classes("red thing"), config()).key
    other = classes({"name": "red thing", "min_score": 0.9, "accept": {"clip_margin": 0.1}})
    assert Score(ColourScorer(), other, config(batch_size=3)).key == base


def test_key_follows_the_model() -> None:
    scorer = ColourScorer()
    scorer.fingerprint = "another"
    assert (
        Score(scorer, classes("red thing"), config()).key != Score(ColourScorer(), classes("red thing"), config()).key
    )


@settings(deadline=None)
@given(
    st.integers(1, 6).flatmap(
        lambda texts: st.tuples(
            arrays(np.float32, (5, texts), elements=st.floats(-1, 1, width=32)),
            arrays(np.bool_, (5, texts)),
            arrays(np.int64, 5, elements=st.integers(0, texts - 1)),
        )
    ),
    st.floats(0.01, 1000),
)
def test_softmax_is_one(drawn: tuple[np.ndarray, np.ndarray, np.ndarray], factor: float) -> None:
    similarities, competes, own = drawn
    rows = np.arange(5)
    competes[rows, own] = True
    probability, others, best = softmax(similarities, competes, own, factor)
    assert ((probability >= 0) & (probability <= 1)).all()
    assert ((others >= 0) & (probability + others <= 1 + 1e-9)).all()
    alone = competes.sum(axis=1) == 1
    np.testing.assert_array_equal(probability[alone], 1)
    np.testing.assert_array_equal(others[alone], 0)
    assert (best[~alone] != own[~alone]).all()
    assert competes[rows, best][~alone].all()
    two = competes.sum(axis=1) == 2
    np.testing.assert_allclose((probability + others)[two], 1)
    wins = similarities[rows, own] > np.where(
        competes & (np.arange(competes.shape[1]) != own[:, None]), similarities, -2
    ).max(axis=1)
    assert (probability[wins] >= others[wins]).all()


@settings(deadline=None)
@given(arrays(np.float32, (1, 4), elements=st.floats(-1, 1, width=32)), st.floats(0, 1, width=32))
def test_a_better_fit_is_never_less_likely(similarities: np.ndarray, more: float) -> None:
    competes, own = np.ones((1, 4), np.bool_), np.array([1])
    better = similarities.copy()
    better[0, 1] += np.float32(more)
    before = softmax(similarities, competes, own, 10.0)
    after = softmax(better, competes, own, 10.0)
    assert after[0][0] >= before[0][0] - 1e-12
    assert after[0][0] - after[1][0] >= before[0][0] - before[1][0] - 1e-12


IMAGE = np.arange(100 * 200 * 3, dtype=np.uint32).astype(np.uint8).reshape(100, 200, 3)


def place(image: np.ndarray, cut: np.ndarray) -> tuple[int, int, int, int]:
    """Box xyxy of a view in its image."""
    offset = (cut.__array_interface__["data"][0] - image.__array_interface__["data"][0]) // 3
    top, left = divmod(offset, image.shape[1])
    return left, top, left + cut.shape[1], top + cut.shape[0]


@pytest.mark.parametrize(
    ("box", "context", "expected"),
    [
        ((50, 20, 90, 60), 1.0, (50, 20, 90, 60)),  # a square stays
        ((50, 20, 90, 60), 1.5, (40, 10, 100, 70)),  # and grows about its centre
        ((50, 40, 90, 60), 1.0, (50, 30, 90, 70)),  # the short side grows to the long one
        ((0, 0, 40, 40), 1.5, (0, 0, 60, 60)),  # shifted back into the image
        ((160, 60, 200, 100), 1.5, (140, 40, 200, 100)),
        ((20, 10, 180, 90), 1.0, (20, 0, 180, 100)),  # longer than the image is high: cut
        ((0, 0, 200, 100), 1.5, (0, 0, 200, 100)),
        ((100, 50, 102, 51), 1.0, (93, 42, 109, 58)),  # at least 16 pixels
        ((100, 50, 100, 50), 1.0, (92, 42, 108, 58)),  # no area
        ((300, 300, 340, 340), 1.0, (160, 60, 200, 100)),  # outside
    ],
)
def test_known_places(box: tuple[float, ...], context: float, expected: tuple[int, ...]) -> None:
    left, top, right, bottom = place(IMAGE, crop(IMAGE, np.array(box, np.float32), context))
    assert abs(left - expected[0]) + abs(top - expected[1]) <= 1  # halves may round either way
    assert (right - left, bottom - top) == (expected[2] - expected[0], expected[3] - expected[1])


def test_pixels_are_the_images_own() -> None:
    cut = crop(IMAGE, np.array([50, 20, 90, 60], np.float32), 1.0)
    np.testing.assert_array_equal(cut, IMAGE[20:60, 50:90])
    assert np.shares_memory(cut, IMAGE)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_box_must_be_finite(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        crop(IMAGE, np.array([0, 0, value, 5], np.float32), 1.0)


sizes = st.integers(1, 60)
coordinates = st.floats(-100, 200, width=32)


@given(sizes, sizes, st.tuples(coordinates, coordinates, coordinates, coordinates), st.floats(1, 4))
def test_always_inside_never_empty(height: int, width: int, box: tuple[float, ...], context: float) -> None:
    image = np.zeros((height, width, 3), np.uint8)
    cut = crop(image, np.array(box, np.float32), context)
    assert 1 <= cut.shape[0] <= height
    assert 1 <= cut.shape[1] <= width
    assert cut.shape[0] == cut.shape[1] or max(cut.shape[:2]) >= min(height, width)
    assert min(cut.shape[:2]) >= min(LEAST_SIDE, height, width)


@given(
    st.integers(0, 150), st.integers(0, 70), st.integers(1, 50), st.integers(1, 30), st.sampled_from([1.0, 1.3, 1.5])
)
def test_the_box_lies_in_its_crop(x: int, y: int, width: int, height: int, context: float) -> None:
    left, top, right, bottom = place(IMAGE, crop(IMAGE, np.array([x, y, x + width, y + height], np.float32), context))
    assert left <= x
    assert top <= y
    assert right >= x + width
    assert bottom >= y + height


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(0, 4), st.sampled_from([1.0, 100.0, 2000.0]))
def test_every_class_gets_what_it_gets_alone(seed: int, count: int, more: int, factor: float) -> None:
    rng = np.random.default_rng(seed)
    similarities = rng.uniform(-1, 1, (5, count + more)).astype(np.float32)
    competes = np.ones((count, count + more), np.bool_)
    competes[:, count:] = rng.random((count, more)) < 0.5
    found = class_softmax(similarities, competes, factor)
    for index in range(count):
        own, _, _ = softmax(similarities, np.tile(competes[index], (5, 1)), np.full(5, index), factor)
        assert found[:, index] == pytest.approx(own, abs=1e-12)


def test_a_row_that_is_not_finite_spoils_no_other() -> None:
    similarities = np.array([[0.5, np.nan], [0.5, 0.5]], np.float32)
    found = class_softmax(similarities, np.ones((2, 2), np.bool_), 10.0)
    assert np.isnan(found[0]).all()
    assert found[1].tolist() == [0.5, 0.5]


def test_no_crop_has_no_probabilities() -> None:
    assert class_softmax(np.zeros((0, 3), np.float32), np.ones((2, 3), np.bool_), 10.0).shape == (0, 2)


def test_imagenet_templates_stay_what_workspaces_were_written_with() -> None:
    """A list of another content or order would score every labelled image again."""
    templates = templates_of("imagenet")
    assert len(set(templates)) == 80
    assert fingerprint(templates) == "2a075d90a1064f2c"


@pytest.mark.parametrize("preset", ["plain", "photo", "imagenet"])
def test_presets_can_be_filled(preset: str) -> None:
    assert all(template.count("{}") == 1 for template in templates_of(preset))


def test_plain_is_the_text_alone() -> None:
    assert [fill(template, "dog") for template in templates_of("plain")] == ["dog"]


def test_own_templates() -> None:
    assert templates_of(("a {} on a shelf", "{}!")) == ("a {} on a shelf", "{}!")


@pytest.mark.parametrize("choice", [(), ("a photo",), ("{} and {}",), "imagenet81", ("{}", "{0}")])
def test_what_cannot_be_filled_is_refused(choice: str | tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=r"models\.scorer\.templates"):
        templates_of(choice)


@given(st.text())
def test_braces_in_a_text_mean_nothing(text: str) -> None:
    assert fill("a {}.", text) == f"a {text}."
