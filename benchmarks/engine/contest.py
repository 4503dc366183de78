"""One model set: the loop and Vouch side by side, in one process."""

import os
import tempfile
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from benchmarks.engine.fixed_boxes import register
from benchmarks.engine.limits import flops_of, matmul_peak
from benchmarks.engine.loop import MODES, computing, run_loop, run_loop_on_files
from benchmarks.engine.model_sets import SETS, STARTER, write_models
from benchmarks.engine.race import Taken, race
from benchmarks.engine.transformers_side import detect, pipeline_of
from benchmarks.engine.vouch_side import Steps, label_files, uploaded
from benchmarks.samples import copy_samples, sample_classes
from schemas.campaign.models import ModelsConfig
from tasks.models.protocols import Pixels
from tasks.models.weights.resolve import STARTER as BUNDLED

FULL_SIZE: Final = (1333, 800)
"""Of the pictures for full-size models, as large as the detector takes them."""
CLASSES: Final = 10
STEPS: Final = ("detect", "segment", "score")
PIPELINE: Final = "transformers' pipeline, fp32"
LOOP: Final = "loop, {}"
VOUCH: Final = "Vouch {}, {}"


class Block(BaseModel):
    """Ways to do the same work on the same images."""

    images: int
    taken: dict[str, Taken]


class Contest(BaseModel):
    """All blocks of one model set."""

    device: str
    flops: float
    """Of one image, by the reference."""
    peaks: dict[str, float]
    """Precision -> FLOP/s of a matrix product."""
    in_memory: Block
    steps: dict[str, Block]
    files: Block
    switches: dict[str, Block]
    """Switch -> the step that it is in, all on, all but this, this alone and none."""


def hold(name: str, images: int, rounds: int, all_switches: bool) -> Contest:
    """Hold the contest of a model set.

    Args:
        name: Of SETS.
        images: How many.
        rounds: Repetitions.
        all_switches: Whether each switch is tried; else only the first.
    """
    import numpy as np
    import torch
    from PIL import Image

    from benchmarks.obvious_models import load_obvious_models
    from flows.environment import prepare_environment
    from tasks.models.runtime import choose_runtime

    prepare_environment()
    register()
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as made:
        folder = Path(made)
        config = write_models(SETS[name], folder)
        device = choose_runtime(config).device
        files = copy_samples(folder / "images", images)
        if name != STARTER.name:
            _enlarge(files)
        pictures = [Image.open(file).convert("RGB") for file in files]
        arrays = [np.asarray(picture) for picture in pictures]
        classes = sample_classes()[:CLASSES]
        obvious, contexts = load_obvious_models(device, config), config.scorer.contexts
        precisions = ["fp32", "bf16"] if device != "cpu" else ["fp32"]
        modes = MODES if device != "cpu" else MODES[:1]

        def loop(mode: str, work: Callable[[], object]) -> Callable[[], None]:
            def run() -> None:
                with computing(mode, device):
                    work()

            return run

        sides = {
            VOUCH.format(engine, precision): Steps(
                config.model_copy(update={"engine": engine, "precision": precision}), classes, arrays
            )
            for engine in ("reference", "fast")
            for precision in precisions
        }
        loops = {
            LOOP.format(mode): loop(mode, lambda: run_loop(pictures, classes, obvious, contexts)) for mode in modes
        }
        in_memory = race(loops | {side: steps.all for side, steps in sides.items()}, rounds, device)
        by_step = {
            step: Block(
                images=images, taken=race({side: getattr(s, step) for side, s in sides.items()}, rounds, device)
            )
            for step in STEPS
        }
        if name != STARTER.name and device != "cpu":
            pipe = pipeline_of(BUNDLED / "tokenizer", device)
            other = race({PIPELINE: loop("fp32", detect(pipe, pictures, classes))}, rounds, device)
            by_step["detect"].taken |= other
            del pipe
        one = Steps(config.model_copy(update={"engine": "reference", "precision": "fp32"}), classes, arrays[:1])
        one.all()
        flops = flops_of(one.all)
        sides.clear()
        switches = _switches(config, classes, arrays[: max(2, images // 2)], min(3, rounds), device, all_switches)

        numbers = count()
        out = folder / "loop.json"
        ways = {
            LOOP.format(mode): loop(mode, lambda: run_loop_on_files(files, classes, obvious, contexts, out))
            for mode in modes
        }

        def whole(source: str, options: dict[str, object]) -> Callable[[], None]:
            return lambda: label_files(source, folder / str(next(numbers)), config, classes, options)

        ways["Vouch fast, from a folder"] = whole(str(folder / "images"), {})
        endpoint = os.environ.get("S3_TEST_ENDPOINT")
        if endpoint is None:
            taken = race(ways, rounds, device)
        else:
            with uploaded(files, endpoint) as uri:
                s3 = {"endpoint_url": endpoint, "path_style": True, "checksums": "when_required"}
                taken = race(ways | {"Vouch fast, from S3 on loopback": whole(uri, s3)}, rounds, device)
        on_gpu = device.startswith("cuda")
        return Contest(
            device=torch.cuda.get_device_name(device) if on_gpu else f"CPU, {torch.get_num_threads()} threads",
            flops=flops,
            peaks={precision: matmul_peak(device, precision) for precision in precisions},
            in_memory=Block(images=images, taken=in_memory),
            steps=by_step,
            files=Block(images=images, taken=taken),
            switches=switches,
        )


ALL_ON: Final = "all on"
NONE_ON: Final = "none on"
WITHOUT: Final = "all on but this"
ALONE: Final = "this alone"
_PART: Final = {"GroundingDINO": ("detect",), "SAM": ("segment",), "CLIP": ("score",), "all": STEPS}


def _switches(
    config: ModelsConfig, classes: list[str], arrays: list[Pixels], rounds: int, device: str, all_switches: bool
) -> dict[str, Block]:
    from schemas.campaign.switches import SWITCHES

    def steps(*off: str) -> Steps:
        return Steps(config.model_copy(update={"switched_off": off}), classes, arrays)

    every, none = steps(), steps(*SWITCHES)
    found: dict[str, Block] = {}
    # Overlapping belongs to whole shards, not to the steps.
    chosen = [name for name in SWITCHES if name != "overlap"]
    for name in chosen if all_switches else chosen[:1]:
        parts = _PART[SWITCHES[name].partition(":")[0]]
        tried = {
            ALL_ON: every,
            WITHOUT: steps(name),
            ALONE: steps(*(other for other in SWITCHES if other != name)),
            NONE_ON: none,
        }
        ways = {label: _parts(side, parts) for label, side in tried.items()}
        found[name] = Block(images=len(arrays), taken=race(ways, rounds, device))
    return found


def _parts(side: Steps, parts: tuple[str, ...]) -> Callable[[], None]:
    def run() -> None:
        for part in parts:
            getattr(side, part)()

    return run


def _enlarge(files: list[Path]) -> None:
    from PIL import Image

    for file in files:
        with Image.open(file) as opened:
            opened.convert("RGB").resize(FULL_SIZE, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
