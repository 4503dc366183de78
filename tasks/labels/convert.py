"""Gives labels in the forms that other packages take: a Polars frame, supervision's Detections."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.labels.read import SIGNAL_STAGES
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.labels.scan import scan
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.store.store import Store

if TYPE_CHECKING:
    import supervision as sv

LABEL_COLUMNS: Final[Mapping[str, pl.DataType]] = {
    "key": pl.String(),
    "width": pl.Int32(),
    "height": pl.Int32(),
    "label_id": pl.String(),
    "class_name": pl.String(),
    **dict.fromkeys(BOX, pl.Float32()),
    "detector_score": pl.Float32(),
    "p_correct": pl.Float32(),
    "decision": pl.String(),
    "policy": pl.String(),
    "reviewed": pl.String(),
    "provenance": pl.String(),
    "rle_counts": pl.Binary(),
    "mask_area": pl.Int64(),
}
"""Columns of a frame of labels, before those of the signals."""

SIGNAL_COLUMNS: Final = tuple(name for name in SIGNAL_STAGES if name not in LABEL_COLUMNS)
"""What the models measured of a label, in the frame's order."""


def label_frame(images: Iterable[ExportImage], signals: pl.DataFrame) -> pl.DataFrame:
    """Make a frame of LABEL_COLUMNS and SIGNAL_COLUMNS with a row a label, in the order of the images.

    SIGNAL_COLUMNS are null where people drew the label.
    """
    columns: dict[str, list[object]] = {name: [] for name in LABEL_COLUMNS}
    for image in images:
        for label in image.labels:
            score = None if np.isnan(label.score) else label.score
            row = (
                image.key, image.width, image.height, label.label_id, label.class_name, *label.xyxy, score,
                label.p_correct, label.decision, label.policy, label.reviewed, label.provenance, label.rle_counts,
                label.area,
            )  # fmt: skip
            for values, value in zip(columns.values(), row, strict=True):
                values.append(value)
    frame = pl.DataFrame(columns, schema=LABEL_COLUMNS)
    return frame.join(signals, on="label_id", how="left", maintain_order="left")


def read_signals(workspace: Store, run: str, ledger: Ledger, fingerprint: str) -> pl.DataFrame:
    """Read what the models measured of every label of a run: label_id and SIGNAL_COLUMNS as Float32, each label once.

    Raises:
        StoreError: A marker or table is missing or damaged.
    """
    schema = pa.schema({name: pa.string() if name == "label_id" else pa.float32() for name in _SIGNALS})
    tables = (table.cast(schema) for table in scan(workspace, run, ledger, fingerprint, _SIGNALS))
    return pl.DataFrame(pa.concat_tables([schema.empty_table(), *tables]))


_SIGNALS: Final = ("label_id", *SIGNAL_COLUMNS)


def detections_of(
    labels: Sequence[ExportLabel], image: ExportImage, class_names: Sequence[str], size: tuple[int, int] | None = None
) -> "sv.Detections":
    """Give N labels of an image as supervision's Detections, scaled to `size` (width, height) unless None.

    Returns:
        `xyxy` (N, 4) float32, pixels of the scaled EXIF-oriented image; `mask` (N, height, width) bool, nowhere true
        for a label without one; `confidence` (N,) float32, the detector's score, NaN for a label that people drew;
        `class_id` (N,); `data` of N strings each: label_id, class_name, decision, reviewed, provenance.
    """
    import supervision as sv

    own = (image.width, image.height)
    size = size or own
    factor = np.array([size[0] / own[0], size[1] / own[1]] * 2, dtype=np.float32)
    masks = [_mask(label, own, size) for label in labels]
    return sv.Detections(
        xyxy=np.array([label.xyxy for label in labels], dtype=np.float32).reshape(-1, 4) * factor,
        mask=np.stack(masks) if masks else np.zeros((0, size[1], size[0]), dtype=bool),
        confidence=np.array([label.score for label in labels], dtype=np.float32),
        class_id=np.array([class_names.index(label.class_name) for label in labels], dtype=int),
        data={
            "label_id": np.array([label.label_id for label in labels], dtype=str),
            "class_name": np.array([label.class_name for label in labels], dtype=str),
            "decision": np.array([label.decision or "" for label in labels], dtype=str),
            "reviewed": np.array([label.reviewed for label in labels], dtype=str),
            "provenance": np.array([label.provenance for label in labels], dtype=str),
        },
    )


def _mask(label: ExportLabel, own: tuple[int, int], size: tuple[int, int]) -> NDArray[np.bool_]:
    """(H, W) bool in the scaled image; nowhere true without a mask."""
    from pycocotools import mask as coco

    if label.rle_counts is None:
        return np.zeros((size[1], size[0]), dtype=bool)
    decoded = coco.decode({"size": [own[1], own[0]], "counts": label.rle_counts})
    if size == own:
        return np.asarray(decoded, dtype=bool)
    return np.asarray(Image.fromarray(decoded * 255).resize(size, Image.Resampling.BILINEAR)) > 127
