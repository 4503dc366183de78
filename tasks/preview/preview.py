"""Draws a preview of a run's labels."""

from itertools import islice
from pathlib import Path
from typing import Final

from schemas.campaign import Campaign
from schemas.errors import StoreError, UserError
from tasks.acquire import DecodedImage, decode
from tasks.labels.read import labelled_images
from tasks.plan.ledger import Ledger
from tasks.preview.grid import draw_grid
from tasks.shard.files import read_current
from tasks.store.open import open_store

LOOKED_AT: Final = 500
"""Images of which the preview's are chosen."""


def write_preview(campaign: Campaign, path: Path, count: int = 12, columns: int = 4) -> int:
    """Draw images of a run with their labels into one picture.

    Of the first images of the run, those with the most classes are shown, in their order.

    Args:
        campaign: Has been run.
        path: The picture; its ending says the format.
        count: Most images shown.
        columns: Images in a row.

    Returns:
        Images shown; 0 writes no picture.

    Raises:
        UserError: The campaign has not been run yet, or the picture cannot be written.
        StoreError: The workspace cannot be read.
    """
    source, workspace = open_store(campaign.source), open_store(campaign.workspace)
    run = campaign.run.name
    current = read_current(workspace, run)
    if current is None:
        raise UserError(f"run {run!r} in {workspace.uri} has no labels yet; use `vouch run` first")
    with Ledger.load(workspace, run) as ledger:
        images = list(islice(labelled_images(workspace, run, ledger, current.fingerprint), LOOKED_AT))
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
            draw_grid(drawn, current.classes, columns).save(path)
        except OSError as error:
            raise UserError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error
    return len(drawn)
