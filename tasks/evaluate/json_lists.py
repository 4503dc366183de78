"""Reads the lists of a large JSON object one element at a time, so that memory is bounded by the largest element."""

import codecs
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, Final, NoReturn

from vouch_labels.schemas.errors import UserError

MOST_ELEMENT: Final = 1 << 24
"""Characters of one element; parsed it takes up to twenty times that."""

_CHUNK: Final = 1 << 20
_SPACE: Final = " \t\r\n"
_NEAR: Final = 16
"""An error so close to the end of what was read may come from a value that goes on; no escape or word is longer."""
_BOM: Final = b"\xef\xbb\xbf"
_OTHERS: Final = {
    b"PK\x03\x04": "is a ZIP archive; unpack it",
    b"\x1f\x8b": "is compressed with gzip; unpack it (gunzip)",
    b"BZh": "is compressed with bzip2; unpack it (bunzip2)",
    b"\xfd7zXZ": "is compressed with xz; unpack it (unxz)",
    b"\x28\xb5\x2f\xfd": "is compressed with Zstandard; unpack it (unzstd)",
    b"\xff\xfe\x00\x00": "is UTF-32; save it as UTF-8",
    b"\x00\x00\xfe\xff": "is UTF-32; save it as UTF-8",
    b"\xff\xfe": "is UTF-16; save it as UTF-8",
    b"\xfe\xff": "is UTF-16; save it as UTF-8",
}
"""First bytes of what is no JSON in UTF-8, and what to do."""

OnBytes = Callable[[int, int], None]
"""Called with the bytes read and those of the whole file."""


class NotAnObjectError(Exception):
    """The JSON is no object, or one of its lists is none."""


class NotJsonError(Exception):
    """The text is no JSON; its words say where."""


def read_lists(path: Path, names: tuple[str, ...], progress: OnBytes | None = None) -> Iterator[tuple[str, int, Any]]:
    """Yield list, place and element of the named lists of a JSON object, in the order of the file.

    Everything else in the object is passed over.

    Raises:
        FileNotFoundError: There is no such file.
        UserError: The file cannot be read, is compressed or not in UTF-8.
        NotJsonError: It is no JSON.
        NotAnObjectError: It has not these lists.
    """
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            yield from _Lists(_Text(file, path, size, progress), names).elements()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error


class _Text:
    """What was read and not taken yet."""

    def __init__(self, file: BinaryIO, path: Path, size: int, progress: OnBytes | None) -> None:
        self._file, self._path, self._size, self._progress = file, path, size, progress
        self._decoder = codecs.getincrementaldecoder("utf-8")()
        self._parser = json.JSONDecoder()
        self._read = self._lines = 0
        self._ended = False
        self.text, self.at = "", 0
        first = file.read(4)
        for start, words in _OTHERS.items():
            if first.startswith(start):
                raise UserError(f"{path}: {words}")
        if b"\x00" in first[:2]:
            raise UserError(f"{path}: is UTF-16; save it as UTF-8")
        file.seek(len(_BOM) if first.startswith(_BOM) else 0)

    def more(self) -> bool:
        """Read on, as much again as is held at least; False at the end of the file."""
        if self._ended:
            return False
        data = self._file.read(max(_CHUNK, len(self.text) - self.at))
        self._ended = not data
        self._lines += self.text.count("\n", 0, self.at)
        try:
            self.text = self.text[self.at :] + self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            place = self._read + error.start - len(self._decoder.getstate()[0])
            raise UserError(
                f"{self._path}: is not UTF-8 (byte {max(place, 0):,} on; Latin-1, perhaps); save it as UTF-8"
            ) from None
        self.at = 0
        self._read += len(data)
        if self._progress is not None:
            self._progress(self._read, self._size)
        return not self._ended

    def mark(self) -> str:
        """The next character that is no space, not taken yet; empty at the end."""
        while True:
            text, at = self.text, self.at
            while at < len(text) and text[at] in _SPACE:
                at += 1
            self.at = at
            if at < len(text):
                return text[at]
            if not self.more():
                return ""

    def take(self, wanted: str) -> str:
        """Take the next mark, which must be one of these."""
        mark = self.mark()
        if not mark or mark not in wanted:
            self.fail(f"expecting {' or '.join(repr(one) for one in wanted)}", self.at)
        self.at += 1
        return mark

    def value(self) -> Any:  # noqa: ANN401 - whatever stands there
        """Take the next value."""
        self.mark()
        while True:
            try:
                found, end = self._parser.raw_decode(self.text, self.at)
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated") or error.pos + _NEAR >= len(self.text)
                if not (goes_on and self._hold()):
                    self.fail(error.msg, error.pos)
                continue
            except RecursionError:
                self.fail("nested too deeply", self.at)
            except ValueError as error:  # an integer of thousands of digits
                self.fail(str(error).partition(";")[0], self.at)
            # A number may go on behind what was read.
            if end == len(self.text) and self._hold():
                continue
            self.at = end
            return found

    def _hold(self) -> bool:
        if len(self.text) - self.at > MOST_ELEMENT:
            self.fail(f"a value of more than {MOST_ELEMENT >> 20} MiB", self.at)
        return self.more()

    def fail(self, words: str, place: int) -> NoReturn:
        line = self._lines + self.text.count("\n", 0, place) + 1
        raise NotJsonError(f"line {line}: {words}")


class _Lists:
    def __init__(self, text: _Text, names: tuple[str, ...]) -> None:
        self._text, self._names = text, names

    def elements(self) -> Iterator[tuple[str, int, Any]]:
        text, met = self._text, set[str]()
        if (mark := text.mark()) != "{":
            # What is no JSON at all is said as such.
            next(self._values(), None) if mark == "[" else text.value()
            raise NotAnObjectError
        for name in self._keys():
            if name not in self._names:
                self._pass_over()
                continue
            if text.mark() != "[":
                raise NotAnObjectError
            if name in met:
                text.fail(f"the list {name!r} is there twice", text.at)
            met.add(name)
            for place, value in enumerate(self._values()):
                yield name, place, value
        if text.mark():
            text.fail("Extra data", text.at)
        if len(met) < len(self._names):
            raise NotAnObjectError

    def _keys(self) -> Iterator[str]:
        """Take the keys of an object; the caller takes the value of each."""
        text = self._text
        text.take("{")
        while text.mark() != "}":
            if text.mark() != '"':
                text.fail("expecting a name in double quotes", text.at)
            name = text.value()
            text.take(":")
            yield name
            if text.mark() == "}":
                break
            text.take(",}")
            if text.mark() == "}":
                text.fail("expecting a name in double quotes", text.at)
        text.take("}")

    def _values(self) -> Iterator[Any]:
        text = self._text
        text.take("[")
        while text.mark() != "]":
            yield text.value()
            if text.mark() == "]":
                break
            text.take(",]")
            if text.mark() == "]":
                text.fail("Expecting value", text.at)
        text.take("]")

    def _pass_over(self) -> None:
        """Take a value of any size without holding it; of lists and objects each element alone."""
        mark = self._text.mark()
        if mark == "[":
            for _ in self._values():
                pass
        elif mark == "{":
            for _ in self._keys():
                self._text.value()
        else:
            self._text.value()
