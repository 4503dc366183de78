"""Finds the checkpoint of a CLIP model, and builds architectures that open_clip knows or a JSON file describes."""

import difflib
import json
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from vouch_labels.schemas.campaign import ScorerConfig
from vouch_labels.schemas.errors import CheckpointError
from vouch_labels.tasks.models.checkpoints import Weights, resolve

if TYPE_CHECKING:
    from torch import Tensor, nn

_HUB_FILES: Final = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")

Tokenizer = Callable[[Sequence[str], int], "Tensor"]
"""(texts, length) -> (T, length) int64 token ids, cut or padded to the length."""


def find_checkpoint(config: ScorerConfig) -> Weights:
    """Resolve the scorer's checkpoint; open_clip's model/tag becomes the hub file that it stands for.

    The architecture of such a file is model/tag, unless the config names another.

    Raises:
        CheckpointError: No such tag, or as `tasks.models.checkpoints.resolve`.
    """
    from open_clip import get_model_config
    from open_clip.pretrained import get_pretrained_cfg, list_pretrained_tags_by_model

    name, _, tag = config.checkpoint.partition("/")
    if not tag or "/" in tag or Path(config.checkpoint).is_file() or get_model_config(name) is None:
        return resolve(config, "scorer")
    repository, _, file = str(get_pretrained_cfg(name, tag).get("hf_hub", "")).rpartition("/")
    if not repository:
        tags = ", ".join(list_pretrained_tags_by_model(name)) or "none"
        raise CheckpointError(
            f"models.scorer.checkpoint: the hub has no checkpoint {tag!r} of {name} (its tags: {tags}); "
            "choose one of them, or give a file"
        )
    first: CheckpointError | None = None
    for candidate in (file,) if file else _HUB_FILES:
        changes = {
            "checkpoint": f"hf://{repository}/{candidate}",
            "architecture": config.architecture or config.checkpoint,
        }
        try:
            return resolve(config.model_copy(update=changes), "scorer")
        except CheckpointError as error:
            first = first or error
    assert first is not None
    raise first


@dataclass(frozen=True, slots=True)
class Architecture:
    """What a CLIP model is made of."""

    name: str
    """Model name or JSON file, for messages."""
    model: dict[str, Any]
    """open_clip's model config: embed_dim, vision_cfg, text_cfg ..."""
    preprocess: dict[str, Any]
    """What differs from open_clip's default preprocessing: mean, std, interpolation, resize_mode."""
    folder: Path | None
    """Folder of the JSON file, in which its tokenizer is looked for first."""

    @property
    def text_length(self) -> int:
        """Tokens of the text window, start and end included."""
        return int(self.model["text_cfg"].get("context_length", 77))


def find_architecture(named: str | Path | None) -> Architecture:
    """Look up an architecture.

    Args:
        named: A model name of open_clip; name/tag for the preprocessing of one of its published checkpoints as well;
            or a JSON file: open_clip's model config with a key "preprocess", or an open_clip_config.json.

    Raises:
        CheckpointError: Nothing was named, the name is unknown, or the file is no such description.
    """
    if named is None:
        raise CheckpointError(
            "models.scorer.architecture: nothing says which model the checkpoint is; give open_clip's name for it "
            "(ViT-B-32, ViT-L-14 ...) or a JSON file"
        )
    return _from_json(named) if isinstance(named, Path) else _from_name(named)


def build_model(architecture: Architecture) -> "nn.Module":
    """Build the model, untrained, on the CPU, in fp32; no base weights are fetched.

    Raises:
        CheckpointError: open_clip cannot build it.
    """
    from open_clip import CLIP, CoCa, CustomTextCLIP

    config = deepcopy(architecture.model)
    with_hub_text = "hf_model_name" in config["text_cfg"]
    if with_hub_text:
        config["text_cfg"]["hf_model_pretrained"] = False
    if "timm_model_name" in config["vision_cfg"]:
        config["vision_cfg"]["timm_model_pretrained"] = False
    custom_text = config.pop("custom_text", False) or with_hub_text
    kind = (CoCa if "multimodal_cfg" in config else CustomTextCLIP) if custom_text else CLIP
    try:
        model: nn.Module = kind(**config)
    except Exception as error:  # a description can be wrong in any way that a constructor can fail
        raise CheckpointError(f"open_clip cannot build {architecture.name}: {_line(error)}; correct it") from error
    return model.eval()


