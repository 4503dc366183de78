import hashlib
import io
import struct
import sys
import warnings
import zlib
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vouch_labels.schemas.records import Failed
from vouch_labels.tasks import pixels
from vouch_labels.tasks.decode import WITHOUT_EXTENSION, DecodedImage, decode, is_animated, mislabelled, sniff

pillow_heif.register_heif_opener()  # for writing

MANY = 10**9
EXTENSION = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "TIFF": "tif", "BMP": "bmp"}


def encode(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def good(key: str, data: bytes, max_pixels: int = MANY) -> DecodedImage:
    result = decode(key, data, max_pixels)
    assert isinstance(result, DecodedImage), result
    assert result.pixels.dtype == np.uint8
    assert result.pixels.ndim == 3
    assert result.pixels.shape[2] == 3
    assert result.pixels.flags.c_contiguous
    assert result.pixels.flags.writeable
    assert result.sha256 == hashlib.sha256(data).hexdigest()
    return result


def reason(key: str, data: bytes, max_pixels: int = MANY) -> str:
    result = decode(key, data, max_pixels)
    assert isinstance(result, Failed), result
    assert result.step == "acquire"
    assert "\n" not in result.reason
    return result.reason


@pytest.fixture(scope="module")
def quarters() -> np.ndarray:
    """A 24 x 16 picture whose four quarters differ: no flip or turn of it equals another."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12] = (250, 10, 10)
    pixels[:8, 12:] = (10, 250, 10)
    pixels[8:, :12] = (10, 10, 250)
    pixels[8:, 12:] = (240, 240, 240)
    return pixels


# (rows reversed, columns reversed, transposed) of the stored pixels for each orientation, from the EXIF standard:
# 6 says that the stored first row is the right side of the upright picture, its first column the top.
STORED = {
    1: lambda p: p,
    2: lambda p: p[:, ::-1],
    3: lambda p: p[::-1, ::-1],
    4: lambda p: p[::-1],
    5: lambda p: p.transpose(1, 0, 2),
    6: lambda p: np.rot90(p, 1),
    7: lambda p: np.rot90(p, 2).transpose(1, 0, 2),
    8: lambda p: np.rot90(p, -1),
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-LZW"])
def test_orientation_is_undone_once_and_recorded(kind: str, orientation: int, quarters: np.ndarray) -> None:
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](quarters)))
    options: dict[str, Any] = {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    options |= {"lossless": True} if kind == "WEBP" else {}
    kind, _, compression = kind.partition("-")
    if kind == "TIFF":
        options |= {"tiffinfo": {274: orientation}}
        options |= {"compression": "tiff_lzw"} if compression else {}
    else:
        exif = Image.Exif()
        exif[274] = orientation
        options["exif"] = exif
    image = good(f"a.{EXTENSION[kind]}", encode(stored, kind, **options))
    assert image.orientation == orientation
    assert image.format == kind
    assert image.pixels.shape == quarters.shape
    assert np.abs(image.pixels.astype(int) - quarters).max() <= (12 if kind == "JPEG" else 0)


@pytest.mark.parametrize("value", [0, 9, 60000])
def test_impossible_orientation_is_none(value: int, quarters: np.ndarray) -> None:
    exif = Image.Exif()
    exif[274] = value
    image = good("a.png", encode(Image.fromarray(quarters), "PNG", exif=exif))
    assert image.orientation == 1
    np.testing.assert_array_equal(image.pixels, quarters)


def test_damaged_exif_costs_no_image(quarters: np.ndarray) -> None:
    data = encode(Image.fromarray(quarters), "JPEG", exif=b"Exif\0\0" + b"\xff" * 40)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert good("a.jpg", data).orientation == 1


@pytest.mark.parametrize("kind", EXTENSION)
def test_plain_files(kind: str, quarters: np.ndarray) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind == "JPEG" else {}
    image = good(f"deep/folder/A.{EXTENSION[kind].upper()}", encode(Image.fromarray(quarters), kind, **options))
    assert (image.format, image.mode, image.orientation) == (kind, "RGB", 1)
    if kind != "JPEG":
        np.testing.assert_array_equal(image.pixels, quarters)


def test_grey_and_bilevel() -> None:
    grey = np.array([[0, 100, 255]], np.uint8)
    image = good("a.png", encode(Image.fromarray(grey), "PNG"))
    assert image.mode == "L"
    np.testing.assert_array_equal(image.pixels, np.repeat(grey[..., None], 3, axis=2))
    image = good("a.png", encode(Image.fromarray(grey > 50), "PNG"))
    assert image.mode == "1"
    np.testing.assert_array_equal(image.pixels[0, :, 0], [0, 255, 255])


def test_alpha_lies_on_white() -> None:
    rgba = np.array([[[200, 0, 0, 255], [200, 0, 0, 0], [200, 0, 0, 51]]], np.uint8)
    for kind, options in {"PNG": {}, "WEBP": {"lossless": True, "exact": True}, "TIFF": {}}.items():
        image = good(f"a.{EXTENSION[kind]}", encode(Image.fromarray(rgba), kind, **options))
        assert image.mode == "RGBA"
        np.testing.assert_allclose(image.pixels[0].astype(int), [[200, 0, 0], [255, 255, 255], [244, 204, 204]], atol=1)


def test_grey_alpha_lies_on_white() -> None:
    values = np.array([[[40, 255], [40, 0]]], np.uint8)
    image = good("a.png", encode(Image.fromarray(values, "LA"), "PNG"))
    assert image.mode == "LA"
    np.testing.assert_array_equal(image.pixels[0, :, 1], [40, 255])


def test_alpha_that_is_zero_everywhere_is_dropped() -> None:
    rgba = np.array([[[200, 10, 0, 0], [20, 30, 40, 0]]], np.uint8)
    image = good("a.png", encode(Image.fromarray(rgba), "PNG"))
    np.testing.assert_array_equal(image.pixels[0], [[200, 10, 0], [20, 30, 40]])


@pytest.mark.parametrize("transparency", [None, 1, b"\xff\x00\xff"])
def test_palette(transparency: int | bytes | None) -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    options = {} if transparency is None else {"transparency": transparency}
    result = good("a.png", encode(image, "PNG", **options))
    assert result.mode == "P"
    middle = [40, 50, 60] if transparency is None else [255, 255, 255]
    np.testing.assert_array_equal(result.pixels[0], [[10, 20, 30], middle, [70, 80, 90]])


def test_one_transparent_colour() -> None:
    pixels = np.array([[[1, 2, 3], [9, 9, 9]]], np.uint8)
    result = good("a.png", encode(Image.fromarray(pixels), "PNG", transparency=(1, 2, 3)))
    np.testing.assert_array_equal(result.pixels[0], [[255, 255, 255], [9, 9, 9]])


def cmyk(cyan: int, magenta: int, yellow: int, black: int) -> Image.Image:
    return Image.new("CMYK", (16, 16), (cyan, magenta, yellow, black))


def test_cmyk_of_adobe_is_not_a_negative() -> None:
    """Pillow writes CMYK JPEGs as Adobe does: inverted, with the APP14 marker."""
    data = encode(cmyk(0, 255, 255, 0), "JPEG", quality=95)
    assert b"Adobe" in data
    image = good("a.jpg", data)
    assert image.mode == "CMYK"
    np.testing.assert_allclose(image.pixels.reshape(-1, 3).mean(axis=0), [255, 0, 0], atol=3)


def test_cmyk_without_adobe_marker_is_taken_as_it_is() -> None:
    """The same bytes without the marker are not inverted, so they mean the complementary inks."""
    data = encode(cmyk(0, 255, 255, 51), "JPEG", quality=95)
    at = data.index(b"\xff\xee")
    length = struct.unpack(">H", data[at + 2 : at + 4])[0]
    image = good("a.jpg", data[:at] + data[at + 2 + length :])
    np.testing.assert_allclose(image.pixels.reshape(-1, 3).mean(axis=0), [0, 51, 51], atol=4)


def test_cmyk_tiff() -> None:
    image = good("a.tif", encode(cmyk(255, 0, 0, 51), "TIFF"))
    np.testing.assert_array_equal(image.pixels[0, 0], [0, 204, 204])


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_grey_keeps_the_high_byte(kind: str) -> None:
    values = np.array([[0, 255, 256, 0x7FFF, 0xFFFF]], np.uint16)
    image = good(f"a.{EXTENSION[kind]}", encode(Image.fromarray(values), kind))
    assert image.mode == "I;16"
    np.testing.assert_array_equal(image.pixels[0, :, 2], [0, 0, 1, 127, 255])


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    """(60, 80, 3) uint8 with values from 10 to 240."""
    return np.random.default_rng(7).integers(10, 241, (60, 80, 3)).astype(np.uint8)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_of_fewer_look_like_their_8_bit_twin(bits: int, scene: np.ndarray) -> None:
    wide = scene.astype(np.uint16) << (bits - 8)
    grey, twin = np.ascontiguousarray(wide[..., 0]), np.repeat(scene[..., :1], 3, axis=2)
    for kind in ("PNG", "TIFF"):
        np.testing.assert_array_equal(good("a", encode(Image.fromarray(grey), kind)).pixels, twin)
    height, width = grey.shape
    colour = png(width, height, 16, 2, rows_of(wide))
    np.testing.assert_array_equal(good("a", colour).pixels, scene)
    opaque = np.full((height, width, 1), 0xFFFF, np.uint16)
    with_alpha = png(width, height, 16, 6, rows_of(np.concatenate([wide, opaque], axis=2)))
    np.testing.assert_array_equal(good("a", with_alpha).pixels, scene)
    grey_alpha = png(width, height, 16, 4, rows_of(np.concatenate([wide[..., :1], opaque], axis=2)))
    np.testing.assert_array_equal(good("a", grey_alpha).pixels, twin)
    for order in "<>":
        np.testing.assert_array_equal(good("a", colour_tiff(wide, order)).pixels, scene)
        packed = colour_tiff(wide, order, packed=True)
        np.testing.assert_array_equal(good("a", packed).pixels, scene)


def test_sixteen_bit_alpha_lies_on_white() -> None:
    """12-bit red, opaque and then fully transparent."""
    values = np.array([[[0xFFF, 0, 0, 0xFFFF], [0xFFF, 0, 0, 0]]], np.uint16)
    np.testing.assert_array_equal(
        good("a", png(2, 1, 16, 6, rows_of(values))).pixels[0], [[255, 0, 0], [255, 255, 255]]
    )
    grey = np.array([[[0xFFF, 0xFFFF], [0, 0]]], np.uint16)
    np.testing.assert_array_equal(good("a", png(2, 1, 16, 4, rows_of(grey))).pixels[0, :, 0], [255, 255])


@pytest.mark.parametrize("low", [300, 20_000])
def test_flat_sixteen_bits_are_stretched(low: int, scene: np.ndarray) -> None:
    """Values of a small part of the range, as a thermal camera gives them."""
    values = low + np.arange(0, 101, 4, dtype=np.uint16)[None]
    expected = np.rint(np.arange(0, 101, 4) * 2.55).astype(int)
    grey = good("a", encode(Image.fromarray(values), "PNG")).pixels[0, :, 0]
    np.testing.assert_allclose(grey.astype(int), expected, atol=1)
    assert (grey.min(), grey.max()) == (0, 255)
    colour = np.repeat(values[..., None], 3, axis=2)
    np.testing.assert_array_equal(good("a", png(values.size, 1, 16, 2, rows_of(colour))).pixels[0, :, 1], grey)
    assert not good("a", encode(Image.fromarray(np.full((4, 4), low, np.uint16)), "PNG")).pixels.any()


def test_tiles_make_no_difference(scene: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [
        encode(Image.fromarray(scene), "PNG"),
        encode(Image.fromarray(np.dstack([scene, scene[..., 0]]), "RGBA"), "PNG"),
        encode(Image.fromarray(scene[..., 0].astype(np.uint16) << 4), "PNG"),
        encode(Image.fromarray(scene[..., 0].astype(np.float32) / 9), "TIFF"),
        encode(Image.fromarray(scene).convert("CMYK"), "JPEG"),
    ]
    whole = [good("a", data).pixels for data in files]
    monkeypatch.setattr(pixels, "_TILE", 33)
    for data, before in zip(files, whole, strict=True):
        np.testing.assert_array_equal(good("a", data).pixels, before)


def test_big_endian_and_white_is_zero_sixteen_bit_tiff() -> None:
    values = np.array([[0, 0x1234, 0xFFFF]], np.uint16)
    plain = tiff(values, ">", {262: 1})
    np.testing.assert_array_equal(good("a.tif", plain).pixels[0, :, 0], [0, 0x12, 255])
    inverted = tiff(values, "<", {262: 0})
    np.testing.assert_array_equal(good("a.tif", inverted).pixels[0, :, 0], [255, 255 - 0x12, 0])


def test_twelve_bit_tiff_uses_the_whole_range() -> None:
    packed = bytes([0x00, 0x0F, 0xFF])  # two samples: 0x000, 0xFFF
    image = good("a.tif", tiff(np.zeros((1, 2), np.uint16), "<", {262: 1, 258: 12}, strip=packed))
    np.testing.assert_array_equal(image.pixels[0, :, 0], [0, 255])


def test_sixteen_bit_colour_png_keeps_the_high_byte() -> None:
    row = b"\0" + struct.pack(">6H", 0xFFFF, 0x1234, 0, 0x00FF, 0x8000, 0x7FFF)
    data = png(2, 1, bits=16, colour=2, rows=row)
    np.testing.assert_array_equal(good("a.png", data).pixels[0], [[255, 0x12, 0], [0, 0x80, 0x7F]])


def test_floats_and_long_integers_are_stretched() -> None:
    values = np.array([[-1.0, 0.0, 1.0, np.nan, np.inf]], np.float32)
    image = good("a.tif", encode(Image.fromarray(values), "TIFF"))
    assert image.mode == "F"
    np.testing.assert_array_equal(image.pixels[0, :, 0], [0, 128, 255, 0, 0])
    image = good("a.tif", encode(Image.fromarray(np.array([[5, 10, 1005]], np.int32)), "TIFF"))
    np.testing.assert_array_equal(image.pixels[0, :, 0], [0, 1, 255])
    for value in (0.5, np.nan):
        flat = encode(Image.fromarray(np.full((2, 2), value, np.float32)), "TIFF")
        assert not good("a.tif", flat).pixels.any()


def test_first_frame_of_several(quarters: np.ndarray) -> None:
    first, second = Image.fromarray(quarters), Image.new("RGB", (24, 16), (0, 0, 0))
    for kind, options in {"TIFF": {}, "WEBP": {"lossless": True}, "PNG": {}}.items():
        data = encode(first, kind, save_all=True, append_images=[second], **options)
        np.testing.assert_array_equal(good(f"a.{EXTENSION[kind]}", data).pixels, quarters)


def test_jpeg_with_a_second_picture_is_a_jpeg(quarters: np.ndarray) -> None:
    data = encode(Image.fromarray(quarters), "MPO", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    image = good("a.jpg", data)
    assert image.format == "JPEG"
    assert image.pixels.shape == quarters.shape


def test_lab_is_refused_in_words() -> None:
    assert "LAB" in reason("a.tif", encode(Image.new("LAB", (4, 4)), "TIFF"))


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "zero bytes"),
        (b"<!DOCTYPE html><html>not found</html>", "HTML"),
        (b'\n<?xml version="1.0"?><Error/>', "XML"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypisom", "video"),
        (b"\0\0\0\x0cJXL \r\n", "JPEG XL"),
        (b"just text", "no known format"),
        (b"\xff\xd8\xff", "damaged"),
        (b"BM", "damaged"),
        (b"RIFF\0\0\0\0WEBP", "damaged"),
        (b"\0\0\0\x18ftypheic", "damaged"),
        (b"\0\0\0\x18ftypavif", "damaged"),
        (b"GIF89a", "damaged"),
        (b"\xff\x4f\xff\x51", "damaged"),
    ],
)
def test_what_is_no_image(data: bytes, word: str) -> None:
    assert word in reason("a.jpg" if word != "damaged" else "a.x", data)


@pytest.mark.parametrize("name", ["a.jpg", "a.JPEG", "a.webp", "a.gif", "a.svg", "x.png/a.tiff"])
def test_a_name_that_claims_another_format_is_no_matter(name: str, quarters: np.ndarray) -> None:
    image = good(name, encode(Image.fromarray(quarters), "PNG"))
    assert image.format == "PNG"
    assert mislabelled(name, image.format) == PurePosixPath(name).suffix.lower()


@pytest.mark.parametrize("name", ["a", "a.img", "a.jpg.bak", "a.png", ".jpg"])
def test_names_that_claim_nothing_else(name: str, quarters: np.ndarray) -> None:
    assert mislabelled(name, good(name, encode(Image.fromarray(quarters), "PNG")).format) is None


@pytest.mark.parametrize(
    ("name", "kind", "options", "format_", "tolerance"),
    [
        ("a.heic", "HEIF", {"quality": 95, "chroma": 444}, "HEIC", 12),
        ("a.HIF", "HEIF", {"quality": -1, "chroma": 444}, "HEIC", 2),
        ("a.avif", "AVIF", {"quality": 95, "subsampling": "4:4:4"}, "AVIF", 12),
        ("a.gif", "GIF", {}, "GIF", 0),
        ("a.jp2", "JPEG2000", {}, "JPEG 2000", 0),
        ("a.j2k", "JPEG2000", {"no_jp2": True}, "JPEG 2000", 0),
        ("a.mpo", "MPO", {"quality": 95, "subsampling": 0}, "JPEG", 12),
        ("a.jfif", "JPEG", {"quality": 95, "subsampling": 0}, "JPEG", 12),
        ("a.jpe", "JPEG", {"quality": 95, "subsampling": 0}, "JPEG", 12),
        ("a", "JPEG", {"quality": 95, "subsampling": 0}, "JPEG", 12),
    ],
)
def test_further_formats(
    name: str, kind: str, options: dict[str, Any], format_: str, tolerance: int, quarters: np.ndarray
) -> None:
    image = good(name, encode(Image.fromarray(quarters).resize((96, 64), Image.Resampling.NEAREST), kind, **options))
    assert image.format == format_
    assert mislabelled(name, image.format) is None
    np.testing.assert_allclose(image.pixels[2::4, 2::4].astype(int), quarters, atol=tolerance)


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["HEIF", "AVIF"])
def test_turned_boxes_of_images_are_undone_once(kind: str, orientation: int, quarters: np.ndarray) -> None:
    """These formats turn by a property of their own, which their writers set from the EXIF orientation."""
    upright = np.kron(quarters, np.ones((4, 4, 1), np.uint8))
    exif = Image.Exif()
    exif[274] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](upright)))
    stored.info["exif"] = exif.tobytes()
    image = good("a", encode(stored, kind, quality=95, **({"exif": exif} if kind == "AVIF" else {})))
    assert image.pixels.shape == upright.shape
    assert image.orientation == (orientation if kind == "AVIF" else 1)
    np.testing.assert_allclose(image.pixels[2::4, 2::4].astype(int), quarters, atol=40)


def test_first_frames_of_films(quarters: np.ndarray) -> None:
    first, second = Image.fromarray(quarters), Image.new("RGB", (24, 16), (1, 2, 3))
    for kind, options in {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}}.items():
        data = encode(first, kind, save_all=True, append_images=[second, first], duration=50, **options)
        np.testing.assert_array_equal(good("a", data).pixels, quarters)
        assert is_animated(data[:64]) == (kind != "GIF")
        assert not is_animated(encode(first, kind, **options)[:64])


def test_transparent_gif_lies_on_white() -> None:
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    result = good("a.gif", encode(image, "GIF", transparency=1))
    np.testing.assert_array_equal(result.pixels[0], [[10, 20, 30], [255, 255, 255], [70, 80, 90]])


def test_heic_without_its_reader_is_one_line(quarters: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encode(Image.fromarray(quarters), "HEIF")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    assert reason("a.heic", data) == "HEIC needs the package pillow_heif; install it and run again with --retry-failed"


@pytest.mark.parametrize("data", [b"", b"read me", b"<!DOCTYPE html>", b"\0\0\0\x18ftypisom"])
def test_what_is_no_image_is_skipped_where_its_name_says_nothing(data: bytes) -> None:
    skipped, failed = decode("folder.jpg/README", data, MANY), decode("a.jpg", data, MANY)
    assert isinstance(skipped, Failed)
    assert isinstance(failed, Failed)
    assert (skipped.skip, skipped.reason, failed.skip) == (True, WITHOUT_EXTENSION, False)


@pytest.mark.parametrize(
    ("brands", "found"),
    [
        (b"heic\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1heic", "HEIC"),
        (b"mif1\0\0\0\0mif1avif", "AVIF"),
        (b"avif\0\0\0\0avifmif1", "AVIF"),
        (b"isom\0\0\0\0isommp42", "a video"),
    ],
)
def test_files_of_boxes_are_told_by_their_brands(brands: bytes, found: str) -> None:
    assert sniff((len(brands) + 8).to_bytes(4, "big") + b"ftyp" + brands + b"\0\0\0\x10heic") == found


def test_bomb_is_refused_before_decoding() -> None:
    """A 30000 x 30000 image whose pixels are missing: only its header can have been read."""
    data = png(30_000, 30_000, bits=8, colour=2, rows=b"")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        text = reason("a.png", data, max_pixels=120_000_000)
    assert text == "too many pixels: 30000 x 30000 is more than source.max_pixels, 120000000"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP"])
def test_pillows_own_limit_does_not_count(kind: str, quarters: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        good("a", encode(Image.fromarray(quarters), kind))


@pytest.mark.parametrize("kind", ["WEBP", "TIFF"])
def test_pillows_own_limit_is_named_where_it_counts(
    kind: str, quarters: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert reason("a", encode(Image.fromarray(quarters), kind)).startswith("too many pixels")


def test_limit_is_inclusive(quarters: np.ndarray) -> None:
    data = encode(Image.fromarray(quarters), "BMP")
    good("a.bmp", data, max_pixels=24 * 16)
    assert "24 x 16" in reason("a.bmp", data, max_pixels=24 * 16 - 1)


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    noise = Image.fromarray(np.random.default_rng(3).integers(0, 255, (40, 50, 3), np.uint8))
    return {
        "JPEG": encode(noise, "JPEG"),
        "progressive": encode(noise, "JPEG", progressive=True),
        "PNG": encode(noise, "PNG"),
        "WEBP": encode(noise, "WEBP"),
        "TIFF": encode(noise, "TIFF"),
        "TIFF-LZW": encode(noise, "TIFF", compression="tiff_lzw"),
        "BMP": encode(noise, "BMP"),
        "CMYK": encode(noise.convert("CMYK"), "JPEG"),
        "I;16": encode(noise.convert("I;16"), "PNG"),
        "F": encode(noise.convert("F"), "TIFF"),
        "GIF": encode(noise, "GIF"),
        "HEIC": encode(noise, "HEIF"),
        "AVIF": encode(noise, "AVIF"),
        "JPEG 2000": encode(noise, "JPEG2000"),
    }


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["JPEG", "progressive", "PNG", "WEBP", "TIFF-LZW", "BMP", "GIF", "HEIC", "AVIF"])
def test_half_a_file_fails(name: str, files: dict[str, bytes]) -> None:
    data = files[name]
    assert "damaged" in reason("a", data[: len(data) // 2])


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_truncated_files_never_raise(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = files[data.draw(st.sampled_from(sorted(files)))]
    result = decode("a", whole[: data.draw(st.integers(0, len(whole)))], MANY)
    assert isinstance(result, Failed) or result.pixels.shape == (40, 50, 3)


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_files_never_raise(files: dict[str, bytes], data: st.DataObject) -> None:
    whole = bytearray(files[data.draw(st.sampled_from(sorted(files)))])
    for _ in range(data.draw(st.integers(1, 8))):
        # Headers decide more than pixels do, so half of the damage goes there.
        end = data.draw(st.sampled_from([min(200, len(whole)), len(whole)])) - 1
        whole[data.draw(st.integers(0, end))] = data.draw(st.integers(0, 255))
    result = decode("a", bytes(whole), 10_000_000)
    assert isinstance(result, Failed) or result.pixels.dtype == np.uint8


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, deadline=None)
@given(
    start=st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"RIFF\x20\0\0\0WEBP"]),
    rest=st.binary(max_size=200),
)
def test_any_bytes_never_raise(start: bytes, rest: bytes) -> None:
    decode("a.jpg", start + rest, 10_000_000)
    decode("a", start + rest, 10_000_000)


def png(width: int, height: int, bits: int, colour: int, rows: bytes) -> bytes:
    """A PNG made by hand, since Pillow does not write all of them."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"".join(
        [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    )


def rows_of(values: np.ndarray) -> bytes:
    """The rows of a PNG of (H, W, C) 16-bit samples, each with its filter byte."""
    return b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)


