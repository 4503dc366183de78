"""Detects by transformers' zero-shot models: Grounding DINO, MM-Grounding-DINO, OWL-ViT and OWLv2.

Each family takes its phrases in a form of its own. A model is loaded from its folder without running code in it.
"""

import hashlib
from collections.abc import Callable, Hashable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from vouch_labels.schemas.campaign import BatchSize, DetectorConfig
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.checkpoints import fetch_folder, sha256_of
from vouch_labels.tasks.models.compile import compute_in_fp32
from vouch_labels.tasks.models.groundingdino.forward import least_shape
from vouch_labels.tasks.models.prompts import TokenScores, pack_captions
from vouch_labels.tasks.models.registry import Floats, Pass, Phrase, Pixels, RawDetections, assemble, each_its_own
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.models.tokens import plain_text, single_spaced

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_HEADS = ("MLPPredictionHead", "ContrastiveEmbedding", "BoxPredictionHead", "ClassPredictionHead")

FAMILIES: Final = ("grounding-dino", "mm-grounding-dino", "owlvit", "owlv2")
"""Model types that can be asked for phrases."""

_WHERE: Final = "models.detector.checkpoint"
_FILES: Final = ("*.json", "*.txt", "*.model", "*.safetensors")


def load(config: DetectorConfig, runtime: Runtime) -> "ZeroShotDetector":
    """Load a saved transformers model: a folder, or hf://owner/repo[@revision].

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    return ZeroShotDetector(load_zero_shot(config), runtime, config.batch_size)


class Loaded(NamedTuple):
    """A model with its processor."""

    model: Any
    processor: Any
    fingerprint: str
    """Of all files that it was loaded from."""


class Asked(NamedTuple):
    """Phrases of one pass, on the device."""

    inputs: dict[str, Tensor]
    """Text inputs of the model, (1, T) or (texts, T)."""
    scores: Callable[[Tensor], Tensor]
    """Turns logits into (B, Q, P) scores of the phrases."""
    phrases: tuple[int, ...]
    """(P,) indices of its phrases into those asked for."""


class ZeroShotDetector:
    """A transformers model behind the detector protocol.

    Scores of the Grounding DINO family are the greatest sigmoid over a phrase's tokens, those of OWL the sigmoid of
    the phrase's query; images go through the checkpoint's own image processor.
    """

    def __init__(self, loaded: Loaded, runtime: Runtime, batch_size: BatchSize) -> None:
        """Take a loaded model."""
        model = loaded.model.to(runtime.device).requires_grad_(False)
        self._family = family_of(model, loaded.processor)
        self._runtime = runtime
        self._batcher = Batcher("models.detector.batch_size", batch_size, start=8, device=runtime.device)
        self._remembered: tuple[tuple[str, ...], list[Asked]] | None = None
        self.fingerprint = fingerprint("transformers", 1, loaded.fingerprint, runtime.precision)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise UserError when a phrase is too long for the text window."""
        if phrases:
            self._family.ask([phrase.text for phrase in phrases], "cpu")

    def tokens(self, text: str) -> tuple[str, ...]:
        """The pieces that the checkpoint's tokenizer cuts a text into."""
        return self._family.tokens(text)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each (H, W, 3) uint8 RGB image with at least one phrase at or above min_score.

        Phrases are asked for in as many passes as the text window needs. Where the model's numbers are not finite,
        scores are NaN.

        Raises:
            UserError: As `check`.
            torch.OutOfMemoryError: Even one image does not fit the device.
        """
        if not phrases:
            return [RawDetections(np.zeros((0, 4), np.float32), np.zeros((0, 0), np.float32)) for _ in images]
        texts = tuple(phrase.text for phrase in phrases)
        if self._remembered is None or self._remembered[0] != texts:
            self._remembered = texts, self._family.ask(texts, self._runtime.device)
        asked = self._remembered[1]
        groups: dict[Hashable, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(self._family.alike(*image.shape[:2]), []).append(index)
        results: dict[int, RawDetections] = {}
        for shape, members in groups.items():
            forward = partial(each_its_own, partial(self._forward, asked=asked))
            found = self._batcher.run([images[index] for index in members], forward, shape)
            for index, blocks in zip(members, found, strict=True):
                height, width = images[index].shape[:2]
                passes = [Pass(block, one.phrases) for block, one in zip(blocks, asked, strict=True)]
                seen = self._family.seen(height, width)
                results[index] = assemble(passes, len(phrases), seen, (width, height), min_score)
        return [results[index] for index in range(len(images))]

    @torch.inference_mode()
    def _forward(self, images: Sequence[Pixels], asked: list[Asked]) -> list[list[Floats]]:
        """For each image and pass (Q, 4 + P)."""
        device = self._runtime.device
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=self._runtime.precision == "bf16"):
            blocks = self._family.look(images, asked, device)
        widths = [block.shape[2] for block in blocks]
        # Every pass has as many queries, so one copy brings all home.
        home = torch.cat(blocks, dim=2).cpu().numpy()
        return [np.split(image, np.cumsum(widths)[:-1], axis=1) for image in home]


class Family(Protocol):
    """One way to ask."""

    def ask(self, texts: Sequence[str], device: str) -> list[Asked]:
        """Prepare phrases, in as many passes as they need; UserError when one is too long."""

    def tokens(self, text: str) -> tuple[str, ...]:
        """The pieces of a text."""

    def alike(self, height: int, width: int) -> Hashable:
        """Images of equal answer can share a batch."""

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """Width and height, in pixels of the image, that boxes are shares of."""

    def look(self, images: Sequence[Pixels], asked: Sequence[Asked], device: str) -> list[Tensor]:
        """(B, Q, 4 + P) for each pass: centre x, y, width, height, then scores."""


def family_of(model: "PreTrainedModel", processor: "ProcessorMixin") -> Family:
    """The family of a loaded model, whose box and score heads are kept in fp32 from now on."""
    for module in model.modules():
        if type(module).__name__.endswith(_HEADS):
            compute_in_fp32(module)
    return Owl(model, processor) if model.config.model_type.startswith("owl") else Grounding(model, processor)


class Grounding:
    """Grounding DINO and MM-Grounding-DINO: phrases of one caption, scored by their tokens."""

    def __init__(self, model: "PreTrainedModel", processor: "ProcessorMixin") -> None:
        """Take a loaded model."""
        self._model, self._processor = model, processor
        self._max_tokens = min(int(model.config.max_text_len), int(model.config.text_config.max_position_embeddings))

    def ask(self, texts: Sequence[str], device: str) -> list[Asked]:
        """Pack phrases into captions."""
        passes = []
        for caption in pack_captions(texts, self._processor.tokenizer, self._max_tokens):
            ids = torch.tensor([caption.input_ids], device=device)
            inputs = {
                "input_ids": ids,
                "attention_mask": torch.ones_like(ids),
                "token_type_ids": torch.zeros_like(ids),
            }
            passes.append(Asked(inputs, TokenScores(caption, device), caption.phrases))
        return passes

    def tokens(self, text: str) -> tuple[str, ...]:
        """The pieces of a text as it is asked for."""
        return tuple(self._processor.tokenizer.tokenize(plain_text(text)))

    def alike(self, height: int, width: int) -> Hashable:
        """Only equal sizes, since padding would change what the model sees."""
        return height, width

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """The image."""
        return width, height

    def look(self, images: Sequence[Pixels], asked: Sequence[Asked], device: str) -> list[Tensor]:
        """Run the model once a pass."""
        pixels = _pixels(self._processor, images).to(device)
        height, width = pixels.shape[2:]
        below, right = least_shape((height, width), self._model.config.num_queries)
        pixels = torch.nn.functional.pad(pixels, (0, right - width, 0, below - height))
        grown = pixels.new_tensor([right / width, below / height]).repeat(2)
        blocks = []
        for one in asked:
            inputs = {name: value.expand(len(images), -1) for name, value in one.inputs.items()}
            answer = self._model(pixel_values=pixels, **inputs)
            blocks.append(torch.cat([answer.pred_boxes.float() * grown, one.scores(answer.logits.float())], dim=2))
        return blocks


class Owl:
    """OWL-ViT and OWLv2: every phrase is a query of its own."""

    def __init__(self, model: "PreTrainedModel", processor: "ProcessorMixin") -> None:
        """Take a loaded model."""
        self._model, self._processor = model, processor
        self._square = model.config.model_type == "owlv2"
        self._max_tokens = int(model.config.text_config.max_position_embeddings)

    def ask(self, texts: Sequence[str], device: str) -> list[Asked]:
        """Tokenise distinct phrases."""
        plain = [single_spaced(text) for text in texts]
        distinct = {text: number for number, text in enumerate(dict.fromkeys(plain))}
        for text, ids in zip(
            distinct, self._processor.tokenizer(list(distinct), verbose=False)["input_ids"], strict=True
        ):
            if len(ids) > self._max_tokens:
                size = f"has {len(ids)} tokens and the text window holds {self._max_tokens}"
                raise UserError(f"prompt {text[:60]!r} {size}; shorten it")
        tokens = self._processor.tokenizer(
            list(distinct), padding="max_length", max_length=self._max_tokens, return_tensors="pt"
        )
        inputs = {name: tokens[name].to(device) for name in ("input_ids", "attention_mask")}
        columns = torch.tensor([distinct[text] for text in plain], device=device)
        return [Asked(inputs, lambda logits: logits.sigmoid()[:, :, columns], tuple(range(len(texts))))]

    def tokens(self, text: str) -> tuple[str, ...]:
        """The pieces of a text as it is asked for."""
        return tuple(self._processor.tokenizer.tokenize(single_spaced(text)))

    def alike(self, height: int, width: int) -> Hashable:  # noqa: ARG002 - the protocol's
        """All: every image becomes a square of one size."""
        return None

    def seen(self, height: int, width: int) -> tuple[int, int]:
        """OWLv2 pads to a square at the bottom and right; OWL-ViT squeezes."""
        return (max(height, width),) * 2 if self._square else (width, height)

    def look(self, images: Sequence[Pixels], asked: Sequence[Asked], device: str) -> list[Tensor]:
        """Run the model once a pass."""
        pixels = _pixels(self._processor, images).to(device)
        blocks = []
        for one in asked:
            inputs = {name: value.repeat(len(images), 1) for name, value in one.inputs.items()}
            answer = self._model(pixel_values=pixels, **inputs)
            blocks.append(torch.cat([answer.pred_boxes.float(), one.scores(answer.logits.float())], dim=2))
        return blocks


def _pixels(processor: "ProcessorMixin", images: Sequence[Pixels]) -> Tensor:
    """(B, 3, H, W) as the checkpoint's own image processor makes them."""
    pixels: Tensor = processor.image_processor(
        images=list(images), input_data_format="channels_last", return_tensors="pt"
    )["pixel_values"]
    return pixels


