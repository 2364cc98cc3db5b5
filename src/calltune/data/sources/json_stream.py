"""The objects of a JSON file, one by one: of an array, or written one after the other.

A file is read item by item, so that its first rows do not need the whole file. `ijson` does that
too, but it refuses a whole file for one NaN, 1e999 or integer beyond 64 bits, turns half a
surrogate pair into "?" without a word, and does not say which item is broken.
"""

import codecs
import json
from collections.abc import Iterator
from typing import Protocol

from calltune.files import LENIENT_JSON
from calltune.types import Json

BLOCK_BYTES = 1 << 16


class Readable(Protocol):
    """A stream of bytes: an open file, or one on the hub."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; b"" at the end."""
        ...


def read_array(file: Readable) -> Iterator[dict[str, Json]]:
    """The objects in a JSON array, in order, each as soon as it is complete.

    Numbers and strings are those of Python's `json`: NaN, infinities and lone surrogates are read,
    and prep drops their rows by name. A whole number of too many digits is an infinity.

    Raises:
        ValueError: it is not an array of objects, or it ends early; the message names the item.
    """
    window = _Window(file)
    if window.skip("") not in ("[", ""):
        raise ValueError("not a JSON array")
    window.at += 1
    number = 0
    while (start := window.skip("," if number else "")) != "]":
        if not start:
            raise ValueError("the array is not closed; the file seems cut off")
        number += 1
        yield _item(window, start, number)


def read_objects(file: Readable) -> Iterator[dict[str, Json]]:
    """The objects that a file holds one after the other, on lines of their own or not.

    White space and commas may stand between them. Values are those of `read_array`.

    Raises:
        ValueError: there is something else, or it ends early; the message names the item.
    """
    window = _Window(file)
    number = 0
    while start := window.skip("," if number else ""):
        number += 1
        yield _item(window, start, number)


def goes_on(line: bytes) -> bool:
    """Whether the first line of a file is not one object: one of several lines, or several."""
    text = line.removeprefix(codecs.BOM_UTF8).decode("utf-8", "replace").strip()
    if not text.startswith("{"):
        return False
    try:
        _, end = LENIENT_JSON.raw_decode(text)
    except RecursionError:
        return False
    except json.JSONDecodeError as error:
        return error.pos >= len(text)
    except ValueError:
        return False
    return text[end:].lstrip()[:1] in (",", "{")


def _item(window: "_Window", start: str, number: int) -> dict[str, Json]:
    if start != "{":
        raise ValueError(f"item {number}: a JSON object is needed")
    while True:
        try:
            item, window.at = LENIENT_JSON.raw_decode(window.text, window.at)
        except RecursionError:
            raise ValueError(f"item {number}: nested too deeply") from None
        except ValueError as error:
            # Cut off, or wrong: only more of the file tells.
            if not window.more():
                raise ValueError(f"item {number}: {error}") from None
        else:
            assert isinstance(item, dict), item
            return item


class _Window:
    """The part of a file that is in memory, and the position in it."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.text = ""
        self.at = 0

    def more(self) -> bool:
        """Read more of the file, and drop what is before the position; False at its end."""
        self.text = self.text[self.at :]
        self.at = 0
        # Double the window, so that one long item is not decoded again for every block.
        block = self._file.read(max(BLOCK_BYTES, len(self.text)))
        self.text += self._decoder.decode(block, final=not block)
        return bool(block)

    def skip(self, separators: str) -> str:
        """The next character that is neither white space nor a separator; "" at the end."""
        passed_over = " \t\r\n" + separators
        while True:
            while self.at < len(self.text) and self.text[self.at] in passed_over:
                self.at += 1
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""