def colour_tiff(values: np.ndarray, order: str, *, packed: bool = False) -> bytes:
    """A TIFF of (H, W, 3) uint16, which Pillow does not write; packed as a TIFF of a compression is."""
    height, width, channels = values.shape
    strip = values.astype(f"{order}u2").tobytes()
    strip = zlib.compress(strip) if packed else strip
    strip += b"\0" * (len(strip) % 2)
    bits = 8 + len(strip)
    tags = {
        256: (4, 1, width), 257: (4, 1, height), 258: (3, channels, bits), 259: (4, 1, 8 if packed else 1),
        262: (4, 1, 2), 273: (4, 1, 8), 277: (4, 1, channels), 278: (4, 1, height), 279: (4, 1, len(strip)),
    }  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, *entry) for tag, entry in sorted(tags.items()))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, bits + 2 * channels)
    depths = struct.pack(f"{order}{channels}H", *[16] * channels)
    return head + strip + depths + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


def tiff(values: np.ndarray, order: str, changes: dict[int, int], strip: bytes | None = None) -> bytes:
    """A baseline TIFF of one strip made by hand: (H, W) uint16, with tags changed."""
    height, width = values.shape
    strip = values.astype(f"{order}u2").tobytes() if strip is None else strip
    tags = {256: width, 257: height, 258: 16, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: len(strip)} | changes
    strip += b"\0" * (len(strip) % 2)
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in sorted(tags.items()))
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(strip))
    return head + strip + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
