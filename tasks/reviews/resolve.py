"""Makes one answer a label of all verdicts on it, and gathers those about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import boxes_of, codes_of, distinct, numbers, places_in, row_codes
from vouch_labels.tasks.reviews.verdicts import in_time

DISPUTED: Final = "disputed"
ANSWERS: Final = (*LABEL_VERDICTS, DISPUTED)
"""What an answer may be; the codes of Answers are places in it."""
CORRECT, WRONG, IN_DISPUTE, NO_ANSWER = 0, 1, 2, -1
"""Values of Answers.wrong_of."""


@dataclass(frozen=True)
class Answers:
    """What people together say of n labels: those that have a verdict."""

    label_ids: tuple[str, ...]
    """In the order of their first verdicts."""
    verdict: list[str]
    """n members of ANSWERS."""
    class_name: list[str | None]
    """The right class, where one was given and all who gave one agree."""
    boxes: NDArray[np.float32]
    """(n, 4) xyxy, pixels of the EXIF-oriented original: the box as it should be, the latest given; NaN without."""
    seconds: NDArray[np.float64]
    """(n,) time of all reviewers; NaN where none was given."""
    simulated: NDArray[np.bool_]
    """(n,) whether a verdict came from a simulated reviewer."""
    reviewers: NDArray[np.int64]
    """(n,) how many gave a verdict."""
    masks: pa.ChunkedArray
    """n compressed COCO RLE counts: the mask as it should be, the latest given; null without, and where the box that
    counts is a later, other one."""
    ids: pa.StringArray
    """label_ids, for look-up."""

    def places(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.int64]:
        """Find labels: (m,) places in label_ids, -1 for those without an answer."""
        wanted = label_ids if isinstance(label_ids, pa.Array | pa.ChunkedArray) else pa.array(label_ids, pa.string())
        return places_in(wanted, self.ids)

    def wrong_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.int8]:
        """Say of labels whether they are wrong, (m,): 0 correct, 1 wrong, 2 disputed, -1 no answer."""
        return self._of(self._codes, label_ids, NO_ANSWER)

    def seconds_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.float64]:
        """Give the time that labels took, (m,), NaN where it is unknown."""
        return self._of(self.seconds, label_ids, np.nan)

    def simulated_of(self, label_ids: Sequence[str] | pa.Array) -> NDArray[np.bool_]:
        """Say of labels whether a simulated reviewer answered, (m,)."""
        return self._of(self.simulated, label_ids, False)

    @cached_property
    def _codes(self) -> NDArray[np.int8]:
        """Values of wrong_of, (n,); kept, since every plan of a run asks for its own labels."""
        codes = np.array([CORRECT, WRONG, WRONG, WRONG, IN_DISPUTE], np.int8)
        place = {name: code for code, name in enumerate(ANSWERS)}
        return codes[np.array([place[name] for name in self.verdict], np.int64)]

    def _of(self, values: NDArray[Any], label_ids: Sequence[str] | pa.Array, missing: object) -> NDArray[Any]:
        places = self.places(label_ids)
        # One entry more, which -1 finds.
        return np.append(values, np.array([missing], values.dtype))[places]


@dataclass(frozen=True)
class ImageAnswers:
    """What people say of whole images."""

    checked: pa.Table
    """key, class_name (null: every class), simulated: each pair once, in the order of the first verdicts."""
    missed: pa.Table
    """key, class_name, x0, y0, x1, y1 (pixels, xyxy), reviewer, simulated: each object once, as exactly stated; and
    rle_counts, the latest mask given of it (null without)."""
    seconds: float
    """Time of all verdicts about images, each once."""


def resolve(verdicts: pa.Table) -> Answers:
    """Resolve the verdicts of every label to one answer.

    A later verdict of a reviewer replaces his earlier one: later by reviewed_at (none counts as earliest), and at
    equal times by the order of rows. Equal verdicts of several reviewers agree, different ones make the label
    disputed. Rows that come again change nothing. Where people answered, what a simulated reviewer said is passed over.

    Args:
        verdicts: Rows of schemas.reviews.VERDICTS, as read_verdicts gives them.
    """
    rows = counting(verdicts)
    label, ids = codes_of(rows["label_id"])
    starts = np.flatnonzero(np.diff(label, prepend=-1))
    code = numbers(pc.index_in(rows["verdict"], value_set=pa.array(ANSWERS)), np.int64)
    least, most = _reduced(np.minimum, code, starts), _reduced(np.maximum, code, starts)
    agreed = np.where(least == most, least, ANSWERS.index(DISPUTED))
    boxes = boxes_of(rows)
    box_row = _latest(np.asarray(np.isfinite(boxes).all(axis=1)), starts)
    return Answers(
        label_ids=tuple(ids.to_pylist()),
        verdict=[ANSWERS[place] for place in agreed.tolist()],
        class_name=_agreed_classes(rows["class_name"], starts),
        boxes=_boxes_at(boxes, box_row),
        seconds=_sum_of_known(numbers(rows["seconds"], np.float64), starts),
        simulated=_reduced(np.logical_or, numbers(rows["simulated"], np.bool_), starts),
        reviewers=np.diff(np.append(starts, len(label))),
        masks=_masks_at(rows["rle_counts"], _fitting_masks(rows, boxes, box_row, starts)),
        ids=ids,
    )


def counting(verdicts: pa.Table) -> pa.Table:
    """Keep the verdicts on labels that answers are made of: those that stand, simulated ones only where no others are.

    Args:
        verdicts: Rows of schemas.reviews.VERDICTS, as read_verdicts gives them.
    """
    return standing(_people_first(verdicts))


def _people_first(verdicts: pa.Table) -> pa.Table:
    """Leave out simulated verdicts on labels that people gave one on."""
    simulated = verdicts["simulated"]
    by_people = verdicts.filter(pc.invert(simulated))["label_id"].drop_null().combine_chunks()
    replaced = pc.and_(simulated, pc.is_in(verdicts["label_id"], value_set=by_people, skip_nulls=True))
    return verdicts.filter(pc.invert(replaced))


def standing(verdicts: pa.Table) -> pa.Table:
    """Keep the last verdict of each reviewer on each label: rows label by label, in time within each.

    Args:
        verdicts: Rows of schemas.reviews.VERDICTS; those about images are left out.
    """
    rows = in_time(verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(LABEL_VERDICTS))))
    label, _ = codes_of(rows["label_id"])
    reviewer, names = codes_of(rows["reviewer"])
    last = _last_of_each(label * max(1, len(names)) + reviewer)
    return rows.take(pa.array(last[np.argsort(label[last], kind="stable")], pa.int64()))


def missed_and_checked(verdicts: pa.Table) -> ImageAnswers:
    """Gather the verdicts about images, each once, however often it came.

    Args:
        verdicts: Rows of schemas.reviews.VERDICTS, as read_verdicts gives them.
    """
    rows = in_time(verdicts.filter(pc.is_in(verdicts["verdict"], value_set=pa.array(IMAGE_VERDICTS))))
    rows = distinct(rows, rows.column_names)
    checked = rows.filter(pc.equal(rows["verdict"], "checked"))
    missed = rows.filter(pc.equal(rows["verdict"], "missed"))
    return ImageAnswers(
        checked=distinct(checked, ["key", "class_name"]).select(["key", "class_name", "simulated"]),
        missed=_distinct_objects(missed),
        seconds=float(pc.sum(rows["seconds"]).as_py() or 0),
    )


def _last_of_each(codes: NDArray[np.int64]) -> NDArray[np.int64]:
    """The last place of each value, ascending."""
    places = np.unique(codes[::-1], return_index=True)[1]
    return np.sort(len(codes) - 1 - places)


def _agreed_classes(column: pa.ChunkedArray, starts: NDArray[np.int64]) -> list[str | None]:
    code, names = codes_of(column)
    valid = numbers(column.is_valid(), np.bool_)
    least = _reduced(np.minimum, np.where(valid, code, len(names)), starts)
    most = _reduced(np.maximum, np.where(valid, code, -1), starts)
    values = names.to_pylist()
    return [values[low] if low == high else None for low, high in zip(least.tolist(), most.tolist(), strict=True)]


def _distinct_objects(missed: pa.Table) -> pa.Table:
    """Each object once, where it came first, with its latest mask."""
    names = ["key", "class_name", *BOX, "reviewer"]
    code = row_codes(missed, names)
    first = np.unique(code, return_index=True)[1]
    latest = np.full(len(first), -1, np.int64)
    given = np.flatnonzero(numbers(missed["rle_counts"].is_valid(), np.bool_))
    np.maximum.at(latest, code[given], given)
    order = np.argsort(first)
    objects = missed.take(pa.array(first[order], pa.int64())).select([*names, "simulated"])
    return objects.append_column("rle_counts", _masks_at(missed["rle_counts"], latest[order]))


def _latest(given: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The latest row of each label that gives something; -1 where none does."""
    return _reduced(np.maximum, np.where(given, np.arange(len(given)), -1), starts)


