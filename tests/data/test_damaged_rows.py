"""Good rows with one part replaced by anything: unusable or an example, and nothing else."""

import copy
import json
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.data.readers.recognise import READERS, parse
from calltune.schemas.tools import UnusableRow
from calltune.types import Json

from support.tiers import cases

TOOL = {
    "name": "f",
    "description": "d",
    "parameters": {
        "type": "dict",
        "properties": {
            "x": {"type": "List[int]"},
            "y": {"type": "dict", "properties": {"z": {"type": ["string", "null"]}}},
        },
        "required": ["x"],
    },
}
FLAT = {"name": "g", "parameters": {"type": {"type": "str, optional", "default": "a"}}}
CALL = {"name": "f", "arguments": {"x": [1], "y": {"z": "a"}}}
GOOD: dict[str, dict[str, Json]] = {
    "xlam": {"id": 1, "query": "q", "tools": [TOOL, FLAT], "answers": [CALL]},
    "bfcl": {
        "id": "simple_python_1",
        "question": [[{"role": "user", "content": "q"}]],
        "function": [TOOL],
        "ground_truth": [{"f": {"x": [[1], ""], "y": [{"z": ["a", ""]}]}}],
    },
    "openai": {
        "tools": [{"type": "function", "function": TOOL}],
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "q"}]},
            {"role": "assistant", "tool_calls": [{"id": "c", "function": CALL}], "weight": 1},
            {"role": "tool", "tool_call_id": "c", "content": "r"},
            {"role": "assistant", "function_call": CALL},
        ],
    },
    "hermes": {
        "tools": [TOOL],
        "conversations": [
            {"from": "human", "value": "q"},
            {"from": "gpt", "value": f"<tool_call>{json.dumps(CALL)}</tool_call>"},
            {"from": "tool", "value": "<tool_response>{}</tool_response>"},
        ],
    },
    "glaive": {
        "system": f"SYSTEM: Use these functions if required -\n{json.dumps(TOOL, indent=1)}\n",
        "chat": f"USER: q\n\n\nASSISTANT: <functioncall> {json.dumps(CALL)} <|endoftext|>\n\n\n"
        "FUNCTION RESPONSE: {}\n\n\nASSISTANT: done <|endoftext|>",
    },
}
TEXTS = (
    "",
    "user",
    "tool",
    "object",
    "dict",
    "Tuple[",
    "[]",
    '{"name": 1}',
    "<tool_call>",
    "\ud800",
)
ANYTHING: st.SearchStrategy[Json] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(TEXTS) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["type", "name", "x", "properties"]), inner)
    ),
    max_leaves=4,
)
Place = tuple[str | int, ...]


def places(value: Json, at: Place = ()) -> Iterator[Place]:
    if at:
        yield at
    if not isinstance(value, dict | list):
        return
    for key, part in value.items() if isinstance(value, dict) else enumerate(value):
        yield from places(part, (*at, key))


def replaced(row: dict[str, Json], at: Place, by: Json) -> dict[str, Json]:
    damaged = copy.deepcopy(row)
    holder: Json = damaged
    for key in at[:-1]:
        holder = holder[key]
    holder[at[-1]] = by
    return damaged


@pytest.mark.parametrize("schema", list(READERS))
def test_the_undamaged_row_is_used(schema: str) -> None:
    assert parse(GOOD[schema], "r", schema).examples[0].answers


@pytest.mark.parametrize("schema", list(READERS))
@pytest.mark.both_tiers
@settings(max_examples=cases(50, 150), deadline=None)
@given(data=st.data())
def test_a_damaged_row_is_unusable_or_an_example(schema: str, data: st.DataObject) -> None:
    place = data.draw(st.sampled_from(list(places(GOOD[schema]))))
    row = replaced(GOOD[schema], place, data.draw(ANYTHING))
    with suppress(UnusableRow):
        assert parse(row, "r", schema).examples
