"""Writes and reads verdicts, the reviewers' decisions, and validates the masks that they carry."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.records import Current
from vouch_labels.schemas.reviews import IMAGE_VERDICTS, LABEL_VERDICTS, MOST_RLE_BYTES, VERDICTS
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import boxes_of
from vouch_labels.tasks.boxes_masks import run_lengths
from vouch_labels.tasks.reviews.log import log_answers, logged_answers, lost_answers
from vouch_labels.tasks.reviews.moved import FOLDER as MOVED_FOLDER
from vouch_labels.tasks.reviews.moved import read_moved, with_moved_verdicts
from vouch_labels.tasks.store.store import Store, map_ordered

FOLDER: Final = "reviews/"

_THREADS: Final = 4
_SUFFIX: Final = ".parquet"
_HASH_DIGITS: Final = 32
_ORDER: Final = ("reviewed_at", "label_id", "key", "reviewer")
_WITHOUT_MASKS: Final = VERDICTS.remove(VERDICTS.get_field_index("rle_counts"))

_DIGITS: Final = r"^(?:[P-o]{0,6}[0-O])+\z"
"""Numbers of compressed COCO RLE counts: see tasks.boxes_masks.run_lengths."""


def write_verdicts(workspace: Store, table: pa.Table) -> str:
    """Append verdicts as reviews/<name>.parquet, the name being a hash of its content.

    NaN is taken as null. Without a row no file is written, and the name is empty. The same verdicts again, in whatever
    order, have the same name, and nothing is written. Order counts only between verdicts of one reviewer on one thing
    at one time, where the last is the one that holds. The column of masks is written where there is a mask, so that
    verdicts without one have the name that they always had.

    Raises:
        StoreError: The workspace cannot be written.
        ValueError: The rows do not have the schema, or are no verdicts.
    """
    given = pa.table({name: table[name] for name in VERDICTS.names}).cast(VERDICTS)
    if not given.num_rows:
        return ""
    for name in (*BOX, "seconds"):
        column = given[name]
        given = given.set_column(
            given.schema.get_field_index(name), VERDICTS.field(name), pc.if_else(pc.is_nan(column), None, column)
        )
    if problem := trouble(given):
        raise ValueError(problem)
    sink = pa.BufferOutputStream()
    # A stable sort: see above for the order that is kept.
    ordered = given.take(pc.sort_indices(given, sort_keys=[(name, "ascending") for name in _ORDER])).combine_chunks()
    if ordered["rle_counts"].null_count == ordered.num_rows:
        ordered = ordered.drop_columns("rle_counts")
    pq.write_table(ordered, sink, compression="zstd")
    data = sink.getvalue().to_pybytes()
    name = _name(data)
    if workspace.put(f"{FOLDER}{name}{_SUFFIX}", data, if_absent=True):
        log_answers(workspace, f"{name}{_SUFFIX}")
    return name


def read_verdicts(workspace: Store) -> pa.Table:
    """Read every verdict of a workspace, whatever run it is about.

    What was said of an image that has moved since is said of it at its new place as well, by further rows. Rows come by
    time (those without one first), then by name of file, then as in the file.

    Raises:
        StoreError: A file is damaged, holds no verdicts, or is missing and was there before.
    """
    moves = read_moved(workspace, [info.key for info in workspace.list(MOVED_FOLDER)])
    # What was logged before the files are listed must be among them.
    logged, names = logged_answers(workspace), _names(workspace)
    verdicts = pa.concat_tables([VERDICTS.empty_table(), *_tables(workspace, names)])
    if missing := logged.difference(names):
        raise lost_answers(workspace, missing)
    return in_time(with_moved_verdicts(verdicts, moves))


def verdict_tables(workspace: Store) -> Iterator[pa.Table]:
    """Read the verdicts of a workspace file by file, by name, as they were given; whether one is missing is not asked.

    Raises:
        StoreError: A file is damaged, or holds no verdicts.
    """
    yield from _tables(workspace, _names(workspace))


def _names(workspace: Store) -> list[str]:
    names = [info.key.removeprefix(FOLDER) for info in workspace.list(FOLDER)]
    return [name for name in names if name.endswith(_SUFFIX) and "/" not in name]


def _tables(workspace: Store, names: Iterable[str]) -> Iterator[pa.Table]:
    return map_ordered(lambda name: _read(workspace, name), names, _THREADS)


def present_verdicts(workspace: Store, current: Current | None) -> pa.Table:
    """Read every verdict of a workspace in terms of the classes that a run has now; see `of_classes_now`.

    Raises:
        StoreError: A file is damaged, or holds no verdicts.
    """
    return of_classes_now(read_verdicts(workspace), current)


def of_classes_now(verdicts: pa.Table, current: Current | None) -> pa.Table:
    """Put verdicts in terms of the classes that a run has now.

    Corrections to a former class, and drawn objects of it, are of the class that it is part of now. That every object
    of a former class was found says nothing of that one, and that every class was looked for nothing of classes that
    came later.
    """
    if current is None:
        return verdicts
    if current.merged:
        rows = zip(verdicts["verdict"].to_pylist(), verdicts["class_name"].to_pylist(), strict=True)
        names = [current.merged.get(name, name) if verdict != "checked" else name for verdict, name in rows]
        place = verdicts.schema.get_field_index("class_name")
        verdicts = verdicts.set_column(place, verdicts.schema.field(place), pa.array(names, pa.string()))
    return _of_classes_then(verdicts, current) if current.added else verdicts


def _of_classes_then(verdicts: pa.Table, current: Current) -> pa.Table:
    """Word "checked for every class" class by class where it was said before some class came."""
    every = pc.and_(pc.equal(verdicts["verdict"], "checked"), verdicts["class_name"].is_null())
    last = pa.scalar(max(current.added.values()), VERDICTS.field("reviewed_at").type)
    earlier = pc.less(verdicts["reviewed_at"], last)
    early = pc.and_(every, earlier.fill_null(True))
    rows = [
        row | {"class_name": name}
        for row in verdicts.filter(early).to_pylist()
        for name in current.classes
        if name not in current.added or (row["reviewed_at"] is not None and row["reviewed_at"] >= current.added[name])
    ]
    return in_time(pa.concat_tables([verdicts.filter(pc.invert(early)), pa.Table.from_pylist(rows, schema=VERDICTS)]))


def in_time(verdicts: pa.Table) -> pa.Table:
    """Order verdicts by time, those without one first and equal times as they come."""
    times = verdicts["reviewed_at"].cast(pa.int64()).fill_null(np.iinfo(np.int64).min).to_numpy()
    order = pa.array(np.argsort(times, kind="stable"), pa.int64())
    # Taking strings of many chunks is slow.
    return verdicts.combine_chunks().take(order)


def _read(workspace: Store, name: str) -> pa.Table:
    uri = f"{workspace.uri}/{FOLDER}{name}"
    data = workspace.get(f"{FOLDER}{name}").data
    stem = name.removesuffix(_SUFFIX)
    if re.fullmatch(f"[0-9a-f]{{{_HASH_DIGITS}}}", stem) and stem != _name(data):
        raise StoreError(f"{uri} is not the file that was written; restore it")
    try:
        table = pq.read_table(pa.BufferReader(data))
    except (pa.ArrowException, OSError):
        raise StoreError(f"{uri} is no readable Parquet file; restore it, or move it away") from None
    if table.schema.equals(_WITHOUT_MASKS):
        table = table.append_column(VERDICTS.field("rle_counts"), pa.nulls(table.num_rows, pa.binary()))
    if not table.schema.equals(VERDICTS):
        raise StoreError(
            f"{uri} does not have the columns of verdicts; move it away and use `vouch verdicts CAMPAIGN FILE`"
        )
    if problem := trouble(table):
        raise StoreError(f"{uri}: {problem}; restore it, or move it away")
    return table


def trouble(table: pa.Table) -> str:
    """Say why rows of schemas.reviews.VERDICTS are no verdicts; empty if they are."""
    if any(table[field.name].null_count for field in VERDICTS if not field.nullable):
        return "a verdict, its reviewer or whether it is simulated is missing"
    verdict = table["verdict"]
    about_image = pc.is_in(verdict, value_set=pa.array(IMAGE_VERDICTS))
    known = pc.or_(about_image, pc.is_in(verdict, value_set=pa.array(LABEL_VERDICTS)))
    if not _all(known):
        unknown = pc.filter(verdict, pc.invert(known))[0].as_py()
        return f"{unknown!r} is no verdict"
    if not _all(pc.if_else(about_image, pc.is_valid(table["key"]), pc.is_valid(table["label_id"]))):
        return "a verdict names neither a label nor an image"
    sides = boxes_of(table)
    given = ~np.isnan(sides).all(axis=1)
    with np.errstate(invalid="ignore"):
        fine = np.isfinite(sides).all(axis=1) & (sides[:, 2:] > sides[:, :2]).all(axis=1)
    if (given & ~fine).any():
        return "a box is not x0 < x1, y0 < y1 in finite numbers"
    missed = pc.equal(verdict, "missed").to_numpy()
    if (missed & ~given).any() or not _all(pc.or_(pc.invert(pa.array(missed)), pc.is_valid(table["class_name"]))):
        return "a missed object has no box or no class"
    if not _all(looks_like_rle(table["rle_counts"])):
        return "a mask is no compressed COCO RLE"
    return ""


def _all(column: pa.ChunkedArray) -> bool:
    return bool(pc.all(column, min_count=0).as_py())


def _name(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:_HASH_DIGITS]


def mask_trouble(counts: bytes, height: int | None = None, width: int | None = None) -> str:
    """Say why bytes (compressed COCO RLE) are no mask of an image, None for an unknown size; empty if they are."""
    if len(counts) > MOST_RLE_BYTES:
        return f"the mask has {len(counts):,} bytes; smooth its edge until it has up to {MOST_RLE_BYTES:,}"
    runs = run_lengths(counts)
    if runs is None:
        return "the mask is no compressed COCO RLE; write the counts that pycocotools.mask.encode gives"
    if not runs[1::2].any():
        return "the mask has no pixel; leave rle_counts empty where it needs no correction"
    pixels = int(runs.sum())
    if height is not None and width is not None and pixels != height * width:
        return f"the mask is of {pixels:,} pixels, its image of {width} x {height}; draw it in the size of the image"
    return ""


def looks_like_rle(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Say of masks whether they are bounded and made of numbers, or null: quick, without a look at the numbers."""
    bounded = pc.less_equal(pc.binary_length(column), MOST_RLE_BYTES)
    return pc.and_(bounded, pc.match_substring_regex(column, _DIGITS)).fill_null(True)
