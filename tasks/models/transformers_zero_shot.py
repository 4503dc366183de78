"""Detectors of transformers' zero-shot object detection: Grounding DINO, MM-Grounding-DINO, OWL-ViT and OWLv2."""

from collections.abc import Hashable, Sequence
from functools import partial

import numpy as np
import torch

from schemas.campaign import BatchSize, DetectorConfig
from tasks.batching import Batcher
from tasks.fingerprint import fingerprint
from tasks.models.candidates import Pass, assemble, each_its_own
from tasks.models.protocols import Floats, Phrase, Pixels, RawDetections
from tasks.models.runtime import Runtime
from tasks.models.transformers_checkpoint import Loaded, load_zero_shot
from tasks.models.transformers_families import Asked, family_of


def load(config: DetectorConfig, runtime: Runtime) -> "ZeroShotDetector":
    """Load a saved transformers model: a folder, or hf://owner/repo[@revision].

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    return ZeroShotDetector(load_zero_shot(config), runtime, config.batch_size)


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

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each image with at least one phrase at or above min_score.

        Args:
            images: (H, W, 3) uint8 RGB each, of any sizes.
            phrases: Asked for in as many passes as the text window needs.
            min_score: In [0, 1].

        Returns:
            One RawDetections an image, in order; with scores of NaN where the model's numbers are not finite.

        Raises:
            UserError: As `check`.
            torch.OutOfMemoryError: Even one image does not fit the device.
        """
        if not phrases:
            return [RawDetections(np.zeros((0, 4), np.float32), np.zeros((0, 0), np.float32)) for _ in images]
        asked = self._ask(tuple(phrase.text for phrase in phrases))
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

    def _ask(self, texts: tuple[str, ...]) -> list[Asked]:
        if self._remembered is None or self._remembered[0] != texts:
            self._remembered = texts, self._family.ask(texts, self._runtime.device)
        return self._remembered[1]

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
