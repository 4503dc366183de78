"""Ranks imported labels by how likely they are wrong: in class or box, twice there, or missing where an object is.

The models are asked as a second opinion, and nothing is fitted, so the scores are no probabilities: they order labels
for people to look at. What share of the labels is right, samples that people review say.

class       what CLIP sees more than the class, where the detector does not see the class either: the probability of
            CLIP's best other text x (1 - the detector's score for the class)
box         the detector's box of the class lies elsewhere: its score x (1 - IoU); and SAM, asked with the label's
            box, masks something of another extent: 1 - IoU of its mask's box with the label's; the sum, at most 1
duplicate   the IoU with another label of the class, from `TWICE` on; the one of the two with the lower score
missing     what the detector finds where no label is: its score x CLIP's probability of the class
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import StoreError
from vouch_labels.schemas.records import AuditSummary, Imported, RunSummary, Suspect
from vouch_labels.schemas.tables import BOX
from vouch_labels.tasks.arrow import boxes_of, numbers, rows_of_keys, with_names
from vouch_labels.tasks.boxes_masks import box_iou
from vouch_labels.tasks.decode import DecodedImage, decode
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.scan import scan
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.preview import save_picture
from vouch_labels.tasks.store.open import open_workspace
from vouch_labels.tasks.store.source import open_source

TWICE: Final = 0.5
"""IoU from which on two labels of a class are one object twice."""
ELSEWHERE: Final = (0.2, 0.7)
"""IoU of a label with the detector's box of the same object, drawn otherwise."""
APART: Final = 0.3
"""IoU with any label from which on a finding of the detector is not missing."""
BETTER: Final = tuple(f"better_{side}" for side in BOX)

SUSPECTS = pa.schema(
    [
        pa.field("rank", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),  # class | box | duplicate | missing
        pa.field("score", pa.float32(), nullable=False),  # [0, 1], for ordering alone
        pa.field("key", pa.string(), nullable=False),
        pa.field("name", pa.string()),  # "annotation 17"; null for a missing label
        pa.field("class_name", pa.string(), nullable=False),
        *(pa.field(side, pa.float32(), nullable=False) for side in BOX),
        pa.field("better_class", pa.string()),  # what CLIP sees
        *(pa.field(side, pa.float32()) for side in BETTER),  # where the detector sees it
    ]
)
"""One row a suspect, most likely wrong first; boxes are xyxy, pixels of the EXIF-oriented original."""

_COLUMNS: Final = (
    *("label_id", "key", "class_name", *BOX, "prompt", "detector_score", "mask_box_iou"),
    *("clip_probability", "clip_other", "clip_other_probability"),
)
LIKELY: Final = 0.5
"""Score from which on a label is counted as likely wrong."""
SHOWN: Final = 10
"""Suspects that are named."""
SIDE: Final = 200
"""Width and height of a crop, in pixels."""
_CONTEXT: Final = 0.5
"""What is shown around a box, as a share of its longer side."""
_LINES: Final = 34
_RED, _GREEN, _INK, _PAPER = (214, 39, 40), (20, 140, 60), (40, 40, 40), (250, 250, 250)


def find_suspects(campaign: Campaign) -> pa.Table:
    """Rank the imported labels of a campaign's run, and what they lack, as a table of schema SUSPECTS.

    Raises:
        UserError: The campaign has not been run.
        StoreError: The workspace cannot be read.
    """
    workspace, run = open_workspace(campaign.workspace), campaign.run.name
    current = current_of(workspace, run)
    rows: list[dict[str, Any]] = []
    with Ledger.load(workspace, run) as ledger:
        for table in scan(workspace, run, ledger, current.fingerprint, _COLUMNS):
            shown = with_names(table, current.former)
            for part in rows_of_keys(shown).values():
                rows += _of_image(shown.slice(part.start, part.stop - part.start))
    rows.sort(key=lambda row: (-row["score"], row["key"], row["kind"], row["name"] or "", row["x0"]))
    return pa.Table.from_pylist([{"rank": rank, **row} for rank, row in enumerate(rows, 1)], schema=SUSPECTS)


def _of_image(labels: pa.Table) -> Iterator[dict[str, Any]]:
    """Suspects among the labels of one image."""
    rows, boxes = labels.to_pylist(), boxes_of(labels)
    overlaps = box_iou(boxes, boxes)
    np.fill_diagonal(overlaps, 0)
    given = np.array([row["prompt"].startswith("annotation") for row in rows], np.bool_)
    names = np.array([row["class_name"] for row in rows])
    scores = numbers(labels["detector_score"], np.float64)
    same = names[:, None] == names[None, :]
    for place in np.flatnonzero(given):
        row = rows[place]
        fits = same[place] & ~given & (overlaps[place] > ELSEWHERE[0]) & (overlaps[place] <= ELSEWHERE[1])
        drawn = np.where(fits, scores * (1 - overlaps[place]), 0)
        best = int(drawn.argmax())
        yield _suspect(
            row,
            "class",
            (row["clip_other_probability"] or 0) * (1 - row["detector_score"]),
            better_class=row["clip_other"],
        )
        there: dict[str, Any] = dict(zip(BETTER, boxes[best].tolist(), strict=True)) if drawn[best] > 0 else {}
        yield _suspect(row, "box", min(1.0, float(drawn[best]) + 1 - row["mask_box_iou"]), **there)
    yield from _duplicates(rows, np.where(same & given[:, None] & given[None, :], overlaps, 0))
    for place in np.flatnonzero(~given):
        if (overlaps[place] * given).max(initial=0) < APART:
            row = rows[place]
            yield _suspect(row, "missing", row["detector_score"] * row["clip_probability"])


