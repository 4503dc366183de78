"""Drawn images with labels, and settings of trainings that take seconds."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from vouch_labels.schemas.training import TrainSettings
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.train.labels import TrainingImage, TrainingSet

CLASSES = {"cat": ("cat", "kitten"), "dog": ("dog",)}


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Other tests run beside, and threads that wait for each other take far longer."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def settings() -> Any:
    def make(**changes: Any) -> TrainSettings:
        small = {"size": "tiny", "steps": 6, "batch": 4, "image_size": 96, "learning_rate": 2e-3}
        return TrainSettings.model_validate(small | changes)

    return make


@pytest.fixture
def data() -> TrainingSet:
    """Ten images of 96 x 64 pixels with a bright cat or dog, every third with a region in doubt."""
    images = []
    for number in range(10):
        left, top = 5 + 4 * number, 10 + 2 * number
        doubt = [[60, 5, 90, 30]] if number % 3 == 0 else []
        images.append(
            TrainingImage(
                f"{number}.png", None, np.array([[left, top, left + 20, top + 16]], np.float32),
                np.array([number % 2]), np.array(doubt, np.float32).reshape(-1, 4), 96, 64,
            )
        )  # fmt: skip
    return TrainingSet(CLASSES, images, images[:2], run="main", policy="p", guarantee="nothing")


@pytest.fixture
def read() -> Any:
    def pixels(images: Sequence[TrainingImage]) -> Iterator[Pixels | None]:
        for image in images:
            found = np.full((image.height, image.width, 3), 30, np.uint8)
            for (x0, y0, x1, y1), place in zip(image.boxes.astype(int), image.classes, strict=True):
                found[y0:y1, x0:x1] = [(250, 60, 60), (60, 60, 250)][place]
            yield found

    return pixels
