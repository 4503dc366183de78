"""The mark `pulled` of an answer: one field, set on condition, so that of a pull and an undo that race one wins."""

from typing import Any, Final

TAKEN: Final = "taken"
"""A pull has it, and may have written it: it can no longer be taken back, and the next pull brings it all the same."""
UNDONE: Final = "undone"
"""It was taken back, and no pull brings it. Any other value: the file of the workspace that it is in."""
UNPULLED: Final[dict[str, Any]] = {"$in": [None, TAKEN]}
"""Answers that the workspace may not have; null and no mark at all are the same."""
