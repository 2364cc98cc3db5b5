import io
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.data.sources.json_stream import BLOCK_BYTES, read_array
from calltune.types import Json


class Trickle:
    """Gives a few bytes at a time, and counts them."""

    def __init__(self, content: bytes, step: int) -> None:
        self.file = io.BytesIO(content)
        self.step = step
        self.given = 0

    def read(self, size: int, /) -> bytes:
        block = self.file.read(min(size, self.step))
        self.given += len(block)
        return block


@given(
    rows=st.lists(st.dictionaries(st.text(), st.text() | st.integers() | st.lists(st.none()))),
    step=st.integers(1, 9),
    indent=st.sampled_from([None, 1]),
)
def test_the_items_are_those_of_the_array(rows: list[Json], step: int, indent: int | None) -> None:
    content = json.dumps(rows, indent=indent)
    assert list(read_array(Trickle(content.encode(), step))) == rows


def test_letters_that_are_cut_between_two_blocks_are_whole() -> None:
    content = json.dumps([{"a": "größe 🌊"}], ensure_ascii=False).encode()
    assert list(read_array(Trickle(b"\xef\xbb\xbf" + content, 1))) == [{"a": "größe 🌊"}]


def test_the_first_item_does_not_need_the_rest() -> None:
    file = Trickle(json.dumps([{"a": "b" * 1000}] * 1000).encode(), BLOCK_BYTES)
    next(read_array(file))
    assert file.given == BLOCK_BYTES


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not closed"),
        (b"{}", "not a JSON array"),
        (b'[{"a": 1}, 2]', "item 2: a JSON object is needed"),
        (b'[{"a": 1}, {"a": ', "item 2"),
        (b'[{"a": 1}', "not closed"),
        (b'[{"a": ' + b"[" * 5000, "nested too deeply"),
    ],
)
def test_a_broken_array_says_where(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        list(read_array(io.BytesIO(content)))
