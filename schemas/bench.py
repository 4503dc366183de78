"""What `vouch bench` has measured."""

from pydantic import Field

from schemas.base import Strict


class StepTime(Strict):
    """One step of the work."""

    name: str = Field(description="acquire, detect, segment, score, route, tables, write or rest.")
    seconds: float = Field(description="Wall-clock time that the step took, of those below it nothing.")
    share: float = Field(description="Of the time of all steps, 0..1.")


class BenchReport(Strict):
    """Speed of the whole way from the image file to the written labels, on this machine."""

    source: str = Field(description="Where the images came from.")
    images: int = Field(description="Images in the measured part, after the warm-up.")
    distinct: int = Field(description="Different ones; fewer where a folder's were measured several times over.")
    failed: int = Field(description="Of them, those that could not be labelled.")
    labels: int = Field(description="Labels found.")
    device: str = Field(description="What the models ran on, in words.")
    precision: str = Field(description="fp32 or bf16.")
    engine: str = Field(description="fast or reference.")
    cpu_threads: int = Field(description="torch's threads.")
    fetch_threads: int = Field(description="Threads that fetched and decoded.")
    seconds: float = Field(description="Wall-clock time of the measured part.")
    images_per_second: float = Field(description="Fetched, decoded, labelled and written.")
    steps: list[StepTime] = Field(description="Where the time goes when steps follow one another.")
    fetching_ms: float = Field(description="Time of one thread to fetch an image, milliseconds.")
    decoding_ms: float = Field(description="Time of one thread to decode an image, milliseconds.")
    gpu_busy: float | None = Field(description="Share of the time in which the GPU computed, 0..1; None on a CPU.")
    peak_bytes: int = Field(description="Most memory that the process held on the host.")
    gpu_peak_bytes: int | None = Field(description="Most memory that torch held on the GPU; None on a CPU.")
    load_before: float = Field(description="Processes that wanted a core in the minute before.")
    bottleneck: str = Field(description="What limits the speed and what would help, in words.")
