"""The plain loop over the three packages: one image at a time, one crop at a time, in the packages' own models."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vouch_labels.schemas.campaign import DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from segment_anything import SamPredictor

    from vouch_labels.tasks.models.registry import Pixels

TEXT_THRESHOLD: Final = 0.25
"""groundingdino's own default."""

MEAN: Final = [0.485, 0.456, 0.406]
STD: Final = [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class BaselineModels:
    """GroundingDINO, SAM and CLIP in fp32."""

    device: str
    detector: Any
    """groundingdino's model; no types."""
    transform: Callable[..., Any]
    """groundingdino's own image transform, to the size that the weights were trained for."""
    segmenter: "SamPredictor"
    scorer: Any
    """open_clip's model."""
    preprocess: Callable[..., "torch.Tensor"]
    """open_clip's evaluation transform: PIL image -> (3, H, W)."""
    tokenize: Callable[[list[str]], "torch.Tensor"]
    """open_clip's tokenizer: texts -> (T, length)."""


def run_baseline(
    files: Sequence[Path], classes: Sequence[str], models: BaselineModels, config: DetectorConfig, out: Path
) -> int:
    """Label images and write them as COCO.

    Args:
        files: The images.
        classes: Joined to one caption.
        models: The packages' models.
        config: Its min_score is groundingdino's box_threshold; of boxes that overlap by its nms_iou the best stays.
        out: Gets the JSON.

    Returns:
        The number of labels.
    """
    import numpy as np
    from groundingdino.util.inference import predict
    from PIL import Image
    from torchvision.ops import nms

    caption = ". ".join(classes)
    texts = embed_texts(classes, models)
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, file in enumerate(files, 1):
        image = Image.open(file).convert("RGB")
        inputs, _ = models.transform(image, None)
        boxes, scores, phrases = predict(
            models.detector, inputs, caption, config.min_score, TEXT_THRESHOLD, models.device
        )
        images.append({"id": number, "file_name": str(file), "width": image.width, "height": image.height})
        if not len(boxes):
            continue
        xyxy = _to_pixels(boxes, image.width, image.height)
        kept = nms(xyxy, scores, config.nms_iou).tolist()
        masks = segment_boxes(np.asarray(image), xyxy[kept], models)
        for place, mask in zip(kept, masks, strict=True):
            box, phrase = xyxy[place], phrases[place]
            class_index = classes.index(phrase) if phrase in classes else None
            probabilities = score_box(image, box, texts, models)
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": class_index,
                    "bbox": [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()],
                    "segmentation": mask,
                    "iscrowd": 0,
                    "score": scores[place].item(),
                    "clip": None if class_index is None else probabilities[class_index],
                }
            )
    categories = [{"id": number, "name": name} for number, name in enumerate(classes)]
    out.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories}), encoding="utf-8"
    )
    return len(annotations)


def embed_texts(classes: Sequence[str], models: BaselineModels) -> "torch.Tensor":
    """(C, D) of unit length, one prompt a class."""
    import torch

    with torch.no_grad():
        features: torch.Tensor = models.scorer.encode_text(
            models.tokenize([f"a photo of a {name}." for name in classes]).to(models.device), normalize=True
        )
    return features


def _to_pixels(boxes: "torch.Tensor", width: int, height: int) -> "torch.Tensor":
    """(N, 4) of groundingdino, cxcywh in [0, 1], as xyxy in pixels."""
    import torch
    from torchvision.ops import box_convert

    xyxy: torch.Tensor = box_convert(boxes * torch.tensor([width, height] * 2), in_fmt="cxcywh", out_fmt="xyxy")
    return xyxy


