"""Tries the models of a campaign before the work begins."""

import time
from collections.abc import Callable, Iterator

from pydantic import Field

from schemas.campaign import Campaign, DetectorConfig, ScorerConfig, SegmenterConfig, Strict
from schemas.errors import VouchError
from tasks.models.protocols import Phrase
from tasks.models.registry import load_detector, load_scorer, load_segmenter
from tasks.models.runtime import Runtime, choose_runtime


class ModelReport(Strict):
    """What trying a model showed."""

    kind: str = Field(description="detector, segmenter or scorer.")
    backend: str = Field(description="Its backend.")
    checkpoint: str = Field(description="Its checkpoint, as the campaign names it.")
    device: str = Field(description="Device and number format.")
    fingerprint: str | None = Field(description="What results of this model depend on; None when it cannot be used.")
    seconds: float = Field(description="What finding, verifying and loading it took.")
    problem: str | None = Field(description="Why it cannot be used.")


def check_models(campaign: Campaign) -> Iterator[ModelReport]:
    """Find, verify and load each model, and try the prompts on the detector; one report a model.

    Raises:
        UserError: The device is unknown or absent.
    """
    runtime = choose_runtime(campaign.models)
    models = campaign.models

    def detector() -> str:
        loaded = load_detector(models.detector, runtime)
        loaded.check(phrases_of(campaign))
        return loaded.fingerprint

    yield _try("detector", models.detector, runtime, detector)
    yield _try("segmenter", models.segmenter, runtime, lambda: load_segmenter(models.segmenter, runtime).fingerprint)
    yield _try("scorer", models.scorer, runtime, lambda: load_scorer(models.scorer, runtime).fingerprint)


def phrases_of(campaign: Campaign) -> tuple[Phrase, ...]:
    """All texts of the campaign, class by class, a class's prompts before its negatives."""
    return tuple(
        Phrase(text, index, negative)
        for index, entry in enumerate(campaign.classes)
        for negative, texts in ((False, entry.texts), (True, entry.negatives))
        for text in texts
    )


def _try(
    kind: str, config: DetectorConfig | SegmenterConfig | ScorerConfig, runtime: Runtime, load: Callable[[], str]
) -> ModelReport:
    start = time.perf_counter()
    key, problem = None, None
    try:
        key = load()
    except VouchError as error:
        problem = str(error)
    return ModelReport(
        kind=kind, backend=config.backend, checkpoint=config.checkpoint,
        device=f"{runtime.device} {runtime.precision}", fingerprint=key,
        seconds=round(time.perf_counter() - start, 3), problem=problem,
    )  # fmt: skip
