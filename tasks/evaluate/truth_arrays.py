"""Turns the annotations of one image into arrays and masks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schemas.errors import UserError
from tasks.boxes_masks import is_rle
from tasks.evaluate.arrays import ImageObjects, Rle
from tasks.evaluate.truth import RunLengths, TruthObject


def objects_of(
    items: Sequence[TruthObject], places: Sequence[int], size: tuple[int, int], path: Path, masks: bool
) -> ImageObjects:
    """Arrays of one image's annotations.

    Args:
        items: The annotations of classes that are compared.
        places: Place of each one's class in the list of classes.
        size: Height and width of the image in pixels.
        path: The ground-truth file, for errors.
        masks: Whether all of them have masks that are compared.

    Raises:
        UserError: A mask is damaged, or of another size than its image.
    """
    return ImageObjects(
        class_index=np.array(places, np.int64),
        xywh=np.array([item.xywh for item in items], np.float64).reshape(-1, 4),
        crowd=np.array([item.crowd for item in items], np.bool_),
        masks=[_mask(item, size, path) for item in items] if masks else None,
    )


def _mask(item: TruthObject, size: tuple[int, int], path: Path) -> Rle:
    from pycocotools import mask as mask_utils

    mask = item.segmentation
    if mask is None:
        raise ValueError(f"annotation {item.id!r} has no mask")
    if not isinstance(mask, RunLengths):
        rle: Rle = mask_utils.merge(mask_utils.frPyObjects([part.tolist() for part in mask], *size))
        return rle
    if mask.size != size:
        raise UserError(
            f"{path}: the mask of annotation {item.id!r} is {mask.size[1]} x {mask.size[0]} pixels, its image "
            f"{size[1]} x {size[0]}; export the masks in the size of the images"
        )
    if isinstance(mask.counts, bytes):
        # pycocotools trusts them, and would read beyond its arrays.
        if not is_rle(mask.counts, *size):
            raise UserError(f"{path}: the run lengths of annotation {item.id!r} are damaged")
        return {"size": list(size), "counts": mask.counts}
    plain: Rle = mask_utils.frPyObjects({"size": list(size), "counts": mask.counts.tolist()}, *size)
    return plain