def _boxes_at(boxes: NDArray[np.float32], rows: NDArray[np.int64]) -> NDArray[np.float32]:
    # One row more, which -1 finds.
    known: NDArray[np.float32] = np.concatenate([boxes, np.full((1, 4), np.nan, np.float32)])[rows]
    return known


def _fitting_masks(
    rows: pa.Table, boxes: NDArray[np.float32], box_row: NDArray[np.int64], starts: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The row of each label whose mask counts; none where another box came later, which the mask was not drawn for."""
    mask_row = _latest(numbers(rows["rle_counts"].is_valid(), np.bool_), starts)
    same_box = (_boxes_at(boxes, mask_row) == _boxes_at(boxes, box_row)).all(axis=1)
    return np.where((mask_row >= box_row) | same_box, mask_row, -1)


def _masks_at(column: pa.ChunkedArray, rows: NDArray[np.int64]) -> pa.ChunkedArray:
    return column.take(pa.array(rows, pa.int64(), mask=rows < 0))


def _sum_of_known(values: NDArray[np.float64], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    known = ~np.isnan(values)
    total = _reduced(np.add, np.where(known, values, 0.0), starts)
    return np.where(_reduced(np.logical_or, known, starts), total, np.nan)


def _reduced(function: np.ufunc, values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[Any]:
    """Apply a reduction to each label's rows."""
    reduced: NDArray[Any] = function.reduceat(values, starts) if len(starts) else values[:0]
    return reduced
