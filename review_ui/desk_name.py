"""Names the FiftyOne dataset that is a reviewer's desk."""

import hashlib
import re
from typing import Final

_LONGEST: Final = 32


def desk_name(queue: str, reviewer: str) -> str:
    """Name a reviewer's desk: readable, and another one for every reviewer however alike two are written.

    Args:
        queue: Id of the queue.
        reviewer: The reviewer's name as verdicts carry it.
    """
    return f"vouch-{queue}-{reviewer_slug(reviewer)}"


def reviewer_slug(reviewer: str) -> str:
    """A reviewer's name in the letters of file names and addresses."""
    slug = re.sub(r"[^a-z0-9]+", "-", reviewer.lower(), flags=re.ASCII).strip("-")[:_LONGEST].rstrip("-")
    if slug == reviewer:
        return slug
    return f"{slug}-{hashlib.sha256(reviewer.encode()).hexdigest()[:6]}".lstrip("-")
