"""Files of labels: importing verdicts, reading ground truth, and the COCO export."""

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.campaigns import Options, draw_pictures, run_bare, write_campaign
from benchmarks.harness import Table, in_child, mebibytes, seconds

if TYPE_CHECKING:
    from vouch_labels.tasks.labels.records import ExportImage

VERDICTS_ROWS: Final = 5_000_000
TRUTH_BYTES: Final = 1_000_000_000
LIMIT_CPU_SECONDS: Final = 60.0
LIMIT_BYTES: Final = 1 << 30

_REVIEWERS: Final = 20
_ROWS_AN_IMAGE: Final = 10
_GROUP: Final = 500_000
LABELS: Final = 1_000_000
LABELS_AN_IMAGE: Final = 10
LIMIT_SECONDS: Final = 60.0
SIZE: Final = (480, 640)
SHAPES: Final = 500
"""Different masks; labels take turns."""


def measure_verdicts(options: Options) -> Table:
    """Import a Parquet file of verdicts, and the same file again."""
    count = 20_000 if options.quick else VERDICTS_ROWS
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        in_child(_prepare, folder=folder, rows=count)
        for name, imported in ((f"{count:,} rows", count), ("the same file again", 0)):
            done = in_child(_import, folder=folder)
            if done.value["imported"] != imported:
                raise ValueError(f"{done.value['imported']:,.0f} rows imported, not {imported:,}")
            cpu = done.value["cpu_seconds"]
            rows.append([name, seconds(cpu), seconds(done.seconds), mebibytes(done.peak_bytes)])
            what = "import" if imported else "again"
            figures |= {f"{what}_cpu_seconds": cpu, f"{what}_peak_bytes": done.peak_bytes}
    return Table(
        title="import of verdicts from Parquet",
        columns=["", "CPU time", "time", "peak memory"],
        rows=[*rows, ["limit for 5,000,000", seconds(LIMIT_CPU_SECONDS), "", mebibytes(LIMIT_BYTES)]],
        notes=[
            f"Verdicts on labels that the run does not have, {_ROWS_AN_IMAGE} an image, of {_REVIEWERS} reviewers, one "
            "in five with a box; all-or-nothing, as `vouch verdicts CAMPAIGN FILE` imports them.",
            "Peak memory is that of the whole process, Python and its imports included.",
        ],
        figures=figures,
    )


def measure_truth(options: Options) -> Table:
    """Read a COCO file with polygons, with its masks and without."""
    size = 2_000_000 if options.quick else TRUTH_BYTES
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
        path = str(Path(folder) / "truth.json")
        in_child(_write_truth, path=path, size=size)
        for name, masks in (("with masks, as evaluate does", True), ("without, as simulate does", False)):
            done = in_child(_read_truth, path=path, masks=masks)
            cpu, annotations = done.value["cpu_seconds"], done.value["annotations"]
            rows.append([name, f"{annotations:,.0f}", seconds(cpu), seconds(done.seconds), mebibytes(done.peak_bytes)])
            what = "masks" if masks else "boxes"
            figures |= {f"{what}_cpu_seconds": cpu, f"{what}_peak_bytes": done.peak_bytes}
    return Table(
        title=f"reading ground truth of {size / 1e6:,.0f} MB",
        columns=["", "annotations", "CPU time", "time", "peak memory"],
        rows=[*rows, ["limit", "", "", "", mebibytes(LIMIT_BYTES)]],
        notes=[
            "COCO instances with a polygon of 24 vertices each, two decimals a number, eight objects an image.",
            "Peak memory is that of the whole process, Python and its imports included.",
        ],
        figures=figures,
    )


