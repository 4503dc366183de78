"""The steps with their models, loaded once a process, and the keys of what each depends on."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from vouch_labels.schemas.campaign import (
    Campaign,
    ClassConfig,
    DetectorConfig,
    ModelsConfig,
    ScorerConfig,
    SegmenterConfig,
    Tiles,
)
from vouch_labels.schemas.errors import VouchError
from vouch_labels.schemas.policy import Policy
from vouch_labels.tasks.decode import VERSION as DECODING
from vouch_labels.tasks.detect import Detect
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.checkpoints import Kind, resolve, sha256_of, tokenizer_folder
from vouch_labels.tasks.models.registry import load_detector, load_scorer, load_segmenter
from vouch_labels.tasks.models.runtime import Runtime, choose_runtime, light_runtime
from vouch_labels.tasks.presence import Presence
from vouch_labels.tasks.score import Score
from vouch_labels.tasks.segment import Segment

_PACKAGES: Final = {
    "groundingdino": "groundingdino-py",
    "open_clip": "open_clip_torch",
    "segment_anything": "segment-anything",
    "tokenizers": "tokenizers",
    "transformers": "transformers",
}
"""Modules whose defaults are part of a model's fingerprint, and the packages that they come in."""

_FROM_FILES: Final = ("groundingdino", "sam", "open_clip", "transformers", "trained")
"""Backends whose fingerprints are made of files that `_files` names."""

ROUTING = 2
"""Raised whenever the router could decide differently on the same signals."""


@dataclass(frozen=True)
class Pipeline:
    """All steps that look at pixels, ready to run."""

    detect: Detect
    segment: Segment
    score: Score
    presence: Presence
    acquire_key: str = ""
    """Key of all that decoding depends on."""
    stages_on: str | None = None
    """The CUDA device on which detecting, segmenting and scoring go on side by side; None: one after the other, since
    each of them fills a CPU."""
    imported: str = ""
    """Hash of the table of imported labels that are taken beside what the detector finds; empty: none."""

    def stages(self, policy: Policy) -> dict[str, str]:
        """Stage name -> key of all that its table depends on, beside the images; a stage's key covers its inputs'."""
        detect = fingerprint(self.acquire_key, self.detect.key, *([self.imported] if self.imported else []))
        segment = fingerprint(detect, self.segment.key)
        score = fingerprint(detect, self.score.key)
        presence = fingerprint(detect, self.presence.key)
        return {
            "images": fingerprint(segment, score, presence),
            "detect": detect,
            "segment": segment,
            "score": score,
            "presence": presence,
            "route": route_key(segment, score, policy),
        }

    @property
    def found_keys(self) -> list[str]:
        """Keys of what the detector finds for each of `detect.asks`."""
        return [fingerprint(self.acquire_key, ask.key) for ask in self.detect.asks]

    @property
    def masks_key(self) -> str:
        """Key of what masks depend on beside their boxes."""
        return fingerprint(self.acquire_key, self.segment.key)

    @property
    def inputs(self) -> dict[str, str]:
        """What labels depend on, under a name that a user knows -> its fingerprint.

        Together they determine the keys of all stages whose rows a label's signals come from: where one of those
        changes, so does an input.
        """
        return {
            "image decoding": self.acquire_key,
            **({"imported labels": self.imported} if self.imported else {}),
            **self.detect.inputs,
            **self.segment.inputs,
            **self.score.inputs,
        }


def load_pipeline(campaign: Campaign, imported: str = "") -> Pipeline:
    """Load the campaign's models, or give those that this process has loaded already; imported as in `Pipeline`.

    Models are loaded again only when they or the classes are others: not for another source, and not when pipeline
    stages are switched off.

    Raises:
        UserError: A backend, checkpoint, device or prompt cannot be used.
    """
    models, source = campaign.models, campaign.source
    off = tuple(name for name in models.switched_off if name != "overlap")
    loaded = _load(models.model_copy(update={"switched_off": off}), campaign.classes, campaign.run.tiles)
    decoding = fingerprint(DECODING, [source.max_image_mb, source.max_pixels])
    return replace(loaded, acquire_key=decoding, stages_on=stages_for(choose_runtime(models)), imported=imported)


