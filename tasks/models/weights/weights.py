"""A checkpoint that is on this machine and is the file it should be."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Weights:
    """A verified checkpoint file."""

    path: Path
    sha256: str
    """Hex, of the file's bytes."""
    architecture: str | Path | None
    """Name of a built-in architecture, a JSON file that describes one, or None where nothing says."""
    source: str
    """The reference that led here, fit for messages and records."""