def load_tokenizer(architecture: Architecture) -> Tokenizer:
    """Load the tokenizer that belongs to the architecture: open_clip's own BPE, or a folder or hub name.

    Raises:
        CheckpointError: It is neither on this machine nor can it be fetched.
    """
    from open_clip.tokenizer import HFTokenizer, SimpleTokenizer

    text = architecture.model["text_cfg"]
    options = text.get("tokenizer_kwargs") or {}
    named = text.get("hf_tokenizer_name")
    if not named:
        simple: Tokenizer = SimpleTokenizer(context_length=architecture.text_length, **options)
        return simple
    inside = architecture.folder / named if architecture.folder is not None else None
    source = str(inside) if inside is not None and inside.is_dir() else named
    try:
        tokenizer: Tokenizer = HFTokenizer(
            source, architecture.text_length, tokenizer_mode=text.get("tokenizer_mode"), **options
        )
    except Exception as error:  # the hub client and the tokenizer's parser raise their own
        raise CheckpointError(
            f"the tokenizer {named} of {architecture.name} cannot be loaded: {_line(error)}; put its folder beside the "
            "architecture's JSON file, or fetch it where there is a network"
        ) from error
    return tokenizer


def adapt_state(model: "nn.Module", state: Mapping[str, "Tensor"]) -> dict[str, "Tensor"]:
    """Bring the layouts that CLIP checkpoints come in to the model's own, as open_clip's load_checkpoint does.

    Unlike there, positional embeddings are not resized: a checkpoint of another resolution is another architecture.
    """
    import torch
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict

    adapted: dict[str, Tensor] = dict(convert_state_dict(model, dict(state)))
    if "positional_embedding" in adapted and not hasattr(model, "positional_embedding"):
        adapted = dict(convert_to_custom_text_state_dict(adapted))
    for name in ("logit_scale", "logit_bias"):
        own = getattr(model, name, None)
        if name in adapted and own is not None and adapted[name].numel() == own.numel():
            adapted[name] = adapted[name].reshape(own.shape)
    if getattr(model, "logit_bias", None) is not None:
        adapted.setdefault("logit_bias", torch.zeros_like(adapted.get("logit_scale", torch.zeros(()))))
    return adapted


def _from_json(path: Path) -> Architecture:
    try:
        description = json.loads(path.read_text(encoding="utf-8"))
        model = dict(description.get("model_cfg", description))
        preprocess = model.pop("preprocess", None) or description.get("preprocess_cfg") or {}
        complete = {"embed_dim", "vision_cfg", "text_cfg"} <= model.keys()
        if not (complete and isinstance(model["vision_cfg"], dict) and isinstance(model["text_cfg"], dict)):
            raise ValueError("embed_dim, vision_cfg or text_cfg is missing")
        return Architecture(str(path), model, dict(preprocess), path.parent)
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"models.scorer.architecture: {path} describes no open_clip model: {_line(error)}; correct it"
        ) from error


def _from_name(named: str) -> Architecture:
    from open_clip import get_model_config, list_models
    from open_clip.pretrained import get_pretrained_cfg

    name, _, tag = named.partition("/")
    model = get_model_config(name)
    if model is None:
        near = difflib.get_close_matches(name, list_models(), n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "use a name of open_clip.list_models(), or a JSON file"
        raise CheckpointError(f"models.scorer.architecture: open_clip has no model {name}; {hint}")
    published = dict(get_pretrained_cfg(name, tag) or {}) if tag else {}
    if published.get("quick_gelu"):
        model["quick_gelu"] = True
    kept = {key: published[key] for key in ("mean", "std", "interpolation", "resize_mode") if published.get(key)}
    return Architecture(named, model, kept, None)


def _line(error: BaseException) -> str:
    return (" ".join(str(error).split()) or type(error).__name__)[:200]
