"""The benchmarks by name, in the order in which they run."""

from typing import Final, Protocol

from benchmarks import (
    decoding,
    end_to_end,
    export,
    label_files,
    listing,
    orchestration,
    review_app,
    review_operators,
    review_queue,
)
from benchmarks.campaigns import Options
from benchmarks.engine import measure as engine
from benchmarks.faults import measure as faults
from benchmarks.harness import Table
from benchmarks.routing import after_table, certificate, contract, size, starter_world


class Benchmark(Protocol):
    """One benchmark."""

    def __call__(self, options: Options) -> Table:
        """Measure."""
        ...


BENCHMARKS: Final[dict[str, Benchmark]] = {
    "end_to_end": end_to_end.measure,
    "stage_shares": end_to_end.measure_stages,
    "engine": engine.measure,
    "engine_switches": engine.measure_switches,
    "orchestration": orchestration.measure,
    "memory": orchestration.measure_memory,
    "faults": faults.measure,
    "listing": listing.measure,
    "decoding": decoding.measure,
    "export": export.measure,
    "verdict_import": label_files.measure_verdicts,
    "ground_truth": label_files.measure_truth,
    "review_queue": review_queue.measure,
    "review_operators": review_operators.measure,
    "review_app": review_app.measure,
    "certificate": certificate.measure,
    "routing_contract": contract.measure,
    "routing_after": after_table.measure,
    "routing_starter": starter_world.measure,
    "routing_size": size.measure,
}