def segment_boxes(pixels: "Pixels", xyxy: "torch.Tensor", models: BaselineModels) -> list[dict[str, Any]]:
    """Compressed COCO RLE of each box's mask."""
    import numpy as np
    from pycocotools import mask as mask_utils

    models.segmenter.set_image(pixels)
    prompts = models.segmenter.transform.apply_boxes_torch(xyxy, pixels.shape[:2]).to(models.device)
    masks, _, _ = models.segmenter.predict_torch(None, None, boxes=prompts, multimask_output=False)
    encoded = [mask_utils.encode(np.asfortranarray(mask)) for mask in masks[:, 0].cpu().numpy().astype(np.uint8)]
    return [{"size": rle["size"], "counts": rle["counts"].decode()} for rle in encoded]


def score_box(image: "Image.Image", box: "torch.Tensor", texts: "torch.Tensor", models: BaselineModels) -> list[float]:
    """Probability of each class for the crop of one box."""
    import torch

    left, top, right, bottom = box.round().int().tolist()
    left, top = min(max(left, 0), image.width - 1), min(max(top, 0), image.height - 1)
    crop = image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
    with torch.no_grad():
        features = models.scorer.encode_image(models.preprocess(crop)[None].to(models.device), normalize=True)
        logits = models.scorer.logit_scale.exp() * features @ texts.T
    probabilities: list[float] = logits.softmax(dim=-1)[0].tolist()
    return probabilities


def load_baseline_models(device: str, config: ModelsConfig | None = None) -> BaselineModels:
    """Build the packages' models and fill them with the weights that a config names; by default the bundled ones."""
    chosen = config or ModelsConfig()
    detector, transform = _detector(device, chosen.detector)
    scorer, preprocess, tokenize = _scorer(device, chosen.scorer)
    segmenter = _segmenter(device, chosen.segmenter)
    return BaselineModels(device, detector, transform, segmenter, scorer, preprocess, tokenize)


def _detector(device: str, config: DetectorConfig) -> tuple[Any, Callable[..., Any]]:
    import groundingdino.datasets.transforms as transforms

    from vouch_labels.tasks.models.checkpoints import resolve, tokenizer_folder
    from vouch_labels.tasks.models.groundingdino.backend import NOT_IN_THE_MODEL
    from vouch_labels.tasks.models.groundingdino.build import build_groundingdino, read_architecture
    from vouch_labels.tasks.models.state_dict import load_into, read_state_dict

    weights = resolve(config, "detector")
    architecture = read_architecture(weights.architecture)
    model = build_groundingdino(architecture.model_dump(), tokenizer_folder(config.text_encoder, weights))
    load_into(model, read_state_dict(weights), weights, NOT_IN_THE_MODEL)
    size = architecture.resize
    transform = transforms.Compose(
        [
            transforms.RandomResize([size.short_side], max_size=size.long_side),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )
    return model.to(device), transform


def _segmenter(device: str, config: SegmenterConfig) -> "SamPredictor":
    from segment_anything import SamPredictor

    from vouch_labels.tasks.models.checkpoints import resolve
    from vouch_labels.tasks.models.sam.build import architecture_of, build_sam
    from vouch_labels.tasks.models.state_dict import load_into, read_state_dict

    weights = resolve(config, "segmenter")
    state = read_state_dict(weights)
    sam = build_sam(weights.architecture or architecture_of(state))
    load_into(sam, state, weights)
    return SamPredictor(sam.to(device))


def _scorer(
    device: str, config: ScorerConfig
) -> tuple[Any, Callable[..., "torch.Tensor"], Callable[[list[str]], "torch.Tensor"]]:
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    from vouch_labels.tasks.models.open_clip.build import (
        build_model,
        find_architecture,
        find_checkpoint,
        load_tokenizer,
    )
    from vouch_labels.tasks.models.state_dict import load_into, read_state_dict

    weights = find_checkpoint(config)
    architecture = find_architecture(weights.architecture)
    model: Any = build_model(architecture)
    load_into(model, read_state_dict(weights), weights)
    settings = merge_preprocess_dict(PreprocessCfg(), architecture.preprocess) | {"size": model.visual.image_size}
    preprocess = image_transform_v2(PreprocessCfg(**settings), is_train=False)
    tokenizer = load_tokenizer(architecture)
    return model.to(device), preprocess, lambda texts: tokenizer(texts, architecture.text_length)
