"""Weights in the packages' own models, as a user of those packages would hold them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from schemas.campaign import DetectorConfig, ModelsConfig, ScorerConfig, SegmenterConfig

if TYPE_CHECKING:
    import torch
    from segment_anything import SamPredictor

MEAN: Final = [0.485, 0.456, 0.406]
STD: Final = [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class ObviousModels:
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


def load_obvious_models(device: str, config: ModelsConfig | None = None) -> ObviousModels:
    """Build the packages' models and fill them with the weights that a config names; by default the bundled ones."""
    chosen = config or ModelsConfig()
    detector, transform = _detector(device, chosen.detector)
    scorer, preprocess, tokenize = _scorer(device, chosen.scorer)
    segmenter = _segmenter(device, chosen.segmenter)
    return ObviousModels(device, detector, transform, segmenter, scorer, preprocess, tokenize)


def _detector(device: str, config: DetectorConfig) -> tuple[Any, Callable[..., Any]]:
    import groundingdino.datasets.transforms as transforms

    from tasks.models.checkpoints import resolve, tokenizer_folder
    from tasks.models.groundingdino.backend import NOT_IN_THE_MODEL
    from tasks.models.groundingdino.build import build_groundingdino, read_architecture
    from tasks.models.state_dict import load_into, read_state_dict

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

    from tasks.models.checkpoints import resolve
    from tasks.models.sam.build import architecture_of, build_sam
    from tasks.models.state_dict import load_into, read_state_dict

    weights = resolve(config, "segmenter")
    state = read_state_dict(weights)
    sam = build_sam(weights.architecture or architecture_of(state))
    load_into(sam, state, weights)
    return SamPredictor(sam.to(device))


def _scorer(
    device: str, config: ScorerConfig
) -> tuple[Any, Callable[..., "torch.Tensor"], Callable[[list[str]], "torch.Tensor"]]:
    from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

    from tasks.models.open_clip.build import build_model, find_architecture, find_checkpoint, load_tokenizer
    from tasks.models.state_dict import load_into, read_state_dict

    weights = find_checkpoint(config)
    architecture = find_architecture(weights.architecture)
    model: Any = build_model(architecture)
    load_into(model, read_state_dict(weights), weights)
    said = merge_preprocess_dict(PreprocessCfg(), architecture.preprocess) | {"size": model.visual.image_size}
    preprocess = image_transform_v2(PreprocessCfg(**said), is_train=False)
    tokenizer = load_tokenizer(architecture)
    return model.to(device), preprocess, lambda texts: tokenizer(texts, architecture.text_length)
