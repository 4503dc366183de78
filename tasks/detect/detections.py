"""What the detect step finds in one image, and how it is laid out as a table."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from schemas.tables import DETECTIONS
from tasks.models.registry import Floats

ID_LENGTH = 24
_UNITS = 100


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """N labels of one image, best score first; arrays are (N,) unless said otherwise."""

    boxes: Floats
    """(N, 4) xyxy in pixels of the image."""
    class_indices: NDArray[np.int64]
    """Index into the campaign's classes."""
    prompts: list[str]
    """Text that gave the score."""
    scores: Floats
    """Score of the class, [0, 1]."""
    margins: Floats
    """Score less that of the runner-up, [-1, 1]."""
    runners_up: list[str | None]
    """Class, or negative text, with the second score; None when only one text was asked for."""
    relative_areas: Floats
    """Area of the box over that of the image, [0, 1]."""
    border_sides: NDArray[np.int8]
    """Sides of the image that the box comes within a pixel of, 0..4."""
    crowding: Floats
    """Largest IoU with another label of the image, [0, 1]."""


def detection_table(rows: Iterable[tuple[str, str, Detections]], class_names: Sequence[str]) -> pa.Table:
    """Lay out the labels of images as a table.

    A label's id is a hash of the image's key and content, the class and the box in hundredths of a pixel; of two
    labels of one image that agree in all of these the later one's place is hashed too.

    Args:
        rows: For each image its key, the SHA-256 of its content, and its labels.
        class_names: Names of the classes, in their order.

    Returns:
        A table of schema DETECTIONS, a row a label, in the order given.
    """
    batches = [_batch(key, sha256, found, class_names) for key, sha256, found in rows if len(found.boxes)]
    return pa.Table.from_batches(batches, schema=DETECTIONS)


def _batch(key: str, sha256: str, found: Detections, class_names: Sequence[str]) -> pa.RecordBatch:
    names = [class_names[index] for index in found.class_indices]
    columns = [
        pa.array(_label_ids(key, sha256, names, found.boxes), pa.string()),
        pa.array([key] * len(names), pa.string()),
        pa.array(names, pa.string()),
        *(pa.array(found.boxes[:, side], pa.float32()) for side in range(4)),
        pa.array(found.prompts, pa.string()),
        pa.array(found.scores, pa.float32()),
        pa.array(found.margins, pa.float32()),
        pa.array(found.runners_up, pa.string()),
        pa.array(found.relative_areas, pa.float32()),
        pa.array(found.border_sides, pa.int8()),
        pa.array(found.crowding, pa.float32()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=DETECTIONS)


def _label_ids(key: str, sha256: str, names: Sequence[str], boxes: Floats) -> list[str]:
    seen: dict[str, int] = {}
    ids = []
    for name, box in zip(names, np.rint(boxes.astype(np.float64) * _UNITS).astype(np.int64).tolist(), strict=True):
        text = "\0".join([key, sha256, name, *map(str, box)])
        repeat = seen[text] = seen.get(text, -1) + 1
        digest = hashlib.sha256(f"{text}\0{repeat}".encode() if repeat else text.encode())
        ids.append(digest.hexdigest()[:ID_LENGTH])
    return ids
