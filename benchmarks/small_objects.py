"""Small objects in large images: what the bundled models find with tiles and without."""

import time
from typing import Final

from benchmarks.campaigns import Options
from benchmarks.harness import Table, in_child, mebibytes, seconds

SIDE: Final = 2048
OBJECTS: Final = 60
SIZES: Final = (32, 96)
"""Least and greatest size of an object, in pixels, before it is turned and partly hidden."""
SCENES: Final = {"quick": 1, "": 8}
SEED: Final = 71
"""Of scenes that the bundled models were not trained on."""
TILES: Final = {"size": 384, "overlap": 0.25}
WAYS: Final = {"whole images": None, "run.tiles": TILES}


def measure(options: Options) -> Table:
    """Find drawn objects with the campaign's default settings."""
    scenes = SCENES["quick" if options.quick else ""]
    rows: list[list[str]] = []
    figures: dict[str, float] = {}
    for name, tiles in WAYS.items():
        measured = in_child(_find, scenes=scenes, tiles=tiles)
        found = measured.value
        recall, precision = found["hits"] / found["objects"], found["hits"] / max(found["labels"], 1)
        rows.append([
            name,
            f"{recall:.3f}",
            f"{precision:.3f}",
            f"{found['mask_iou']:.3f}",
            seconds(found["cpu_seconds"] / scenes),
            mebibytes(measured.peak_bytes),
        ])  # fmt: skip
        what = "tiles" if tiles else "whole"
        figures |= {
            f"{what} recall": recall,
            f"{what} precision": precision,
            f"{what} mask_iou": found["mask_iou"],
            f"{what} cpu_seconds_an_image": found["cpu_seconds"] / scenes,
            f"{what} peak_bytes": float(measured.peak_bytes),
        }
    gain = figures["tiles recall"] - figures["whole recall"]
    return Table(
        title=f"{scenes} drawn scenes of {SIDE:,} x {SIDE:,} pixels, {found['objects']:,.0f} objects",
        columns=["", "recall at IoU .5", "precision", "mask IoU", "CPU time an image", "peak memory"],
        rows=[*rows, ["gain (target 0.25)", f"{gain:+.3f}", "", "", "", ""]],
        notes=[
            f"Objects of {SIZES[0]} to {SIZES[1]} pixels, before they are turned and partly hidden; bundled detector "
            f"and segmenter, all classes, default scores; tiles of {TILES['size']} pixels, overlap "
            f"{TILES['overlap']:g}, and the whole image. Mask IoU: mean of the masks that find an object.",
            "CPU time and memory are those of detecting and segmenting, all threads, Python and its imports included.",
        ],
        figures=figures | {"gain": gain},
    )


def _find(scenes: int, tiles: dict[str, float] | None) -> dict[str, float]:
    import numpy as np
    from pycocotools import mask as mask_utils

    from vouch_labels.schemas.campaign import ClassConfig, DetectorConfig, ModelsConfig, SegmenterConfig, Tiles
    from vouch_labels.schemas.errors import VouchError
    from vouch_labels.schemas.records import Failed
    from vouch_labels.starter.evaluate import pairs_of
    from vouch_labels.starter.scenes.scene import draw_scene
    from vouch_labels.starter.scenes.vocabulary import SPLITS
    from vouch_labels.tasks.detect import Detect
    from vouch_labels.tasks.models.registry import load_detector, load_segmenter
    from vouch_labels.tasks.models.runtime import choose_runtime
    from vouch_labels.tasks.segment import Segment

    names = [noun.name for noun in SPLITS["core"][0]]
    cut = Tiles.model_validate(tiles) if tiles else None
    runtime = choose_runtime(ModelsConfig(device="cpu"))
    classes = tuple(ClassConfig(name=name) for name in names)
    detect = Detect(load_detector(DetectorConfig(), runtime), classes, DetectorConfig(), cut)
    segment = Segment(load_segmenter(SegmenterConfig(), runtime), cut)
    objects, labels, cpu, overlaps = 0, 0, 0.0, list[float]()
    for index in range(scenes):
        small = (SIZES[0] / SIDE, SIZES[1] / SIDE)
        scene = draw_scene(SEED, index, "core", SIDE, SIDE, most=OBJECTS, small=small)
        began = time.process_time()
        [found] = detect([scene.image])
        if isinstance(found, Failed):
            raise VouchError(found.reason)
        [masks] = segment([scene.image], [found.boxes])
        if isinstance(masks, Failed):
            raise VouchError(masks.reason)
        cpu += time.process_time() - began
        truth = [(item.noun, item.xyxy) for item in scene.objects]
        objects, labels = objects + len(truth), labels + len(found.boxes)
        for label, place in pairs_of(truth, (found.boxes, found.scores, found.class_indices), names, 0):
            true = mask_utils.encode(np.asfortranarray(scene.objects[place].mask.astype(np.uint8)))
            mine = {"size": true["size"], "counts": masks.rle_counts[label]}
            overlaps.append(float(mask_utils.iou([mine], [true], [0])[0, 0]))
    return {
        "objects": objects,
        "labels": labels,
        "hits": len(overlaps),
        "mask_iou": float(np.mean(overlaps)) if overlaps else 0.0,
        "cpu_seconds": cpu,
    }
