"""Builds the models that can be trained: D-FINE and RT-DETRv2 by the numbers of their published sizes, or saved ones.

Sizes: D-FINE (Y. Peng et al., 2024, arXiv 2410.13842) and RT-DETRv2 (W. Lv et al., 2024, arXiv 2407.17140), as the
configurations of their published checkpoints have them.
"""

from typing import Any, Final, NamedTuple

from vouch_labels.schemas.campaign import DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.schemas.training import TrainSettings
from vouch_labels.tasks.train.loss import loss_of

TRAINABLE: Final = ("d_fine", "rt_detr_v2", "rt_detr")
"""Model types whose loss is known here."""


class _DFine(NamedTuple):
    """What differs between the sizes of D-FINE; stages are those of its HGNetV2 backbone."""

    stem: tuple[int, int, int]
    inputs: tuple[int, ...]
    middle: tuple[int, ...]
    outputs: tuple[int, ...]
    blocks: tuple[int, ...]
    layers: int
    config: dict[str, Any]
    affine: bool = False
    light: tuple[bool, ...] = (False, False, True, True)
    kernels: tuple[int, ...] = (3, 3, 5, 5)


_POINTS: Final = {"decoder_n_points": [3, 6, 3]}
_TWO_LEVELS: Final = {"num_feature_levels": 2, "feat_strides": [16, 32], "encode_proj_layers": [1]}

_SMALL: Final = _DFine(
    (3, 16, 16), (16, 64, 256, 512), (16, 32, 64, 128), (64, 256, 512, 1024), (1, 1, 2, 1), 3, {}, affine=True
)

_DFINE: Final = {
    "tiny": _DFine(
        (3, 16, 16), (16, 32, 64, 128), (16, 16, 32, 48), (32, 64, 128, 192), (1, 1, 1, 1), 2,
        {**_TWO_LEVELS, "encoder_hidden_dim": 64, "d_model": 64, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128,
         "encoder_attention_heads": 4, "decoder_attention_heads": 4, "decoder_in_channels": [64, 64],
         "decoder_layers": 2, "decoder_n_points": [4, 4], "num_queries": 30, "num_denoising": 20,
         "hidden_expansion": 0.5, "depth_mult": 0.34},
        affine=True, light=(False,) * 4, kernels=(3,) * 4,
    ),
    "dfine-n": _SMALL._replace(
        config={**_TWO_LEVELS, "encoder_hidden_dim": 128, "d_model": 128, "encoder_ffn_dim": 512,
                "decoder_ffn_dim": 512, "decoder_in_channels": [128, 128], "decoder_layers": 3,
                "decoder_n_points": [6, 6], "hidden_expansion": 0.34, "depth_mult": 0.5},
    ),
    "dfine-s": _SMALL._replace(config={**_POINTS, "decoder_layers": 3, "hidden_expansion": 0.5, "depth_mult": 0.34}),
    "dfine-m": _DFine(
        (3, 24, 32), (32, 96, 384, 768), (32, 64, 128, 256), (96, 384, 768, 1536), (1, 1, 3, 1), 4,
        {**_POINTS, "decoder_layers": 4, "depth_mult": 0.67}, affine=True,
    ),
    "dfine-l": _DFine(
        (3, 32, 48), (48, 128, 512, 1024), (48, 96, 192, 384), (128, 512, 1024, 2048), (1, 1, 3, 1), 6, {**_POINTS}
    ),
    "dfine-x": _DFine(
        (3, 32, 64), (64, 128, 512, 1024), (64, 128, 256, 512), (128, 512, 1024, 2048), (1, 2, 5, 2), 6,
        {**_POINTS, "encoder_hidden_dim": 384, "encoder_ffn_dim": 2048, "decoder_in_channels": [384] * 3},
    ),
}  # fmt: skip

