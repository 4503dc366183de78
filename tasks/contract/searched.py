"""Counts the objects of searched images: those that labels have found, and those that they missed."""

from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tasks.columns import boxes_of, numbers
from tasks.contract.run_labels import RunLabels
from tasks.geometry import box_iou
from tasks.reviews.resolve import DISPUTED, Answers, ImageAnswers
from tasks.statistics.bounds import Bools, Ints

SAME_IOU: Final = 0.5
"""Boxes of one class that overlap so much show one object."""
_ANY_CLASS: Final = -1
"""Stands for the class of an object of which people said only that its label names the wrong one."""


@dataclass(frozen=True)
class Searched:
    """What is known of m images."""

    checked: Bools
    """(m,) searched for every class."""
    complete: Bools
    """(m,) and every label decided."""
    objects: Ints
    """(m,) that are there; like the next two it means something of complete images alone."""
    accepted: Ints
    """(m,) found by accepted labels that are correct."""
    delivered: Ints
    """(m,) found by labels that are correct, accepted or not, or corrected."""
    simulated: bool
    """Whether a simulated reviewer answered any of it."""


def images_of(labels: RunLabels, keys: pa.ChunkedArray) -> Ints:
    """Find images by their keys: (n,) places in labels.keys, -1 for those that the run does not have."""
    return numbers(pc.index_in(keys, value_set=labels.keys).fill_null(-1), np.int64)


def searched_images(labels: RunLabels, image_answers: ImageAnswers, answers: Answers, images: Ints) -> Searched:
    """Count the objects of images.

    A label shows an object if it is correct, or wrong in its class or box alone; an object of a class that the campaign
    does not have counts for nothing. A wrong label counts as delivered where its verdict says what is right. Each
    missed object counts once, however many people drew it, and not at all where a label shows it: some people draw
    every object of an image, and not only those without a label.

    Args:
        labels: All labels of the run.
        image_answers: What people said of images.
        answers: What people said of labels.
        images: (m,) places in labels.keys.
    """
    total = len(labels.keys)
    mine = np.zeros(total, np.bool_)
    mine[images] = True
    rows = np.flatnonzero(mine[labels.image_index])
    shown = _shown(labels, answers, rows)

    def counted(of_rows: Bools) -> Ints:
        return np.bincount(labels.image_index[rows[of_rows]], minlength=total)[images]

    missed, missed_simulated = _missed(labels, image_answers.missed, rows, shown)
    checked, checked_simulated = _checked(labels, image_answers.checked)
    simulated = answers.simulated_of(labels.label_ids.take(pa.array(rows))).any()
    return Searched(
        checked=checked[images],
        complete=checked[images] & (counted(shown.undecided) == 0),
        objects=counted(shown.there) + missed[images],
        accepted=counted(shown.found & labels.accepted[rows]),
        delivered=counted(shown.found | shown.mended),
        simulated=bool(simulated or (mine & (missed_simulated | checked_simulated)).any()),
    )


@dataclass(frozen=True)
class _Shown:
    """What n labels show, (n,) each."""

    there: Bools
    """An object."""
    found: Bools
    """And they are right as they are."""
    mended: Bools
    """Or a person has said what is right."""
    undecided: Bools
    class_index: Ints
    """The object's class as people left it, or `_ANY_CLASS`."""
    boxes: NDArray[np.float32]
    """(n, 4) the object's box as people left it, xyxy, pixels of the EXIF-oriented original."""


def _shown(labels: RunLabels, answers: Answers, rows: Ints) -> _Shown:
    places = answers.places(labels.label_ids.take(pa.array(rows)))
    # Each with one entry more, which -1 finds.
    verdict = np.array([*answers.verdict, ""], np.str_)[places]
    place_of = {name: place for place, name in enumerate(labels.class_names)}
    told = np.array([place_of.get(name or "", -1) for name in [*answers.class_name, None]], np.int64)[places]
    named = told >= 0
    nameless = np.array([name is None for name in [*answers.class_name, None]], np.bool_)[places]
    given = np.concatenate([answers.boxes, np.full((1, 4), np.nan, np.float32)])[places]
    boxed = np.isfinite(given).all(axis=1)
    found = verdict == "correct"
    wrong_class, bad_box = verdict == "wrong_class", (verdict == "bad_box") & (named | nameless)
    return _Shown(
        there=found | bad_box | (wrong_class & (named | nameless)),
        found=found,
        mended=(wrong_class & named) | (bad_box & boxed),
        undecided=(verdict == "") | (verdict == DISPUTED),
        class_index=np.select(
            [found, named, wrong_class], [labels.class_index[rows], told, _ANY_CLASS], labels.class_index[rows]
        ),
        boxes=np.where((~found & boxed)[:, None], given, labels.boxes[rows]),
    )


def _missed(labels: RunLabels, rows: pa.Table, label_rows: Ints, shown: _Shown) -> tuple[Ints, Bools]:
    """Missed objects of every image, each once and none that a label shows, and whether a simulated one named any."""
    count, simulated = np.zeros(len(labels.keys), np.int64), np.zeros(len(labels.keys), np.bool_)
    images = images_of(labels, rows["key"])
    boxes = boxes_of(rows)
    place_of = {name: place for place, name in enumerate(labels.class_names)}
    names = [place_of.get(name, -1) for name in rows["class_name"].to_pylist()]
    labelled = _by_image(labels.image_index[label_rows], shown.there, images)
    kept: dict[tuple[int, int], list[int]] = {}
    for row, (image, name) in enumerate(zip(images.tolist(), names, strict=True)):
        if image < 0 or name < 0:
            continue
        same = kept.setdefault((image, name), [])
        mine = [place for place in labelled.get(image, ()) if shown.class_index[place] in (name, _ANY_CLASS)]
        known = np.concatenate([boxes[same], shown.boxes[mine]])
        if not (box_iou(boxes[[row]], known) >= SAME_IOU).any():
            same.append(row)
            count[image] += 1
    theirs = images[numbers(rows["simulated"], np.bool_)]
    simulated[theirs[theirs >= 0]] = True
    return count, simulated


def _by_image(image_index: Ints, use: Bools, images: Ints) -> dict[int, list[int]]:
    """Places of the labels in use, image by image, of some images."""
    found: dict[int, list[int]] = {}
    for place in np.flatnonzero(use & np.isin(image_index, images)).tolist():
        found.setdefault(int(image_index[place]), []).append(place)
    return found


def _checked(labels: RunLabels, rows: pa.Table) -> tuple[Bools, Bools]:
    """Which images were searched for every class, at once or class by class, and whether a simulated reviewer did."""
    whole, simulated = np.zeros(len(labels.keys), np.bool_), np.zeros(len(labels.keys), np.bool_)
    images, names = images_of(labels, rows["key"]), rows["class_name"].to_pylist()
    classes: dict[int, set[str]] = {}
    for image, name, made_up in zip(images.tolist(), names, rows["simulated"].to_pylist(), strict=True):
        if image < 0:
            continue
        simulated[image] |= made_up
        if name is None:
            whole[image] = True
        else:
            classes.setdefault(image, set()).add(name)
    for image, seen in classes.items():
        whole[image] |= seen >= set(labels.class_names)
    return whole, simulated
