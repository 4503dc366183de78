"""Trains a model step by step, keeps its state so that an interrupted training goes on, and writes the trained model.

What is drawn at a step (the order of the images, their augmentation, the noise of denoising queries) follows from the
seed and the number of the step alone. So on a CPU a resumed training ends with the weights of an uninterrupted one.
"""

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel
from torchvision import tv_tensors
from torchvision.transforms import v2

from vouch_labels.schemas.errors import UserError, VouchError
from vouch_labels.schemas.training import TrainSettings
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.store.local import LocalStore
from vouch_labels.tasks.train.labels import TrainingImage, TrainingSet
from vouch_labels.tasks.train.model import Trainee, build

STATE: Final = "training-state.pt"
"""State of an unfinished training in the folder of its model."""
EPOCHS: Final = 50
SAVE_EVERY_S: Final = 60.0
"""Seconds of training that an interruption may cost."""

_WARM_UP: Final = 50
_CLIP: Final = 0.1
_DECAY: Final = 1e-4
_MOST_AVERAGED: Final = 0.9998
_IGNORED: Final = -1
"""Stands for the class of an undecided region."""


class Read(Protocol):
    """Reads images."""

    def __call__(self, images: Sequence[TrainingImage]) -> Iterator[Pixels | None]:
        """Yield the (H, W, 3) uint8 RGB pixels of each, in order; None where it cannot be read or is another by now."""


OnStep = Callable[[int, int, float], None]
"""Called with the steps done, those in all (0 where time decides), and the loss."""


class Trained(NamedTuple):
    """A trained model and how it went."""

    model: Any
    processor: Any
    steps: int
    seconds: float
    losses: list[float]
    """Of every step."""


def train(
    data: TrainingSet,
    settings: TrainSettings,
    read: Read,
    folder: Path,
    device: str = "cpu",
    on_step: OnStep | None = None,
    threads: int | None = None,
) -> Trained:
    """Train a detector, or go on where an earlier call with the same arguments was interrupted.

    AdamW with a linear warm-up and a cosine to zero over the steps, epochs or minutes asked for; gradients are clipped;
    the weights that come out are a running mean. Images are flipped, scaled by 0.75 to 1.3 and shifted at random.

    Args:
        data: Its `images` are trained on.
        settings: All that is chosen.
        read: Gives the pixels of images.
        folder: Gets the state while training goes on; `finish` takes it away.
        device: "cpu", "cuda" or "cuda:N".
        on_step: Told of every step.
        threads: torch's, on a CPU; None: as they are.

    Raises:
        UserError: The folder holds an unfinished training of other labels or settings, or memory does not suffice.
        CheckpointError: `settings.start` cannot be used.
        VouchError: No image can be read, or the loss is not finite.
    """
    if threads is not None:
        torch.set_num_threads(threads)
    devices = [torch.device(device).index or 0] if device.startswith("cuda") else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(settings.seed)
        trainee = build(settings, data.classes)
        session = _Session(trainee, data, settings, read, folder, device)
        try:
            return session.run(on_step)
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{device} has too little memory for batches of {settings.batch} images of {settings.image_size} "
                "pixels; use a smaller --batch, --image-size or --size"
            ) from error


