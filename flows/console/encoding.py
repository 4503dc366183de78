"""File names are UTF-8 whatever the locale says, and a terminal that cannot show a sign gets a plain one."""

import codecs
import io
import os
import sys
from typing import Final

PLAIN: Final = "vouch.plain"
"""Name of the error handler for streams."""

_PLAIN_SIGNS: Final = {"≥": ">=", "…": "...", "\u2013": "-"}


def read_names_as_utf8() -> None:
    """Begin this process again in Python's UTF-8 mode where the locale has another encoding.

    Python itself does so in the C locale, unless PYTHONUTF8=0 keeps it from that: names of files could not be read
    then, be it in a campaign, in a table or in the data set. The output stays in the encoding that was asked for.
    """
    if sys.flags.utf8_mode or _is_utf8(sys.getfilesystemencoding()):
        return
    os.environ["PYTHONUTF8"] = "1"  # for children
    os.environ.setdefault("PYTHONIOENCODING", f"{sys.stdout.encoding}:backslashreplace")
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])  # noqa: S606 - ourselves, no shell


def show_plain_signs() -> None:
    """Let standard output and error replace what their encoding does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=PLAIN)


def _is_utf8(encoding: str) -> bool:
    return codecs.lookup(encoding).name == "utf-8"


def _plain(error: UnicodeError) -> tuple[str | bytes, int]:
    if not isinstance(error, UnicodeEncodeError):
        return codecs.backslashreplace_errors(error)
    part = error.object[error.start : error.end]
    try:
        # Bytes of a file's name that could not be read in the locale's encoding (PEP 383) are mostly UTF-8.
        part = part.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return codecs.backslashreplace_errors(error)
    part = "".join(_PLAIN_SIGNS.get(sign, sign) for sign in part)
    return part.encode(error.encoding, "backslashreplace").decode(error.encoding), error.end


codecs.register_error(PLAIN, _plain)
