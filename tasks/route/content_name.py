"""Names certified policies by what they say, so that a later change of theirs is noticed."""

import json
import re
from typing import Any, Final

from tasks.fingerprint import fingerprint

_DIGITS: Final = 8
_NAME: Final = re.compile(rf"certified-\d+-([0-9a-f]{{{_DIGITS}}})")


def content_name(look: int, groups: list[dict[str, Any]], certification: dict[str, Any]) -> str:
    """Give the version of a certified policy: certified-<look>-<hash>.

    Args:
        look: Which look at certification labels it came from.
        groups: The policy's groups as JSON values.
        certification: Its certification as JSON values; when it was made does not count.
    """
    return f"certified-{look}-{_hash(groups, certification)}"


def is_as_named(version: str, data: bytes) -> bool:
    """Whether a policy says what it said when it was named; one with a name of another kind always does.

    Args:
        version: Its name.
        data: Its file, which is JSON of the schema. Read as it is, it stays true when the schema gets new fields.
    """
    name = _NAME.fullmatch(version)
    if name is None:
        return True
    policy = json.loads(data)
    try:
        return _hash(policy["groups"], policy["certification"]) == name[1]
    except (KeyError, TypeError, AttributeError, ValueError):
        return False


def _hash(groups: list[dict[str, Any]], certification: dict[str, Any]) -> str:
    timeless = {name: value for name, value in certification.items() if name != "created"}
    return fingerprint(groups, timeless)[:_DIGITS]
