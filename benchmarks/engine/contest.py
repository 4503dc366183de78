"""One model set: the loop and Vouch side by side, in one process."""

import os
import tempfile
from pathlib import Path
from typing import Final

from pydantic import BaseModel

from benchmarks.engine.fixed_boxes import register
from benchmarks.engine.limits import flops_of, matmul_peak
from benchmarks.engine.peak import FILES, IN_MEMORY, Peak, peak_of
from benchmarks.engine.race import Block, race
from benchmarks.engine.setting import Setting
from benchmarks.engine.sides import S3, STEPS, Sides
from benchmarks.engine.vouch_side import uploaded
from flows.prefect_server import prepare_environment

PEAKS: Final = {"cpu": ("fp32",), "cuda": ("fp32", "TF32", "bf16")}


class Contest(BaseModel):
    """All blocks of one model set."""

    device: str
    flops: float
    """Of one image, by the reference."""
    peaks: dict[str, float]
    """Mode -> FLOP/s of a matrix product."""
    in_memory: Block
    steps: dict[str, Block]
    files: Block
    memory: dict[str, dict[str, Peak]]
    """Block -> side -> what it held in a process of its own."""


def hold(setting: Setting, rounds: int) -> Contest:
    """Hold the contest of a model set in this process.

    Args:
        setting: What all sides are given.
        rounds: Repetitions.
    """
    prepare_environment()
    register()
    sides = Sides(setting)
    device = sides.device
    in_memory = race(sides.in_memory(), rounds, device)
    steps = {step: race(sides.by_step(step), rounds, device) for step in STEPS[1:]}
    detect = race(sides.by_step(STEPS[0]) | sides.pipeline(), rounds, device)
    one = sides.steps_of(1, engine="reference", precision="fp32")
    one.all()
    flops = flops_of(one.all)
    name = sides.device_name
    # What raced in memory makes room.
    del one, sides
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        files = _race_files(Sides(setting), Path(folder), rounds)
    return Contest(
        device=name,
        flops=flops,
        peaks={mode: matmul_peak(device, mode) for mode in PEAKS[device.partition(":")[0]]},
        in_memory=in_memory,
        steps={STEPS[0]: detect} | steps,
        files=files,
        memory={},
    )


def _race_files(sides: Sides, folder: Path, rounds: int) -> Block:
    ways, endpoint = sides.on_files(folder), os.environ.get("S3_TEST_ENDPOINT")
    if endpoint is None:
        return race(ways, rounds, sides.device, busy=True)
    options = {"endpoint_url": endpoint, "path_style": True, "checksums": "when_required"}
    with uploaded(sides.setting.files(), endpoint) as uri:
        return race(ways | {S3: sides.whole(folder, uri, options)}, rounds, sides.device, busy=True)


def add_memory(contest: Contest, setting: Setting) -> Contest:
    """Measure the memory of each side, one process after the other; that from S3 holds what that from a folder does."""
    blocks = {IN_MEMORY: contest.in_memory, FILES: contest.files}
    memory = {
        title: {side: peak_of(setting, title, side) for side in block if side != S3} for title, block in blocks.items()
    }
    return contest.model_copy(update={"memory": memory})
