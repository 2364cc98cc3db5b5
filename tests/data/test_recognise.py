import json
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.data.readers.recognise import READERS, parse, recognise
from calltune.errors import OptionError
from calltune.files import dumps
from calltune.schemas.tools import UnusableRow
from calltune.types import MAX_DEPTH, Json, answers_from_json, answers_to_json

from support.tiers import cases

KEYS = (
    "id", "query", "tools", "answers", "question", "function", "ground_truth", "messages",
    "conversations", "functions", "name", "arguments", "parameters", "type", "properties",
    "required", "items", "default", "role", "content", "from", "value", "tool_calls", "f", "x",
)  # fmt: skip
WORDS = (
    "f", "x", "user", "assistant", "human", "gpt", "system", "object", "dict", "List[int]", "",
    "[]", "{}", "[{", '[{"name": "f"}]', "<tools>[{'name': 'f'}]</tools>", "irrelevance_1",
    "<tool_call>{'name': 'f'}</tool_call>", "simple_python_1", "\ud800", "1e999",
)  # fmt: skip
LEAVES = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from(WORDS)
)


def nested(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    keys = st.sampled_from(KEYS) | st.text(max_size=3)
    tool = st.fixed_dictionaries({"name": st.just("f"), "parameters": inner})
    return (
        st.lists(inner, max_size=3)
        | st.dictionaries(keys, inner, max_size=4)
        | st.lists(tool, min_size=1, max_size=2)
        | st.fixed_dictionaries({"role": st.sampled_from(WORDS), "content": inner})
        | st.fixed_dictionaries({"from": st.sampled_from(WORDS), "value": inner})
        | inner.map(lambda value: json.dumps(value))
    )


ROWS = st.dictionaries(
    st.sampled_from(KEYS[:10]), st.recursive(LEAVES, nested, max_leaves=12), max_size=6
)


@pytest.mark.both_tiers
@settings(max_examples=cases(100, 300), deadline=None)
@given(row=ROWS, schema=st.sampled_from([*READERS, "auto"]))
def test_garbage_is_unusable_or_an_example_and_nothing_else(
    row: dict[str, Json], schema: str
) -> None:
    with suppress(UnusableRow):
        for example in parse(row, "r", schema).examples:
            assert (
                answers_from_json(json.loads(dumps(answers_to_json(example.answers))))
                == example.answers
            )
            dumps([tool.raw for tool in example.tools]).encode()
            assert example.id


@pytest.mark.parametrize(
    ("row", "name"),
    [
        ({"query": "", "tools": "", "answers": ""}, "xlam"),
        ({"id": "", "question": [], "function": []}, "bfcl"),
        ({"messages": [], "tools": []}, "openai"),
        ({"conversations": [], "tools": []}, "hermes"),
    ],
)
def test_a_schema_is_known_by_its_keys(row: dict[str, Json], name: str) -> None:
    assert recognise(row) == name


def test_an_unknown_schema_names_the_keys() -> None:
    with pytest.raises(UnusableRow, match="schema not recognised: keys text, label"):
        parse({"text": "", "label": 1}, "r")


def test_a_schema_that_is_not_there_is_refused() -> None:
    with pytest.raises(OptionError, match="No schema 'alpaca'"):
        parse({}, "r", "alpaca")


@pytest.mark.parametrize("schema", list(READERS))
def test_a_row_that_nests_beyond_what_can_be_written_is_unusable(schema: str) -> None:
    deep: Json = 1
    for _ in range(MAX_DEPTH * 100):
        deep = [deep]
    with pytest.raises(UnusableRow, match="nested too deeply"):
        parse({"tools": deep}, "r", schema)


def test_a_row_of_several_megabytes_is_read() -> None:
    tools = [
        {"name": f"f{n}", "parameters": {"x": {"type": "str", "description": "d" * 500}}}
        for n in range(8000)
    ]
    row = {
        "query": "q" * 500_000,
        "tools": json.dumps(tools),
        "answers": '[{"name": "f7999", "arguments": {"x": "y"}}]',
    }
    assert len(parse(row, "r").examples[0].tools) == 8000
