"""The benchmarks by name, in the order in which they run."""

from typing import Final, Protocol

from benchmarks import (
    cluster,
    faults,
    label_files,
    large,
    review,
    small_objects,
    source_images,
    training,
    whole_runs,
)
from benchmarks.campaigns import Options
from benchmarks.engine import measure as engine
from benchmarks.harness import Table
from benchmarks.routing import after_table, certificate, contract, size, starter_world


class Benchmark(Protocol):
    """One benchmark."""

    def __call__(self, options: Options) -> Table:
        """Measure."""
        ...


BENCHMARKS: Final[dict[str, Benchmark]] = {
    "end_to_end": whole_runs.measure_speed,
    "stage_shares": whole_runs.measure_stages,
    "engine": engine.measure,
    "engine_switches": engine.measure_switches,
    "cluster": cluster.measure,
    "cluster_plans": cluster.measure_plans,
    "orchestration": whole_runs.measure_orchestration,
    "memory": whole_runs.measure_memory,
    "faults": faults.measure,
    "listing": source_images.measure_listing,
    "far_listing": source_images.measure_far_listing,
    "fetching": source_images.measure_fetching,
    "decoding": source_images.measure_decoding,
    "small_objects": small_objects.measure,
    "export": label_files.measure_export,
    "verdict_import": label_files.measure_verdicts,
    "ground_truth": label_files.measure_truth,
    "review_queue": review.measure_queue,
    "review_operators": review.measure_operators,
    "review_app": review.measure_app,
    "certificate": certificate.measure,
    "routing_contract": contract.measure,
    "routing_after": after_table.measure,
    "routing_starter": starter_world.measure,
    "routing_size": size.measure,
    "train": training.measure,
    "large": large.measure,
}
