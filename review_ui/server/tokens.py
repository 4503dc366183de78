"""The tokens that reviewers log in with: drawn anew, or the user's own."""

import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from schemas.errors import UserError

VARIABLE: Final = "VOUCH_REVIEW_TOKEN"
SHORTEST: Final = 16
"""Characters of a token of the user's own."""


def draw_tokens(reviewers: Sequence[str]) -> dict[str, str]:
    """Draw a token of 32 random bytes for each reviewer."""
    return {reviewer: secrets.token_urlsafe(32) for reviewer in reviewers}


def own_tokens(reviewers: Sequence[str], file: Path | None, environment: Mapping[str, str]) -> dict[str, str] | None:
    """Read the tokens that the user set.

    Args:
        reviewers: Who needs one.
        file: A line a reviewer: name, a space or tab, token; for one reviewer the token alone is enough.
        environment: Holds VOUCH_REVIEW_TOKEN, perhaps, for one reviewer.

    Returns:
        Reviewer -> token; None when the user set none.

    Raises:
        UserError: A token is missing, or too short; never says one.
    """
    if file is not None:
        found = _read(file, reviewers)
    elif environment.get(VARIABLE):
        if len(reviewers) > 1:
            raise UserError(f"{VARIABLE} is one reviewer's token; name each one's in a file with --token-file")
        found = {reviewers[0]: environment[VARIABLE].strip()}
    else:
        return None
    for reviewer in reviewers:
        if reviewer not in found:
            raise UserError(f"{file} has no token of {reviewer!r}; add the line: {reviewer} TOKEN")
        if len(found[reviewer]) < SHORTEST:
            raise UserError(f"the token of {reviewer!r} is shorter than {SHORTEST} characters; draw a longer one")
    return {reviewer: found[reviewer] for reviewer in reviewers}


def _read(file: Path, reviewers: Sequence[str]) -> dict[str, str]:
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError):
        raise UserError(f"cannot read the tokens in {file}; it is a text file, a line a reviewer: NAME TOKEN") from None
    lines = [line for line in lines if line and not line.startswith("#")]
    if len(lines) == 1 and len(reviewers) == 1 and len(lines[0].split()) == 1:
        return {reviewers[0]: lines[0]}
    found = {}
    for number, line in enumerate(lines, 1):
        name, _, token = line.replace("\t", " ").rpartition(" ")
        if not name.strip():
            raise UserError(f"token {number} of {file} has no name; write a line a reviewer: NAME TOKEN")
        found[name.strip()] = token
    return found
