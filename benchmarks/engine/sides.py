"""The sides of a contest: ways to do the same work, each of which loads its models when it is first called."""

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING, Final

from benchmarks.engine.loop import MODES, computing, run_loop, run_loop_on_files
from benchmarks.engine.setting import LOOP_IMAGES, Setting
from benchmarks.engine.vouch_side import Steps, label_files
from benchmarks.engine.way import Way
from tasks.models.runtime import choose_runtime

if TYPE_CHECKING:
    from PIL import Image

    from benchmarks.obvious_models import ObviousModels
    from tasks.models.registry import Pixels

LOOP: Final = "loop, {}"
VOUCH: Final = "Vouch {}, {}"
FOLDER: Final = "Vouch fast, from a folder"
IN_TURN: Final = "Vouch fast, from a folder, overlap off"
S3: Final = "Vouch fast, from S3 on loopback"
PIPELINE: Final = "transformers' pipeline, fp32"
STEPS: Final = ("detect", "segment", "score")
COMPILED: Final = ", compiled"


class Sides:
    """All sides on one setting, in this process."""

    def __init__(self, setting: Setting) -> None:
        """Load nothing yet."""
        self.setting = setting
        self.runtime = choose_runtime(setting.config)
        self.device = self.runtime.device
        self.on_gpu = self.device.startswith("cuda")
        self.modes = MODES if self.on_gpu else MODES[:1]

    @property
    def device_name(self) -> str:
        """In words."""
        import torch

        return torch.cuda.get_device_name(self.device) if self.on_gpu else f"CPU, {torch.get_num_threads()} threads"

    @cached_property
    def pictures(self) -> list["Image.Image"]:
        """Decoded, RGB."""
        from PIL import Image

        return [Image.open(file).convert("RGB") for file in self.setting.files()[: self.setting.images]]

    @cached_property
    def arrays(self) -> list["Pixels"]:
        """The same as arrays."""
        import numpy as np

        return [np.asarray(picture) for picture in self.pictures]

    @cached_property
    def obvious(self) -> "ObviousModels":
        """The packages' models."""
        from benchmarks.obvious_models import load_obvious_models

        return load_obvious_models(self.device, self.setting.config)

    @cached_property
    def steps(self) -> dict[str, Steps]:
        """Vouch's steps, by side."""
        kinds = [("reference", "fp32", False), ("fast", "fp32", False)]
        # Not every GPU has bf16.
        if self.on_gpu and self.runtime.precision == "bf16":
            kinds += [("reference", "bf16", False), ("fast", "bf16", False)]
        if self.on_gpu:
            kinds.append(("fast", self.runtime.precision, True))
        return {
            VOUCH.format(engine + COMPILED * compiles, precision): self.steps_of(
                engine=engine, precision=precision, compile="on" if compiles else "off"
            )
            for engine, precision, compiles in kinds
        }

    def steps_of(self, images: int | None = None, **changes: object) -> Steps:
        """Vouch's steps with other fields in the models' settings, on the first images."""
        return Steps(self.setting.config.model_copy(update=changes), self.setting.classes, self.arrays[:images])

    def in_memory(self) -> dict[str, Way]:
        """Decoded images to masks and scores."""
        few = min(LOOP_IMAGES, self.setting.images)
        loops = {
            LOOP.format(mode): self._way(few, mode, lambda: self._loop(self.pictures[:few])) for mode in self.modes
        }
        return loops | self.by_step("all")

    def by_step(self, step: str) -> dict[str, Way]:
        """One of Vouch's steps, or all."""
        return {
            side: self._way(self.setting.images, side.rpartition(" ")[2], getattr(steps, step))
            for side, steps in self.steps.items()
        }

    def pipeline(self) -> dict[str, Way]:
        """Detection by transformers' pipeline, for full-size models on a GPU."""
        if not (self.on_gpu and self.setting.full_size):
            return {}
        from benchmarks.engine.transformers_side import detect, pipeline_of
        from tasks.models.checkpoints import STARTER

        few = min(LOOP_IMAGES, self.setting.images)
        pipe = pipeline_of(STARTER / "tokenizer", self.device)
        return {PIPELINE: self._way(few, "fp32", detect(pipe, self.pictures[:few], self.setting.classes))}

    def on_files(self, folder: Path) -> dict[str, Way]:
        """From files to JSON, or to the COCO export.

        Args:
            folder: Gets what they write.
        """
        files = self.setting.files()
        few = files[:LOOP_IMAGES]
        loops = {
            LOOP.format(mode): self._way(len(few), mode, lambda: self._loop_on_files(few, folder / "loop.json"))
            for mode in self.modes
        }
        ways = loops | {FOLDER: self.whole(folder)}
        return ways | ({IN_TURN: self.whole(folder, switched_off=("overlap",))} if self.on_gpu else {})

    def whole(
        self, folder: Path, uri: str | None = None, options: dict[str, object] | None = None, **changes: object
    ) -> Way:
        """The whole job by Vouch, from the pictures or from a copy of them in a bucket.

        Args:
            folder: Gets the workspaces.
            uri: Of the bucket.
            options: How to speak to it.
            changes: Fields of the models' settings; by default they compute as a long run does: compiled on a GPU.
        """
        models = self.setting.config.model_copy(update={"compile": "on" if self.on_gpu else "off"} | changes)
        source = uri or str(self.setting.folder)

        def run() -> None:
            label_files(source, Path(mkdtemp(dir=folder)), models, self.setting.classes, options or {})

        return self._way(len(self.setting.files()), self.runtime.precision, run)

    def _loop(self, pictures: list["Image.Image"]) -> None:
        run_loop(pictures, self.setting.classes, self.obvious, self.setting.config.scorer.contexts)

    def _loop_on_files(self, files: list[Path], out: Path) -> None:
        run_loop_on_files(files, self.setting.classes, self.obvious, self.setting.config.scorer.contexts, out)

    def _way(self, images: int, mode: str, work: Callable[[], object]) -> Way:
        # Vouch in fp32 forbids TF32 for the whole process and for good.
        def run() -> None:
            with computing(mode, self.device):
                work()

        return Way(images, mode.partition(" ")[0], run)
