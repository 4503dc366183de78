"""What each switch of the models brings: without it, and it alone."""

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import BaseModel

from benchmarks.engine.fixed_boxes import register
from benchmarks.engine.race import Block, race
from benchmarks.engine.setting import Setting
from benchmarks.engine.sides import STEPS, Sides
from benchmarks.engine.vouch_side import Steps
from benchmarks.engine.way import Way
from flows.prefect_server import prepare_environment
from schemas.campaign import SWITCHES

ALL_ON: Final = "all on"
NONE_ON: Final = "none on"
WITHOUT: Final = "all on but this"
ALONE: Final = "this alone"
OVERLAP: Final = "overlap"
COMPILE: Final = "compile"
FILES: Final = 128
"""For `overlap`: a few handfuls."""
_PART: Final = {"GroundingDINO": ("detect",), "SAM": ("segment",), "CLIP": ("score",), "all": STEPS}


class Switched(BaseModel):
    """What the switches of one model set bring."""

    device: str
    blocks: dict[str, Block]
    """Switch -> the steps that it is in, in four ways."""


def hold_switches(setting: Setting, rounds: int, all_switches: bool) -> Switched:
    """Race all switches of a model set in this process; `overlap` shows on a GPU alone.

    Args:
        setting: What all sides are given.
        rounds: Repetitions.
        all_switches: Whether each switch is tried; else only the first.
    """
    prepare_environment()
    register()
    sides = Sides(setting)
    blocks = race_switches(sides, rounds, all_switches)
    if all_switches and sides.on_gpu:
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            blocks[OVERLAP] = race_overlap(setting, Path(folder), rounds)
    return Switched(device=sides.device_name, blocks=blocks)


def race_switches(sides: Sides, rounds: int, all_switches: bool) -> dict[str, Block]:
    """Race four ways a switch, on half of the images.

    Args:
        sides: Of the setting.
        rounds: Repetitions.
        all_switches: Whether each switch is tried; else only the first. `compile`, which is a setting of its own, is
            tried on a GPU.
    """
    images = max(2, sides.setting.images // 2)

    def steps(*off: str, compile: str = "off") -> Steps:
        return sides.steps_of(images, switched_off=off, compile=compile)

    every, none = steps(), steps(*SWITCHES)

    def raced(parts: tuple[str, ...], all_on: Steps, without: Steps, alone: Steps) -> Block:
        tried = {ALL_ON: all_on, WITHOUT: without, ALONE: alone, NONE_ON: none}
        ways = {label: Way(images, "fp32", _parts(side, parts)) for label, side in tried.items()}
        return race(ways, rounds, sides.device)

    found = {}
    # Overlapping belongs to whole shards, not to the steps.
    names = [name for name in SWITCHES if name != OVERLAP]
    for name in names if all_switches else names[:1]:
        alone = steps(*(other for other in SWITCHES if other != name))
        found[name] = raced(_PART[SWITCHES[name].partition(":")[0]], every, steps(name), alone)
    if all_switches and sides.on_gpu:
        found[COMPILE] = raced(STEPS, steps(compile="on"), every, steps(*SWITCHES, compile="on"))
    return found


def race_overlap(setting: Setting, folder: Path, rounds: int) -> Block:
    """Race the four ways of the switch that shows on whole shards alone, from files, on a GPU.

    Args:
        setting: Its first FILES pictures are taken.
        folder: Gets links to them, and the workspaces.
        rounds: Repetitions.
    """
    few = folder / "few"
    few.mkdir()
    for number, file in enumerate(setting.files()[:FILES]):
        (few / f"{number:06d}.jpg").symlink_to(file)
    sides = Sides(setting.model_copy(update={"folder": few}))
    others = tuple(name for name in SWITCHES if name != OVERLAP)
    found: Block = {}
    # A process holds the models of one way: the two of a pair have the same.
    for pair in ({ALL_ON: (), WITHOUT: (OVERLAP,)}, {ALONE: others, NONE_ON: (*others, OVERLAP)}):
        ways = {label: sides.whole(folder, switched_off=off, compile="off") for label, off in pair.items()}
        found |= race(ways, rounds, sides.device)
    return found


def _parts(side: Steps, parts: tuple[str, ...]) -> Callable[[], None]:
    def run() -> None:
        for part in parts:
            getattr(side, part)()

    return run
