"""Data for the script of a page: JSON, deflated, as base64, its texts cut until it fits."""

import base64
import zlib
from bisect import bisect_left
from typing import NamedTuple

from calltune.calls import Json
from calltune.jsonl import dumps
from calltune.visible import visible

LENGTHS = (20_000, 5_000, 2_400, 1_200, 800, 600, 450, 350, 250, 180, 120)
"""What texts may be cut to, in letters."""


class Packed(NamedTuple):
    """The data as the page holds it."""

    base64: str
    """Of the JSON, compressed as zlib does it."""
    cut_after: int | None
    """How many letters of the longer texts are left; None where every text is whole."""


def packed(data: Json, most_bytes: int) -> Packed:
    """`data` with every text visible, and cut with a mark to what `most_bytes` allow.

    No text is cut below the least of `LENGTHS`, even where the data do not fit then.
    """

    def text(place: int) -> str:
        return _deflated(_cut(data, LENGTHS[place]))

    # The first length that fits; past the last but one, the last.
    place = bisect_left(
        range(len(LENGTHS) - 1), True, key=lambda place: len(text(place)) <= most_bytes
    )
    letters = LENGTHS[place]
    return Packed(text(place), letters if letters < _longest(data) else None)


def _longest(data: Json) -> int:
    if isinstance(data, str):
        return len(data)
    parts = data.values() if isinstance(data, dict) else data if isinstance(data, list) else ()
    return max(map(_longest, parts), default=0)


def _cut(data: Json, letters: int) -> Json:
    if isinstance(data, str):
        return visible(data, letters)
    if isinstance(data, list):
        return [_cut(part, letters) for part in data]
    return (
        {key: _cut(part, letters) for key, part in data.items()} if isinstance(data, dict) else data
    )


def _deflated(data: Json) -> str:
    return base64.b64encode(zlib.compress(dumps(data).encode())).decode()
