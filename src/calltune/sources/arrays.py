"""A JSON array of objects read item by item, so that the first rows do not need the whole file."""

import codecs
import json
from collections.abc import Iterator
from typing import Protocol

from calltune.calls import Json

BLOCK_BYTES = 1 << 16


class Readable(Protocol):
    """What bytes are read from."""

    def read(self, size: int, /) -> bytes:
        """At most `size` bytes; none at the end."""
        ...


def items(file: Readable) -> Iterator[dict[str, Json]]:
    """The objects in an array, in order.

    Raises:
        ValueError: it is not an array of objects, or it breaks off; the message names the item.
    """
    decoder = json.JSONDecoder()
    text = _Text(file)
    if text.skip("") != "[":
        raise ValueError("not a JSON array")
    text.at += 1
    number = 0
    while (start := text.skip("," if number else "")) != "]":
        number += 1
        if start != "{":
            raise ValueError(f"item {number}: a JSON object is needed")
        while True:
            try:
                item, text.at = decoder.raw_decode(text.held, text.at)
            except RecursionError:
                raise ValueError(f"item {number}: nested too deeply") from None
            except ValueError as error:
                # Cut off, or wrong: only more of the file tells.
                if not text.more():
                    raise ValueError(f"item {number}: {error}") from None
            else:
                break
        yield item


class _Text:
    """The part of a file that is held, and where in it reading has come to."""

    def __init__(self, file: Readable) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self.held = ""
        self.at = 0

    def more(self) -> bool:
        """Hold more of the file; False at its end."""
        self.held = self.held[self.at :]
        self.at = 0
        # As much again as is held, so that one long item is not read over and over.
        block = self._file.read(max(BLOCK_BYTES, len(self.held)))
        self.held += self._decoder.decode(block, final=not block)
        return bool(block)

    def skip(self, separators: str) -> str:
        """The next character that is neither white space nor a separator; "" at the end."""
        passed_over = " \t\r\n" + separators
        while True:
            while self.at < len(self.held) and self.held[self.at] in passed_over:
                self.at += 1
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more():
                raise ValueError("the array is not closed; the file seems cut off")
