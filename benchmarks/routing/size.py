"""A million labels: fit, certify and decide, and apply a policy to a workspace, in time and memory."""

import tempfile
from pathlib import Path
from typing import Final

from benchmarks.campaigns import write_campaign
from benchmarks.harness.child import Measured, in_child
from benchmarks.harness.table import Table
from benchmarks.harness.words import mebibytes, seconds
from benchmarks.options import Options
from benchmarks.routing.made_workspace import CLASSES, make_workspace

LABELS: Final = 1_000_000
LIMIT_SECONDS: Final = 30.0
LIMIT_BYTES: Final = 2 << 30


def measure(options: Options) -> Table:
    """Run each once, in a process of its own."""
    labels = 20_000 if options.quick else LABELS
    done = in_child(_certify, labels=labels)
    parts = {name.removesuffix("_seconds"): value for name, value in done.value.items() if name.endswith("_seconds")}
    rows = [[name.replace("_", " "), seconds(value), ""] for name, value in parts.items()]
    rows.append([f"all, {labels:,} labels", seconds(sum(parts.values())), mebibytes(done.peak_bytes)])
    applied = _applied(labels)
    rows.append([f"vouch apply, {labels:,} labels", seconds(applied.seconds), mebibytes(applied.peak_bytes)])
    rows.append([f"limit for {LABELS:,}", seconds(LIMIT_SECONDS), mebibytes(LIMIT_BYTES)])
    return Table(
        title="fit, certify and decide on arrays",
        columns=["", "time", "peak memory"],
        rows=rows,
        notes=[
            "1,600 reviews, six signals, twelve classes; both gates. Making up the labels is not in the time.",
            "vouch apply decides again over a made-up workspace of 1,000 images a shard on local disk, from the tables "
            "that a run leaves, and writes the new decisions; the workspace is made before, the export is not in it.",
            "Peak memory is that of the whole process, the made-up labels, Python and its imports included.",
            "Other work ran on the machine meanwhile, so times are above what it takes alone.",
        ],
        figures={
            **done.value,
            "peak_bytes": float(done.peak_bytes),
            "apply_seconds": applied.seconds,
            "apply_peak_bytes": float(applied.peak_bytes),
            "apply_accepted_share": applied.value["accepted"] / labels,
        },
    )


def _applied(labels: int) -> Measured[dict[str, int]]:
    """Make a workspace, and apply a policy to it."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        campaign = str(write_campaign(Path(folder), Path(folder), classes=list(CLASSES)))
        made = in_child(make_workspace, campaign=campaign, labels=labels)
        return in_child(_apply, campaign=campaign, version=made.value)


def _apply(campaign: str, version: str) -> dict[str, int]:
    """Apply a policy; the labels that are accepted now, and those that are decided otherwise."""
    from schemas.campaign_file import load_campaign
    from tasks.certify.apply import apply_policy

    summary = apply_policy(load_campaign(Path(campaign)), version, export=False)
    return {"accepted": summary.accepted, "changed": summary.changed}


def _certify(labels: int) -> dict[str, float]:
    """Seconds of every part, and the share accepted."""
    import time

    import numpy as np

    from benchmarks.routing.contract import DELTA, FIT_REVIEWS, REVIEWS
    from benchmarks.routing.worlds import SIGNALS, World, draw
    from tasks.statistics.fit_calibrator import fit_calibrator
    from tasks.statistics.planning import FitLabels, certify, plan_gate_a
    from tasks.statistics.sampling import certification_sample, first_sample, fit_share, on_fit_side
    from tasks.statistics.threshold_tests import Sample, accepted_counts, gate_a, gate_b, ladder

    world = World("large", images=labels // 5, spread=0.76)
    batch = draw(world, np.random.default_rng(0))
    names = tuple(map(str, range(world.classes)))
    clock = [time.perf_counter()]
    images = [f"camera/{number:09d}.jpg" for number in range(world.images)]
    fitting = on_fit_side(images, fit_share(len(batch.correct), FIT_REVIEWS), 1)[batch.images]
    fit_rows, rows = np.flatnonzero(fitting), np.flatnonzero(~fitting)
    first = first_sample(batch.signals[fit_rows, 0], FIT_REVIEWS, 1)
    chosen = fit_rows[first.rows]
    clock.append(time.perf_counter())
    correct, classes = batch.correct[chosen], batch.classes[chosen]
    fitted = fit_calibrator(batch.signals[chosen], SIGNALS, classes, names, correct, batch.images[chosen], 1)
    clock.append(time.perf_counter())
    scores = fitted.calibrator.probabilities(batch.signals, batch.classes, names)
    clock.append(time.perf_counter())
    side, wrong = scores[rows], ~batch.correct[rows]
    plan = plan_gate_a(
        side, FitLabels(fitted.held_out, ~correct, 1 / first.inclusion), REVIEWS - FIT_REVIEWS, 0.95, DELTA
    )
    guided = certification_sample(side >= plan.region, REVIEWS - FIT_REVIEWS, 1, look=1).rows
    counts = accepted_counts(side, plan.thresholds)
    first_gate = gate_a(Sample(side[guided], wrong[guided]), plan.thresholds, counts, 0.95, DELTA)
    uniform = certification_sample(np.ones(len(side), np.bool_), REVIEWS - FIT_REVIEWS, 1).rows
    second_gate = gate_b(Sample(side[uniform], wrong[uniform]), ladder(side), 0.95, DELTA)
    results = [certify(first_gate, len(guided)), certify(second_gate, len(uniform))]
    clock.append(time.perf_counter())
    shares = [0.0 if one.threshold is None else float((scores >= one.threshold).mean()) for one in results]
    clock.append(time.perf_counter())
    parts = ("split_and_first_sample", "fit", "probabilities", "certify_both_gates", "decide")
    taken = {f"{name}_seconds": end - start for name, start, end in zip(parts, clock, clock[1:], strict=False)}
    return taken | {"accepted_a_share": shares[0], "accepted_b_share": shares[1]}
