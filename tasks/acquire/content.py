"""Tells file formats by their first bytes and by their names."""

from pathlib import PurePosixPath
from typing import Final

# What is no image of ours is named too, so that the reason helps: a saved error page, a PDF, a phone's HEIC.
_SIGNATURES: Final = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"BM", "BMP"),
    (b"GIF8", "GIF"),
    (b"%PDF", "PDF"),
    (b"8BPS", "PSD"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\1\0", "ICO"),
    (b"PK\x03\x04", "ZIP"),
    (b"\x1f\x8b", "GZIP"),
)
_EXTENSIONS: Final = {
    ".jpg": "JPEG",
    ".jpeg": "JPEG",
    ".jpe": "JPEG",
    ".jfif": "JPEG",
    ".png": "PNG",
    ".webp": "WEBP",
    ".tif": "TIFF",
    ".tiff": "TIFF",
    ".bmp": "BMP",
    ".dib": "BMP",
    ".gif": "GIF",
    ".heic": "HEIC",
    ".heif": "HEIC",
    ".avif": "AVIF",
    ".jp2": "JPEG 2000",
    ".jxl": "JPEG XL",
    ".ico": "ICO",
    ".psd": "PSD",
    ".svg": "SVG",
    ".pdf": "PDF",
}


def sniff(data: bytes) -> str:
    """Name the format of a file by its first bytes.

    Args:
        data: The file, or at least its first 64 bytes.

    Returns:
        JPEG, PNG, WEBP, TIFF, BMP, or a word for what else it is; "of no known format" when that is unknown.
    """
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF" if data[8:12] in (b"avif", b"avis") else "HEIC or video"
    for signature, name in _SIGNATURES:
        if data.startswith(signature):
            return name
    text = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if text.startswith((b"<!doctype html", b"<html")):
        return "HTML"
    return "XML" if text.startswith((b"<?xml", b"<svg")) else "of no known format"


def mislabelled(key: str, found: str) -> str | None:
    """Return the key's extension when it claims another image format than the one found, else None."""
    extension = PurePosixPath(key).suffix.lower()
    return extension if _EXTENSIONS.get(extension, found) != found else None
