"""The engine's benchmark: which model sets, how many images."""

import os

from benchmarks.engine.contest import Contest, hold
from benchmarks.engine.model_sets import FULL_SIZE, STARTER
from benchmarks.engine.table import table_of
from benchmarks.harness.child import in_child
from benchmarks.harness.table import Table
from benchmarks.options import Options


def measure(options: Options) -> Table:
    """Hold the contest of the bundled models; on a GPU, or if asked for, of full-size ones too."""
    load = os.getloadavg()[0]
    images = {STARTER.name: 2 if options.quick else 16}
    if not options.quick and (options.full or _has_gpu()):
        images |= {each.name: 4 if not _has_gpu() else 64 for each in FULL_SIZE}
    rounds = 1 if options.quick else 5
    contests: dict[str, Contest] = {}
    for name, number in images.items():
        # A pass of full-size models on a CPU takes minutes.
        slow = name != STARTER.name and not _has_gpu()
        contests[name] = in_child(
            hold, name=name, images=number, rounds=1 if slow else rounds, all_switches=not options.quick and not slow
        ).value
    return table_of(contests, images, "S3_TEST_ENDPOINT" in os.environ, load)


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()
