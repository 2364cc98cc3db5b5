"""Answers of a number of calls, of text, or of JSON: what grammars accept and refuse."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.errors import UnusableSchema
from calltune.evaluation.judge import are_valid
from calltune.files import dumps
from calltune.formats import FORMATS
from calltune.formats.grammar import OutputSpec
from calltune.schemas.validate import satisfies
from calltune.types import Json, Tool, ToolCall

from support.random_model import Random, accepts
from support.tiers import cases

FAMILIES = pytest.mark.parametrize("name", FORMATS)
SIZE = {"type": "object", "properties": {"n": {"enum": [1, 2]}}, "required": ["n"]}
TOOLS = [Tool("size", "", SIZE, {}), Tool("stop", "", {"type": "object", "properties": {}}, {})]
ONE = ToolCall("size", {"n": 1})
TWO = ToolCall("stop", {})
POINT: dict[str, Json] = {
    "type": "object",
    "properties": {
        "on": {"type": "boolean"},
        "why": {"type": "string", "maxLength": 3},
        "at": {"type": "array", "items": {"$ref": "#/$defs/step"}, "maxItems": 2},
    },
    "required": ["on", "at"],
    "$defs": {"step": {"enum": [1, None, "`<"]}},
}
WORDS = OutputSpec(allows_text=True)
SHARDS = [
    *("```json", "```", "`", "json", "\n", "[", "{", "[]", " ", "\x1c", "\x85", "\u2003", "a"),
    *("<tool_call>", "<tool", "_call>", "</tool_call>", "<", "<|im_end|>", "<|im", "_end|>"),
    *("<start_of_turn>", "<start", "_of_turn>", "<eos>", "é"),
]
"""What calls and control tokens are made of."""
COUNTS = [(0, 32), (1, 32), (0, 1), (1, 1), (2, 3), (0, 0)]
IN_PLACE = [OutputSpec(), WORDS, OutputSpec(schema=POINT)]


@FAMILIES
@pytest.mark.parametrize(("least", "most"), COUNTS)
@pytest.mark.parametrize("wanted", IN_PLACE, ids=["calls", "words", "schema"])
def test_so_many_calls_are_admitted_as_wanted_whatever_stands_in_their_place(
    random_models: dict[str, Random], name: str, wanted: OutputSpec, least: int, most: int
) -> None:
    at_random = random_models[name]
    wanted = wanted._replace(min_calls=least, max_calls=most)
    for count in range(5):
        text = at_random.prompt_format.render_calls([ONE, TWO, ONE, TWO][:count])
        is_right = least <= count <= most
        if (count, most) == (0, 0):
            is_right = wanted == OutputSpec(max_calls=0)
        assert accepts(at_random, TOOLS, text, wanted) == is_right, count


@FAMILIES
def test_one_call_more_than_the_most_is_refused(
    random_models: dict[str, Random], name: str
) -> None:
    at_random = random_models[name]
    for count, is_right in ((32, True), (33, False)):
        text = at_random.prompt_format.render_calls([TWO] * count)
        assert accepts(at_random, TOOLS, text, WORDS) == is_right


@FAMILIES
@pytest.mark.parametrize(
    "wanted", [WORDS, OutputSpec(1, 1, allows_text=True), OutputSpec(0, 0, allows_text=True)]
)
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
@pytest.mark.both_tiers
@settings(max_examples=cases(20, 60))
@given(text=st.text() | st.lists(st.sampled_from(SHARDS), max_size=6).map("".join))
def test_words_are_admitted_just_where_nothing_would_take_them_for_calls(
    random_models: dict[str, Random], name: str, tools: list[Tool], wanted: OutputSpec, text: str
) -> None:
    at_random = random_models[name]
    prompt_format = at_random.prompt_format
    marks = (*prompt_format.markers, *(("```json",) if name == "gemma" else ()))
    begins = text[:1].strip() and not (name == "gemma" and text[0] in "[{")
    if not tools and wanted.min_calls:
        return
    is_right = bool(begins) and not any(mark in text for mark in marks)
    assert accepts(at_random, tools, text, wanted) == is_right
    if is_right:
        assert prompt_format.parse(text).problem and not text.startswith(prompt_format.call_prefix)


@FAMILIES
def test_text_contains_no_call_and_is_refused_unless_wanted(
    random_models: dict[str, Random], name: str
) -> None:
    at_random = random_models[name]
    for text in ("Rome, is it?", "null", "```python\n[1]\n```", "<tool> call", "ja: größer 🙂\n"):
        assert accepts(at_random, TOOLS, text, WORDS)
        assert accepts(at_random, [], text, WORDS)
        for wanted in (OutputSpec(), OutputSpec(1), OutputSpec(schema=POINT)):
            assert not accepts(at_random, TOOLS, text, wanted), (text, wanted)
    written = at_random.prompt_format.render_calls([ONE])
    for text in (f"So: {written}", f"{written}\nthat is it", f" {written}", "", " \n"):
        assert not accepts(at_random, TOOLS, text, WORDS), text
        assert not accepts(at_random, [], text, WORDS), text


@FAMILIES
@pytest.mark.parametrize("tools", [TOOLS, []], ids=["tools", "no tools"])
@pytest.mark.parametrize(
    ("schema", "right", "wrong"),
    [
        (
            POINT,
            [{"on": True, "at": []}, {"on": False, "why": 'a"b', "at": [None, "`<"]}],
            [{"on": True}, {"on": 1, "at": []}, {"on": True, "at": [2]}, [], None],
        ),
        ({"type": "array", "items": SIZE}, [[], [{"n": 2}]], [{"n": 2}, [{"n": 3}]]),
        ({"type": "string"}, ["", "a\n```json\n[", "<tool_call>"], [1, None]),
        ({"enum": [3, "x"]}, [3, "x"], [4, "3"]),
        ({"type": "object"}, [{}, {"a": {"b": [1.5, None]}}], [[], 1]),
        (True, [{}, [], 1, "x", None], []),
    ],
)
def test_json_of_the_schema_may_stand_in_the_place_of_calls(
    random_models: dict[str, Random],
    name: str,
    tools: list[Tool],
    schema: Json,
    right: list[Json],
    wrong: list[Json],
) -> None:
    at_random, wanted = random_models[name], OutputSpec(schema=schema)
    for value in right:
        assert satisfies(value, schema) and accepts(at_random, tools, dumps(value), wanted)
        assert not accepts(at_random, tools, dumps(value), OutputSpec())
        assert not dumps(value).startswith(at_random.prompt_format.call_prefix)
    for value in wrong:
        assert not accepts(at_random, tools, dumps(value), wanted)
    assert not accepts(at_random, tools, "some words", wanted)
    assert accepts(at_random, tools, at_random.prompt_format.render_calls([ONE]), wanted) == bool(
        tools
    )
    assert accepts(at_random, tools, at_random.prompt_format.render_calls([]), wanted) == bool(
        tools
    )


@FAMILIES
def test_an_answers_schema_that_cannot_be_enforced_is_never_ignored(
    random_models: dict[str, Random], name: str
) -> None:
    constrain = random_models[name].constrainer.constrain
    schemas: list[Json] = [False, {"allOf": [{"type": "string"}, {"type": "null"}]}, {"enum": []}]
    for schema in schemas:
        with pytest.raises(UnusableSchema, match="No answer satisfies"):
            constrain(TOOLS, OutputSpec(schema=schema))
    behind: Json = {"type": "string", "pattern": "(?<=a)b"}
    assert constrain(TOOLS, OutputSpec(schema=behind)).unenforced_keywords == (
        "the answer: pattern (look-around)",
    )
    with pytest.raises(UnusableSchema, match="no tool can be called"):
        constrain([], OutputSpec(1))
    for tools in (TOOLS, []):
        circle = constrain(tools, OutputSpec(schema={"$ref": "#"}))
        assert circle.constraint and circle.unenforced_keywords == ("the answer: $ref in a circle",)
        unique = {"type": "array", "items": {"enum": [1]}, "uniqueItems": True}
        assert constrain(tools, OutputSpec(schema=unique)).unenforced_keywords == (
            "the answer: uniqueItems",
        )


@FAMILIES
def test_a_tool_of_the_same_schema_as_the_answer_keeps_its_own_quotes(
    random_models: dict[str, Random], name: str
) -> None:
    text: dict[str, Json] = {"type": "object", "properties": {"t": {"type": "string"}}}
    tool = Tool("say", "", text | {"additionalProperties": False}, {})
    at_random, wanted = random_models[name], OutputSpec(schema=tool.parameters)
    arguments = {"t": 'a "b"'}
    assert accepts(at_random, [tool], dumps(arguments), wanted)
    assert accepts(
        at_random,
        [tool],
        at_random.prompt_format.render_calls([ToolCall("say", arguments)]),
        wanted,
    )


@pytest.mark.both_tiers
@FAMILIES
@pytest.mark.parametrize(
    "wanted",
    [
        *(OutputSpec(least, most) for least, most in COUNTS[:1]),
        *(OutputSpec(least, most, schema=POINT) for least, most in COUNTS[:1]),
        *(
            pytest.param(OutputSpec(least, most, schema=schema), marks=pytest.mark.slow)
            for least, most in COUNTS[1:]
            for schema in (None, POINT)
        ),
        OutputSpec(allows_text=True),
        OutputSpec(1, 1, allows_text=True),
    ],
    ids=str,
)
def test_constrained_answers_end_in_what_is_wanted(
    random_models: dict[str, Random], name: str, wanted: OutputSpec
) -> None:
    at_random = random_models[name]
    found = at_random.answers(TOOLS, cases(8, 16), 1500, wanted)
    assert len(found) >= cases(4, 8), "too few answers came to an end to tell anything"
    kinds = {kind(at_random, text, wanted) for text in found}
    if wanted.schema and wanted.max_calls:
        assert kinds == {"calls", "JSON"}


def kind(at_random: Random, text: str, wanted: OutputSpec) -> str:
    """Which of the wanted things an answer is; it must be one of them."""
    if text.startswith(at_random.prompt_format.call_prefix):
        reading = at_random.prompt_format.parse(text)
        assert reading.problem is None
        assert wanted.min_calls <= len(reading.calls) <= wanted.max_calls
        assert are_valid(reading.calls, {tool.name: tool for tool in TOOLS})
        return "calls"
    if wanted.schema is not None:
        value: Any = json.loads(text)
        assert satisfies(value, wanted.schema)
        return "JSON"
    assert wanted.allows_text and text.strip() and at_random.prompt_format.parse(text).problem
    return "words"
