"""Backends by name, imported only when asked for."""

from importlib import import_module
from typing import Any, Final

from schemas.campaign import DetectorConfig, ScorerConfig, SegmenterConfig
from schemas.errors import UserError
from tasks.models.protocols import Detector, Scorer, Segmenter
from tasks.models.runtime import Runtime

DETECTORS: Final = {
    "groundingdino": "tasks.models.groundingdino.backend:load",
    "transformers": "tasks.models.transformers_zero_shot:load",
    "fake": "tasks.models.fake.detector:load",
}
SEGMENTERS: Final = {
    "sam": "tasks.models.sam.backend:load",
    "fake": "tasks.models.fake.segmenter:load",
}
SCORERS: Final = {
    "open_clip": "tasks.models.open_clip:load",
    "fake": "tasks.models.fake.scorer:load",
}


def load_detector(config: DetectorConfig, runtime: Runtime) -> Detector:
    """Load the detector backend named by the config.

    Raises:
        UserError: The backend is unknown, or its checkpoint cannot be used (CheckpointError).
    """
    loaded: Detector = _factory("detector", DETECTORS, config.backend)(config, runtime)
    return loaded


def load_segmenter(config: SegmenterConfig, runtime: Runtime) -> Segmenter:
    """Load the segmenter backend named by the config; raises as `load_detector`."""
    loaded: Segmenter = _factory("segmenter", SEGMENTERS, config.backend)(config, runtime)
    return loaded


def load_scorer(config: ScorerConfig, runtime: Runtime) -> Scorer:
    """Load the scorer backend named by the config; raises as `load_detector`."""
    loaded: Scorer = _factory("scorer", SCORERS, config.backend)(config, runtime)
    return loaded


def _factory(kind: str, table: dict[str, str], name: str) -> Any:  # noqa: ANN401 - one type a kind
    if name not in table:
        raise UserError(f"models.{kind}.backend: unknown backend {name!r}; use one of {', '.join(sorted(table))}")
    module, attribute = table[name].split(":")
    return getattr(import_module(module), attribute)
