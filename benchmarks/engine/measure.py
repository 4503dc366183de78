"""The engine's benchmarks: candidates compared in turn and by medians, effect of each speed-up, memory, tables."""

import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from pydantic import BaseModel

from benchmarks.campaigns import Options
from benchmarks.engine.workloads import (
    BOXES,
    FULL_SIZE,
    LOOP,
    S3,
    STARTER,
    STEPS,
    Candidate,
    Setting,
    Steps,
    Workloads,
    computing,
    prepare,
    register,
    uploaded,
)
from benchmarks.harness import Table, in_child, mebibytes, seconds
from vouch_labels.flows.prefect_server import prepare_environment
from vouch_labels.schemas.campaign import SWITCHES
from vouch_labels.tasks.bench.bench import IMAGES_ON_GPU
from vouch_labels.tasks.bench.timing import gpu_busy, settled

PEAKS: Final = {"cpu": ("fp32",), "cuda": ("fp32", "TF32", "bf16")}

ALL_ON: Final = "all on"
NONE_ON: Final = "none on"
WITHOUT: Final = "all on but this"
ALONE: Final = "this alone"
OVERLAP: Final = "overlap"
COMPILE: Final = "compile"
OVERLAP_FILES: Final = 128
"""For `overlap`: a few batches."""
_PART: Final = {"GroundingDINO": ("detect",), "SAM": ("segment",), "CLIP": ("score",), "all": STEPS}

MATRIX_SIZES: Final = {"cpu": 2048, "cuda": 8192}
REPETITIONS: Final = 10

IN_MEMORY = "in memory"
FILES = "files"


class Taken(BaseModel):
    """What one candidate took."""

    images: int
    mode: str
    """fp32, TF32 or bf16."""
    seconds: float
    """Wall-clock time of all images, median."""
    cpu_seconds: float
    """CPU time of the process, median."""
    gpu_busy: float | None = None
    """Share of the time in which the GPU computed; None where that was not asked for."""

    @property
    def seconds_per_image(self) -> float:
        """Wall-clock time."""
        return self.seconds / self.images

    @property
    def cpu_seconds_per_image(self) -> float:
        """CPU time, never quite none."""
        return max(self.cpu_seconds, 1e-9) / self.images


Block = dict[str, Taken]
"""Ways to do the same work, by name."""


class Peak(BaseModel):
    """Most memory that a candidate held: weights, images, Python and its packages."""

    host_bytes: int
    device_bytes: int
    """That torch had allocated on the GPU; 0 on a CPU."""


class Comparison(BaseModel):
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
    """Block -> candidate -> what it held in a process of its own."""


def compare_all(setting: Setting, rounds: int) -> Comparison:
    """Compare all candidates of a model set in this process.

    Args:
        setting: What all candidates are given.
        rounds: Repetitions.
    """
    prepare_environment()
    register()
    workloads = Workloads(setting)
    device = workloads.device
    in_memory = compare(workloads.in_memory(), rounds, device)
    steps = {step: compare(workloads.by_step(step), rounds, device) for step in STEPS[1:]}
    detect = compare(workloads.by_step(STEPS[0]) | workloads.pipeline(), rounds, device)
    one = workloads.steps_of(1, engine="reference", precision="fp32")
    one.all()
    flops = flops_of(one.all)
    name = workloads.device_name
    # What was compared in memory makes room.
    del one, workloads
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        files = _compare_files(Workloads(setting), Path(folder), rounds)
    return Comparison(
        device=name,
        flops=flops,
        peaks={mode: matmul_peak(device, mode) for mode in PEAKS[device.partition(":")[0]]},
        in_memory=in_memory,
        steps={STEPS[0]: detect} | steps,
        files=files,
        memory={},
    )


def _compare_files(workloads: Workloads, folder: Path, rounds: int) -> Block:
    candidates, endpoint = workloads.on_files(folder), os.environ.get("S3_TEST_ENDPOINT")
    if endpoint is None:
        return compare(candidates, rounds, workloads.device, busy=True)
    options = {"endpoint_url": endpoint, "path_style": True, "checksums": "when_required"}
    with uploaded(workloads.setting.files(), endpoint) as uri:
        return compare(candidates | {S3: workloads.whole(folder, uri, options)}, rounds, workloads.device, busy=True)


