"""Draws labelled images into one picture: of a run, or of a few images that are labelled for the picture alone."""

import hashlib
import heapq
import io
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vouch_labels.schemas.campaign import Campaign, Workspace, shown_names, unknown_classes
from vouch_labels.schemas.errors import StoreError, UserError
from vouch_labels.schemas.policy import Policy
from vouch_labels.schemas.records import ImageRef, Preview
from vouch_labels.schemas.text import policy_with_basis
from vouch_labels.tasks.certify.active import find_policy
from vouch_labels.tasks.decode import DecodedImage, decode
from vouch_labels.tasks.labels.arrays import current_of
from vouch_labels.tasks.labels.convert import detections_of
from vouch_labels.tasks.labels.read import labelled_images
from vouch_labels.tasks.labels.records import ExportImage, with_shown_names
from vouch_labels.tasks.labels.totals import failed_images
from vouch_labels.tasks.models.registry import Pixels, check_models_there
from vouch_labels.tasks.models.tokens import check_classes
from vouch_labels.tasks.plan.ledger import Ledger
from vouch_labels.tasks.plan.plan import list_source, nothing_to_label, plan
from vouch_labels.tasks.policy import basis, check_fits, default_policy
from vouch_labels.tasks.shard.events import Listing, Loading, OnEvent, Planned, ignore
from vouch_labels.tasks.shard.pipeline import load_pipeline
from vouch_labels.tasks.shard.shard import ShardSettings, process_shard
from vouch_labels.tasks.store.open import check_readable, open_store
from vouch_labels.tasks.store.source import open_source
from vouch_labels.tasks.store.store import Store

if TYPE_CHECKING:
    import supervision as sv

LOOKED_AT: Final = 500
"""Images of which the preview's are chosen."""

CAPTION: Final = 22
"""Height of the line under each image, in pixels."""
GAP: Final = 8
SIDE: Final = 320
"""Width and height of a tile, in pixels."""
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
    source, workspace = open_source(campaign.source, campaign.workspace, keep=False), open_store(campaign.workspace)
    run = campaign.run.name
    current = current_of(workspace, run)
    with Ledger.load(workspace, run) as ledger:
        found = islice(labelled_images(workspace, run, ledger, current.fingerprint), LOOKED_AT)
        images = [with_shown_names(image, current.names) for image in found]
    richest = sorted(images, key=lambda image: len({label.class_name for label in image.labels}), reverse=True)
    chosen = {image.key for image in richest[:count]}
    drawn = _with_pixels([image for image in images if image.key in chosen], campaign, source)
    if drawn:
        save_picture(draw_grid(drawn, current.shown, columns), path)
    return len(drawn)


def preview(
    campaign: Campaign, path: Path, count: int, seed: int = 0, columns: int = 5, on_event: OnEvent = ignore
) -> Preview:
    """Label a few images, drawn at random, for one picture of their labels; the campaign's workspace is only read.

    The labels are decided on as the next run would, and are gone with the picture: their workspace is a temporary
    folder. Every label is drawn with its mask and score. The same seed draws the same images, as long as they are in
    the source. The campaign's paths are absolute; the picture's ending says the format.

    Raises:
        UserError: The source, the models or the policy cannot be used, or the picture cannot be written.
        VouchError: The storage failed, or every image did for an unforeseen reason.
    """
    started = time.monotonic()
    check_classes(campaign.classes, campaign.models.detector)
    check_models_there(campaign.models)
    source = open_source(campaign.source, campaign.workspace, keep=False)
    check_readable(source)
    if not path.parent.is_dir():
        raise UserError(f"{path}: cannot be written (no such folder); choose another place")
    on_event(Listing(0))
    skipped = Counter[str]()
    refs = draw_refs(list_source(campaign.source, source, workspace=campaign.workspace, skipped=skipped), count, seed)
    if not refs:
        raise nothing_to_label(skipped)
    on_event(Loading("models"))
    policy, remark = _policy(campaign)
    with tempfile.TemporaryDirectory(prefix="vouch-preview-") as folder:
        run = campaign.run.model_copy(update={"shard_size": len(refs)})
        scratch = campaign.model_copy(update={"workspace": Workspace(uri=folder), "run": run})
        workspace = open_store(scratch.workspace)
        with Ledger.load(workspace, run.name) as ledger:
            planned = plan(refs, workspace, run.name, ledger, len(refs))
            assert planned is not None, "images of a new run are new"
            on_event(Planned(len(refs), 0, 1))
            marker = process_shard(planned.shards[0].id, ShardSettings(scratch, policy), on_event)
            labelled = labelled_images(workspace, run.name, ledger, marker.fingerprint)
            images = [with_shown_names(image, shown_names(campaign.classes)) for image in labelled]
            failed = [tuple(image) for image in failed_images(workspace, run.name, ledger, marker.fingerprint)]
    drawn = _with_pixels(images, campaign, source)
    counts = marker.counts
    if drawn:
        classes = [entry.name for entry in campaign.classes]
        legend = "in colour: accepted; grey, with ?: waits for review"
        save_picture(draw_grid(drawn, classes, columns, detailed=True, legend=legend), path)
    return Preview(
        picture=str(path.resolve()) if drawn else None,
        images=counts.images,
        seed=seed,
        failed=failed,
        **counts.model_dump(include={"labels", "accepted", "review"}),
        classes={entry.name: counts.classes[entry.key] for entry in campaign.classes if entry.key in counts.classes},
        policy=policy_with_basis(policy.version, basis(policy)),
        remark=remark,
        bundled=campaign.models.bundled,
        unknown_classes=unknown_classes(campaign),
        seconds=round(time.monotonic() - started, 3),
    )


