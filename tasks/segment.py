"""Segments the boxes of images; an image that fails does not fail the others."""

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa

from vouch_labels.schemas.campaign import Tiles
from vouch_labels.schemas.records import Failed
from vouch_labels.schemas.tables import MASKS
from vouch_labels.tasks.boxes_masks import paired_box_iou
from vouch_labels.tasks.fingerprint import fingerprint
from vouch_labels.tasks.models.registry import Floats, Masks, Pixels, Segmenter
from vouch_labels.tasks.tiles import TiledSegmenter


class Segment:
    """The segment step: one mask a box, and no exception for one bad image."""

    def __init__(self, segmenter: Segmenter, tiles: Tiles | None = None) -> None:
        """Take the model to use, in tiles or in whole images; the step adds no setting of its own."""
        self._segmenter = TiledSegmenter(segmenter, tiles) if tiles else segmenter
        self.key = fingerprint("segment", 1, self._segmenter.fingerprint)
        """What the step's rows depend on, beside the images and the boxes."""
        # Tiles are an input of the detector, which sees the same ones.
        self.inputs = {"segmenter weights": fingerprint("segment", 1, segmenter.fingerprint)}
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
            finite = np.isfinite(masks.predicted_iou).all() and np.isfinite(masks.stability).all()
            results[index] = masks if finite else Failed(step="segment", reason="the segmenter's answer is not finite")
        return results

    def table(self, rows: Iterable[tuple[Sequence[str], Floats, Masks]]) -> pa.Table:
        """Lay out label ids, boxes and masks of images that did not fail as a table of schema MASKS, a row a label."""
        batches = [_batch(ids, boxes, masks) for ids, boxes, masks in rows if len(ids)]
        return pa.Table.from_batches(batches, schema=MASKS)


def _batch(ids: Sequence[str], boxes: Floats, masks: Masks) -> pa.RecordBatch:
    kept = paired_box_iou(boxes, masks.boxes).astype(np.float32)
    columns = [ids, masks.rle_counts, masks.areas, *masks.boxes.T, masks.predicted_iou, masks.stability, kept]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, MASKS, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=MASKS)