def add_memory(comparison: Comparison, setting: Setting) -> Comparison:
    """Measure each candidate's memory in a process of its own; that from S3 holds what that from a folder does."""
    blocks = {IN_MEMORY: comparison.in_memory, FILES: comparison.files}
    memory = {
        title: {name: peak_of(setting, title, name) for name in block if name != S3} for title, block in blocks.items()
    }
    return comparison.model_copy(update={"memory": memory})


def compare(candidates: Mapping[str, Candidate], rounds: int, device: str, busy: bool = False) -> Block:
    """Warm each candidate up, then run all of them in turn, `rounds` times.

    Args:
        candidates: Name -> the work.
        rounds: At least 1.
        device: cpu or cuda:N. On a GPU batches grow first, and candidates run until nothing is compiled any more.
        busy: Whether each candidate is run once more under the profiler, where there is a GPU.
    """
    on_gpu = device.startswith("cuda")
    for candidate in candidates.values():
        candidate.work()
        if on_gpu:
            settled(candidate.work)
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name, candidate in candidates.items():
            found[name].append(_timed(candidate, device if on_gpu else None))
    return {
        name: Taken(
            images=candidate.images,
            mode=candidate.mode,
            seconds=statistics.median(each[0] for each in found[name]),
            cpu_seconds=statistics.median(each[1] for each in found[name]),
            gpu_busy=gpu_busy(candidate.work) if busy and on_gpu else None,
        )
        for name, candidate in candidates.items()
    }


def _timed(candidate: Candidate, gpu: str | None) -> tuple[float, float]:
    _wait(gpu)
    wall, cpu = time.perf_counter(), time.process_time()
    candidate.work()
    _wait(gpu)
    return time.perf_counter() - wall, time.process_time() - cpu


def _wait(gpu: str | None) -> None:
    if gpu is not None:
        import torch

        torch.cuda.synchronize(gpu)


class Switched(BaseModel):
    """What the switches of one model set bring."""

    device: str
    blocks: dict[str, Block]
    """Switch -> the steps that it is in, in four candidates."""


def compare_all_switches(setting: Setting, rounds: int, all_switches: bool) -> Switched:
    """Compare all switches of a model set in this process; `overlap` shows on a GPU alone.

    Args:
        setting: What all candidates are given.
        rounds: Repetitions.
        all_switches: Whether each switch is tried; else only the first.
    """
    prepare_environment()
    register()
    workloads = Workloads(setting)
    blocks = compare_switches(workloads, rounds, all_switches)
    if all_switches and workloads.on_gpu:
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            blocks[OVERLAP] = compare_overlap(setting, Path(folder), rounds)
    return Switched(device=workloads.device_name, blocks=blocks)


