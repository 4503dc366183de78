"""How each family of transformers' zero-shot detectors is asked for phrases."""

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

from schemas.errors import UserError
from tasks.models.exact import compute_in_fp32
from tasks.models.groundingdino.captions import pack_captions
from tasks.models.groundingdino.resize import least_shape
from tasks.models.protocols import Pixels
from tasks.models.token_scores import TokenScores

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

_HEADS = ("MLPPredictionHead", "ContrastiveEmbedding", "BoxPredictionHead", "ClassPredictionHead")


class Asked(NamedTuple):
    """Phrases of one pass, on the device."""

    inputs: dict[str, Tensor]
    """Text inputs of the model, (1, T) or (texts, T)."""
    scores: Callable[[Tensor], Tensor]
    """Turns logits into (B, Q, P) scores of the phrases."""
    phrases: tuple[int, ...]
    """(P,) indices of its phrases into those asked for."""


class Family(Protocol):
    """One way to ask."""

    def ask(self, texts: Sequence[str], device: str) -> list[Asked]:
        """Prepare phrases, in as many passes as they need; UserError when one is too long."""

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
        plain = [" ".join(text.lower().split()) for text in texts]
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
