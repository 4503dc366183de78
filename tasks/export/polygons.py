"""Outlines masks by polygons along the edges of their pixels, so that their area is the mask's to the pixel."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vouch_labels.tasks.labels.records import ExportImage

Vertices = NDArray[np.int64]
"""(N, 2), x and y of corners of pixels; the last is joined to the first."""


def decoded(counts: bytes, image: ExportImage) -> NDArray[np.bool_]:
    """(H, W) mask of compressed RLE of the size of its image."""
    from pycocotools import mask as mask_utils

    return mask_utils.decode({"size": [image.height, image.width], "counts": counts}).astype(np.bool_)  # type: ignore[no-any-return] # untyped package


class Outline(NamedTuple):
    """A closed line between pixels of a mask and others."""

    vertices: Vertices
    hole: bool
    """Whether it goes around pixels that are not the mask's."""
    part: int
    """Which 4-connected part of the mask it bounds, from 0."""


def outlines(mask: NDArray[np.bool_]) -> list[Outline]:
    """All outlines of a mask, (H, W); parts that meet at a corner alone have one each.

    Corners are where an odd number of the four pixels around are the mask's, and, twice, where two opposite ones are.
    Neighbouring corners of a row or column are joined in pairs.
    """
    from scipy.ndimage import label

    # A cell is 1 for top left, 2 for top right, 4 for bottom left, 8 for bottom right of a corner of pixels.
    padded = np.pad(mask.astype(np.uint8), 1)
    around = padded[:-1, :-1] | padded[:-1, 1:] << 1 | padded[1:, :-1] << 2 | padded[1:, 1:] << 3
    counts = _CORNERS[around]
    rows, columns = np.nonzero(counts)
    twice = counts[rows, columns] == 2
    kinds = around[rows, columns]
    # The first of two ends the edge from the left, the second starts the one to the right.
    place = np.concatenate([np.zeros(len(rows), np.int64), np.ones(twice.sum(), np.int64)])
    rows, columns = np.concatenate([rows, rows[twice]]), np.concatenate([columns, columns[twice]])
    kinds = np.concatenate([kinds, kinds[twice]])
    # The pixel at the top left holds the edges left and up, that at the bottom left those left and down.
    below = np.where(kinds == _FALLING, place, 1 - place)
    beside, above = np.empty(len(rows), np.int64), np.empty(len(rows), np.int64)
    by_row, by_column = np.lexsort((place, columns, rows)), np.lexsort((below, rows, columns))
    for order, partner in ((by_row, beside), (by_column, above)):
        partner[order[::2]], partner[order[1::2]] = order[1::2], order[::2]
    parts, _ = label(mask)
    found, done = [], np.zeros(len(rows), np.bool_)
    across, along = beside.tolist(), above.tolist()
    for start in by_row.tolist():
        if done[start]:
            continue
        line, corner = [], start
        while True:
            line += [corner, across[corner]]
            corner = along[across[corner]]
            if corner == start:
                break
        done[line] = True
        # The first corner is the top left one of its line: below lies what the line goes around, above what is outside.
        row, column = rows[start], columns[start]
        inside = bool(mask[row, column])
        part = parts[row, column] if inside else parts[row - 1, column]
        found.append(Outline(np.stack([columns[line], rows[line]], axis=1), not inside, int(part) - 1))
    return found


_FALLING = 9
"""Top left and bottom right."""
_CORNERS = np.array([0, 1, 1, 0, 1, 0, 2, 1, 1, 2, 0, 1, 0, 1, 1, 0], np.int64)
"""Pixels around, as bits -> corners there."""


def polygons(mask: NDArray[np.bool_]) -> list[Vertices]:
    """One polygon for each 4-connected part of a mask; a hole is joined to it by two edges at one place.

    So each is one line, as COCO has it, and its area by the shoelace formula, as by the rules of even-odd and of
    winding, is the part's.
    """
    by_part: dict[int, list[Outline]] = {}
    for one in outlines(mask):
        by_part.setdefault(one.part, []).append(one)
    found = []
    for lines in by_part.values():
        (outer,) = (one.vertices for one in lines if not one.hole)
        # Around holes the other way: areas subtract.
        found.append(_joined([_turned(outer, 1), *(_turned(one.vertices, -1) for one in lines if one.hole)]))
    return found


def polygon(mask: NDArray[np.bool_]) -> Vertices:
    """One polygon of all parts of a mask, joined by edges that lead there and back; (0, 2) for an empty mask."""
    parts = polygons(mask)
    return _joined(parts) if parts else np.zeros((0, 2), np.int64)


def area(vertices: Vertices) -> float:
    """Area by the shoelace formula, in pixels; negative if it is walked the other way."""
    x, y = vertices[:, 0], vertices[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _turned(vertices: Vertices, sign: int) -> Vertices:
    return vertices if area(vertices) * sign > 0 else vertices[::-1]


def _joined(lines: list[Vertices]) -> Vertices:
    """Join lines to the first by an edge there and back, each at its corner next to a corner that is joined already."""
    joined = lines[0]
    for line in lines[1:]:
        gaps = np.abs(joined[:, None] - line[None]).sum(axis=2)
        here, there = np.unravel_index(gaps.argmin(), gaps.shape)
        tour = np.roll(line, -there, axis=0)
        joined = np.concatenate([joined[: here + 1], tour, tour[:1], joined[here:]])
    return joined
