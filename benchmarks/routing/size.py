"""Benchmarks a million labels: fit, certify and route on arrays; plan, certify and apply in a made-up workspace."""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options, write_campaign
from benchmarks.harness import Measured, Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from vouch_labels.schemas.policy import Policy

LABELS: Final = 1_000_000
LIMIT_SECONDS: Final = 15.0
LIMIT_BYTES: Final = 1 << 30
"""For planning the validation sample, certifying by it and applying the policy."""

REVIEWS: Final = 1_200
VERIFY_S: Final = 1.6
PLANNED: Final = f"plan-reviews, validation sample of {REVIEWS:,}"
LABELS_AN_IMAGE: Final = 5
CLASSES: Final = tuple(f"class {number:02d}" for number in range(12))
MADE: Final = "2026-01-01T00:00:00+00:00"
RLE_BYTES: Final = 150
"""Of a mask: about what an object 150 pixels across takes."""
_STAGES: Final = {stage: stage for stage in ("images", "detect", "segment", "score", "presence")}


def measure(options: Options) -> Table:
    """Run each once, in a process of its own."""
    labels = 20_000 if options.quick else LABELS
    done = in_child(_certify, labels=labels)
    parts = {name.removesuffix("_seconds"): value for name, value in done.value.items() if name.endswith("_seconds")}
    rows = [[name.replace("_", " "), seconds(value), ""] for name, value in parts.items()]
    rows.append([f"all, {labels:,} labels", seconds(sum(parts.values())), mebibytes(done.peak_bytes)])
    commands = _commands(labels)
    rows += [[f"vouch {name}", seconds(one.seconds), mebibytes(one.peak_bytes)] for name, one in commands.items()]
    together = [commands[name] for name in (PLANNED, "certify", "apply")]
    all_seconds, most_bytes = sum(one.seconds for one in together), max(one.peak_bytes for one in together)
    rows.append([f"the last three, {labels:,} labels", seconds(all_seconds), mebibytes(most_bytes)])
    rows.append([f"limit for {LABELS:,}", seconds(LIMIT_SECONDS), mebibytes(LIMIT_BYTES)])
    return Table(
        title="a million labels: fit, certify and decide on arrays; plan, certify and apply in a workspace",
        columns=["", "time", "peak memory"],
        rows=rows,
        notes=[
            "1,600 reviews, six signals, twelve classes; both gates. Making up the labels is not in the time.",
            "The commands work on a made-up workspace of 1,000 images a shard on local disk, with the tables of a run: "
            "the calibration set, 1,200 labels of a validation sample, the policy, the new decisions of all "
            "labels. The workspace and the answers are made before, the export is not in it.",
            "Peak memory is that of the whole process, the made-up labels, Python and its imports included.",
            "Other work ran on the machine meanwhile, so times are above what it takes alone.",
        ],
        figures={
            **done.value,
            "peak_bytes": float(done.peak_bytes),
            **{f"{name} seconds": one.seconds for name, one in commands.items()},
            **{f"{name} peak_bytes": float(one.peak_bytes) for name, one in commands.items()},
            "apply accepted_share": commands["apply"].value / labels,
        },
    )


def _commands(labels: int) -> dict[str, Measured[int]]:
    """Make a workspace, and take it from the calibration set to decisions; each value is a count of labels."""
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        campaign = str(write_campaign(Path(folder), Path(folder), classes=list(CLASSES)))
        in_child(make_workspace, campaign=campaign, labels=labels, certified=False)
        found = {}
        for name, minutes in (("plan-reviews, calibration set", 30), (PLANNED, REVIEWS * VERIFY_S / 60)):
            found[name] = in_child(_plan, campaign=campaign, minutes=minutes)
            in_child(answer_plan, campaign=campaign)
        found["certify"] = in_child(_certify_run, campaign=campaign)
        found["apply"] = in_child(_apply, campaign=campaign)
        return found


def _plan(campaign: str, minutes: float) -> int:
    """Plan what is next; how much is asked."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.plan_reviews import ReviewRequest, plan_reviews

    return plan_reviews(load_campaign(Path(campaign)), ReviewRequest(minutes=minutes)).open


def answer_plan(campaign: str) -> int:
    """Answer the last plan: 96 to 100 % of the labels are right, the more the higher the detector's score was drawn."""
    from datetime import UTC, datetime

    import numpy as np
    import pyarrow as pa

    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.reviews import VERDICTS
    from vouch_labels.tasks.certify.data import read_run_reviews
    from vouch_labels.tasks.labels.arrays import SIGNALS
    from vouch_labels.tasks.reviews.verdicts import write_verdicts
    from vouch_labels.tasks.store.open import open_store

    config = load_campaign(Path(campaign))
    reviews = read_run_reviews(config)
    ids = reviews.plans[-1][1]["label_id"].to_pylist()
    rows = reviews.labels.places(ids)
    chance = 0.96 + 0.04 * reviews.labels.signals_of(rows)[:, SIGNALS.index("detector_score")]
    right = np.random.default_rng(len(reviews.plans)).random(len(ids)) < chance
    columns: dict[str, Any] = {name: [None] * len(ids) for name in VERDICTS.names} | {
        "label_id": ids,
        "verdict": ["correct" if one else "not_an_object" for one in right.tolist()],
        "reviewer": ["ann"] * len(ids),
        "reviewed_at": [datetime(2026, 1, len(reviews.plans), tzinfo=UTC)] * len(ids),
        "simulated": [False] * len(ids),
    }
    write_verdicts(open_store(config.workspace), pa.table(columns, VERDICTS))
    return len(ids)


