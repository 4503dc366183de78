"""The engine's benchmarks: which model sets, how many images."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.campaigns import Options
from benchmarks.engine.contest import Contest, Switched, add_memory, hold, hold_switches
from benchmarks.engine.setting import FULL_SIZE, STARTER, prepare
from benchmarks.engine.table import switches_table, table_of
from benchmarks.harness.report import Table
from benchmarks.harness.run import in_child
from vouch_labels.tasks.bench.bench import IMAGES_ON_GPU


class _Size(NamedTuple):
    images: int
    files: int


ON_CPU: Final = _Size(16, 16)
ON_GPU: Final = _Size(64, IMAGES_ON_GPU)
QUICK: Final = _Size(2, 2)
FULL_ON_CPU: Final = _Size(4, 4)
ROUNDS: Final = 3


def measure(options: Options) -> Table:
    """Hold the contest of the bundled models; on a GPU, or if asked for, of full-size ones too."""
    load = os.getloadavg()[0]
    contests: dict[str, Contest] = {}
    for name, size in _sizes(options).items():
        # A pass of full-size models on a CPU takes minutes.
        slow = size is FULL_ON_CPU
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting = prepare(name, Path(folder), *size)
            held = in_child(hold, setting=setting, rounds=1 if options.quick or slow else ROUNDS).value
            contests[name] = held if slow else add_memory(held, setting)
    return table_of(contests, "S3_TEST_ENDPOINT" in os.environ, load)


def measure_switches(options: Options) -> Table:
    """Try each switch of the bundled models; on a GPU of full-size ones too."""
    load = os.getloadavg()[0]
    found: dict[str, Switched] = {}
    for name, size in _sizes(options).items():
        if size is FULL_ON_CPU:
            continue
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting, rounds = prepare(name, Path(folder), *size), 1 if options.quick else ROUNDS
            found[name] = in_child(hold_switches, setting=setting, rounds=rounds, all_switches=not options.quick).value
    return switches_table(found, load)


def _sizes(options: Options) -> dict[str, _Size]:
    gpu = _has_gpu()
    sizes = {STARTER.name: QUICK if options.quick else ON_GPU if gpu else ON_CPU}
    if not options.quick and (options.full or gpu):
        sizes |= {each.name: ON_GPU if gpu else FULL_ON_CPU for each in FULL_SIZE}
    return sizes


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
