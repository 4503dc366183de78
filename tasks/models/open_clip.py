"""CLIP through open_clip: embeds texts and crops in one space."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from schemas.campaign import BatchSize, ScorerConfig
from schemas.errors import UserError
from tasks.batching import Batcher
from tasks.fingerprint import fingerprint
from tasks.models.engine.numbers import numbers_of
from tasks.models.host import in_threads, to_device
from tasks.models.open_clip_architecture import (
    Architecture,
    adapt_state,
    build_model,
    find_architecture,
    load_tokenizer,
)
from tasks.models.open_clip_checkpoint import find_checkpoint
from tasks.models.open_clip_crops import fits_device, resize_on_device
from tasks.models.protocols import Floats, Pixels, Scorer
from tasks.models.runtime import Runtime
from tasks.models.weights.load import load_into
from tasks.models.weights.state import read_state_dict

if TYPE_CHECKING:
    from torch import Tensor, nn

_VERSION: Final = 1
CPU_CROPS: Final = 32
"""Crops in one forward pass that stay near a CPU, where more at once are slower."""
# What OpenAI's files and old transformers carry beside the weights.
_IGNORED: Final = ("input_resolution", "context_length", "vocab_size", "text.transformer.embeddings.position_ids")


def load(config: ScorerConfig, runtime: Runtime) -> Scorer:
    """Load a CLIP model.

    Args:
        config: `checkpoint` is 'starter', a file (with `architecture`), or model/tag as open_clip.list_pretrained()
            names its published checkpoints, which are fetched from the hub: ViT-B-32/laion2b_s34b_b79k.
        runtime: Device and precision; bf16 means autocast.

    Raises:
        CheckpointError: The checkpoint or its tokenizer is missing, damaged or of another architecture.
    """
    weights = find_checkpoint(config)
    architecture = find_architecture(weights.architecture)
    state = read_state_dict(weights)
    model = build_model(architecture)
    load_into(model, adapt_state(model, state), weights, ignore=_IGNORED)
    return OpenClipScorer(model, architecture, weights.sha256, config.batch_size, runtime)


class OpenClipScorer:
    """An open_clip model that embeds texts and crops."""

    def __init__(
        self, model: "nn.Module", architecture: Architecture, sha256: str, batch_size: BatchSize, runtime: Runtime
    ) -> None:
        """Move the model to its device and settle the preprocessing: open_clip's evaluation transform, exactly.

        Args:
            model: With its weights, in evaluation mode.
            architecture: Of the model.
            sha256: Of the checkpoint.
            batch_size: Crops or texts in one forward pass.
            runtime: Device and precision.
        """
        import torch
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        from tasks.models.open_clip_fast import install

        visual: Any = model.visual
        said = merge_preprocess_dict(PreprocessCfg(), architecture.preprocess) | {"size": visual.image_size}
        preprocess = PreprocessCfg(**said)
        # All but its last two parts, to tensor and normalize, which the device does for a whole batch.
        self._geometry = image_transform_v2(preprocess, is_train=False).transforms[:-2]
        self._on_device = fits_device(preprocess, runtime)
        size = preprocess.size
        self._side = size if isinstance(size, int) else size[0]
        self._runtime = runtime
        self._model = model.to(runtime.device)
        install(self._model, runtime)
        self._mean = torch.tensor(preprocess.mean, device=runtime.device).view(3, 1, 1)
        self._std = torch.tensor(preprocess.std, device=runtime.device).view(3, 1, 1)
        self._tokenize = load_tokenizer(architecture)
        self._text_length = architecture.text_length
        self._texts: dict[str, Floats] = {}
        self._width = int(architecture.model["embed_dim"])
        start = CPU_CROPS if runtime.device == "cpu" and runtime.engine.has("folded_scorer") else 256
        self._batcher = Batcher("models.scorer.batch_size", batch_size, start=start, most=1024, device=runtime.device)
        scale: Any = model.logit_scale
        self.logit_scale = float(scale.detach().float().exp().reshape(-1)[0])
        numbers = numbers_of(runtime.precision, runtime.engine, ("folded_scorer", "channels_last"))
        resized = ["on the device"] if self._on_device else []
        self.fingerprint = fingerprint(
            "open_clip", _VERSION, sha256, architecture.model, asdict(preprocess), numbers, *resized
        )

    def embed_texts(self, texts: Sequence[str]) -> Floats:
        """Embed texts, each once.

        Args:
            texts: Any number.

        Returns:
            (T, D) of unit length.

        Raises:
            UserError: A text has more tokens than the model reads.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        self._check_length(new)
        self._texts.update(zip(new, self._batcher.run(new, self._forward_texts), strict=True))
        return _stacked([self._texts[text] for text in texts], self._width)

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """Embed crops.

        Args:
            crops: (h, w, 3) uint8 of any size; views will do.

        Returns:
            (N, D) of unit length; NaN where the model gave NaN.
        """
        return _stacked(self._batcher.run(crops, self._forward_crops), self._width)

    def _check_length(self, texts: Sequence[str]) -> None:
        """Refuse what the tokenizer would cut: compare with a window of twice the size."""
        if not texts:
            return
        tokens = self._tokenize([*texts, ""], 2 * self._text_length)
        beyond = tokens[:, self._text_length :]
        for text, row in zip(texts, beyond, strict=False):
            if bool((row != beyond[-1]).any()):
                raise UserError(
                    f"the text {text!r} has more than the {self._text_length} tokens that models.scorer reads; "
                    "shorten the prompt or the template"
                )

    def _forward_texts(self, texts: Sequence[str]) -> list[Floats]:
        model: Any = self._model
        return self._forward(model.encode_text, self._tokenize(texts, self._text_length).to(self._runtime.device))

    def _forward_crops(self, crops: Sequence[Pixels]) -> list[Floats]:

        if self._on_device:
            return self._encode(resize_on_device(crops, self._side, self._runtime.device, self._fit))
        pixels = to_device(np.stack(in_threads(self._fit, crops)), self._runtime.device)
        return self._encode(pixels.permute(0, 3, 1, 2).float())

    def _encode(self, pixels: "Tensor") -> list[Floats]:
        """Embed (N, 3, S, S) in [0, 255]."""
        model: Any = self._model
        return self._forward(model.encode_image, (pixels / 255 - self._mean) / self._std)

    def _fit(self, crop: Pixels) -> Pixels:
        from PIL import Image

        image: Any = Image.fromarray(crop)
        for step in self._geometry:
            image = step(image)
        return np.asarray(image, np.uint8)

    def _forward(self, encode: Callable[..., "Tensor"], inputs: "Tensor") -> list[Floats]:
        import torch

        kind = self._runtime.device.partition(":")[0]
        bf16 = self._runtime.precision == "bf16"
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
            features = encode(inputs, normalize=False)
        return list(torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy())


def _stacked(rows: Sequence[Floats], width: int) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)
