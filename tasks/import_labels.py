"""Imports labels that exist: a COCO file becomes what a run takes as it is, beside what its detector finds."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import UserError
from vouch_labels.schemas.records import Imported
from vouch_labels.schemas.tables import IMPORTED
from vouch_labels.schemas.text import some
from vouch_labels.tasks.evaluate.ground_truth import Truth, read_truth
from vouch_labels.tasks.evaluate.json_lists import OnBytes
from vouch_labels.tasks.evaluate.pairing import pair_classes, pair_images
from vouch_labels.tasks.imported import imported_of, write_imported
from vouch_labels.tasks.plan.plan import list_source
from vouch_labels.tasks.store.lock import WorkspaceLock
from vouch_labels.tasks.store.open import check_format, check_readable, check_writable, open_store, write_format
from vouch_labels.tasks.store.source import open_source

LEFT_OUT: Final = "left out"
"""What a category is called that is not to be taken."""
_ROWS: Final = 50_000
_NAMED: Final = 5


def import_labels(
    campaign: Campaign,
    file: Path,
    classes: Mapping[str, str] = MappingProxyType({}),
    listing: Callable[[int], None] | None = None,
    reading: OnBytes | None = None,
) -> Imported:
    """Make the labels of a COCO file those of a campaign's run; the next `vouch run` takes them.

    Images are paired by file_name as `vouch evaluate` pairs them, categories with classes by name. Crowd regions are
    left out, boxes without an extent as well. A second import takes the place of the first; what people have answered
    about labels stays.

    Args:
        campaign: With absolute paths.
        file: COCO instances; a `score` from 0 to 1 of an annotation is its detector's.
        classes: Category of the file -> class of the campaign, or `LEFT_OUT`; kept for the next import.
        listing: Called with the images listed so far.
        reading: Called with the bytes of the file that are read, and all.

    Raises:
        UserError: The file is no COCO file, it shares no image with the source, or a category fits no class.
        StoreError: The workspace cannot be written.
        WorkspaceBusyError: The campaign is being run.
    """
    source, workspace = open_source(campaign.source, campaign.workspace), open_store(campaign.workspace)
    run = campaign.run.name
    check_readable(source)
    truth = read_truth(file, masks=False, progress=reading)
    has_format = check_format(workspace)
    check_writable(workspace)
    before = imported_of(workspace, run)
    renamed = {**(before.renamed if before else {}), **classes}
    class_of = _classes(campaign, truth, renamed, file)
    keys = []
    for number, ref in enumerate(list_source(campaign.source, source, workspace=campaign.workspace), 1):
        keys.append(ref.key)
        if listing is not None and number % 1000 == 0:
            listing(number)
    pairs = pair_images(keys, [image.file_name for image in truth.images])
    if not pairs.places:
        raise UserError(
            f"{file}: none of its {len(truth.images):,} images is in {source.uri}: its first file_name is "
            f"{truth.images[0].file_name!r}, the first key {keys[0]!r}"
            if keys and truth.images
            else f"{file}: it names no image, or {source.uri} holds none"
        )
    left_out = Counter[str]()
    left_out["images of the file that the source does not have"] = len(truth.images) - len(pairs.places)
    left_out["images of the source that fit several of the file's"] = len(pairs.ambiguous)
    left_out["annotations of images or categories that the file does not list"] = (
        truth.file.unknown_image + truth.file.unknown_category
    )
    rows = _rows(truth, pairs.places, class_of, left_out)
    tables = [IMPORTED.empty_table()]
    while part := list(islice(rows, _ROWS)):
        tables.append(pa.Table.from_pylist(part, schema=IMPORTED))
    labels = pa.concat_tables(tables)
    record = Imported(
        file=file.name,
        sha256=_sha256(file),
        images=len(pairs.places),
        labels=labels.num_rows - labels["class_name"].null_count,
        left_out={why: number for why, number in left_out.items() if number},
        renamed=renamed,
    )
    if not has_format:
        write_format(workspace)
    with WorkspaceLock(workspace, run):
        return write_imported(workspace, run, labels, record)


def category_names(file: Path) -> list[str]:
    """Names of the categories of a COCO file that have annotations, in its order; all of them where none has.

    Raises:
        UserError: The file is no COCO file, or has no category.
    """
    truth = read_truth(file, masks=False)
    counts = truth.counts()
    names = [name for name, number in counts.items() if number] or list(counts)
    if not names:
        raise UserError(f"{file}: it has no category")
    return names


def _classes(campaign: Campaign, truth: Truth, renamed: Mapping[str, str], file: Path) -> dict[int | str, str]:
    """Category id -> the name that labels of its class carry, of those that are taken.

    Raises:
        UserError: A category fits no class, or one that is named is not there.
    """
    names = {entry.name: entry.key for entry in campaign.classes}
    former = {old: entry.name for entry in campaign.classes for old in entry.was}
    for category, name in renamed.items():
        if name not in names and name != LEFT_OUT:
            raise UserError(
                f"--class {category}={name}: {name!r} is no class of the campaign; it has {', '.join(names)}"
            )
    paired = pair_classes(list(names), truth.categories, former)
    counts = truth.counts()
    unmatched = [name for name in paired.truth_only if name not in renamed and counts[name]]
    if unmatched:
        near = {name: get_close_matches(name, names, 1) for name in unmatched}
        options = [f'--class "{name}={near[name][0] if near[name] else LEFT_OUT}"' for name in unmatched]
        raise UserError(
            f"{file}: categories that fit no class: {some([repr(name) for name in unmatched], _NAMED)}; "
            f"say what each is, or leave it out: {some(options, _NAMED)}"
        )
    class_of = {number: names[paired.common[place]] for number, place in paired.place_of_category.items()}
    for number, category in truth.categories.items():
        if renamed.get(category) == LEFT_OUT:
            class_of.pop(number, None)
        elif category in renamed:
            class_of[number] = names[renamed[category]]
    return class_of


def _rows(
    truth: Truth, places: Mapping[str, int], class_of: Mapping[int | str, str], left_out: "Counter[str]"
) -> Iterator[dict[str, Any]]:
    """Rows of IMPORTED: one for each image that is paired, and one for each of its labels."""
    by_place: Sequence[str | None] = [class_of.get(number) for number in truth.categories]
    for key, place in places.items():
        yield {
            "key": key,
            "class_name": None,
            "score": None,
            "name": "",
            "x0": None,
            "y0": None,
            "x1": None,
            "y1": None,
        }
        for row in truth.rows(place).tolist():
            x, y, width, height = truth.xywh[row].tolist()
            name = by_place[truth.category[row]]
            if truth.crowd[row]:
                left_out["crowd regions"] += 1
            elif name is None:
                left_out["annotations of categories that are left out"] += 1
            elif not (width > 0 and height > 0):
                left_out["boxes without an extent"] += 1
            else:
                score = float(truth.score[row])
                yield {
                    "key": key,
                    "class_name": name,
                    "score": None if math.isnan(score) else score,
                    "name": truth.name(row),
                    **dict(zip(("x0", "y0", "x1", "y1"), (x, y, x + width, y + height), strict=True)),
                }


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
