"""The engine's benchmark: which model sets, how many images."""

import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from benchmarks.engine.contest import Contest, add_memory, hold
from benchmarks.engine.model_sets import FULL_SIZE, STARTER
from benchmarks.engine.setting import prepare
from benchmarks.engine.table import table_of
from benchmarks.harness.child import in_child
from benchmarks.harness.table import Table
from benchmarks.options import Options
from tasks.measure.bench import IMAGES_ON_GPU


class _Size(NamedTuple):
    images: int
    files: int


ON_CPU: Final = _Size(16, 16)
ON_GPU: Final = _Size(64, IMAGES_ON_GPU)
QUICK: Final = _Size(2, 2)
FULL_ON_CPU: Final = _Size(4, 4)
ROUNDS: Final = 5
ROUNDS_OF_MANY: Final = 3


def measure(options: Options) -> Table:
    """Hold the contest of the bundled models; on a GPU, or if asked for, of full-size ones too."""
    load = os.getloadavg()[0]
    gpu = _has_gpu()
    sizes = {STARTER.name: QUICK if options.quick else ON_GPU if gpu else ON_CPU}
    if not options.quick and (options.full or gpu):
        sizes |= {each.name: ON_GPU if gpu else FULL_ON_CPU for each in FULL_SIZE}
    contests: dict[str, Contest] = {}
    for name, size in sizes.items():
        # A pass of full-size models on a CPU takes minutes.
        slow = name != STARTER.name and not gpu
        rounds = 1 if options.quick or slow else ROUNDS_OF_MANY if gpu else ROUNDS
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting = prepare(name, Path(folder), *size)
            held = in_child(hold, setting=setting, rounds=rounds, all_switches=not options.quick and not slow).value
            contests[name] = held if slow else add_memory(held, setting)
    return table_of(contests, "S3_TEST_ENDPOINT" in os.environ, load)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
