"""Embeds texts and crops in one space with CLIP from open_clip; crops are resized on the GPU where there is one.

Its image towers are made fast on the package's own weights.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from vouch_labels.schemas.campaign import BatchSize, ScorerConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.compile import install_onednn, linear
from vouch_labels.tasks.models.open_clip.build import (
    Architecture,
    adapt_state,
    build_model,
    find_architecture,
    find_checkpoint,
    load_tokenizer,
)
from vouch_labels.tasks.models.registry import Floats, Pixels, Scorer
from vouch_labels.tasks.models.runtime import Runtime, in_threads, numbers_of, to_device
from vouch_labels.tasks.models.state_dict import load_into, read_state_dict

if TYPE_CHECKING:
    from open_clip.modified_resnet import AttentionPool2d
    from open_clip.transform import PreprocessCfg

_VERSION: Final = 1
CPU_CROPS: Final = 32
"""Crops in one forward pass that stay near a CPU, where more at once are slower."""
# What OpenAI's files and old transformers carry beside the weights.
_IGNORED: Final = ("input_resolution", "context_length", "vocab_size", "text.transformer.embeddings.position_ids")

PIECE: Final = 256 << 20
"""Most bytes of crops that are pinned, and copied to the device, at once."""
THREADED: Final = 16 << 20
"""Bytes from which on several threads lay a piece out: copying them takes longer than starting threads."""
MOST_SHRUNK: Final = 40.0
"""Most that a crop is shrunk by on the device. torch's antialiased kernel keeps 65 times the 2 * ceil(2 * s) + 1 floats
of scale s in 48 KiB of shared memory, and refuses scales above 47."""
MOST_SQUARES: Final = 64
"""Most squares in the longer side of what is resized on the device, in floats, of which one square is kept."""


def install(model: nn.Module, runtime: Runtime) -> None:
    """Replace parts of an open_clip CLIP in evaluation mode, in place, by faster ones, equal but for rounding."""
    from open_clip.modified_resnet import AttentionPool2d
    from open_clip.transformer import ResidualAttentionBlock

    visual: Any = model.visual
    if runtime.engine.has("folded_scorer"):
        for owner, convolution, norm in list(_normed(visual)):
            # The tower's own forward stays: a norm that does nothing, behind a convolution that does the work of both.
            fused = fuse_conv_bn_eval(getattr(owner, convolution), getattr(owner, norm)).requires_grad_(False)
            setattr(owner, convolution, PointConvolution(fused) if fused.kernel_size == (1, 1) else fused)
            setattr(owner, norm, nn.Identity())
        pool = getattr(visual, "attnpool", None)
        if type(pool) is AttentionPool2d:
            visual.attnpool = PooledToken(pool)
        for block in model.modules():
            # Blocks that attend to another sequence have a norm for it.
            if isinstance(block, ResidualAttentionBlock) and not hasattr(block, "ln_1_kv"):
                block.attn = SelfAttention(block.attn)
        install_onednn(model)
        if runtime.precision == "bf16":
            # Autocast would make them again in every call.
            for module in visual.modules():
                if isinstance(module, nn.Linear | nn.Conv2d | PointConvolution | SelfAttention):
                    module.to(torch.bfloat16)
    if runtime.engine.has("channels_last"):
        visual.to(memory_format=torch.channels_last)


class PooledToken(nn.Module):
    """AttentionPool2d of open_clip/modified_resnet.py, for the one token of which its answer is made.

    The package projects all tokens to queries, keys and values, and drops all answers but the first. Here the one query
    is taken through the keys' projection, and the values' projection is applied to weighted means of tokens; what a
    bias of the keys adds is the same for all tokens and falls out of the softmax.
    """

    def __init__(self, pool: "AttentionPool2d") -> None:
        """Take the parts of the package's module."""
        super().__init__()
        self.positional_embedding = pool.positional_embedding
        self.q_proj, self.k_proj, self.v_proj, self.c_proj = pool.q_proj, pool.k_proj, pool.v_proj, pool.c_proj
        self.num_heads: int = pool.num_heads

    def forward(self, maps: Tensor) -> Tensor:
        """(N, C, h, w) to (N, D)."""
        heads = self.num_heads
        places = maps.flatten(2).transpose(1, 2)
        tokens = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + self.positional_embedding
        count, _, width = tokens.shape
        query = linear(tokens[:, 0], self.q_proj.weight, self.q_proj.bias).view(count, heads, 1, -1)
        keys = self.k_proj.weight.view(heads, -1, width)
        # (heads, N, C), one product a head.
        folded = torch.matmul(query[:, :, 0].transpose(0, 1), keys) * query.shape[-1] ** -0.5
        logits = torch.bmm(folded.transpose(0, 1), tokens.transpose(1, 2))
        means = torch.bmm(torch.softmax(logits, dim=-1), tokens)
        values = self.v_proj.weight.view(heads, -1, width).transpose(1, 2)
        found = torch.matmul(means.transpose(0, 1), values).transpose(0, 1).flatten(1) + self.v_proj.bias
        return linear(found, self.c_proj.weight, self.c_proj.bias)


