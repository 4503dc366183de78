"""COCO export: time and peak memory of many labels through the writer."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks.campaigns import Options
from benchmarks.harness import Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    from vouch_labels.tasks.labels.records import ExportImage

LABELS: Final = 1_000_000
LABELS_AN_IMAGE: Final = 10
LIMIT_SECONDS: Final = 60.0
LIMIT_BYTES: Final = 1 << 30
SIZE: Final = (480, 640)
SHAPES: Final = 500
"""Different masks; labels take turns."""


def measure(options: Options) -> Table:
    """Write a data set of a tenth of the labels and one of all."""
    sizes = [LABELS // 1000] if options.quick else [LABELS // 10, LABELS]
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for labels in sizes:
        with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
            done = in_child(_export, folder=folder, labels=labels)
        size = done.value["bytes"]
        rows.append([f"{labels:,} labels", seconds(done.seconds), mebibytes(done.peak_bytes), mebibytes(size)])
        figures |= {f"{labels}_seconds": done.seconds, f"{labels}_peak_bytes": done.peak_bytes}
    limits = ["limit for 1,000,000", seconds(LIMIT_SECONDS), mebibytes(LIMIT_BYTES), ""]
    return Table(
        title="COCO export",
        columns=["", "time", "peak memory", "annotations.json"],
        rows=[*rows, limits],
        notes=[
            f"{LABELS_AN_IMAGE} labels an image, each with a mask; making up the labels is in the time.",
            "Peak memory is that of the whole process, Python and its imports included.",
        ],
        figures=figures,
    )


def _export(folder: str, labels: int) -> dict[str, int]:
    """Write the data set; returns the size of its annotations and how many there are."""
    from datetime import UTC, datetime

    from vouch_labels.schemas.campaign import ExportConfig
    from vouch_labels.tasks.export.coco import write_coco
    from vouch_labels.tasks.store.local import LocalStore

    summary = write_coco(
        _images(labels),
        ("cat", "dog", "bird"),
        ExportConfig(),
        LocalStore(Path(folder)),
        "exports/coco",
        run="main",
        created=datetime.now(UTC),
        version="0",
        image_root=folder,
    )
    return {
        "bytes": (Path(folder) / "exports/coco/annotations.json").stat().st_size,
        "annotations": summary.annotations,
    }


def _images(labels: int) -> "Iterator[ExportImage]":
    from vouch_labels.tasks.labels.records import ExportImage, ExportLabel

    shapes = _shapes()
    height, width = SIZE
    for start in range(0, labels, LABELS_AN_IMAGE):
        entries = []
        for number in range(start, min(start + LABELS_AN_IMAGE, labels)):
            xyxy, counts, area = shapes[number % SHAPES]
            name, decision = ("cat", "dog", "bird")[number % 3], "review" if number % 5 == 0 else "accept"
            entries.append(ExportLabel(f"{number:016x}", name, xyxy, counts, area, 0.75, 0.9, decision, "0"))  # type: ignore[arg-type] # one of the two words
        yield ExportImage(f"{start:09d}.jpg", width, height, entries, f"{start:064x}")


def _shapes() -> list[tuple[tuple[float, float, float, float], bytes, int]]:
    """Boxes with the mask of the ellipse in each: xyxy, compressed RLE, area."""
    import numpy as np

    from vouch_labels.tasks.models.fake import FakeSegmenter

    rng = np.random.default_rng(0)
    height, width = SIZE
    low = rng.uniform((0, 0), (width - 200, height - 200), (SHAPES, 2))
    boxes = np.concatenate([low, low + rng.uniform(20, 200, (SHAPES, 2))], axis=1).astype(np.float32)
    masks = FakeSegmenter().segment([np.zeros((height, width, 3), np.uint8)], [boxes])[0]
    corners = [(x0, y0, x1, y1) for x0, y0, x1, y1 in boxes.tolist()]
    return list(zip(corners, masks.rle_counts, masks.areas.tolist(), strict=True))
