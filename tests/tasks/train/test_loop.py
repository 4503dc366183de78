from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError, VouchError
from vouch_labels.tasks.models.registry import Phrase, Pixels, load_detector
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.train.labels import TrainingImage, TrainingSet
from vouch_labels.tasks.train.loop import STATE, Trained, finish, train, write_model

CPU = Runtime("cpu", "fp32")


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return dict(trained.model.state_dict())


def assert_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=0)


def test_the_loss_falls_and_the_model_is_the_next_detector(
    data: TrainingSet, settings: Any, read: Any, tmp_path: Path
) -> None:
    told: list[tuple[int, int, float]] = []
    trained = train(data, settings(steps=24), read, tmp_path, on_step=lambda *one: told.append(one))
    assert [one[:2] for one in told] == [(step, 24) for step in range(1, 25)]
    assert sum(trained.losses[-4:]) < 0.9 * sum(trained.losses[:4])
    write_model(trained, tmp_path)
    finish(tmp_path, {"training.json": "{}"})
    assert not (tmp_path / STATE).exists()
    detector = load_detector(DetectorConfig(backend="trained", checkpoint=str(tmp_path)), CPU)
    detector.check([Phrase("Kitten", 0), Phrase("dog", 1)])
    assert detector.tokens("kitten") == ("cat",)
    [pixels] = read(data.images[:1])
    found = detector.detect([pixels], [Phrase("cat", 0), Phrase("kitten", 0), Phrase("dog", 1)], 0.0)[0]
    assert found.scores.shape == (30, 3)
    assert (found.scores[:, 0] == found.scores[:, 1]).all()


def test_a_resumed_training_ends_as_an_uninterrupted_one(
    data: TrainingSet,
    settings: Any,
    read: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train(data, settings(), read, tmp_path / "whole")

    class KilledError(Exception):
        pass

    def killed(done: int, steps: int, loss: float) -> None:
        if done == 4:
            raise KilledError

    monkeypatch.setattr("vouch_labels.tasks.train.loop.SAVE_EVERY_S", -1.0)
    with pytest.raises(KilledError):
        train(data, settings(), read, tmp_path / "killed", on_step=killed)
    assert (tmp_path / "killed" / STATE).is_file()
    told: list[int] = []
    resumed = train(data, settings(), read, tmp_path / "killed", on_step=lambda done, steps, loss: told.append(done))
    assert told == [4, 5, 6]
    assert resumed.losses == whole.losses
    assert_equal(weights(resumed), weights(whole))
    other = train(data, settings(seed=1, steps=1), read, tmp_path / "other")
    assert other.losses != whole.losses[:1]


def test_callers_random_numbers_stay_as_they_are(data: TrainingSet, settings: Any, read: Any, tmp_path: Path) -> None:
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    train(data, settings(steps=1), read, tmp_path)
    torch.testing.assert_close(torch.rand(3), wanted)


def test_state_of_another_training_and_damaged_state(
    data: TrainingSet, settings: Any, read: Any, tmp_path: Path
) -> None:
    train(data, settings(steps=1), read, tmp_path)
    with pytest.raises(UserError, match="unfinished training of other labels or settings"):
        train(data, settings(steps=2), read, tmp_path)
    with pytest.raises(UserError, match="unfinished training of other labels or settings"):
        train(data._replace(images=data.images[1:]), settings(steps=1), read, tmp_path)
    (tmp_path / STATE).write_bytes(b"no state")
    with pytest.raises(UserError, match="is no state of a training"):
        train(data, settings(steps=1), read, tmp_path)


def test_from_a_saved_model_with_other_classes(data: TrainingSet, settings: Any, read: Any, tmp_path: Path) -> None:
    write_model(train(data, settings(steps=1), read, tmp_path / "first"), tmp_path / "first")
    others = data._replace(classes={**data.classes, "wolf": ("wolf",)})
    chosen = settings(size=None, start=str(tmp_path / "first"), steps=1, image_size=128)
    trained = train(others, chosen, read, tmp_path / "second")
    assert trained.model.config.id2label == {0: "cat", 1: "dog", 2: "wolf"}
    write_model(trained, tmp_path / "second")
    detector = load_detector(DetectorConfig(backend="trained", checkpoint=str(tmp_path / "second")), CPU)
    detector.check([Phrase("wolf", 0)])
    with pytest.raises(CheckpointError, match=r"--start: the trained backend finds no config\.json"):
        train(data, settings(size=None, start=str(tmp_path / "none")), read, tmp_path / "third")


def test_unreadable_images_are_left_out(data: TrainingSet, settings: Any, read: Any, tmp_path: Path) -> None:
    def some(images: Sequence[TrainingImage]) -> Iterator[Pixels | None]:
        for image, pixels in zip(images, read(images), strict=True):
            yield pixels if image.key in ("1.png", "2.png") else None

    assert 1 <= len(train(data, settings(steps=4), some, tmp_path / "some").losses) <= 4
    with pytest.raises(VouchError, match="none of the images to train on can be read"):
        train(data, settings(), lambda images: iter([None] * len(images)), tmp_path / "none")


def test_time_and_epochs_decide(data: TrainingSet, settings: Any, read: Any, tmp_path: Path) -> None:
    assert train(data, settings(steps=None, epochs=1.5), read, tmp_path / "epochs").steps == 3
    assert train(data, settings(steps=None, minutes=1e-6), read, tmp_path / "minutes").steps == 1


def test_too_little_memory_is_one_line(
    data: TrainingSet, settings: Any, read: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("torch.nn.utils.clip_grad_norm_", full)
    with pytest.raises(UserError, match="too little memory for batches of 4 images of 96 pixels; use a smaller"):
        train(data, settings(), read, tmp_path)