def _certify_run(campaign: str) -> int:
    """Certify; the labels that the policy would accept."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.certify import certify_campaign

    return certify_campaign(load_campaign(Path(campaign))).accepted


def _apply(campaign: str) -> int:
    """Apply the newest certified policy; the labels that are accepted now."""
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.certify.apply import apply_policy

    return apply_policy(load_campaign(Path(campaign)), export=False).accepted


def _certify(labels: int) -> dict[str, float]:
    """Seconds of every part, and the share accepted."""
    import time

    import numpy as np

    from benchmarks.routing.contract import DELTA, FIT_REVIEWS, REVIEWS, SIGNALS, World, draw
    from vouch_labels.tasks.statistics.fit_calibrator import fit_calibrator
    from vouch_labels.tasks.statistics.planning import FitLabels, certify, plan_gate_a
    from vouch_labels.tasks.statistics.sampling import certification_sample, first_sample
    from vouch_labels.tasks.statistics.threshold_tests import (
        Population,
        Sample,
        accepted_counts,
        gate_a,
        gate_b,
        threshold_grid,
    )

    world = World("large", images=labels // 5, spread=0.76)
    batch = draw(world, np.random.default_rng(0))
    names = tuple(map(str, range(world.classes)))
    clock = [time.perf_counter()]
    first = first_sample(batch.signals[:, 0], FIT_REVIEWS, 1)
    chosen, rows = first.rows, np.setdiff1d(np.arange(len(batch.correct)), first.rows)
    clock.append(time.perf_counter())
    correct, classes = batch.correct[chosen], batch.classes[chosen]
    fitted = fit_calibrator(batch.signals[chosen], SIGNALS, classes, names, correct, batch.images[chosen], 1)
    clock.append(time.perf_counter())
    scores = fitted.calibrator.probabilities(batch.signals, batch.classes, names)
    clock.append(time.perf_counter())
    open_scores, wrong = scores[rows], ~batch.correct[rows]
    plan = plan_gate_a(
        open_scores, FitLabels(fitted.held_out, ~correct, 1 / first.inclusion), REVIEWS - FIT_REVIEWS, 0.95, DELTA
    )
    guided = certification_sample(open_scores >= plan.region, REVIEWS - FIT_REVIEWS, 1, number=1).rows
    counts = accepted_counts(open_scores, plan.thresholds)
    first_gate = gate_a(Sample(open_scores[guided], wrong[guided]), plan.thresholds, counts, 0.95, DELTA)
    uniform = certification_sample(np.ones(len(open_scores), np.bool_), REVIEWS - FIT_REVIEWS, 1).rows
    population = Population(len(rows), int(correct.sum()), int((~correct).sum()))
    second_gate = gate_b(
        Sample(open_scores[uniform], wrong[uniform]), threshold_grid(open_scores), 0.95, DELTA, population
    )
    results = [certify(first_gate, len(guided)), certify(second_gate, len(uniform))]
    clock.append(time.perf_counter())
    shares = [0.0 if one.threshold is None else float((scores >= one.threshold).mean()) for one in results]
    clock.append(time.perf_counter())
    parts = ("first_sample", "fit", "probabilities", "certify_both_gates", "decide")
    taken = {f"{name}_seconds": end - start for name, start, end in zip(parts, clock, clock[1:], strict=False)}
    return taken | {"accepted_a_share": shares[0], "accepted_b_share": shares[1]}


def make_workspace(campaign: str, labels: int, labels_an_image: int = LABELS_AN_IMAGE, certified: bool = True) -> None:
    """Write plans, tables, markers and, if asked for, a certified policy for a campaign.

    Args:
        campaign: Its file; the classes are CLASSES, the source need not hold anything.
        labels: How many.
        labels_an_image: How many of them each image has.
        certified: Whether there is a policy that accepts labels.
    """
    import numpy as np
    import pyarrow as pa

    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.schemas.records import Current, ImageRef, Marker
    from vouch_labels.tasks.plan.ledger import Ledger
    from vouch_labels.tasks.plan.plan import plan
    from vouch_labels.tasks.policy import default_policy, keep_population, write_policy
    from vouch_labels.tasks.route import route
    from vouch_labels.tasks.shard.files import count, write_current, write_marker, write_part
    from vouch_labels.tasks.shard.numbers import write_numbers
    from vouch_labels.tasks.shard.pipeline import rerouted, stages_fingerprint
    from vouch_labels.tasks.store.open import open_store

    config = load_campaign(Path(campaign))
    workspace, run = open_store(config.workspace), config.run.name
    by_user = default_policy(config.classes, config.routing)
    write_policy(workspace, by_user)
    stages = rerouted(_STAGES, by_user)
    rng, label_ids = np.random.default_rng(0), []
    with Ledger.load(workspace, run) as ledger:
        keys = (f"camera/{number:09d}.jpg" for number in range(labels // labels_an_image))
        plan((ImageRef(key, "0", 0) for key in keys), workspace, run, ledger, config.run.shard_size)
        for shard in ledger.shards():
            tables = made_up_tables(sorted(ledger.keys_of(shard.id)), labels_an_image, rng)
            label_ids.append(tables["detect"]["label_id"])
            tables["route"] = route(tables["images"], tables["detect"], tables["segment"], tables["score"], by_user)
            parts = {stage: write_part(workspace, run, shard.id, stage, table) for stage, table in tables.items()}
            done = Marker(
                shard=shard.id,
                fingerprint=stages_fingerprint(stages),
                stages=stages,
                parts=parts,
                counts=count(tables),
                numbers=write_numbers(workspace, run, shard.id, tables),
            )
            write_marker(workspace, run, done)
    current = Current(
        fingerprint=stages_fingerprint(stages), policy=by_user.version, classes=CLASSES, inputs={"made up": "0"}
    )
    write_current(workspace, run, current)
    if certified:
        ids = pa.chunked_array([chunk for column in label_ids for chunk in column.chunks])
        write_policy(workspace, _certified(keep_population(workspace, ids), len(ids), labels // labels_an_image))


def _certified(population: str, labels: int, images: int) -> "Policy":
    from vouch_labels.schemas.policy import Certification, Covered, Group, Policy, Reviewers
    from vouch_labels.tasks.labels.arrays import SIGNALS
    from vouch_labels.tasks.statistics.calibrator import Calibrator

    count = len(SIGNALS)
    calibrator = Calibrator(SIGNALS, (0.5,) * count, (0.3,) * count, (1.0,) * count, (None,) * count, 0.0, {})
    certification = Certification(
        precision=0.95, confidence=0.9, gate="accepted", look=1, inputs={"made up": "0"},
        calibrator=calibrator.to_dict(), fit_labels=400, brier=0.1, brier_of_rate=0.2, seed=0,
        covers=(Covered(population=population, labels=labels, images=images, plan=2, created=MADE),),
        plans=(1, 2), verdicts="0", reviewers=Reviewers(assumed=0.05), created=MADE,
    )  # fmt: skip
    groups = tuple(Group(name=name, classes=(name,), p_correct=0.9) for name in CLASSES)
    return Policy(version="certified-1-made-up", basis="certified", groups=groups, certification=certification)


def made_up_tables(keys: list[str], labels_an_image: int, rng: "np.random.Generator") -> dict[str, "pa.Table"]:
    """Tables of a shard; what decisions do not rest on is drawn at random, or empty."""
    import hashlib

    from vouch_labels.schemas.tables import STAGES

    rows = {"images": len(keys), "presence": 0}
    labels = len(keys) * labels_an_image
    contents = [hashlib.sha256(key.encode()).hexdigest() for key in keys]
    ids = [hashlib.sha256(f"{content} {place}".encode()).hexdigest()[:32] for content in contents
           for place in range(labels_an_image)]  # fmt: skip
    masks = rng.bytes(labels * RLE_BYTES)
    known: dict[str, Any] = {
        "label_id": ids,
        "class_name": [CLASSES[number] for number in rng.integers(0, len(CLASSES), labels)],
        "rle_counts": [masks[start : start + RLE_BYTES] for start in range(0, len(masks), RLE_BYTES)],
    }
    of_images: dict[str, Any] = {"key": keys, "sha256": contents, "outcome": ["done"] * len(keys)}
    by_label = {"key": [key for key in keys for _ in range(labels_an_image)]}
    return {
        stage: _table(schema, rows.get(stage, labels), of_images if stage == "images" else known | by_label, rng)
        for stage, schema in STAGES.items()
        if stage != "route"
    }


def _table(schema: "pa.Schema", count: int, known: dict[str, Any], rng: "np.random.Generator") -> "pa.Table":
    import numpy as np
    import pyarrow as pa

    columns = []
    for field in schema:
        if not count:
            values: Any = []
        elif field.name in known:
            values = known[field.name]
        elif pa.types.is_floating(field.type):
            values = rng.random(count, np.float32)
        elif pa.types.is_integer(field.type):
            values = rng.integers(0, 4, count)
        else:
            values = [None if field.nullable else ""] * count
        columns.append(pa.array(values, field.type))
    return pa.table(columns, schema=schema)