def _duplicates(rows: Sequence[dict[str, Any]], overlaps: NDArray[np.float64]) -> Iterator[dict[str, Any]]:
    # Labels of an image stand best score first, so the later of two is the one to doubt.
    for place, row in enumerate(rows):
        overlap = float(overlaps[place, :place].max(initial=0))
        if overlap >= TWICE:
            yield _suspect(row, "duplicate", overlap)


def _suspect(row: dict[str, Any], kind: str, score: float, **better: Any) -> dict[str, Any]:  # noqa: ANN401 - columns
    name = row["prompt"] if kind != "missing" else None
    kept = {column: row[column] for column in ("key", "class_name", *BOX)}
    return {"kind": kind, "score": float(np.clip(score, 0, 1)), "name": name, **kept, **better}


def audit_summary(
    imported: Imported, run: RunSummary, suspects: pa.Table, table: Path, picture: Path | None, measure: Path
) -> AuditSummary:
    """Sum up what `find_suspects` has found in labels that were imported, and where it was written."""
    likely = suspects.filter(pc.greater_equal(suspects["score"], LIKELY))["kind"].to_pylist()
    columns = [name for name in Suspect.model_fields if name in SUSPECTS.names]
    return AuditSummary(
        imported=imported,
        images=run.images,
        failed=run.failed,
        kinds={kind: likely.count(kind) for kind in ("class", "box", "duplicate", "missing")},
        first=[Suspect.model_validate(row) for row in suspects.slice(0, SHOWN).select(columns).to_pylist()],
        table=str(table),
        picture=None if picture is None else str(picture),
        measure=str(measure),
        bundled=run.bundled,
    )


def draw_suspects(campaign: Campaign, suspects: pa.Table, path: Path, count: int = 60, columns: int = 6) -> int:
    """Draw crops of the first suspects into one picture: the label red, what the models see green.

    Returns:
        How many are drawn; images that have left the source are left out.

    Raises:
        UserError: The picture cannot be written.
    """
    source = open_source(campaign.source, campaign.workspace)
    tiles: list[tuple[int, Image.Image]] = []
    first = suspects.slice(0, count).sort_by([("key", "ascending"), ("rank", "ascending")])
    for key, part in rows_of_keys(first).items():
        try:
            image = decode(key, source.get(key).data, campaign.source.max_pixels)
        except StoreError:
            continue
        if isinstance(image, DecodedImage):
            of_image = first.slice(part.start, part.stop - part.start).to_pylist()
            tiles += [(row["rank"], _tile(image.pixels, row)) for row in of_image]
    if not tiles:
        return 0
    tiles.sort(key=lambda tile: tile[0])
    columns = min(columns, len(tiles))
    lines = -(-len(tiles) // columns)
    sheet = Image.new("RGB", (columns * (SIDE + 8) + 8, lines * (SIDE + _LINES + 8) + 8), _PAPER)
    for place, (_, tile) in enumerate(tiles):
        sheet.paste(tile, (8 + place % columns * (SIDE + 8), 8 + place // columns * (SIDE + _LINES + 8)))
    save_picture(sheet, path)
    return len(tiles)


def _tile(pixels: NDArray[np.uint8], row: dict[str, Any]) -> Image.Image:
    height, width = pixels.shape[:2]
    boxes = [tuple(row[side] for side in BOX)]
    if row[BETTER[0]] is not None:
        boxes.append(tuple(row[side] for side in BETTER))
    low, high = np.min(boxes, axis=0)[:2], np.max(boxes, axis=0)[2:]
    half = max(high - low) * (0.5 + _CONTEXT)
    middle = (low + high) / 2
    x0, y0 = np.maximum(np.floor(middle - half), 0).astype(int)
    x1, y1 = np.minimum(np.ceil(middle + half), [width, height]).astype(int)
    scale = SIDE / max(x1 - x0, y1 - y0, 1)
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    tile = Image.new("RGB", (SIDE, SIDE + _LINES), _PAPER)
    tile.paste(Image.fromarray(np.ascontiguousarray(pixels[y0:y1, x0:x1])).resize(size, Image.Resampling.BILINEAR))
    pen = ImageDraw.Draw(tile)
    missing = row["kind"] == "missing"
    for box, colour in zip(boxes, (_GREEN if missing else _RED, _GREEN), strict=False):
        corners = [(value - start) * scale for value, start in zip(box, (x0, y0, x0, y0), strict=True)]
        pen.rectangle(corners, outline=colour, width=2)
    doubted = row["kind"] == "class" and row["better_class"]
    what = f"{row['class_name']}, or {row['better_class']}?" if doubted else row["class_name"]
    font = ImageFont.load_default(12)
    pen.text((2, SIDE + 2), f"{row['rank']}. {row['kind']}: {what}", fill=_INK, font=font)
    pen.text((2, SIDE + 17), f"{row['name'] or ''} {row['key']}"[:36], fill=_INK, font=font)
    return tile
