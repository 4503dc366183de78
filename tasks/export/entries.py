"""Writes one image or one annotation as a line of COCO JSON."""

import json
import math
from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from tasks.export.records import ExportImage, ExportLabel


def image_entry(
    image: ExportImage, image_id: int, file_name: str, licence: int | None, not_exhaustive: tuple[int, ...]
) -> str:
    """An element of `images`.

    Args:
        image: The image.
        image_id: Its id, from 1.
        file_name: Its path relative to the image root.
        licence: Id of its licence; None without licences.
        not_exhaustive: Ids of the categories of which it may show objects without an annotation, as LVIS has them.
    """
    parts = [f'"id": {image_id}, "file_name": {json.dumps(file_name, ensure_ascii=False)}']
    parts.append(f'"width": {image.width}, "height": {image.height}')
    if licence is not None:
        parts.append(f'"license": {licence}')
    if image.orientation != 1:
        parts.append(f'"exif_orientation": {image.orientation}')
    parts.append(f'"not_exhaustive_category_ids": {_list(not_exhaustive)}')
    return "{" + ", ".join(parts) + "}"


def annotation_entry(
    label: ExportLabel,
    image: ExportImage,
    annotation_id: int,
    image_id: int,
    categories: Mapping[str, int],
    crowd: bool,
) -> str | None:
    """An element of `annotations`; None when the box has no extent inside the image at 1/100 pixel.

    Boxes are [x, y, width, height], rounded to 1/100 pixel. The mask is compressed RLE, [] without one. The area is
    the mask's, the box's without a mask or with an empty one, because trainers skip annotations of area 0. A crowd
    region without a pixel is the box filled, or evaluation of masks would punish detections there.

    Args:
        label: The label.
        image: Its image.
        annotation_id: Its id, from 1, since pycocotools takes 0 for unmatched.
        image_id: The image's id.
        categories: Category -> id.
        crowd: Mark it as a region in which detections are neither right nor wrong.
    """
    x0, y0, x1, y1 = (round(value, 2) if math.isfinite(value) else math.nan for value in label.xyxy)
    # Also false for what is not a number.
    if not (0 <= x0 < x1 <= image.width and 0 <= y0 < y1 <= image.height):
        return None
    width, height = x1 - x0, y1 - y0
    area: int | str = label.area or f"{width * height:.2f}"
    counts = label.rle_counts
    if crowd and label.area == 0:
        counts = _rectangle((x0, y0, x1, y1), image)
    mask = "[]"
    if counts is not None:
        # Run lengths are printable ASCII without quotes; the backslash is the one that JSON escapes.
        escaped = counts.decode("ascii").replace("\\", "\\\\")
        mask = f'{{"size": [{image.height}, {image.width}], "counts": "{escaped}"}}'
    extra = "" if label.p_correct is None else f', "p_correct": {_number(label.p_correct)}'
    verdict = "" if label.verdict is None else f', "verdict": {_text(label.verdict)}'
    return (
        f'{{"id": {annotation_id}, "image_id": {image_id}, "category_id": {categories[label.class_name]}, '
        f'"bbox": [{x0:.2f}, {y0:.2f}, {width:.2f}, {height:.2f}], "area": {area}, "iscrowd": {int(crowd)}, '
        f'"segmentation": {mask}, "score": {_number(label.score)}{extra}, "decision": {_text(label.decision)}, '
        f'"policy": {_text(label.policy)}, "provenance": {_text(label.provenance)}{verdict}, '
        f'"label_id": {json.dumps(label.label_id)}}}'
    )


def _rectangle(box: tuple[float, float, float, float], image: ExportImage) -> bytes:
    """Compressed RLE of the pixels that a box touches."""
    from pycocotools import mask as mask_utils

    x0, y0 = math.floor(box[0]), math.floor(box[1])
    sides = np.array([[x0, y0, math.ceil(box[2]) - x0, math.ceil(box[3]) - y0]], dtype=np.float64)
    counts: bytes = mask_utils.frPyObjects(sides, image.height, image.width)[0]["counts"]
    return counts


def _number(value: float) -> str:
    return f"{value:.4f}" if math.isfinite(value) else "null"


@lru_cache(maxsize=1024)
def _text(value: str | None) -> str:
    return json.dumps(value, ensure_ascii=False)


@lru_cache(maxsize=64)
def _list(ids: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, ids))}]"
