"""The GroundingDINO detector: phrases in, boxes with a score of each phrase out."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from vouch_labels.schemas.campaign import BatchSize, DetectorConfig
from vouch_labels.schemas.errors import CheckpointError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.checkpoints import resolve, tokenizer_folder
from vouch_labels.tasks.models.groundingdino.build import Architecture, build_groundingdino, read_architecture
from vouch_labels.tasks.models.groundingdino.fast.model import SWITCHES, choose_forward
from vouch_labels.tasks.models.groundingdino.forward import (
    encode_text,
    keep_heads_exact,
    least_shape,
    normalise,
    resize_images,
    resized_shape,
)
from vouch_labels.tasks.models.prompts import Caption, TokenScores, pack_captions
from vouch_labels.tasks.models.registry import Floats, Pass, Phrase, Pixels, RawDetections, assemble, each_its_own
from vouch_labels.tasks.models.runtime import Runtime, numbers_of, to_device
from vouch_labels.tasks.models.state_dict import load_into, read_state_dict
from vouch_labels.tasks.models.tokens import plain_text

if TYPE_CHECKING:
    from groundingdino.models.GroundingDINO.groundingdino import GroundingDINO

REMEMBERED = 4
"""Sets of phrases whose text features are kept; a campaign has one."""
NOT_IN_THE_MODEL = ("bert.embeddings.position_ids", "label_enc.weight")
"""A buffer of older transformers, and the label embedding of training."""


def load(config: DetectorConfig, runtime: Runtime) -> "GroundingDino":
    """Load GroundingDINO from the config's checkpoint.

    Raises:
        CheckpointError: Checkpoint, architecture or tokenizer is missing, damaged or does not fit the others.
    """
    weights = resolve(config, "detector")
    architecture = read_architecture(weights.architecture)
    folder = tokenizer_folder(config.text_encoder, weights)
    model: GroundingDINO = build_groundingdino(architecture.model_dump(), folder)
    load_into(model, read_state_dict(weights), weights, NOT_IN_THE_MODEL)
    if len(model.tokenizer) > model.bert.config.vocab_size:
        raise CheckpointError(
            f"models.detector.text_encoder: {folder} has {len(model.tokenizer)} pieces and the checkpoint "
            f"{model.bert.config.vocab_size}; give the tokenizer that belongs to it"
        )
    return GroundingDino(model, architecture, weights.sha256, runtime, config.batch_size)


class _Asked(NamedTuple):
    """A caption on the device."""

    text: Any
    """What the forward pass in use prepared."""
    scores: TokenScores


class GroundingDino:
    """groundingdino-py's model behind the detector protocol.

    A phrase's score is the greatest sigmoid of the logits of its tokens. Images are resized as the package does
    (800 and 1333 pixels for the published checkpoints) and batched only with images of exactly their resized size:
    padding would change what the model sees. Results do not depend on which images share a batch, up to the last
    bits of floating-point sums.
    """

    def __init__(
        self,
        model: "GroundingDINO",
        architecture: Architecture,
        sha256: str,
        runtime: Runtime,
        batch_size: BatchSize,
    ) -> None:
        """Take a loaded model; `sha256` is that of its weights."""
        self._model = model.to(runtime.device).eval().requires_grad_(False)
        keep_heads_exact(self._model)
        self._net: Any = choose_forward(self._model, runtime)
        self._architecture = architecture
        self._runtime = runtime
        self._scores_on = runtime.device if runtime.engine.has("device_token_scores") else "cpu"
        self._batcher = Batcher("models.detector.batch_size", batch_size, start=8, most=64, device=runtime.device)
        self._max_tokens = min(int(architecture.groundingdino["max_text_len"]), 256)
        self._remembered: OrderedDict[tuple[str, ...], list[_Asked]] = OrderedDict()
        tokenizer: str = model.tokenizer.backend_tokenizer.to_str()
        described = architecture.model_dump(mode="json")
        numbers = numbers_of(runtime.precision, runtime.engine, SWITCHES)
        self.fingerprint = fingerprint("groundingdino", 1, sha256, described, tokenizer, numbers)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise UserError when a phrase is too long for the text window or has no known word."""
        pack_captions([phrase.text for phrase in phrases], self._model.tokenizer, self._max_tokens)

    def tokens(self, text: str) -> tuple[str, ...]:
        """The pieces that the tokenizer cuts a text into."""
        return tuple(self._model.tokenizer.tokenize(plain_text(text)))

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each (H, W, 3) uint8 RGB image with at least one phrase at or above min_score.

        More phrases than fit one caption are asked for in several passes over the same image features; a box then has
        scores of the phrases of its pass only.

        Returns:
            One RawDetections an image, in order, boxes in the order of passes and queries. An image for which the
            model's numbers are not finite has one box with scores of NaN.

        Raises:
            UserError: As `check`.
            torch.OutOfMemoryError: Even one image does not fit the device.
        """
        if not phrases:
            return [RawDetections(np.zeros((0, 4), np.float32), np.zeros((0, 0), np.float32)) for _ in images]
        asked = self._ask(tuple(phrase.text for phrase in phrases))
        groups: dict[tuple[int, int], list[int]] = {}
        for index, image in enumerate(images):
            height, width = image.shape[:2]
            groups.setdefault(resized_shape(height, width, self._architecture.resize), []).append(index)
        results: dict[int, RawDetections] = {}
        for shape, members in groups.items():
            forward = partial(each_its_own, partial(self._forward, shape=shape, asked=asked))
            found = self._batcher.run([images[index] for index in members], forward, shape)
            for index, blocks in zip(members, found, strict=True):
                height, width = images[index].shape[:2]
                passes = [Pass(block, one.scores.caption.phrases) for block, one in zip(blocks, asked, strict=True)]
                results[index] = assemble(passes, len(phrases), (width, height), (width, height), min_score)
        return [results[index] for index in range(len(images))]

    @torch.inference_mode()
    def _ask(self, texts: tuple[str, ...]) -> list[_Asked]:
        known = self._remembered.get(texts)
        if known is None:
            captions = pack_captions(texts, self._model.tokenizer, self._max_tokens)
            known = self._remembered[texts] = [self._encode(caption) for caption in captions]
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        return known

    def _encode(self, caption: Caption) -> _Asked:
        device = self._runtime.device
        text = encode_text(self._model, caption.input_ids, device)
        return _Asked(self._net.prepare(text), TokenScores(caption, self._scores_on))

    @torch.inference_mode()
    def _forward(self, images: Sequence[Pixels], shape: tuple[int, int], asked: list[_Asked]) -> list[list[Floats]]:
        """For each image and pass (Q, 4 + P): box in shares of the resized image, then the pass's phrase scores."""
        seen = to_device(resize_images(images, shape), self._runtime.device)
        least = least_shape(shape, self._model.num_queries)
        bf16 = self._runtime.precision == "bf16"
        blocks = []
        with torch.autocast(self._runtime.device.partition(":")[0], torch.bfloat16, enabled=bf16):
            encoded = self._net.encode_images(normalise(seen, least))
            for one in asked:
                logits, boxes = self._net.find(encoded, one.text)
                if least != shape:
                    x, y = boxes[..., 0::2] * (least[1] / shape[1]), boxes[..., 1::2] * (least[0] / shape[0])
                    boxes = torch.stack([x, y], 3).flatten(2)
                scores = one.scores(logits.to(self._scores_on))
                blocks.append(torch.cat([boxes.to(self._scores_on), scores], dim=2))
        widths = [block.shape[2] for block in blocks]
        # Every pass has as many queries, so one copy brings all home.
        home = torch.cat(blocks, dim=2).cpu().numpy()
        return [np.split(image, np.cumsum(widths)[:-1], axis=1) for image in home]
