"""Makes up a workspace full of labels, in the files that a run leaves, without a model or an image."""

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

    from schemas.policy import Policy

LABELS_AN_IMAGE: Final = 5
CLASSES: Final = tuple(f"class {number:02d}" for number in range(12))
RLE_BYTES: Final = 150
"""Of a mask: about what an object 150 pixels across takes."""
_STAGES: Final = {stage: stage for stage in ("images", "detect", "segment", "score", "presence")}


def make_workspace(campaign: str, labels: int, labels_an_image: int = LABELS_AN_IMAGE) -> str:
    """Write plans, tables, markers and a certified policy for a campaign.

    Args:
        campaign: Its file; the classes are CLASSES, the source need not hold anything.
        labels: How many.
        labels_an_image: How many of them each image has.

    Returns:
        Version of the policy, which is not in force yet.
    """
    import numpy as np

    from schemas.campaign_file import load_campaign
    from schemas.records import Current, ImageRef, Marker
    from tasks.plan.ledger import Ledger
    from tasks.plan.plan import plan
    from tasks.policy import default_policy, write_policy
    from tasks.route import route
    from tasks.shard.files import count, write_current, write_marker, write_part
    from tasks.shard.pipeline import rerouted, stages_fingerprint
    from tasks.store.open import open_store

    config = load_campaign(Path(campaign))
    workspace, run = open_store(config.workspace), config.run.name
    by_user, certified = default_policy(config.classes, config.routing), _certified()
    for policy in (by_user, certified):
        write_policy(workspace, policy)
    stages = rerouted(_STAGES, by_user)
    rng = np.random.default_rng(0)
    with Ledger.load(workspace, run) as ledger:
        keys = (f"camera/{number:09d}.jpg" for number in range(labels // labels_an_image))
        plan((ImageRef(key, "0", 0) for key in keys), workspace, run, ledger, config.run.shard_size)
        for shard in ledger.shards():
            tables = _tables(sorted(ledger.keys_of(shard.id)), labels_an_image, rng)
            tables["route"] = route(tables["images"], tables["detect"], tables["segment"], tables["score"], by_user)
            parts = {stage: write_part(workspace, run, shard.id, stage, table) for stage, table in tables.items()}
            done = Marker(
                shard=shard.id,
                fingerprint=stages_fingerprint(stages),
                stages=stages,
                parts=parts,
                counts=count(tables),
            )
            write_marker(workspace, run, done)
    current = Current(
        fingerprint=stages_fingerprint(stages), policy=by_user.version, classes=CLASSES, inputs={"made up": "0"}
    )
    write_current(workspace, run, current)
    return certified.version


def _certified() -> "Policy":
    from schemas.policy import Certification, Group, Policy
    from tasks.labels.arrays import SIGNALS
    from tasks.statistics.calibrator import Calibrator

    count = len(SIGNALS)
    calibrator = Calibrator(SIGNALS, (0.5,) * count, (0.3,) * count, (1.0,) * count, (None,) * count, 0.0, {})
    certification = Certification(
        precision=0.95, confidence=0.9, gate="delivered", look=1, inputs={"made up": "0"},
        calibrator=calibrator.to_dict(), fit_labels=400, brier=0.1, brier_of_rate=0.2, fit_share=0.01, seed=0,
        plans=(1, 2), verdicts="0", created="2026-01-01T00:00:00+00:00",
    )  # fmt: skip
    groups = tuple(Group(name=name, classes=(name,), p_correct=0.9) for name in CLASSES)
    return Policy(version="certified-1-made-up", basis="certified", groups=groups, certification=certification)


def _tables(keys: list[str], labels_an_image: int, rng: "np.random.Generator") -> dict[str, "pa.Table"]:
    """Tables of a shard; what decisions do not rest on is drawn at random, or empty."""
    import hashlib

    from schemas.tables import STAGES

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