def _prepare(folder: str, rows: int) -> int:
    """Label a few pictures, and write the verdicts."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    draw_pictures(Path(folder) / "images", 4)
    run_bare(write_campaign(Path(folder), Path(folder) / "images"))
    rng = np.random.default_rng(0)
    writer = None
    for start in range(0, rows, _GROUP):
        number = np.arange(start, min(start + _GROUP, rows))
        boxed = number % 5 == 0
        low = rng.uniform(0, 300, (len(number), 2)).astype(np.float32)
        corners = np.concatenate([low, low + 50], axis=1)
        table = pa.table(
            {
                "label_id": [f"{one:024x}" for one in number.tolist()],
                "key": [
                    f"{one // _ROWS_AN_IMAGE // 1000:04d}/{one // _ROWS_AN_IMAGE:09d}.jpg" for one in number.tolist()
                ],
                "verdict": pa.array(np.where(boxed, "bad_box", np.where(number % 3 == 0, "not_an_object", "correct"))),
                **{
                    side: pa.array(corners[:, place], mask=~boxed)
                    for place, side in enumerate(("x0", "y0", "x1", "y1"))
                },
                "reviewer": pa.array([f"reviewer {one % _REVIEWERS}" for one in number.tolist()]),
                "seconds": pa.array(rng.uniform(1, 9, len(number)).astype(np.float32)),
                "reviewed_at": pa.array(1_700_000_000_000_000 + 1_000_000 * number, pa.timestamp("us", tz="UTC")),
            }
        )
        writer = writer or pq.ParquetWriter(Path(folder) / "verdicts.parquet", table.schema)
        writer.write_table(table)
    if writer is not None:
        writer.close()
    return rows


def _import(folder: str) -> dict[str, float]:
    from vouch_labels.schemas.campaign_file import load_campaign
    from vouch_labels.tasks.reviews.import_verdicts import import_files

    campaign = load_campaign(Path(folder) / "campaign.yaml")
    started = time.process_time()
    (outcome,) = import_files(campaign, [Path(folder) / "verdicts.parquet"], "ann")
    return {"cpu_seconds": time.process_time() - started, "imported": outcome.imported}


def _write_truth(path: str, size: int) -> int:
    import json

    import numpy as np

    rng = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 24, endpoint=False)
    outlines = []
    for _ in range(1000):
        centre, radius = rng.uniform(100, 400, 2), rng.uniform(20, 90)
        points = centre + radius * np.stack([np.cos(angle), np.sin(angle)], axis=1) * rng.uniform(0.8, 1, (24, 1))
        low, high = points.min(axis=0), points.max(axis=0)
        box = [*low.tolist(), *(high - low).tolist()]
        outlines.append(
            f'"segmentation": {json.dumps([points.reshape(-1).round(2).tolist()])}, '
            f'"bbox": {json.dumps([round(side, 2) for side in box])}, "area": {radius**2:.2f}, "iscrowd": 0'
        )
    written = number = 0
    with Path(path).open("w", encoding="ascii") as file:
        images = size // 4000
        file.write('{"info": {}, "images": [')
        for image in range(images):
            comma = ", " if image else ""
            file.write(f'{comma}{{"id": {image}, "file_name": "{image:09d}.jpg", "width": 500, "height": 500}}')
        file.write('], "annotations": [')
        while written < size:
            comma = ", " if number else ""
            written += file.write(
                f'{comma}{{"id": {number}, "image_id": {number // 8 % images}, "category_id": {number % 3}, '
                f"{outlines[number % 1000]}}}"
            )
            number += 1
        names = ", ".join(f'{{"id": {place}, "name": "{name}"}}' for place, name in enumerate(("cat", "dog", "bird")))
        file.write(f'], "categories": [{names}]}}')
    return number


def _read_truth(path: str, masks: bool) -> dict[str, float]:
    from vouch_labels.tasks.evaluate.ground_truth import read_truth

    started = time.process_time()
    truth = read_truth(Path(path), masks=masks)
    return {"cpu_seconds": time.process_time() - started, "annotations": truth.file.annotations}


def measure_export(options: Options) -> Table:
    """Write a data set of a tenth of the labels and one of all."""
    sizes = [LABELS // 1000] if options.quick else [LABELS // 10, LABELS]
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    ways: dict[str, dict[str, Any]] = {
        "": {},
        ", files of 10,000 images": {"images_per_file": 10_000},
        ", Parquet": {"formats": ["parquet"]},
    }
    for labels in sizes:
        for way, settings in ways.items():
            with tempfile.TemporaryDirectory(prefix="vouch-bench-") as folder:
                done = in_child(_export, folder=folder, labels=labels, settings=settings)
            cpu, size, files = (done.value[key] for key in ("cpu_seconds", "bytes", "files"))
            cells = [seconds(done.seconds), seconds(cpu), mebibytes(done.peak_bytes), mebibytes(size), f"{files:.0f}"]
            rows.append([f"{labels:,} labels{way}", *cells])
            name = f"{labels}{way.replace(', ', '_').replace(' ', '_')}"
            figures |= {f"{name}_seconds": done.seconds, f"{name}_cpu_seconds": cpu}
            figures |= {f"{name}_peak_bytes": done.peak_bytes, f"{name}_bytes": size}
    limits = ["limit for 1,000,000", seconds(LIMIT_SECONDS), "", mebibytes(LIMIT_BYTES), "", ""]
    return Table(
        title="export",
        columns=["", "time", "CPU time", "peak memory", "written", "files"],
        rows=[*rows, limits],
        notes=[
            f"{LABELS_AN_IMAGE} labels an image, each with a mask; making up the labels is in the time.",
            "Peak memory is that of the whole process, Python and its imports included.",
        ],
        figures=figures,
    )


def _export(folder: str, labels: int, settings: dict[str, Any]) -> dict[str, float]:
    """Write the data set; returns the bytes and number of its files, and how many annotations there are."""
    from datetime import UTC, datetime

    from vouch_labels.schemas.campaign import ExportConfig
    from vouch_labels.tasks.export.dataset import write_dataset
    from vouch_labels.tasks.store.local import LocalStore

    cpu = time.process_time()
    summary = write_dataset(
        _images(labels),
        ("cat", "dog", "bird"),
        ExportConfig.model_validate(settings),
        LocalStore(Path(folder)),
        "exports/coco",
        run="main",
        created=datetime.now(UTC),
        version="0",
        image_root=folder,
    )
    written = [path.stat().st_size for path in (Path(folder) / "exports/coco").iterdir()]
    return {
        "bytes": float(sum(written)),
        "files": float(len(written)),
        "annotations": float(summary.annotations),
        "cpu_seconds": time.process_time() - cpu,
    }


def _images(labels: int) -> "Iterator[ExportImage]":
    from vouch_labels.tasks.labels.records import ExportImage, ExportLabel

    shapes = mask_shapes()
    height, width = SIZE
    for start in range(0, labels, LABELS_AN_IMAGE):
        entries = []
        for number in range(start, min(start + LABELS_AN_IMAGE, labels)):
            xyxy, counts, area = shapes[number % SHAPES]
            name, decision = ("cat", "dog", "bird")[number % 3], "review" if number % 5 == 0 else "accept"
            entries.append(ExportLabel(f"{number:016x}", name, xyxy, counts, area, 0.75, 0.9, decision, "0"))  # type: ignore[arg-type] # one of the two words
        yield ExportImage(f"{start:09d}.jpg", width, height, entries, f"{start:064x}")


def mask_shapes() -> list[tuple[tuple[float, float, float, float], bytes, int]]:
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
