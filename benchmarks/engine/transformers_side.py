"""transformers' own pipeline for zero-shot detection, with a model of the same size and random weights."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.engine.model_sets import SEED

if TYPE_CHECKING:
    from PIL import Image
    from transformers import ZeroShotObjectDetectionPipeline

SWIN_T: Final = {"embed_dim": 96, "depths": [2, 2, 6, 2], "num_heads": [3, 6, 12, 24], "window_size": 7}


def pipeline_of(
    tokenizer: Path, device: str, sizes: Mapping[str, object] | None = None, shortest: int = 800
) -> "ZeroShotObjectDetectionPipeline":
    """Build the pipeline offline.

    Args:
        tokenizer: Folder of a BERT tokenizer.
        device: cpu or cuda:N.
        sizes: Fields of transformers' GroundingDinoConfig; by default those of GroundingDINO with Swin-T.
        shortest: Pixels of the shorter side that images are resized to.
    """
    import torch
    from transformers import (
        AutoTokenizer,
        GroundingDinoConfig,
        GroundingDinoForObjectDetection,
        GroundingDinoImageProcessor,
        SwinConfig,
        pipeline,
    )

    torch.manual_seed(SEED)
    swin = SwinConfig(image_size=224, out_indices=[2, 3, 4], **SWIN_T)
    model: Any = GroundingDinoForObjectDetection(GroundingDinoConfig(**{"backbone_config": swin, **(sizes or {})}))
    return pipeline(
        "zero-shot-object-detection",
        model=model.eval(),
        image_processor=GroundingDinoImageProcessor(
            size={"shortest_edge": shortest, "longest_edge": shortest * 5 // 3}
        ),
        tokenizer=AutoTokenizer.from_pretrained(str(tokenizer)),
        device=device,
    )


def detect(
    pipe: "ZeroShotObjectDetectionPipeline", images: Sequence["Image.Image"], classes: Sequence[str]
) -> Callable[[], None]:
    """Detection of all images, as the pipeline is called: it runs the model once for each class."""

    def run() -> None:
        for image in images:
            pipe(image, candidate_labels=list(classes), threshold=0.3)

    return run
