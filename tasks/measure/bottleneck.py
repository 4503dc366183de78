"""Says in words what limits the speed, and what would help."""

from collections.abc import Mapping
from typing import Final

WAITS: Final = 0.15
"""Share of the time that is spent waiting for images from which on that is the bottleneck."""
IDLE: Final = 0.60
"""Share of the time in which a GPU computes below which the host keeps it waiting."""
TAKEN: Final = 0.75
"""Share of the cores that others want from which on they are the bottleneck: with several of torch's threads, each
waits for the one that has lost its core (docs/performance.md, threads on a CPU, has figures)."""
_MODELS: Final = {"detect": "detector", "segment": "segmenter", "score": "scorer"}
_SMALLER: Final = {
    "detect": "a smaller detector checkpoint, or fewer prompts where they take several passes, would help most",
    "segment": "a smaller segmenter checkpoint would help most",
    "score": "a smaller scorer checkpoint, or models.scorer.presence: false, would help most",
}


def bottleneck(
    shares: Mapping[str, float],
    *,
    fetching_ms: float,
    decoding_ms: float,
    gpu_busy: float | None,
    fetch_threads: int,
    taken_cores: float,
) -> str:
    """Name the bottleneck.

    Args:
        shares: Step -> its share of the time of all steps.
        fetching_ms: Time of one thread to fetch an image.
        decoding_ms: Time of one thread to decode an image.
        gpu_busy: Share of the time in which the GPU computes; None on a CPU.
        fetch_threads: Threads that fetch and decode.
        taken_cores: Share of the cores that other processes wanted before; above 1 they had to wait.
    """
    if gpu_busy is None and taken_cores >= TAKEN:
        return (
            f"other programs: they wanted {taken_cores:.1f} times the cores that this machine has; end them, or set "
            "models.cpu_threads: 1, since threads that wait for each other suffer most"
        )
    if shares["acquire"] >= WAITS:
        return _waiting(shares["acquire"], fetching_ms, decoding_ms, fetch_threads)
    step = max(shares, key=lambda name: shares[name])
    taken = f"{_MODELS.get(step, step)}: {shares[step]:.0%} of the time"
    if step == "write":
        return f"{taken}; the workspace is slow: a faster disk, a store nearby, or a larger run.shard_size would help"
    if step not in _MODELS:
        return f"{taken}, beside the models; faster CPU cores would help"
    if gpu_busy is None:
        return f"{taken}; a GPU would help most"
    if gpu_busy < IDLE:
        return f"{taken}, and the GPU computes only {gpu_busy:.0%} of it all; faster CPU cores, or more, would help"
    return f"{taken}, and the GPU computes {gpu_busy:.0%} of it all; {_SMALLER[step]}, or a faster GPU"


def _waiting(share: float, fetching_ms: float, decoding_ms: float, threads: int) -> str:
    if decoding_ms >= fetching_ms:
        return f"decode: {share:.0%} of the time is waiting for images to be decoded; add CPU workers (cores)"
    return (
        f"fetch: {share:.0%} of the time is waiting for images from the source; raise run.fetch_threads "
        f"(now {threads}), or work closer to the storage"
    )
