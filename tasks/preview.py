"""Draws labelled images of a run into one preview picture."""

from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vouch_labels.schemas.campaign import Campaign
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.tasks.acquire import DecodedImage, decode
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.convert import detections_of
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.labels.records import ExportImage, with_shown_names
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.store.open import open_store

if TYPE_CHECKING:
    import supervision as sv

LOOKED_AT: Final = 500
"""Images of which the preview's are chosen."""

CAPTION: Final = 22
"""Height of the line under each image, in pixels."""
GAP: Final = 8
PAPER: Final = (250, 250, 250)
INK: Final = (40, 40, 40)
UNREVIEWED: Final = "#8c8c8c"


def write_preview(campaign: Campaign, path: Path, count: int = 12, columns: int = 4) -> int:
    """Draw at most `count` images of a run with their labels into one picture; returns how many, 0 without a picture.

    Of the first images of the run, those with the most classes are shown, in their order. The path's ending says the
    format.

    Raises:
        UserError: The campaign has not been run yet, or the picture cannot be written.
        StoreError: The workspace cannot be read.
    """
    source, workspace = open_store(campaign.source), open_store(campaign.workspace)
    run = campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        found = islice(labelled_images(workspace, run, ledger, current.fingerprint), LOOKED_AT)
        images = [with_shown_names(image, current.names) for image in found]
    richest = sorted(images, key=lambda image: len({label.class_name for label in image.labels}), reverse=True)
    chosen = {image.key for image in richest[:count]}
    drawn = []
    for image in images:
        if image.key in chosen:
            try:
                decoded = decode(image.key, source.get(image.key).data, campaign.source.max_pixels)
            except StoreError:
                continue  # it has left the source since; a picture of the others is still worth having
            if isinstance(decoded, DecodedImage):
                drawn.append((decoded.pixels, image))
    if drawn:
        try:
            draw_grid(drawn, current.shown, columns).save(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    return len(drawn)


def draw_grid(
    images: Sequence[tuple[Pixels, ExportImage]],
    class_names: Sequence[str],
    columns: int = 4,
    side: int = 320,
    captions: Sequence[str] | None = None,
) -> Image.Image:
    """Draw images with their labels, each in a square tile with a line under it, into an RGB picture.

    Accepted labels have the colour of their class, with mask, box, name and detector score; labels that wait for
    review have a thin grey box and a question mark.

    Args:
        images: (H, W, 3) uint8 RGB pixels of an image, and its labels in pixels of it.
        class_names: All classes; a class's place gives its colour.
        columns: Tiles in a row.
        side: Width and height of a tile in pixels.
        captions: The line under each image; by default its key, and how many labels were accepted.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    width, height = side + GAP, side + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for place, (pixels, image) in enumerate(images):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        tile = draw_labels(pixels, image, class_names, side)
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        caption = _caption(image, font, side) if captions is None else captions[place]
        pen.text((left, top + side + 4), caption, fill=INK, font=font)
    return sheet


def draw_labels(pixels: Pixels, image: ExportImage, class_names: Sequence[str], side: int) -> Image.Image:
    """Draw one (H, W, 3) uint8 RGB image with its labels, as `draw_grid` draws each, into an RGB picture.

    The image is scaled first, to `side` pixels at the longer side, so that lines and letters keep their size.
    """
    import supervision as sv

    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    scene = np.ascontiguousarray(np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))[..., ::-1])
    waiting = [label for label in image.labels if label.decision != "accept"]
    accepted = [label for label in image.labels if label.decision == "accept"]
    if waiting:
        grey = sv.Color.from_hex(UNREVIEWED)
        found = detections_of(waiting, image, class_names, size)
        scene = sv.BoxAnnotator(color=grey, thickness=1).annotate(scene, found)
        scene = _names(grey).annotate(scene, found, [f"{label.class_name}?" for label in waiting])
    if accepted:
        palette = sv.ColorPalette.DEFAULT
        found = detections_of(accepted, image, class_names, size)
        scene = sv.MaskAnnotator(color=palette, opacity=0.45).annotate(scene, found)
        scene = sv.BoxAnnotator(color=palette, thickness=2).annotate(scene, found)
        scene = _names(palette).annotate(scene, found, [f"{label.class_name} {label.score:.2f}" for label in accepted])
    return Image.fromarray(np.ascontiguousarray(np.asarray(scene)[..., ::-1]))


def _names(color: "sv.Color | sv.ColorPalette") -> "sv.LabelAnnotator":
    import supervision as sv

    return sv.LabelAnnotator(color=color, text_scale=0.35, text_padding=3, smart_position=True)


def _caption(image: ExportImage, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    accepted = sum(label.decision == "accept" for label in image.labels)
    counts = f"{accepted} accepted, {len(image.labels) - accepted} in review"
    name = image.key
    while len(name) > 4 and font.getlength(f"{name}  {counts}") > width:
        name = f"…{name[2:]}"
    return f"{name}  {counts}"