class SelfAttention(nn.Module):
    """nn.MultiheadAttention as open_clip's transformers call it: of tokens to each other, without weights asked for."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take the parameters of one with batches first."""
        super().__init__()
        self.in_proj_weight, self.in_proj_bias = attention.in_proj_weight, attention.in_proj_bias
        self.out_proj = attention.out_proj
        self.num_heads = attention.num_heads

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, need_weights: bool = False, attn_mask: Tensor | None = None
    ) -> tuple[Tensor, None]:
        """(N, L, C) to (N, L, C); the mask is added to the logits, (L, L) or (N * heads, L, L)."""
        if key is not query or value is not query or need_weights:
            raise ValueError("only attention of tokens to each other, without weights")
        count, length, width = query.shape
        joined = linear(query, self.in_proj_weight, self.in_proj_bias)
        parts = joined.view(count, length, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        if attn_mask is not None and attn_mask.dim() == 3:
            attn_mask = attn_mask.view(count, self.num_heads, length, length)
        found = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], attn_mask)
        mixed = found.transpose(1, 2).reshape(count, length, width)
        return linear(mixed, self.out_proj.weight, self.out_proj.bias), None


class PointConvolution(nn.Module):
    """A convolution of one pixel, as the product of matrices that it is where channels come last."""

    def __init__(self, convolution: nn.Conv2d) -> None:
        """Take the weights of a convolution of stride 1."""
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.detach().flatten(1).contiguous(), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, maps: Tensor) -> Tensor:
        """(N, I, h, w) to (N, O, h, w), a view of channels-last memory."""
        return linear(maps.permute(0, 2, 3, 1), self.weight, self.bias).permute(0, 3, 1, 2)


def _normed(visual: nn.Module) -> "Iterator[tuple[nn.Module, str, str]]":
    """The convolutions of open_clip's ResNets that a batch norm follows: owner, name of both."""
    from open_clip.modified_resnet import Bottleneck, ModifiedResNet

    for module in visual.modules():
        if isinstance(module, Bottleneck | ModifiedResNet):
            yield from ((module, f"conv{number}", f"bn{number}") for number in (1, 2, 3))
        if isinstance(module, Bottleneck) and module.downsample is not None:
            yield module.downsample, "0", "1"


def load(config: ScorerConfig, runtime: Runtime) -> Scorer:
    """Load a CLIP model.

    Its checkpoint is 'starter', a file (with `architecture`), or model/tag as open_clip.list_pretrained() names its
    published checkpoints, which are fetched from the hub: ViT-B-32/laion2b_s34b_b79k. bf16 means autocast.

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
        """Move a model to its device and settle the preprocessing: open_clip's evaluation transform, exactly.

        The model has its weights and is in evaluation mode; `sha256` is that of its checkpoint.
        """
        from open_clip.transform import PreprocessCfg, image_transform_v2, merge_preprocess_dict

        visual: Any = model.visual
        settings = merge_preprocess_dict(PreprocessCfg(), architecture.preprocess) | {"size": visual.image_size}
        preprocess = PreprocessCfg(**settings)
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
        """Embed texts, each once: (T, D) of unit length.

        Raises:
            UserError: A text has more tokens than the model reads.
        """
        new = [text for text in dict.fromkeys(texts) if text not in self._texts]
        self._check_length(new)
        self._texts.update(zip(new, self._batcher.run(new, self._forward_texts), strict=True))
        return _stacked([self._texts[text] for text in texts], self._width)

    def embed_crops(self, crops: Sequence[Pixels]) -> Floats:
        """Embed (h, w, 3) uint8 crops of any size; views will do.

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

    def _encode(self, pixels: Tensor) -> list[Floats]:
        """Embed (N, 3, S, S) in [0, 255]."""
        model: Any = self._model
        return self._forward(model.encode_image, (pixels / 255 - self._mean) / self._std)

    def _fit(self, crop: Pixels) -> Pixels:
        from PIL import Image

        image: Any = Image.fromarray(crop)
        for step in self._geometry:
            image = step(image)
        return np.asarray(image, np.uint8)

    def _forward(self, encode: Callable[..., Tensor], inputs: Tensor) -> list[Floats]:
        kind = self._runtime.device.partition(":")[0]
        bf16 = self._runtime.precision == "bf16"
        with torch.inference_mode(), torch.autocast(kind, dtype=torch.bfloat16, enabled=bf16):
            features = encode(inputs, normalize=False)
        return list(torch.nn.functional.normalize(features.float(), dim=-1).cpu().numpy())


