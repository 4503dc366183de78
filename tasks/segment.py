"""Segments the boxes of images; an image that fails does not fail the others."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import MASKS
from vouch_labels.tasks.boxes_masks import paired_box_iou
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Floats, Masks, Pixels, Segmenter


class Segment:
    """The segment step: one mask a box, and no exception for one bad image."""

    def __init__(self, segmenter: Segmenter) -> None:
        """Take the model to use; the step adds no setting of its own."""
        self._segmenter = segmenter
        self.key = fingerprint("segment", 1, segmenter.fingerprint)
        """What the step's rows depend on, beside the images and the boxes."""
        self.inputs = {"segmenter weights": self.key}
        """The same by what a user can change: name -> its fingerprint."""

    def __call__(self, images: Sequence[Pixels], boxes: Sequence[Floats]) -> list[Masks | Failed]:
        """Mask the (N, 4) float32 xyxy boxes, in pixels, of each (H, W, 3) uint8 RGB image; N may be 0.

        Returns:
            For each image its masks, in the order of the boxes, or why it failed: boxes or the model's answers that
            are not finite.

        Raises:
            torch.OutOfMemoryError: A single image does not fit the device.
        """
        sound = [index for index, prompts in enumerate(boxes) if np.isfinite(prompts).all()]
        results: list[Masks | Failed] = [Failed(step="segment", reason="a box is not finite")] * len(images)
        found = self._segmenter.segment([images[i] for i in sound], [boxes[i] for i in sound])
        for index, masks in zip(sound, found, strict=True):
            results[index] = (
                masks if _finite(masks) else Failed(step="segment", reason="the segmenter's answer is not finite")
            )
        return results

    def table(self, rows: Iterable[tuple[Sequence[str], Floats, Masks]]) -> pa.Table:
        """Lay out label ids, boxes and masks of images that did not fail as a table of schema MASKS, a row a label."""
        batches = [_batch(ids, boxes, masks) for ids, boxes, masks in rows if len(ids)]
        return pa.Table.from_batches(batches, schema=MASKS)


def _finite(masks: Masks) -> bool:
    return bool(np.isfinite(masks.predicted_iou).all() and np.isfinite(masks.stability).all())


def _batch(ids: Sequence[str], boxes: Floats, masks: Masks) -> pa.RecordBatch:
    columns = [
        pa.array(ids, pa.string()),
        pa.array(masks.rle_counts, pa.binary()),
        pa.array(masks.areas, pa.int64()),
        *(pa.array(masks.boxes[:, side], pa.float32()) for side in range(4)),
        pa.array(masks.predicted_iou, pa.float32()),
        pa.array(masks.stability, pa.float32()),
        pa.array(paired_box_iou(boxes, masks.boxes).astype(np.float32)),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=MASKS)
