"""What every candidate of a comparison is given: models, pictures, classes; and the function that does its work.

Model sets are the bundled one, and full-size ones with random weights made on the spot.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic import BaseModel

from benchmarks.campaigns import copy_samples, sample_classes
from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig

if TYPE_CHECKING:
    from torch import nn

LARGE_PICTURE: Final = (1333, 800)
"""Of the pictures for full-size models, as large as the detector takes them."""
CLASSES: Final = 10
LOOP_IMAGES: Final = 16
"""Most images of a candidate that takes one after the other, whose speed does not depend on how many they are."""

SEED: Final = 6


class Setting(BaseModel):
    """The same for all candidates; small, so that it can travel to a process of its own."""

    name: str
    """Of the model set."""
    config: ModelsConfig
    folder: Path
    """Of the pictures."""
    images: int
    """Pictures that are labelled from memory; there may be more files."""
    classes: list[str]

    @property
    def full_size(self) -> bool:
        """Whether the models are full-size ones."""
        return self.name != STARTER.name

    def files(self) -> list[Path]:
        """All pictures, in order."""
        return sorted(self.folder.rglob("*.jpg"))


def prepare(name: str, folder: Path, images: int, files: int) -> Setting:
    """Make models and pictures.

    Args:
        name: Of SETS.
        folder: Gets both.
        images: Pictures that are labelled from memory.
        files: Pictures that are labelled from files, at least as many.
    """
    setting = Setting(
        name=name,
        config=write_models(SETS[name], folder),
        folder=folder / "images",
        images=images,
        classes=sample_classes()[:CLASSES],
    )
    copies = copy_samples(setting.folder, files)
    if setting.full_size:
        _enlarge(copies)
    return setting


def _enlarge(files: list[Path]) -> None:
    from PIL import Image

    for file in files:
        with Image.open(file) as opened:
            opened.convert("RGB").resize(LARGE_PICTURE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)


@dataclass(frozen=True)
class ModelSet:
    """Names of architectures; None each for the bundled models."""

    name: str
    detector: str | None = None
    segmenter: str | None = None
    scorer: str | None = None


STARTER: Final = ModelSet("starter")
FULL_SIZE: Final = (
    ModelSet("Swin-T + ViT-B + B/32", "swin_t", "vit_b", "ViT-B-32"),
    ModelSet("Swin-T + ViT-H + L/14", "swin_t", "vit_h", "ViT-L-14"),
)
SETS: Final = {each.name: each for each in (STARTER, *FULL_SIZE)}


def write_models(chosen: ModelSet, folder: Path) -> ModelsConfig:
    """Make the checkpoints of a set, where it is not the bundled one.

    Args:
        chosen: Its weights are random, by a fixed seed: speed does not depend on them.
        folder: Gets up to 5 GB.

    Returns:
        Settings that all candidates load. Presence is off, since the loop has nothing of the kind.
    """
    if chosen.detector is None or chosen.segmenter is None or chosen.scorer is None:
        return ModelsConfig(scorer=ScorerConfig(presence=False))
    from vouch_labels.tasks.models.checkpoints import STARTER as BUNDLED
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture
    from vouch_labels.tasks.models.open_clip.build import build_model, find_architecture
    from vouch_labels.tasks.models.sam.build import build_sam

    # Its vocabulary is smaller than the model's: each text has about as many tokens all the same.
    tokenizer = BUNDLED / "tokenizer"
    detector, segmenter, scorer = chosen.detector, chosen.segmenter, chosen.scorer
    return ModelsConfig(
        detector=DetectorConfig(
            checkpoint=_saved(
                folder / "detector.pt", lambda: build_groundingdino(read_architecture(detector).model_dump(), tokenizer)
            ),
            architecture=detector,
            text_encoder=str(tokenizer),
        ),
        segmenter=SegmenterConfig(
            checkpoint=_saved(folder / "segmenter.pt", lambda: build_sam(segmenter)), architecture=segmenter
        ),
        scorer=ScorerConfig(
            checkpoint=_saved(folder / "scorer.pt", lambda: build_model(find_architecture(scorer))),
            architecture=scorer,
            presence=False,
        ),
    )


def _saved(file: Path, build: Callable[[], "nn.Module | Any"]) -> str:
    import torch

    torch.manual_seed(SEED)
    torch.save(build().state_dict(), file)
    return str(file)


class Candidate(NamedTuple):
    """A candidate to do some work on images."""

    images: int
    mode: str
    """fp32, TF32 or bf16: what its share of the device's peak is taken of."""
    work: Callable[[], object]
