"""The model sets that are compared: the bundled one, and full-size ones with random weights made on the spot."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from schemas.campaign import DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig

if TYPE_CHECKING:
    from torch import nn

SEED: Final = 6


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
        Settings that both sides load. Presence is off, since the loop has nothing of the kind.
    """
    if chosen.detector is None or chosen.segmenter is None or chosen.scorer is None:
        return ModelsConfig(scorer=ScorerConfig(presence=False))
    from tasks.models.checkpoints import STARTER as BUNDLED
    from tasks.models.groundingdino.build import build_groundingdino, read_architecture
    from tasks.models.open_clip.build import build_model, find_architecture
    from tasks.models.sam.build import build_sam

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