def load_zero_shot(config: DetectorConfig) -> Loaded:
    """Load model and processor in fp32 on the CPU, from a folder or hf://owner/repo[@revision].

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

    return load_saved(config, AutoModelForZeroShotObjectDetection, AutoProcessor, FAMILIES)


def load_saved(config: DetectorConfig, model_class: Any, processor_class: Any, families: Sequence[str]) -> Loaded:  # noqa: ANN401 - auto classes of transformers
    """Load a model of some families and its processor in fp32 on the CPU, by transformers' auto classes.

    The config's sha256 is that of model.safetensors, or of the lines "<sha256>  <name>" of the parts of a split one, in
    the order of their names.

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    folder = Path(config.checkpoint).expanduser()
    if config.checkpoint.startswith("hf://"):
        folder = fetch_folder(config.checkpoint, _FILES, _WHERE)
    elif not (folder / "config.json").is_file():
        raise CheckpointError(
            f"{_WHERE}: the {config.backend} backend finds no config.json in {config.checkpoint}; "
            "give the folder of a saved model, or hf://owner/repo[@revision]"
        )
    hashes = {path.name: sha256_of(path) for pattern in _FILES for path in sorted(folder.glob(pattern))}
    weights = [name for name in hashes if name.endswith(".safetensors")]
    if not weights:
        raise CheckpointError(f"{_WHERE}: {config.checkpoint} holds no *.safetensors; save the model as safetensors")
    actual = hashes[weights[0]]
    if len(weights) > 1:
        actual = hashlib.sha256("".join(f"{hashes[name]}  {name}\n" for name in weights).encode()).hexdigest()
    if config.sha256 is not None and config.sha256 != actual:
        raise CheckpointError(
            f"{_WHERE}: the weights of {config.checkpoint} have SHA-256 {actual}, not {config.sha256}; "
            "they are damaged or others: fetch them again, or correct the sha256"
        )
    model, processor = _load(folder, config.checkpoint, model_class, processor_class, families)
    return Loaded(model, processor, fingerprint(hashes))


def _load(
    folder: Path,
    reference: str,
    model_class: Any,  # noqa: ANN401 - an auto class of transformers
    processor_class: Any,  # noqa: ANN401 - another one
    families: Sequence[str],
) -> tuple[Any, Any]:
    from safetensors import SafetensorError
    from transformers import AutoConfig
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    local = {"local_files_only": True, "trust_remote_code": False}
    try:
        kind = AutoConfig.from_pretrained(str(folder), **local).model_type
        if kind not in families:
            raise CheckpointError(f"{_WHERE}: {reference} is a {kind} model; use one of {', '.join(families)}")
        processor = processor_class.from_pretrained(str(folder), **local)
        model, report = model_class.from_pretrained(
            str(folder), use_safetensors=True, dtype=torch.float32, output_loading_info=True, **local
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, SafetensorError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{_WHERE}: {reference} cannot be loaded: {reason[:200]}; fetch it again") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise CheckpointError(
            f"{_WHERE}: {reference} lacks {len(missing)} of the model's tensors ({missing[0]} ...); fetch it again"
        )
    return model.eval(), processor
