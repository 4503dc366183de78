"""The loop that one writes with the packages, one image and one crop at a time, with the boxes given."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.engine.fixed_boxes import fixed_boxes
from benchmarks.obvious_loop import TEXT_THRESHOLD, embed_texts, score_box, segment_boxes
from benchmarks.obvious_models import ObviousModels
from schemas.campaign import DetectorConfig

if TYPE_CHECKING:
    import torch
    from PIL import Image

MODES: Final = ("fp32", "TF32", "bf16 autocast")
"""How the loop computes; the last two on CUDA alone."""
_TF32: Final = {"fp32": (False, False), "TF32": (True, True)}
_AS_TORCH_HAS_IT: Final = (False, True)
"""Whether products of matrices and convolutions may be computed in TF32."""


@contextmanager
def computing(mode: str, device: str) -> Iterator[None]:
    """Let torch compute in a mode while the block runs.

    Args:
        mode: One of MODES; or bf16, for what has an autocast of its own. In both kinds of bf16, what stays in fp32 is
            as torch has it.
        device: cpu or cuda:N.
    """
    import torch

    products, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = products.allow_tf32, convolutions.allow_tf32
    products.allow_tf32, convolutions.allow_tf32 = _TF32.get(mode, _AS_TORCH_HAS_IT)
    try:
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=mode == "bf16 autocast"):
            yield
    finally:
        products.allow_tf32, convolutions.allow_tf32 = before


def run_loop(
    images: Sequence["Image.Image"], classes: Sequence[str], models: ObviousModels, contexts: Sequence[float]
) -> list[dict[str, Any]]:
    """Detect, then mask and score the ten fixed boxes of each image.

    Args:
        images: RGB.
        classes: Joined to one caption.
        models: The packages' models.
        contexts: Sizes of the crops of each box, as multiples of the box; one call of CLIP each.

    Returns:
        A COCO annotation a box, without ids.
    """
    import numpy as np
    import torch
    from groundingdino.util.inference import predict

    config = DetectorConfig()
    caption = ". ".join(classes)
    texts = embed_texts(classes, models)
    annotations: list[dict[str, Any]] = []
    for image in images:
        inputs, _ = models.transform(image, None)
        predict(models.detector, inputs, caption, config.min_score, TEXT_THRESHOLD, models.device)
        boxes = torch.from_numpy(fixed_boxes(image.width, image.height))
        masks = segment_boxes(np.asarray(image), boxes, models)
        for index, (box, mask) in enumerate(zip(boxes, masks, strict=True)):
            probabilities = [score_box(image, _wider(box, context), texts, models) for context in contexts]
            annotations.append(
                {
                    "category_id": index % len(classes),
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "segmentation": mask,
                    "clip": [each[index % len(classes)] for each in probabilities],
                }
            )
    return annotations


def run_loop_on_files(
    files: Sequence[Path], classes: Sequence[str], models: ObviousModels, contexts: Sequence[float], out: Path
) -> None:
    """The same from files to a JSON file, opening one image after the other."""
    from PIL import Image

    annotations = []
    for file in files:
        with Image.open(file) as opened:
            annotations += run_loop([opened.convert("RGB")], classes, models, contexts)
    out.write_text(json.dumps(annotations), encoding="utf-8")


def _wider(box: "torch.Tensor", context: float) -> "torch.Tensor":
    centre, half = (box[:2] + box[2:]) / 2, (box[2:] - box[:2]) / 2 * context
    import torch

    return torch.cat([centre - half, centre + half])
