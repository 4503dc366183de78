"""A small labelled data set: real pictures, real masks, every kind of label."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as mask_utils

from vouch_labels.schemas.campaign import ExportConfig
from vouch_labels.tasks.export.dataset import write_dataset
from vouch_labels.tasks.export.decide import is_left_out
from vouch_labels.tasks.export.export import write_summary
from vouch_labels.tasks.export.formats import image_path, kind_of, layout_of
from vouch_labels.tasks.export.images import place_images, read_changed
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel, ExportSummary
from vouch_labels.tasks.store.local import LocalStore

CLASSES = ("bolt", 'a "hex" nut\\', "überwurf 螺母")
CREATED = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


class Written(NamedTuple):
    """An export on disk."""

    folder: Path
    summary: ExportSummary
    images: list[ExportImage]


def ellipse(height: int, width: int, box: tuple[float, float, float, float]) -> np.ndarray:
    x0, y0, x1, y1 = box
    rows, columns = np.mgrid[:height, :width] + 0.5
    inside = ((columns - (x0 + x1) / 2) / ((x1 - x0) / 2)) ** 2 + ((rows - (y0 + y1) / 2) / ((y1 - y0) / 2)) ** 2
    return (inside < 1).astype(np.uint8)


def label(
    number: int,
    class_name: str,
    box: tuple[float, float, float, float],
    size: tuple[int, int],
    decision: Literal["accept", "review"] = "accept",
    masked: bool = True,
) -> ExportLabel:
    """A label on an image of size (height, width)."""
    mask = np.asfortranarray(ellipse(*size, box))
    counts = mask_utils.encode(mask)["counts"] if masked else None
    area = int(mask.sum()) if masked else 0
    return ExportLabel(f"{number:016x}", class_name, box, counts, area, 0.875, 0.9, decision, "p1")


@pytest.fixture
def images() -> list[ExportImage]:
    a, b = (60, 80), (90, 50)
    return [
        ExportImage(
            "north/a.jpg",
            80,
            60,
            [
                label(1, CLASSES[0], (10.128, 5.0, 40.5, 45.25), a),
                label(2, CLASSES[1], (30.0, 20.0, 79.5, 60.0), a),
                label(3, CLASSES[2], (1.0, 30.0, 21.0, 55.0), a, "review"),
            ],
            "aa",
        ),
        ExportImage('south/näch"ste.png', 50, 90, [label(4, CLASSES[1], (0.0, 0.0, 50.0, 90.0), b)], "bb"),
        ExportImage("empty.png", 50, 90, [], "cc"),
        ExportImage(
            "south/doubtful.png",
            50,
            90,
            [label(5, CLASSES[0], (7.2, 8.1, 7.6, 8.4), b, "review"), label(6, CLASSES[0], (3, 40, 30, 80), b)],
            "dd",
        ),
    ]


@pytest.fixture
def source(tmp_path: Path, images: list[ExportImage]) -> LocalStore:
    folder = tmp_path / "source"
    for number, image in enumerate(images):
        path = folder / image.key
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(number).integers(0, 256, (image.height, image.width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return LocalStore(folder)


@pytest.fixture
def write(tmp_path: Path, images: list[ExportImage], source: LocalStore) -> Callable[..., Written]:
    """Writes the images with an ExportConfig of the given fields."""
    workspace = LocalStore(tmp_path / "workspace")

    def run(given: list[ExportImage] | None = None, missing: dict[str, str] | None = None, **fields: Any) -> Written:
        (config,) = ExportConfig(**fields).data_sets(linkable=True)
        prefix = f"exports/{config.name}"
        chosen = images if given is None else given
        if config.images != "none":
            path = {image.key: image_path(config, image) for image in chosen}
            layout = replace(layout_of(config), path=lambda image: path[image.key])
            bare = [image._replace(sha256=None) for image in chosen if not is_left_out(image, config.undecided)]
            assert place_images(bare, source, workspace, prefix, config.images, layout=layout) == {}
        layout = layout_of(config)
        missed: dict[str, str] = {}

        def contents(image: ExportImage) -> bytes | str:
            return read_changed(image._replace(sha256=None), source, layout)

        summary = write_dataset(
            iter(chosen),
            CLASSES,
            config,
            workspace,
            prefix,
            run="main",
            created=CREATED,
            version="7",
            image_root=source.uri,
            contents=contents if kind_of(config).holds_images else None,
            missed=missed,
        )
        assert missed == (missing or {})
        write_summary(workspace, summary)
        return Written(workspace.root / prefix, summary, chosen)

    return run
