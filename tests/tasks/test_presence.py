"""Which classes CLIP sees that no label shows."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vouch_labels.schemas.campaign import ClassConfig, ScorerConfig
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import PRESENCE
from vouch_labels.tasks.presence import FLOOR, SHORT_SIDE, VIEWS, Presence, Present, views
from vouch_labels.tasks.score import Score

CLASSES = [ClassConfig(name=name, prompts=[name]) for name in ("red", "green", "blue")]
RED, GREEN, BLUE = np.eye(3, dtype=np.uint8) * 250
NO_LABELS = np.zeros(0, np.int64)


class ColourScorer:
    """Embeds a crop by its mean colour."""

    fingerprint = "c0105"
    logit_scale = 8.0

    def __init__(self) -> None:
        self.calls: list[int] = []

    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        return np.array([{"red": RED, "green": GREEN, "blue": BLUE}[text] / 250 for text in texts], np.float32)

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        self.calls.append(len(crops))
        means = np.array([crop.reshape(-1, 3).mean(axis=0) for crop in crops], np.float32)
        with np.errstate(invalid="ignore"):
            return means / np.linalg.norm(means, axis=1, keepdims=True)


def step(scorer: ColourScorer | None = None, enabled: bool = True) -> Presence:
    config = ScorerConfig(templates="plain", background=())
    return Presence(Score(scorer or ColourScorer(), CLASSES, config), CLASSES, enabled)


def plain(colour: np.ndarray) -> np.ndarray:
    return np.tile(colour, (64, 64, 1))


def cornered() -> np.ndarray:
    """Red, and green in one corner: little of the whole, much of a tile."""
    image = plain(RED)
    image[:28, :28] = GREEN
    return image


def only(found: Sequence[Present | Failed]) -> Present:
    (present,) = found
    assert isinstance(present, Present)
    return present


def test_a_class_with_a_label_is_not_listed() -> None:
    assert only(step()([plain(RED)], [NO_LABELS])).classes.tolist() == [0]
    assert only(step()([plain(RED)], [np.array([0, 0])])).classes.tolist() == []


def test_a_tile_shows_what_the_whole_hides() -> None:
    found = only(step()([cornered()], [np.array([0])]))
    assert found.classes.tolist() == [1]
    image = cornered()
    whole = Score(ColourScorer(), CLASSES, ScorerConfig(templates="plain", background=())).class_probabilities([image])
    assert found.probability[0] > max(whole[0, 1], FLOOR)


def test_all_views_of_all_images_go_through_the_model_together() -> None:
    scorer = ColourScorer()
    found = step(scorer)([plain(RED), plain(BLUE), cornered()], [NO_LABELS] * 3)
    assert scorer.calls == [3 * VIEWS]
    assert [entry.classes.tolist() for entry in found if isinstance(entry, Present)] == [[0], [2], [0, 1]]


def test_what_is_not_finite_fails_its_image_alone() -> None:
    broken, sound = step()([np.zeros((64, 64, 3), np.uint8), plain(RED)], [NO_LABELS] * 2)
    assert isinstance(broken, Failed)
    assert broken.step == "presence"
    assert isinstance(sound, Present)


def test_switched_off_nothing_is_computed() -> None:
    scorer = ColourScorer()
    found = only(step(scorer, enabled=False)([plain(RED)], [NO_LABELS]))
    assert found.classes.tolist() == []
    assert scorer.calls == []
    assert step(enabled=False).key != step().key


def test_rows_stand_image_by_image() -> None:
    table = step().table(
        [
            ("a.png", Present(np.array([0, 2]), np.array([0.5, 0.25], np.float32))),
            ("b.png", Present(NO_LABELS, np.zeros(0, np.float32))),
            ("c.png", Present(np.array([1]), np.array([1.0], np.float32))),
        ]
    )
    assert table.schema.equals(PRESENCE)
    assert table.to_pylist() == [
        {"key": "a.png", "class_name": "red", "clip_presence": 0.5},
        {"key": "a.png", "class_name": "blue", "clip_presence": 0.25},
        {"key": "c.png", "class_name": "green", "clip_presence": 1.0},
    ]
    assert step().table([]).schema.equals(PRESENCE)


@given(st.integers(1, 90), st.integers(1, 90))
def test_the_squares_lie_within_and_with_the_central_one_they_leave_no_gap(height: int, width: int) -> None:
    image = np.arange(height * width, dtype=np.int64).reshape(height, width)
    seen = np.zeros(height * width, np.bool_)
    whole, *tiles = views(np.repeat(image[:, :, None], 3, axis=2))
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    seen[whole[top : top + side, left : left + side, 0]] = True
    for tile in tiles:
        assert tile.shape[0] == tile.shape[1] >= 1
        seen[tile[:, :, 0]] = True
    if max(height, width) <= 3 * side:
        assert seen.all()


@pytest.mark.parametrize(("size", "shorter"), [((600, 1023), 600), ((1023, 900), 900), ((1024, 2048), 512)])
def test_large_images_are_reduced(size: tuple[int, int], shorter: int) -> None:
    whole, *_ = views(np.zeros((*size, 3), np.uint8))
    assert min(whole.shape[:2]) == shorter < 2 * SHORT_SIDE