def compare_switches(workloads: Workloads, rounds: int, all_switches: bool) -> dict[str, Block]:
    """Compare four candidates a switch, on half of the images.

    Args:
        workloads: Of the setting.
        rounds: Repetitions.
        all_switches: Whether each switch is tried; else only the first. `compile`, which is a setting of its own, is
            tried on a GPU.
    """
    images = max(2, workloads.setting.images // 2)

    def steps(*off: str, compile: str = "off") -> Steps:
        return workloads.steps_of(images, switched_off=off, compile=compile)

    every, none = steps(), steps(*SWITCHES)

    def compared(parts: tuple[str, ...], all_on: Steps, without: Steps, alone: Steps) -> Block:
        tried = {ALL_ON: all_on, WITHOUT: without, ALONE: alone, NONE_ON: none}
        candidates = {label: Candidate(images, "fp32", _parts(steps, parts)) for label, steps in tried.items()}
        return compare(candidates, rounds, workloads.device)

    found = {}
    # Overlapping belongs to whole shards, not to the steps.
    names = [name for name in SWITCHES if name != OVERLAP]
    for name in names if all_switches else names[:1]:
        alone = steps(*(other for other in SWITCHES if other != name))
        found[name] = compared(_PART[SWITCHES[name].partition(":")[0]], every, steps(name), alone)
    if all_switches and workloads.on_gpu:
        found[COMPILE] = compared(STEPS, steps(compile="on"), every, steps(*SWITCHES, compile="on"))
    return found


def compare_overlap(setting: Setting, folder: Path, rounds: int) -> Block:
    """Compare the four candidates of the switch that shows on whole shards alone, from files, on a GPU.

    Args:
        setting: Its first `OVERLAP_FILES` pictures are taken.
        folder: Gets links to them, and the workspaces.
        rounds: Repetitions.
    """
    few = folder / "few"
    few.mkdir()
    for number, file in enumerate(setting.files()[:OVERLAP_FILES]):
        (few / f"{number:06d}.jpg").symlink_to(file)
    workloads = Workloads(setting.model_copy(update={"folder": few}))
    others = tuple(name for name in SWITCHES if name != OVERLAP)
    found: Block = {}
    # A process holds the models of one candidate: the two of a pair have the same.
    for pair in ({ALL_ON: (), WITHOUT: (OVERLAP,)}, {ALONE: others, NONE_ON: (*others, OVERLAP)}):
        candidates = {label: workloads.whole(folder, switched_off=off, compile="off") for label, off in pair.items()}
        found |= compare(candidates, rounds, workloads.device)
    return found


def _parts(steps: Steps, parts: tuple[str, ...]) -> Callable[[], None]:
    def run() -> None:
        for part in parts:
            getattr(steps, part)()

    return run


def flops_of(work: Callable[[], object]) -> float:
    """Floating-point operations of matrix products, convolutions and attention in some work: 2 x multiply-adds."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def matmul_peak(device: str, mode: str) -> float:
    """FLOP/s of a large square matrix product, the best of some.

    Args:
        device: cpu or cuda:N.
        mode: fp32, TF32 or bf16.
    """
    with computing(mode, device):
        return _peak(device, mode)


def _peak(device: str, mode: str) -> float:
    import torch

    side = MATRIX_SIZES[device.partition(":")[0]]
    dtype = torch.bfloat16 if mode == "bf16" else torch.float32
    matrix = torch.randn(side, side, device=device, dtype=dtype)
    best = float("inf")
    for _ in range(REPETITIONS):
        started = time.perf_counter()
        _ = matrix @ matrix
        if device.startswith("cuda"):
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2 * side**3 / best


def peak_of(setting: Setting, block: str, name: str) -> Peak:
    """Load a candidate, warm it up and run it once, with nothing beside it.

    Args:
        setting: What it is given.
        block: IN_MEMORY or FILES.
        name: Its name in that block.
    """
    run = in_child(run_alone, setting=setting, block=block, name=name)
    return Peak(host_bytes=run.peak_bytes, device_bytes=run.value)


def run_alone(setting: Setting, block: str, name: str) -> int:
    """Do so in this process, which must be fresh; gives the bytes on the GPU."""
    import torch

    prepare_environment()
    register()
    with TemporaryDirectory(prefix="vouch-bench-") as folder:
        workloads = Workloads(setting)
        candidate = (workloads.in_memory() if block == IN_MEMORY else workloads.on_files(Path(folder)))[name]
        if not workloads.on_gpu:
            candidate.work()
            candidate.work()
            return 0
        # The gauge of growing batches sets torch's own peak back.
        settled(candidate.work)
        settled(candidate.work)
        torch.cuda.reset_peak_memory_stats(workloads.device)
        candidate.work()
        return torch.cuda.max_memory_allocated(workloads.device)


class _Size(NamedTuple):
    images: int
    files: int


ON_CPU: Final = _Size(16, 16)
ON_GPU: Final = _Size(64, IMAGES_ON_GPU)
QUICK: Final = _Size(2, 2)
FULL_ON_CPU: Final = _Size(4, 4)
ROUNDS: Final = 3


def measure(options: Options) -> Table:
    """Compare the candidates on the bundled models; on a GPU, or if asked for, of full-size ones too."""
    load = os.getloadavg()[0]
    comparisons: dict[str, Comparison] = {}
    for name, size in _sizes(options).items():
        # A pass of full-size models on a CPU takes minutes.
        slow = size is FULL_ON_CPU
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting = prepare(name, Path(folder), *size)
            held = in_child(compare_all, setting=setting, rounds=1 if options.quick or slow else ROUNDS).value
            comparisons[name] = held if slow else add_memory(held, setting)
    return table_of(comparisons, "S3_TEST_ENDPOINT" in os.environ, load)


def measure_switches(options: Options) -> Table:
    """Try each switch of the bundled models; on a GPU of full-size ones too."""
    load = os.getloadavg()[0]
    found: dict[str, Switched] = {}
    for name, size in _sizes(options).items():
        if size is FULL_ON_CPU:
            continue
        with TemporaryDirectory(prefix="vouch-bench-") as folder:
            setting, rounds = prepare(name, Path(folder), *size), 1 if options.quick else ROUNDS
            found[name] = in_child(
                compare_all_switches, setting=setting, rounds=rounds, all_switches=not options.quick
            ).value
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


COLUMNS: Final = [
    "",
    "images/s",
    "time an image",
    "CPU time an image",
    "ratio",
    "CPU ratio",
    "of peak",
    "GPU busy",
    "peak memory",
    "GPU memory",
]
SPEED: Final = 6
"""Columns, counted from the left, that are of speed."""
BUSY: Final = 0.5
"""Share of the cores that others want from which on a note says so."""
BASE: Final = LOOP.format("fp32")


class Line(NamedTuple):
    """One row: a candidate, and what it is compared with."""

    name: str
    taken: Taken
    base: Taken
    share: float | None = None
    """Of the device's peak in the candidate's mode."""
    peak: Peak | None = None


def table_of(comparisons: Mapping[str, Comparison], with_s3: bool, load: float) -> Table:
    """Lay out comparisons.

    Args:
        comparisons: Name of the model set -> what was measured.
        with_s3: Whether there was a server.
        load: Processes that wanted a core in the minute before.
    """
    lines = [line for name, comparison in comparisons.items() for line in _lines(name, comparison)]
    figures: dict[str, float] = {}
    for line in lines:
        figures |= _figures(line)
    for name, comparison in comparisons.items():
        figures[f"{name}, flop_per_image"] = comparison.flops
        figures |= {f"{name}, peak {mode}, flop_per_second": peak for mode, peak in comparison.peaks.items()}
    return Table(
        title="the engine against the loop that one writes with the packages",
        columns=COLUMNS,
        rows=[_row(line) for line in lines],
        notes=_notes(comparisons, with_s3, load),
        figures=figures,
        device=next(iter(comparisons.values())).device,
    )


def _lines(name: str, comparison: Comparison) -> Iterator[Line]:
    for title, block in ((IN_MEMORY, comparison.in_memory), (FILES, comparison.files)):
        for candidate, taken in block.items():
            share = comparison.flops / taken.seconds_per_image / comparison.peaks[taken.mode]
            peak = comparison.memory.get(title, {}).get(candidate)
            yield Line(f"{name}, {title}: {candidate}", taken, block[BASE], share, peak)
    for step, block in comparison.steps.items():
        first = next(iter(block.values()))
        yield from (Line(f"{name}, {step}: {candidate}", taken, first) for candidate, taken in block.items())


def switches_table(found: Mapping[str, Switched], load: float) -> Table:
    """Lay out what the switches bring.

    Args:
        found: Name of the model set -> its switches.
        load: Processes that wanted a core in the minute before.
    """
    lines = [
        Line(f"{name}, {switch}: {candidate}", block[candidate], block[base])
        for name, each in found.items()
        for switch, block in each.blocks.items()
        for candidate, base in ((WITHOUT, ALL_ON), (ALONE, NONE_ON))
    ]
    figures: dict[str, float] = {}
    for line in lines:
        figures |= _figures(line)
    return Table(
        title="each speed-up of the engine: all but it, and it alone",
        columns=COLUMNS[:SPEED],
        rows=[_row(line)[:SPEED] for line in lines],
        notes=[
            "One process a model set and one device; the steps that a switch belongs to, on images in memory with "
            f"{BOXES} boxes each; models loaded and warm, four candidates of a switch in turn, medians.",
            "Ratio: all on to all but this (below 1: it helps), and none on to this alone (above 1: it helps). CPU "
            "ratio: the same of the process's CPU time, which other processes disturb less; on a GPU it says nothing "
            "of speed.",
            "overlap (the whole job from files) and compile (a setting of its own) are tried on a GPU alone.",
            *_disturbed(load),
        ],
        figures=figures,
        device=next(iter(found.values())).device,
    )


def _figures(line: Line) -> dict[str, float]:
    name, taken, base = line.name, line.taken, line.base
    found = {
        f"{name}, images_per_second": 1 / taken.seconds_per_image,
        f"{name}, cpu_seconds_per_image": taken.cpu_seconds_per_image,
        f"{name}, ratio": base.seconds_per_image / taken.seconds_per_image,
        f"{name}, cpu_ratio": base.cpu_seconds_per_image / taken.cpu_seconds_per_image,
    }
    if taken.gpu_busy is not None:
        found[f"{name}, gpu_busy_share"] = taken.gpu_busy
    if line.peak is not None:
        found |= {f"{name}, host_bytes": line.peak.host_bytes, f"{name}, device_bytes": line.peak.device_bytes}
    return found


def _row(line: Line) -> list[str]:
    taken, base, peak = line.taken, line.base, line.peak
    return [
        line.name,
        f"{1 / taken.seconds_per_image:.2f}",
        seconds(taken.seconds_per_image),
        seconds(taken.cpu_seconds_per_image),
        f"{base.seconds_per_image / taken.seconds_per_image:.2f}",
        f"{base.cpu_seconds_per_image / taken.cpu_seconds_per_image:.2f}",
        "" if line.share is None else f"{line.share:.1%}",
        "" if taken.gpu_busy is None else f"{taken.gpu_busy:.0%}",
        "" if peak is None else mebibytes(peak.host_bytes),
        mebibytes(peak.device_bytes) if peak is not None and peak.device_bytes else "",
    ]


def _notes(comparisons: Mapping[str, Comparison], with_s3: bool, load: float) -> list[str]:
    work = "; ".join(
        f"{name}: {comparison.flops / 1e9:,.0f} GFLOP an image, peak "
        + ", ".join(f"{mode} {peak / 1e12:.2f} TFLOP/s" for mode, peak in comparison.peaks.items())
        for name, comparison in comparisons.items()
    )
    counts = "; ".join(
        f"{name}: {_counts(comparison.in_memory)} images in memory, {_counts(comparison.files)} files"
        for name, comparison in comparisons.items()
    )
    return [
        "One process a model set and one device; models loaded and warm, all candidates of a block in turn, medians. "
        f"The detector does its work and its answer is replaced by the same {BOXES} boxes an image for all, each "
        f"with two crops. {counts} (fewest and most of one: the baseline needs no more).",
        "Loop: groundingdino's transform and predict, SamPredictor with all boxes of an image at once, one open_clip "
        "call a crop. In memory: decoded images to masks and scores. Files: from JPEG files to JSON or, for Vouch, "
        "plan, shard, tables, COCO export and summary.",
        "Ratio: in memory and files, the loop in fp32 to this; steps, the reference in fp32 to this. CPU ratio: the "
        "same of the process's CPU time, which other processes disturb less; on a GPU it says nothing of speed.",
        f"Peak: the best of some large matrix products in the same mode, on the same device and threads. {work}.",
        "GPU busy: share of the time in which at least one kernel ran, by torch's profiler. Peak memory and GPU "
        "memory: in a process of its own that loads it, warms it up and runs it once; Python and its packages "
        "are in the first, what torch had allocated is the second.",
        "On a GPU too: Vouch is compiled where it says so and in all rows from files; a row for transformers' pipeline "
        "(full-size models; zero-shot detection alone, by a model of the same size with random weights, since no file "
        "of the bundled detector is in its format; it runs the model once for each class).",
        *_disturbed(load),
        *([] if with_s3 else ["From S3: not measured; S3_TEST_ENDPOINT names no server."]),
    ]


def _disturbed(load: float) -> list[str]:
    cores = os.cpu_count() or 1
    if load < BUSY * cores:
        return []
    return [
        f"Other processes used the machine: {load:.1f} wanted one of its {cores} cores in the minute before. "
        "Wall-clock times vary with them; the CPU ratio is the one to read."
    ]


def _counts(block: Mapping[str, Taken]) -> str:
    counts = sorted({taken.images for taken in block.values()})
    return str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