_RTDETR: Final[dict[str, tuple[dict[str, Any], dict[str, Any]]]] = {
    "rtdetrv2-r18": (
        {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"},
        {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 3},
    ),
    "rtdetrv2-r34": (
        {"hidden_sizes": [64, 128, 256, 512], "depths": [3, 4, 6, 3], "layer_type": "basic"},
        {"encoder_in_channels": [128, 256, 512], "hidden_expansion": 0.5, "decoder_layers": 4},
    ),
    "rtdetrv2-r50m": ({}, {"hidden_expansion": 0.5}),
    "rtdetrv2-r50": ({}, {}),
    "rtdetrv2-r101": (
        {"depths": [3, 4, 23, 3]},
        {"encoder_ffn_dim": 2048, "encoder_hidden_dim": 384, "decoder_in_channels": [384] * 3},
    ),
}
"""Size -> what its backbone and the rest have other than RT-DETRv2's default."""


class Trainee(NamedTuple):
    """A model on the CPU, its image processor, and what is known of where it comes from."""

    model: Any
    processor: Any
    source: str
    """Fingerprint of the files that it was loaded from; empty for random weights."""


def build(settings: TrainSettings, classes: dict[str, tuple[str, ...]]) -> Trainee:
    """Make the model to train: random weights of a size, or a saved model with a head for these classes.

    Random weights are drawn from torch's own generator. config.json gets the classes as `id2label`, and every prompt
    of a class in `label2id`, where the backend `trained` looks texts up.

    Raises:
        CheckpointError: `start` is missing, damaged, or a model that cannot be trained here.
        UserError: The images are too small for the model.
    """
    names = dict(enumerate(classes))
    texts: dict[str, int] = {name: place for place, name in names.items()}
    for place, prompts in enumerate(classes.values()):
        for text in prompts:
            texts.setdefault(text, place)
    trainee = _saved(settings, names, texts) if settings.start else _fresh(settings, names, texts)
    config = trainee.model.config
    places = sum((settings.image_size // stride) ** 2 for stride in config.feat_strides)
    if places < config.num_queries:
        raise UserError(
            f"--image-size: the model takes its {config.num_queries} queries from places of the image, and of "
            f"{settings.image_size} pixels there are {places}; use a larger size"
        )
    config.id2label, config.label2id = names, texts
    trainee.model.loss_function = loss_of(config)
    return trainee


def _fresh(settings: TrainSettings, names: dict[int, str], texts: dict[str, int]) -> Trainee:
    import transformers as tf

    # Batch norm with statistics of random weights would normalise nothing if it were frozen.
    given = {"id2label": names, "label2id": texts, "freeze_backbone_batch_norms": False}
    side = settings.image_size
    processor = tf.RTDetrImageProcessor(size={"height": side, "width": side})
    size = settings.size or "dfine-n"
    if size in _RTDETR:
        backbone, rest = _RTDETR[size]
        resnet = tf.RTDetrResNetConfig(**backbone, out_features=["stage2", "stage3", "stage4"])
        config = tf.RTDetrV2Config(backbone_config=resnet, **rest, **given)
        return Trainee(tf.RTDetrV2ForObjectDetection(config), processor, "")
    one = _DFINE[size]
    levels = one.config.get("num_feature_levels", 3)
    hgnet = tf.HGNetV2Config(
        stem_channels=list(one.stem), stage_in_channels=list(one.inputs), stage_mid_channels=list(one.middle),
        stage_out_channels=list(one.outputs), hidden_sizes=list(one.outputs), stage_num_blocks=list(one.blocks),
        stage_downsample=[False, True, True, True], stage_light_block=list(one.light),
        stage_kernel_size=list(one.kernels), stage_numb_of_layers=[one.layers] * 4,
        use_learnable_affine_block=one.affine, out_indices=[2, 3, 4][-levels:],
    )  # fmt: skip
    config = tf.DFineConfig(
        backbone_config=hgnet, encoder_in_channels=list(one.outputs[-levels:]), **one.config, **given
    )
    return Trainee(tf.DFineForObjectDetection(config), processor, "")


def _saved(settings: TrainSettings, names: dict[int, str], texts: dict[str, int]) -> Trainee:
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    from vouch_labels.tasks.models.transformers import load_saved

    assert settings.start is not None
    config = DetectorConfig(backend="trained", checkpoint=settings.start)
    try:
        found = load_saved(config, AutoModelForObjectDetection, AutoImageProcessor, TRAINABLE)
    except CheckpointError as error:
        raise CheckpointError(str(error).replace("models.detector.checkpoint", "--start")) from error
    known = found.model.state_dict()
    found.model.config.id2label, found.model.config.label2id = names, texts
    model = type(found.model)(found.model.config)
    # What depends on the number of classes begins with random weights.
    fits = {name: value for name, value in model.state_dict().items() if known[name].shape == value.shape}
    model.load_state_dict({name: known[name] for name in fits}, strict=False)
    side = settings.image_size
    found.processor.size = {"height": side, "width": side}
    return Trainee(model, found.processor, found.fingerprint)
