"""Decides by globs which keys of a source are images to take."""

import re
from collections.abc import Callable, Iterable

_PLAIN_SUFFIX = re.compile(r"\*\*/\*([^*?\[\]/]*)")


def compile_filter(include: Iterable[str], exclude: Iterable[str] = ()) -> Callable[[str], bool]:
    """Make a function that says whether a key is taken: some glob of `include` matches and none of `exclude`.

    Globs cover the whole key and pay no regard to case. `*` and `?` stop at a slash, `**/` stands for any number of
    folders, none included, `**` for anything, `[a-z]` and `[!a-z]` for one character. A slash or `./` in front is
    ignored.

    Args:
        include: Globs of the keys to take.
        exclude: Globs of the keys to leave out, after `include`.

    Returns:
        The test, fast enough for millions of keys.
    """
    taken, left_out = _matcher(include), _matcher(exclude)
    return lambda key: taken(key) and not left_out(key)


def _matcher(globs: Iterable[str]) -> Callable[[str], bool]:
    suffixes: list[str] = []
    patterns: list[str] = []
    for glob in globs:
        # "**/*.jpg" is by far the most common form, and comparing ends is many times faster than a pattern.
        plain = _PLAIN_SUFFIX.fullmatch(glob)
        if plain:
            suffixes.append(plain[1].lower())
        else:
            patterns.append(_translate(glob.removeprefix("./").removeprefix("/")))
    ends = tuple(suffixes)
    pattern = re.compile("|".join(patterns), re.IGNORECASE | re.DOTALL) if patterns else None
    if pattern is None:
        return lambda key: key.lower().endswith(ends)
    matches = pattern.fullmatch
    return lambda key: key.lower().endswith(ends) or matches(key) is not None


def _translate(glob: str) -> str:
    tokens = re.compile(
        r"(?P<folders>(?:(?<=/)|^)\*\*/)|(?P<anything>\*\*)|(?P<star>\*)|(?P<one>\?)"
        r"|\[(?P<negated>[!^]?)(?P<set>\]?[^\]/]*)\]|(?P<text>.)",
        re.DOTALL,
    )
    return "".join(_token(match) for match in tokens.finditer(glob))


def _token(match: re.Match[str]) -> str:
    fixed = {"folders": "(?:.*/)?", "anything": ".*", "star": "[^/]*", "one": "[^/]"}
    if match.lastgroup in fixed:
        return fixed[match.lastgroup]
    if match.lastgroup == "set":
        return _set(match["set"], negated=bool(match["negated"]))
    return re.escape(match["text"])


def _set(characters: str, *, negated: bool) -> str:
    if not characters:
        return re.escape("[!]" if negated else "[]")
    parts: list[str] = []
    for low, high, one in re.findall(r"(.)-(.)|(.)", characters, re.DOTALL):
        if one:
            parts.append(re.escape(one))
        elif low <= high:
            parts.append(f"{re.escape(low)}-{re.escape(high)}")
    if not parts:  # only empty ranges, such as [z-a]
        return "[^/]" if negated else "(?!)"
    return f"(?!/)[{'^' if negated else ''}{''.join(parts)}]"
