"""The category id that each trainer expects first, and why."""

from typing import Final, NamedTuple


class Preset(NamedTuple):
    """How a trainer reads categories."""

    first_id: int
    """Id of the first category; the others follow without a gap."""
    reason: str
    """What the trainer does with the ids, and what else it needs."""


PRESETS: Final = {
    "coco": Preset(1, "COCO's own convention: ids from 1, 0 is left to the background."),
    "detectron2": Preset(
        1,
        "register_coco_instances maps ids to 0..K-1 in their order, whatever they are. "
        "Masks are RLE: set INPUT.MASK_FORMAT to bitmask. Crowd regions are left out of training.",
    ),
    "yolox": Preset(1, "COCODataset maps the sorted ids to 0..K-1 by place. Crowd regions are left out of training."),
    "rtdetr": Preset(
        0,
        "With remap_mscoco_category: False (RT-DETR, D-FINE) the id itself is the class index, "
        "so ids must be 0..K-1; num_classes is K.",
    ),
    "torchvision": Preset(
        1,
        "The detection references use the id as the label and keep 0 for the background; num_classes is K + 1. "
        "Masks are RLE: read them by wrap_dataset_for_transforms_v2, the older ConvertCocoPolysToMask takes polygons.",
    ),
    "zero_based": Preset(0, "For trainers that use the id as the class index."),
}


def category_ids(class_names: tuple[str, ...], preset: str) -> dict[str, int]:
    """Number the categories in the order given, from the first id of the preset."""
    first = PRESETS[preset].first_id
    return {name: first + place for place, name in enumerate(class_names)}
