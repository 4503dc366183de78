"""A scorer without a model: texts and crops land in fixed places, for tests and measurements of everything else."""

import hashlib
from collections.abc import Sequence
from typing import Final

import numpy as np

from schemas.campaign import ScorerConfig
from tasks.fingerprint import fingerprint
from tasks.models.protocols import Floats, Pixels, Scorer
from tasks.models.runtime import Runtime

_WIDTH: Final = 32
_GRID: Final = 4
_FEATURES: Final = _GRID * _GRID * 3 + 1


def load(config: ScorerConfig, runtime: Runtime) -> Scorer:  # noqa: ARG001 - every backend is loaded alike
    """Make the scorer; nothing is read and the config is not looked at."""
    return FakeScorer()


class FakeScorer:
    """Places a text by its hash and a crop by its colours: the same input gives the same scores everywhere."""

    fingerprint = fingerprint("fake scorer", 1)
    logit_scale = 10.0

    def __init__(self) -> None:
        """Make the projection of colours."""
        self._projection = _noise("colours", _FEATURES * _WIDTH).reshape(_FEATURES, _WIDTH)

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """(T, 32) of unit length, from SHAKE-256 of the text."""
        return _unit(np.array([_noise(text, _WIDTH) for text in texts], np.float32).reshape(-1, _WIDTH))

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """(N, 32) of unit length, from the colours at 4 x 4 points of each crop; near colours, near places."""
        features = np.ones((len(crops), _FEATURES), np.float32)
        for row, crop in zip(features, crops, strict=True):
            height, width = crop.shape[:2]
            down = np.arange(_GRID) * height // _GRID + height // (2 * _GRID)
            across = np.arange(_GRID) * width // _GRID + width // (2 * _GRID)
            row[:-1] = crop[down[:, None], across].reshape(-1) / 127.5 - 1.0
        # Not a product of matrices, whose last bits depend on the processor and on how many crops there are.
        return _unit((features[:, :, None] * self._projection).sum(axis=1))


def _noise(seed: str, count: int) -> Floats:
    """`count` numbers in [-1, 1], the same for one seed on every machine."""
    data = hashlib.shake_256(seed.encode()).digest(count)
    return np.frombuffer(data, np.uint8).astype(np.float32) / 127.5 - 1.0


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
