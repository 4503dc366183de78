"""Detects by models of fixed classes, as `vouch train` writes them: RT-DETR, RT-DETRv2, D-FINE and the DETR family.

transformers loads them from a folder with config.json, model.safetensors and preprocessor_config.json, without running
code in it. A text of the campaign stands for the model's class of that name.
"""

from collections.abc import Hashable, Sequence
from functools import partial
from typing import Any, Final

import numpy as np
import torch
from torch import nn

from vouch_labels.schemas.campaign import DetectorConfig, nearest
from vouch_labels.schemas.errors import CheckpointError, UserError
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.batching import Batcher
from vouch_labels.tasks.models.compile import compute_in_fp32
from vouch_labels.tasks.models.registry import Floats, Pass, Phrase, Pixels, RawDetections, assemble, each_its_own
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.models.transformers import Loaded, load_saved

FAMILIES: Final = ("d_fine", "rt_detr_v2", "rt_detr", "detr", "conditional_detr", "deformable_detr")
"""Model types whose answers were compared with the package's own."""

_HEADS: Final = ("class_embed", "bbox_embed", "class_labels_classifier", "bbox_predictor", "enc_score_head")
_NAMED: Final = 12
"""Classes of the model that an error names."""


def load(config: DetectorConfig, runtime: Runtime) -> "TrainedDetector":
    """Load a saved model of fixed classes: a folder, or hf://owner/repo[@revision].

    Raises:
        CheckpointError: The files are missing, unreachable, damaged, of another kind, or not the pinned ones.
    """
    from transformers import AutoImageProcessor, AutoModelForObjectDetection

    for name in ("text_encoder", "architecture"):
        if getattr(config, name) is not None:
            raise CheckpointError(f"models.detector.{name}: a trained model's folder says it itself; remove it")
    loaded = load_saved(config, AutoModelForObjectDetection, AutoImageProcessor, FAMILIES)
    return TrainedDetector(loaded, runtime, config)


class TrainedDetector:
    """A model of fixed classes behind the detector protocol.

    Scores are sigmoids of the logits, or the softmax over all classes and no object where the model has one logit more
    than classes, as transformers' own post-processing has it. A text is the class of that name, whatever its case, or
    the one that `label2id` of config.json gives it: `vouch train` writes every prompt of a class there. Texts that the
    model does not know score 0. Images go through the checkpoint's own image processor, and are batched only with those
    that it makes the same shape of: padding would change what the model sees.
    """

    def __init__(self, loaded: Loaded, runtime: Runtime, config: DetectorConfig) -> None:
        """Take a loaded model."""
        self._model = loaded.model.to(runtime.device).eval().requires_grad_(False)
        for name, module in self._model.named_modules():
            if any(part in _HEADS for part in name.split(".")) and not isinstance(module, nn.ModuleList):
                compute_in_fp32(module)
        self._processor = loaded.processor
        self._runtime = runtime
        self._batcher = Batcher("models.detector.batch_size", config.batch_size, start=8, device=runtime.device)
        described = loaded.model.config
        self.class_names: list[str] = [described.id2label[place] for place in range(described.num_labels)]
        """The model's classes, in the order of its logits."""
        self._place: dict[str, int] = {}
        for place, name in enumerate(self.class_names):
            self._place.setdefault(_plain(name), place)
        for name, place in described.label2id.items():
            self._place.setdefault(_plain(name), int(place))
        size = dict(self._processor.size)
        self._squeezes = bool(size.get("height") and size.get("width"))
        self.fingerprint = fingerprint("trained", 1, loaded.fingerprint, runtime.precision)

    def check(self, phrases: Sequence[Phrase]) -> None:
        """Raise UserError when the model knows no prompt of a class."""
        of_classes: dict[int, list[str]] = {}
        for one in phrases:
            if not one.negative:
                of_classes.setdefault(one.class_index, []).append(one.text)
        for texts in of_classes.values():
            if not any(_plain(text) in self._place for text in texts):
                raise UserError(
                    f"the trained detector does not know {' or '.join(map(repr, texts))}; {self._hint(texts)}"
                )

    def _hint(self, texts: Sequence[str]) -> str:
        near = next(filter(None, (nearest(_plain(text), self._place) for text in texts)), "")
        named = ", ".join(self.class_names[:_NAMED])
        rest = len(self.class_names) - _NAMED
        known = f"it knows {named}{f' and {rest} more' if rest > 0 else ''}: add the one that is meant to the prompts"
        return f"did you mean {near!r}? {known}" if near else known

    def tokens(self, text: str) -> tuple[str, ...]:
        """The class that a text stands for, or the text itself."""
        place = self._place.get(_plain(text))
        return (_plain(text) if place is None else self.class_names[place],)

    def detect(self, images: Sequence[Pixels], phrases: Sequence[Phrase], min_score: float) -> list[RawDetections]:
        """Boxes of each (H, W, 3) uint8 RGB image with at least one phrase at or above min_score.

        Where the model's numbers are not finite, scores are NaN.

        Raises:
            torch.OutOfMemoryError: Even one image does not fit the device.
        """
        if not phrases:
            return [RawDetections(np.zeros((0, 4), np.float32), np.zeros((0, 0), np.float32)) for _ in images]
        groups: dict[Hashable, list[int]] = {}
        for index, image in enumerate(images):
            groups.setdefault(None if self._squeezes else image.shape[:2], []).append(index)
        # The place after the last class stands for texts without one.
        columns = [self._place.get(_plain(one.text), len(self.class_names)) for one in phrases]
        results: dict[int, RawDetections] = {}
        for shape, members in groups.items():
            forward = partial(each_its_own, self._forward)
            found = self._batcher.run([images[index] for index in members], forward, shape)
            for index, (block,) in zip(members, found, strict=True):
                height, width = images[index].shape[:2]
                none = np.zeros((len(block), 1), np.float32)
                asked = np.concatenate([block, none], axis=1)[:, [0, 1, 2, 3, *(4 + column for column in columns)]]
                one = Pass(asked, range(len(phrases)))
                results[index] = assemble([one], len(phrases), (width, height), (width, height), min_score)
        return [results[index] for index in range(len(images))]

    @torch.inference_mode()
    def _forward(self, images: Sequence[Pixels]) -> list[list[Floats]]:
        """For each image one (Q, 4 + K): box in shares of the image, then the scores of the model's classes."""
        device = self._runtime.device
        given: Any = self._processor(images=list(images), input_data_format="channels_last", return_tensors="pt")
        with torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=self._runtime.precision == "bf16"):
            answer = self._model(**given.to(device))
        logits = answer.logits.float()
        classes = len(self.class_names)
        scores = logits.sigmoid() if logits.shape[2] == classes else logits.softmax(2)[..., :classes]
        home = torch.cat([answer.pred_boxes.float(), scores], dim=2).cpu().numpy()
        return [[image] for image in home]


def _plain(text: str) -> str:
    return " ".join(text.casefold().split())
