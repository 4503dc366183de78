"""Draws what the bundled models find in fresh scenes: `python -m vouch_labels.starter.grid docs/starter.jpg`."""

import argparse
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import Final

from vouch_labels.schemas.campaign import DetectorConfig, SegmenterConfig
from vouch_labels.schemas.errors import UserError
from vouch_labels.starter.command import exit_code
from vouch_labels.starter.evaluate import (
    DETECTOR_HELD_OUT_SEED,
    DETECTOR_SEEN_SEED,
    OTHER_STYLE,
    Boxes,
    count_hits,
    find,
    fresh_scene,
)
from vouch_labels.starter.scenes.scene import Scene, SceneObject
from vouch_labels.starter.scenes.vocabulary import CORE, HELD_OUT
from vouch_labels.tasks.labels.records import ExportImage, ExportLabel
from vouch_labels.tasks.models.registry import Segmenter, load_detector, load_segmenter
from vouch_labels.tasks.models.runtime import Runtime
from vouch_labels.tasks.preview import draw_grid

_SIDE: Final = 304
_QUALITY: Final = 85
_NOUNS: Final = tuple(noun.name for noun in CORE)
_PAIRS: Final = tuple(sorted(f"{colour} {noun}" for colour, noun in HELD_OUT if noun in _NOUNS))


@dataclass(frozen=True)
class _Row:
    """Scenes of one kind: which are drawn, what is asked for, and what an object is called."""

    title: str
    seed: int
    split: str
    style: str
    asked: tuple[str, ...]
    name_of: Callable[[SceneObject], str]
    least: int
    """Objects of an asked name that a scene must have to be shown; nothing else decides which are."""


_ROWS: Final = (
    _Row("seen", DETECTOR_SEEN_SEED, "core", "noto", _NOUNS, lambda item: item.noun, 3),
    _Row("held-out pairs", DETECTOR_HELD_OUT_SEED, "core-heldout", "noto", _PAIRS, lambda item: item.phrase, 2),
    _Row("other style", DETECTOR_SEEN_SEED, "core", OTHER_STYLE, _NOUNS, lambda item: item.noun, 3),
)


def write_grid(path: Path, columns: int = 4) -> None:
    """Draw a row of scenes each for seen things, held-out pairs of colour and noun, and another emoji style.

    Each row shows the first scenes of the evaluation that have enough objects, whatever the models make of them, with
    the boxes at or above the campaign's default score, masks, names and scores.

    The path's ending says the format.

    Raises:
        VouchError: The bundled weights or the emoji cannot be used.
        UserError: The picture cannot be written, or has no column.
    """
    if columns < 1:
        raise UserError(f"cannot draw {columns} columns: at least one")
    runtime, config = Runtime("cpu", "fp32"), DetectorConfig()
    detector, segmenter = load_detector(config, runtime), load_segmenter(SegmenterConfig(), runtime)
    images, captions = [], []
    for row in _ROWS:
        for scene in islice(_scenes(row), columns):
            found = _at_least(find(detector, config, scene, row.asked), config.min_score)
            images.append((scene.image, _labelled(segmenter, row, scene, found)))
            captions.append(_caption(row, scene, found))
    try:
        draw_grid(images, (*_NOUNS, *_PAIRS), columns, _SIDE, captions).save(path, quality=_QUALITY)
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be written ({error}); choose another place, ending in .jpg") from error


def _scenes(row: _Row) -> Iterator[Scene]:
    for index in count():
        scene = fresh_scene(row.seed, index, row.split, row.style)
        if len(_truth(row, scene)) >= row.least:
            yield scene


def _truth(row: _Row, scene: Scene) -> list[tuple[str, tuple[float, float, float, float]]]:
    """Name and box of the objects that were asked for."""
    return [(row.name_of(item), item.xyxy) for item in scene.objects if row.name_of(item) in row.asked]


def _at_least(found: Boxes, score: float) -> Boxes:
    boxes, scores, labels = found
    kept = scores >= score
    return boxes[kept], scores[kept], labels[kept]


def _labelled(segmenter: Segmenter, row: _Row, scene: Scene, found: Boxes) -> ExportImage:
    """The boxes with their masks, as the preview draws them."""
    masks = segmenter.segment([scene.image], [found[0]])[0]
    labels = [
        ExportLabel("", row.asked[label], tuple(box.tolist()), counts, int(area), float(score), None, "accept", "")
        for box, score, label, counts, area in zip(*found, masks.rle_counts, masks.areas, strict=True)
    ]
    height, width = scene.image.shape[:2]
    return ExportImage("", width, height, labels)


def _caption(row: _Row, scene: Scene, found: Boxes) -> str:
    truth = _truth(row, scene)
    hits = count_hits(truth, found, row.asked, 0.0)
    return f"{row.title}: {hits} of {len(truth)} found, {len(found[0]) - hits} wrong"


def main(arguments: list[str] | None = None) -> int:
    """Draw the picture; returns the exit code."""
    parser = argparse.ArgumentParser(
        description="Draws what the bundled models find in fresh scenes into one picture.",
        epilog="example: python -m vouch_labels.starter.grid docs/starter.jpg",
    )
    parser.add_argument("path", type=Path, help="the picture; its ending says the format")
    parser.add_argument("--columns", type=int, default=4, help="scenes in a row")
    options = parser.parse_args(arguments)

    def work() -> str:
        write_grid(options.path, options.columns)
        return str(options.path)

    return exit_code(work)


if __name__ == "__main__":
    sys.exit(main())