@lru_cache(maxsize=1)
def _load(models: ModelsConfig, classes: tuple[ClassConfig, ...], tiles: Tiles | None) -> Pipeline:
    runtime = choose_runtime(models)
    # Prompts are checked with the detector alone, before the larger files are read.
    detect = Detect(load_detector(models.detector, runtime), classes, models.detector, tiles)
    segment = Segment(load_segmenter(models.segmenter, runtime), tiles)
    score = Score(load_scorer(models.scorer, runtime), classes, models.scorer)
    score.prepare()
    return Pipeline(detect, segment, score, Presence(score, classes, models.scorer.presence))


def recipe_of(campaign: Campaign, device: str = "", precision: str = "", imported: str = "") -> str:
    """Name all that the keys of a campaign's pipeline are made of, without loading a model: equal recipes, equal keys.

    Names of classes are no part of it where labels carry others. Empty where only loading tells: a checkpoint of a hub
    or bucket may have changed there. With a device (cpu or cuda) and a precision: of a process that computes so.
    """
    models, source = campaign.models, campaign.source
    files = [_files(kind, getattr(models, kind)) for kind in ("detector", "segmenter", "scorer")]
    if None in files:
        return ""
    if not device:
        runtime = light_runtime(models)
        device, precision = runtime.device.partition(":")[0], runtime.precision
    classes = [[one.key, one.texts, one.negatives, one.caption, one.min_score] for one in campaign.classes]
    versions = [version(package) if find_spec(module) else "" for module, package in _PACKAGES.items()]
    return fingerprint(
        *(code_digest(), versions, models.model_dump(mode="json"), device, precision),
        *(files, classes, source.max_image_mb, source.max_pixels),
        *([campaign.run.tiles.model_dump()] if campaign.run.tiles else []),
        *([imported] if imported else []),
    )


def _files(kind: Kind, config: DetectorConfig | SegmenterConfig | ScorerConfig) -> list[str] | None:
    """SHA-256 of the files that a model's fingerprint is made of; None where they cannot be told without loading."""
    if config.backend in ("fake", "none"):
        return []
    path = Path(config.checkpoint).expanduser()
    if "://" in config.checkpoint or config.backend not in _FROM_FILES:
        return None
    if config.backend == "open_clip" and config.checkpoint.count("/") == 1 and not path.exists():
        return []  # open_clip's model/tag stands for a published file, which stays as it is
    try:
        if config.backend in ("transformers", "trained"):
            files = list(path.iterdir())
        else:
            weights = resolve(config, kind, download=False)
            files = [weights.path, *([weights.architecture] if isinstance(weights.architecture, Path) else [])]
            if isinstance(config, DetectorConfig):
                files += tokenizer_folder(config.text_encoder, weights).iterdir()
        return [sha256_of(file) for file in sorted(files) if file.is_file()]
    except (VouchError, OSError):
        return None  # a run says what is wrong when it loads them


@cache
def code_digest() -> str:
    """Digest of the code that makes keys: whoever changes it does not have to think of recipes."""
    files = sorted(Path(__file__).parents[1].rglob("*.py"))
    return fingerprint([hashlib.sha256(file.read_bytes()).hexdigest() for file in files])


def stages_for(runtime: Runtime) -> str | None:
    """The device on which steps go on side by side; None where they do not."""
    return runtime.device if runtime.device.startswith("cuda") and runtime.engine.has("overlap") else None


def route_key(segment: str, score: str, policy: Policy) -> str:
    """Key of what decisions depend on: the keys of the stages before them, and the policy."""
    return fingerprint(segment, score, ROUTING, policy.model_dump(mode="json"))


def rerouted(stages: Mapping[str, str], policy: Policy) -> dict[str, str]:
    """Give the stage keys of the same labels under another policy; no model is needed."""
    return {**stages, "route": route_key(stages["segment"], stages["score"], policy)}


def stages_fingerprint(stages: dict[str, str]) -> str:
    """Name of a set of stage keys, as in markers."""
    return fingerprint(stages)