def _stacked(rows: Sequence[Floats], width: int) -> Floats:
    return np.stack(rows) if rows else np.zeros((0, width), np.float32)


def fits_device(preprocess: "PreprocessCfg", runtime: Runtime) -> bool:
    """Whether crops are resized on the device: on CUDA, for what CLIP's published models do to an image."""
    size = preprocess.size
    square = isinstance(size, int) or size[0] == size[1]
    usual = preprocess.interpolation == "bicubic" and preprocess.resize_mode == "shortest"
    return square and usual and runtime.device.startswith("cuda") and runtime.engine.has("device_crops")


def resize_on_device(crops: Sequence[Pixels], side: int, device: str, fit: Callable[[Pixels], Pixels]) -> Tensor:
    """Resize each (h, w, 3) uint8 crop so that its shorter side fits, bicubic and antialiased; keep the central square.

    Pillow computes in fixed point and rounds between the two directions; this rounds once. So values differ from those
    of open_clip's transform by up to 2 of 255. Crops that are much too large, or much too thin, stay on the host, where
    `fit` is open_clip's transform to (side, side, 3) uint8; others go to the device in copies of up to `PIECE` bytes.

    Returns:
        (N, 3, side, side) float32 whole numbers in [0, 255].
    """
    squares = torch.empty((len(crops), 3, side, side), device=device)
    near = [number for number, crop in enumerate(crops) if suits_device(crop.shape[0], crop.shape[1], side)]
    pieces = list(pieces_of([crops[number].size for number in near], PIECE))
    for piece in pieces:
        chosen = [near[place] for place in piece]
        # A buffer that waits for its copy would stand beside that of the next piece.
        packed = _pack([crops[number] for number in chosen], pinned=device.startswith("cuda"))
        on_device = packed.to(device, non_blocking=len(pieces) == 1)
        parts = torch.split(on_device, [crops[number].size for number in chosen])
        for number, part in zip(chosen, parts, strict=True):
            squares[number] = _square(part.view(crops[number].shape), side)
    far = sorted(set(range(len(crops))).difference(near))
    if far:
        fitted = to_device(np.stack(in_threads(fit, [crops[number] for number in far])), device)
        for number, square in zip(far, fitted.permute(0, 3, 1, 2), strict=True):
            squares[number] = square
    return squares.clamp_(0, 255).round_()


def suits_device(height: int, width: int, side: int) -> bool:
    """Whether the device's kernel can shrink a crop that far, and holds all of what a thin one grows to."""
    rows, columns = _size(height, width, side)
    return max(height / rows, width / columns) <= MOST_SHRUNK and max(rows, columns) <= MOST_SQUARES * side


def pieces_of(sizes: Sequence[int], most: int) -> Iterator[range]:
    """Consecutive indices whose sizes sum to `most` at most; what is larger alone stands alone."""
    start = held = 0
    for place, size in enumerate(sizes):
        if place > start and held + size > most:
            yield range(start, place)
            start, held = place, 0
        held += size
    if sizes:
        yield range(start, len(sizes))


def _pack(crops: Sequence[Pixels], pinned: bool) -> Tensor:
    """All bytes of the crops, one crop after the other."""
    ends = np.cumsum([crop.size for crop in crops]).tolist()
    packed = torch.empty(ends[-1], dtype=torch.uint8, pin_memory=pinned)
    flat = packed.numpy()

    def lay(place: int) -> None:
        crop, end = crops[place], ends[place]
        flat[end - crop.size : end].reshape(crop.shape)[:] = crop

    if ends[-1] < THREADED:
        for place in range(len(crops)):
            lay(place)
    else:
        in_threads(lay, range(len(crops)))
    return packed


def _square(crop: Tensor, side: int) -> Tensor:
    """(h, w, 3) uint8 to (3, side, side) float32."""
    height, width = crop.shape[:2]
    pixels = crop[None].permute(0, 3, 1, 2).float()
    rows, columns = _size(height, width, side)
    if (rows, columns) != (height, width):
        pixels = functional.interpolate(pixels, (rows, columns), mode="bicubic", antialias=True)
    # The rounding of torchvision's center_crop.
    top, left = round((rows - side) / 2), round((columns - side) / 2)
    return pixels[0, :, top : top + side, left : left + side]


def _size(height: int, width: int, side: int) -> tuple[int, int]:
    """Rows and columns of an image whose shorter side becomes `side`, as torchvision's resize computes them."""
    longer = int(side * max(height, width) / min(height, width))
    return (side, longer) if height <= width else (longer, side)
