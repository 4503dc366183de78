"""Describes this machine in words that name neither it nor its owner."""

import os
import platform
from importlib.metadata import version
from pathlib import Path


def describe_machine() -> str:
    """Cores, kind of CPU, memory, system, and the versions that matter; GPUs are told by the tables that use them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / (1 << 30)
    return (
        f"{cores} cores of {_cpu()}, {memory:.0f} GiB of memory, {platform.system()}; "
        f"Python {platform.python_version()}, torch {version('torch').partition('+')[0]}, Prefect {version('prefect')}"
    )


def _cpu() -> str:
    """The vendor's name of the CPU and the widest arithmetic that models can use on it."""
    information = Path("/proc/cpuinfo")
    if not information.is_file():
        return platform.processor() or platform.machine()
    fields = dict(_pair(line) for line in information.read_text(encoding="utf-8").splitlines() if ":" in line)
    name = fields.get("model name", platform.machine())
    flags = set(fields.get("flags", "").split())
    kinds = {"amx_tile": "AMX", "avx512f": "AVX-512", "avx2": "AVX2"}
    widest = next((spoken for flag, spoken in kinds.items() if flag in flags), None)
    return f"{name} with {widest}" if widest else name


def _pair(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()
