"""Lists, downloads and checks the checkpoints that a campaign may name."""

import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from pydantic import Field

from vouch_labels.schemas.campaign import Campaign, Checkpoint, DetectorConfig, ScorerConfig, SegmenterConfig, Strict
from vouch_labels.schemas.errors import CheckpointError, VouchError
from vouch_labels.tasks.models.checkpoints import OFFICIAL, Kind, names_of, resolve, tokenizer_folder
from vouch_labels.tasks.models.registry import Phrase, load_detector, load_scorer, load_segmenter
from vouch_labels.tasks.models.runtime import Runtime, choose_runtime
from vouch_labels.tasks.models.tokens import check_apart

logger = logging.getLogger(__name__)

KINDS: Final[tuple[Kind, ...]] = ("detector", "segmenter", "scorer")


class CatalogEntry(Strict):
    """One checkpoint of the catalog."""

    kind: Kind = Field(description="What it is for.")
    name: str = Field(description="What `checkpoint` says to use it.")
    architecture: str = Field(description="Its built-in architecture, or the file that describes it.")
    bytes: int | None = Field(description="Size of the file; None for a bundled one that is missing.")
    sha256: str | None = Field(description="SHA-256 that the file must have.")
    path: Path | None = Field(description="The verified file on this machine; None: not here.")
    problem: str | None = Field(description="Why the file that is here cannot be used.")


def catalog() -> list[CatalogEntry]:
    """Look up every bundled and official checkpoint on this machine; files found are verified, none is fetched."""
    return [_look_up(kind, name) for kind in KINDS for name in names_of(kind)]


def pull(name: str) -> Path:
    """Fetch an official checkpoint, as `catalog` names it, unless it is here, and verify it.

    Raises:
        CheckpointError: There is no such name, the file cannot be fetched, or is not the pinned one.
        VouchError: The cache cannot be written.
    """
    if name not in OFFICIAL:
        raise CheckpointError(f"{name} is not in the catalog; the names are {', '.join(OFFICIAL)}")
    weights = resolve(Checkpoint(checkpoint=name), OFFICIAL[name].kind)
    if OFFICIAL[name].kind == "detector":
        # A detector is of no use without its tokenizer, and the machine may be off the network later.
        tokenizer_folder(None, weights)
    return weights.path


def _look_up(kind: Kind, name: str) -> CatalogEntry:
    official = OFFICIAL.get(name)
    path, sha256, architecture = None, None, "bundled"
    problem: str | None = None
    try:
        weights = resolve(Checkpoint(checkpoint=name), kind, download=False)
        path, sha256 = weights.path, weights.sha256
    except (CheckpointError, VouchError) as error:
        # An official file that is not here is no problem.
        problem = None if "not on this machine" in str(error) else str(error)
    if official is not None:
        architecture, sha256 = official.architecture, official.sha256
    size = official.size if official is not None else path.stat().st_size if path is not None else None
    return CatalogEntry(
        kind=kind, name=name, architecture=architecture, bytes=size, sha256=sha256, path=path, problem=problem
    )


class ModelReport(Strict):
    """What trying a model showed."""

    kind: str = Field(description="detector, segmenter or scorer.")
    backend: str = Field(description="Its backend.")
    checkpoint: str = Field(description="Its checkpoint, as the campaign names it.")
    device: str = Field(description="Device and number format.")
    fingerprint: str | None = Field(description="What results of this model depend on; None when it cannot be used.")
    seconds: float = Field(description="What finding, verifying and loading it took.")
    problem: str | None = Field(description="Why it cannot be used.")
    bundled: bool = Field(description="Whether it is a bundled model, which knows drawn things and nothing else.")


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
        check_apart(campaign.classes, loaded.tokens)
        return loaded.fingerprint

    loads: tuple[tuple[Kind, DetectorConfig | SegmenterConfig | ScorerConfig, Callable[[], str]], ...] = (
        ("detector", models.detector, detector),
        ("segmenter", models.segmenter, lambda: load_segmenter(models.segmenter, runtime).fingerprint),
        ("scorer", models.scorer, lambda: load_scorer(models.scorer, runtime).fingerprint),
    )
    for kind, config, load in loads:
        yield _try(kind, config, runtime, load, bundled=kind in models.bundled)


def phrases_of(campaign: Campaign) -> tuple[Phrase, ...]:
    """All texts of the campaign, class by class, a class's prompts before its negatives."""
    return tuple(
        Phrase(text, index, negative)
        for index, entry in enumerate(campaign.classes)
        for negative, texts in ((False, entry.texts), (True, entry.negatives))
        for text in texts
    )


def _try(
    kind: Kind,
    config: DetectorConfig | SegmenterConfig | ScorerConfig,
    runtime: Runtime,
    load: Callable[[], str],
    *,
    bundled: bool,
) -> ModelReport:
    start = time.perf_counter()
    key, problem = None, None
    try:
        key = load()
    except VouchError as error:
        problem = str(error)
    except Exception as error:  # of a package: the other models are checked all the same
        logger.warning("%s %s cannot be loaded", kind, config.backend, exc_info=True)
        problem = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
    return ModelReport(
        kind=kind, backend=config.backend, checkpoint=config.checkpoint,
        device=f"{runtime.device} {runtime.precision}", fingerprint=key,
        seconds=round(time.perf_counter() - start, 3), problem=problem, bundled=bundled,
    )  # fmt: skip
