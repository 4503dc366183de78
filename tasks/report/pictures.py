"""Cuts the labels that the report shows out of their images."""

import base64
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Final, NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from vouch_labels.schemas.campaign import Source
from vouch_labels.schemas.errors import ObjectMissingError, StoreAccessError, StoreError
from vouch_labels.schemas.report import Picture
from vouch_labels.tasks.decode import DecodedImage, decode
from vouch_labels.tasks.models.registry import Pixels
from vouch_labels.tasks.score import LEAST_SIDE, span
from vouch_labels.tasks.store.store import Store, map_ordered

SIDE: Final = 264
"""Pixels of a thumbnail, twice those that it takes on the page."""
CONTEXT: Final = 1.9
QUALITY: Final = 80
_THREADS: Final = 4
_COLOURS: Final = {"accepted": "#12b886", "routed": "#f59f00", "wrong": "#fa5252"}


class Thumbnail(NamedTuple):
    """A picture for the page."""

    data: str
    """Base64 of a square JPEG of `SIDE` pixels; empty where there is none."""
    note: str
    """Why there is none."""


def thumbnails(
    pictures: Sequence[Picture], source: Store, config: Source, contents: Mapping[str, str]
) -> list[Thumbnail]:
    """Cut every label out of its image, with some surroundings, and draw its box; each image is read once.

    contents: key -> SHA-256 of the content that was labelled, for boxes do not fit another. Where an image cannot be
    shown, its thumbnail has a note.
    """
    places: dict[str, list[int]] = defaultdict(list)
    for place, picture in enumerate(pictures):
        places[picture.key].append(place)

    def cut(key: str) -> list[tuple[int, Thumbnail]]:
        found = _read(key, source, config, contents.get(key))
        if isinstance(found, str):
            return [(place, Thumbnail("", found)) for place in places[key]]
        return [(place, _thumbnail(found, pictures[place])) for place in places[key]]

    made = dict(chain.from_iterable(map_ordered(cut, places, _THREADS)))
    return [made[place] for place in range(len(pictures))]


def _read(key: str, source: Store, config: Source, sha256: str | None) -> Pixels | str:
    """The upright pixels of an image, or why they cannot be shown."""
    try:
        known = source.stat(key)
        if known is not None and known.size > config.max_image_mb * 1_000_000:
            return "the image is too large"
        data = source.get(key).data
    except ObjectMissingError:
        return "the image has left the source"
    except (StoreError, StoreAccessError):  # a page without this picture is of more use than none
        return "the image cannot be read"
    decoded = decode(key, data, config.max_pixels)
    if not isinstance(decoded, DecodedImage):
        return "the image cannot be decoded"
    if sha256 is not None and decoded.sha256 != sha256:
        return "the image has changed since it was labelled"
    return decoded.pixels


def _thumbnail(pixels: Pixels, picture: Picture) -> Thumbnail:
    box = np.array(picture.box, np.float64)
    if not np.isfinite(box).all():
        return Thumbnail("", "the box has no place")
    side = max(LEAST_SIDE, CONTEXT * float(max(abs(box[2] - box[0]), abs(box[3] - box[1]))))
    left, right = span(float(box[0] + box[2]) / 2, side, pixels.shape[1])
    top, bottom = span(float(box[1] + box[3]) / 2, side, pixels.shape[0])
    scale = SIDE / max(right - left, bottom - top)
    size = (max(1, round((right - left) * scale)), max(1, round((bottom - top) * scale)))
    scaled = Image.fromarray(pixels[top:bottom, left:right]).resize(size, Image.Resampling.LANCZOS)
    sheet = Image.new("RGB", (SIDE, SIDE), (128, 128, 128))
    at = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    sheet.paste(scaled, at)
    corners = (box - np.array([left, top, left, top])) * scale + np.array([*at, *at])
    _draw_box(sheet, corners.tolist(), _COLOURS[picture.kind])
    file = io.BytesIO()
    sheet.save(file, "JPEG", quality=QUALITY, optimize=True)
    return Thumbnail(base64.b64encode(file.getvalue()).decode("ascii"), "")


def _draw_box(sheet: Image.Image, corners: Sequence[float], colour: str) -> None:
    """A line of the colour between two thin dark ones, so that it is seen on any ground."""
    x0, x1 = sorted((corners[0], corners[2]))
    y0, y1 = sorted((corners[1], corners[3]))
    pen = ImageDraw.Draw(sheet)
    pen.rectangle((x0 - 2, y0 - 2, x1 + 2, y1 + 2), outline="#14161a", width=6)
    pen.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=colour, width=4)