class _Session:
    """One training in memory."""

    def __init__(
        self, trainee: Trainee, data: TrainingSet, settings: TrainSettings, read: Read, folder: Path, device: str
    ) -> None:
        self._settings, self._images, self._read, self._device = settings, data.images, read, device
        self._model, self._processor = trainee.model.to(device).train(), trainee.processor
        self._mean = AveragedModel(self._model, multi_avg_fn=_running_mean, use_buffers=True)
        self._optimizer = torch.optim.AdamW(_groups(self._model, settings), betas=(0.9, 0.999))
        self._store = LocalStore(folder)
        side = settings.image_size
        # Resized first, so that the rest takes the same time whatever the images are.
        self._augment = v2.Compose([
            v2.Resize((side, side), antialias=True),
            v2.RandomHorizontalFlip(0.5),
            v2.RandomAffine(0, translate=(0.1, 0.1), scale=(0.75, 1.3), fill=114),
            v2.ClampBoundingBoxes(),
            v2.SanitizeBoundingBoxes(min_size=2),
        ])  # fmt: skip
        self._per_epoch = max(1, len(self._images) // settings.batch)
        self._key = fingerprint("training", 1, data.version, settings.model_dump(mode="json"), trainee.source)
        self._done = 0
        self._seconds = 0.0
        self._losses: list[float] = []

    @property
    def _steps(self) -> int:
        """Steps in all; 0 where time decides."""
        chosen = self._settings
        if chosen.minutes is not None:
            return 0
        if chosen.steps is not None:
            return chosen.steps
        return max(1, round((EPOCHS if chosen.epochs is None else chosen.epochs) * self._per_epoch))

    def run(self, on_step: OnStep | None) -> Trained:
        self._resume()
        before, saved = time.monotonic() - self._seconds, time.monotonic()
        for batch in self._batches():
            if batch:
                torch.manual_seed(_number(self._settings.seed, self._done))
                self._losses.append(self._step(batch))
                if not math.isfinite(self._losses[-1]):
                    raise VouchError(f"the loss is not finite at step {self._done + 1}; use a smaller --learning-rate")
            self._done += 1
            self._seconds = time.monotonic() - before
            if not self._losses and self._done >= self._per_epoch:
                raise VouchError("none of the images to train on can be read, or all have changed; the log names them")
            if on_step is not None:
                on_step(self._done, self._steps, self._losses[-1] if self._losses else math.nan)
            if time.monotonic() - saved > SAVE_EVERY_S:
                self.save()
                saved = time.monotonic()
        self.save()
        self._model.load_state_dict(self._mean.module.state_dict())
        return Trained(self._model.eval(), self._processor, self._done, self._seconds, self._losses)

    def save(self) -> None:
        """Keep everything that the next step depends on."""
        state = {
            "key": self._key,
            "done": self._done,
            "seconds": self._seconds,
            "losses": self._losses,
            "model": self._model.state_dict(),
            "mean": self._mean.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with self._store.open_writer(STATE) as file:
            torch.save(state, file)

    def _resume(self) -> None:
        path = self._store.root / STATE
        if not path.is_file():
            return
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
            other = state["key"] != self._key
        except Exception as error:
            raise UserError(f"{path} is no state of a training; delete it, or choose another --out") from error
        if other:
            raise UserError(
                f"{self._store.root} holds an unfinished training of other labels or settings; choose another --out, "
                f"or delete {STATE} in it"
            )
        self._model.load_state_dict(state["model"])
        self._mean.load_state_dict(state["mean"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._done, self._seconds, self._losses = state["done"], state["seconds"], state["losses"]

    def _batches(self) -> Iterator[list[tuple[Pixels, TrainingImage]]]:
        """What is left to learn from, a batch a step; images that cannot be read are left out of it."""
        size = self._settings.batch
        while not self._is_over():
            epoch, first = divmod(self._done, self._per_epoch)
            generator = torch.Generator().manual_seed(_number(self._settings.seed, -1 - epoch))
            order = torch.randperm(len(self._images), generator=generator).tolist()
            images = [self._images[place] for place in order[: self._per_epoch * size][first * size :]]
            pairs = zip(images, self._read(images), strict=True)
            while not self._is_over() and (chunk := list(islice(pairs, size))):
                yield [(pixels, image) for image, pixels in chunk if pixels is not None]

    def _is_over(self) -> bool:
        if self._settings.minutes is not None:
            return self._seconds >= 60 * self._settings.minutes
        return self._done >= self._steps

    def _step(self, batch: list[tuple[Pixels, TrainingImage]]) -> float:
        seen, targets = zip(*(self._example(*one) for one in batch), strict=True)
        inputs = self._processor(images=list(seen), do_resize=False, return_tensors="pt")
        pixels = inputs["pixel_values"].to(self._device)
        for group in self._optimizer.param_groups:
            group["lr"] = group["greatest"] * self._rate()
        loss: Tensor = self._model(pixel_values=pixels, labels=list(targets)).loss
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self._model.parameters(), _CLIP)
        self._optimizer.step()
        self._mean.update_parameters(self._model)
        return float(loss.detach())

    def _rate(self) -> float:
        """Share of the greatest learning rate."""
        through = self._done / self._steps if self._steps else self._seconds / (60 * (self._settings.minutes or 1))
        warm = min(_WARM_UP, max(1, self._steps // 10) if self._steps else _WARM_UP)
        return min(1.0, (self._done + 1) / warm) * 0.5 * (1 + math.cos(math.pi * min(1.0, through)))

    def _example(self, pixels: Pixels, image: TrainingImage) -> tuple[Tensor, dict[str, Tensor]]:
        """An augmented image (3, S, S) uint8, and what there is in it."""
        boxes = torch.from_numpy(np.concatenate([image.boxes, image.ignored]))
        classes = np.concatenate([image.classes, np.full(len(image.ignored), _IGNORED)])
        found = self._augment({
            "image": tv_tensors.Image(torch.from_numpy(pixels).permute(2, 0, 1)),
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=pixels.shape[:2]),
            "labels": torch.from_numpy(classes),
        })  # fmt: skip
        shares = torch.as_tensor(found["boxes"]).to(self._device) / self._settings.image_size
        labels = found["labels"].to(self._device)
        plain = labels != _IGNORED
        centres = torch.cat([(shares[:, :2] + shares[:, 2:]) / 2, shares[:, 2:] - shares[:, :2]], dim=1)
        target = {"class_labels": labels[plain], "boxes": centres[plain], "ignored": shares[~plain]}
        return torch.as_tensor(found["image"]), target


def _groups(model: nn.Module, settings: TrainSettings) -> list[dict[str, Any]]:
    """Parameters with their greatest learning rate and weight decay, which norms and biases do not have."""
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        slow = 0.1 if settings.start is not None and "backbone" in name else 1.0
        decay = 0.0 if parameter.dim() < 2 else _DECAY
        groups.setdefault((settings.learning_rate * slow, decay), []).append(parameter)
    return [
        {"params": members, "lr": rate, "greatest": rate, "weight_decay": decay}
        for (rate, decay), members in groups.items()
    ]


@torch.no_grad()
def _running_mean(means: Sequence[Tensor], values: Sequence[Tensor], seen: Tensor | int) -> None:
    """Move running means towards values; those of early steps are soon forgotten."""
    keep = min(_MOST_AVERAGED, (1 + int(seen)) / (10 + int(seen)))
    for mean, value in zip(means, values, strict=True):
        mean.copy_(mean.lerp(value, 1 - keep) if mean.is_floating_point() else value)


def _number(seed: int, place: int) -> int:
    """A seed of its own for every step."""
    return int(fingerprint(seed, place)[:12], 16)


def write_model(trained: Trained, folder: Path) -> None:
    """Write a trained model for transformers and the backend `trained`; each file appears whole.

    Raises:
        StoreError: The folder cannot be written.
    """
    store = LocalStore(folder)
    with tempfile.TemporaryDirectory(prefix="vouch-model-") as name:
        trained.model.to("cpu").save_pretrained(name)
        trained.processor.save_pretrained(name)
        for path in sorted(Path(name).iterdir()):
            store.put(path.name, path.read_bytes())


def finish(folder: Path, files: dict[str, str]) -> None:
    """Write what is known of a model beside it, in the order given; its training cannot be resumed any more.

    Raises:
        StoreError: The folder cannot be written.
    """
    store = LocalStore(folder)
    for name, text in files.items():
        store.put(name, text.encode())
    store.delete(STATE)