def draw_refs(refs: Iterable[ImageRef], count: int, seed: int) -> list[ImageRef]:
    """Draw images at random, each as likely as the others, in the order of their keys; memory is that of the drawn."""

    def rank(ref: ImageRef) -> bytes:
        return hashlib.sha256(f"{seed}\0{ref.key}".encode()).digest()

    return sorted(heapq.nsmallest(count, refs, key=rank))


def _policy(campaign: Campaign) -> tuple[Policy, str]:
    """What the next run would decide by; where a run would refuse it for these models or prompts, a remark says so."""
    workspace = open_store(campaign.workspace)
    inputs = load_pipeline(campaign).inputs
    policy = find_policy(campaign, workspace).policy
    try:
        check_fits(policy, inputs)
    except UserError as error:
        return default_policy(campaign.classes, campaign.routing), f"decided by the campaign's own thresholds: {error}"
    return policy, ""


def _with_pixels(images: Iterable[ExportImage], campaign: Campaign, source: Store) -> list[tuple[Pixels, ExportImage]]:
    """Images as small as they are drawn, (H, W, 3); those that have left the source or cannot be read are left out."""
    found = []
    for image in images:
        try:
            decoded = decode(image.key, source.get(image.key).data, campaign.source.max_pixels)
        except StoreError:
            continue  # a picture of the others is still worth having
        if isinstance(decoded, DecodedImage):
            found.append((_fitted(decoded.pixels, SIDE), image))
    return found


def save_picture(picture: Image.Image, path: Path) -> None:
    """Write a picture; its path's ending says the format.

    Raises:
        UserError: It names no format, or the file cannot be written.
    """
    try:
        format_name = Image.registered_extensions()[path.suffix.lower()]
        data = io.BytesIO()
        picture.save(data, format_name)
        path.write_bytes(data.getvalue())
    except KeyError:
        raise UserError(f"{path}: its ending names no format of pictures; use .jpg or .png") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def draw_grid(
    images: Sequence[tuple[Pixels, ExportImage]],
    class_names: Sequence[str],
    columns: int = 4,
    side: int = SIDE,
    captions: Sequence[str] | None = None,
    *,
    detailed: bool = False,
    legend: str = "",
) -> Image.Image:
    """Draw images with their labels, each in a square tile with a line under it, into an RGB picture.

    Accepted labels have the colour of their class, with mask, box, name and detector score; labels that wait for
    review have a thin grey box and a question mark.

    Images are (H, W, 3) uint8 RGB pixels, with labels in pixels of them, tiles `side` pixels wide and high. A class's
    place among `class_names` gives its colour. The line under each image is by default its key, and how many labels
    were accepted; `detailed` draws labels that wait for review with mask and score as well.
    """
    columns = max(1, min(columns, len(images)))
    rows = -(-len(images) // columns)
    width, height = side + GAP, side + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, rows * height + GAP + (CAPTION if legend else 0)), PAPER)
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(13)
    for place, (pixels, image) in enumerate(images):
        left, top = GAP + place % columns * width, GAP + place // columns * height
        tile = draw_labels(pixels, image, class_names, side, detailed=detailed)
        sheet.paste(tile, (left + (side - tile.width) // 2, top + (side - tile.height) // 2))
        caption = _caption(image, font, side) if captions is None else captions[place]
        pen.text((left, top + side + 4), caption, fill=INK, font=font)
    if legend:
        pen.text((GAP, sheet.height - CAPTION), legend, fill=INK, font=font)
    return sheet


def draw_labels(
    pixels: Pixels, image: ExportImage, class_names: Sequence[str], side: int, *, detailed: bool = False
) -> Image.Image:
    """Draw one (H, W, 3) uint8 RGB image with its labels, as `draw_grid` draws each, into an RGB picture.

    The image is scaled first, to `side` pixels at the longer side, so that lines and letters keep their size.
    """
    import supervision as sv

    fitted = _fitted(pixels, side)
    size = fitted.shape[1], fitted.shape[0]
    scene = np.ascontiguousarray(fitted[..., ::-1])
    waiting = [label for label in image.labels if label.decision != "accept"]
    accepted = [label for label in image.labels if label.decision == "accept"]
    if waiting:
        grey = sv.Color.from_hex(UNREVIEWED)
        found = detections_of(waiting, image, class_names, size)
        if detailed:
            scene = sv.MaskAnnotator(color=grey, opacity=0.3).annotate(scene, found)
        scene = sv.BoxAnnotator(color=grey, thickness=1).annotate(scene, found)
        scores = [f" {label.score:.2f}" if detailed else "" for label in waiting]
        texts = [f"{label.class_name}?{score}" for label, score in zip(waiting, scores, strict=True)]
        scene = _names(grey).annotate(scene, found, texts)
    if accepted:
        palette = sv.ColorPalette.DEFAULT
        found = detections_of(accepted, image, class_names, size)
        scene = sv.MaskAnnotator(color=palette, opacity=0.45).annotate(scene, found)
        scene = sv.BoxAnnotator(color=palette, thickness=2).annotate(scene, found)
        scene = _names(palette).annotate(scene, found, [f"{label.class_name} {label.score:.2f}" for label in accepted])
    return Image.fromarray(np.ascontiguousarray(np.asarray(scene)[..., ::-1]))


def _fitted(pixels: Pixels, side: int) -> Pixels:
    """(H, W, 3) pixels scaled so that the longer side has `side`."""
    height, width = pixels.shape[:2]
    scale = side / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))


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
