"""Names for what results depend on."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TypeAlias

Json: TypeAlias = str | int | float | bool | Sequence["Json"] | Mapping[str, "Json"] | None

LENGTH = 16


def fingerprint(*parts: Json) -> str:
    """Sixteen hex digits of SHA-256 over the canonical JSON of the parts, the same on every machine for equal parts.

    The order of mapping keys does not matter, that of lists does.

    Raises:
        ValueError: A number is NaN or infinite.
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:LENGTH]
