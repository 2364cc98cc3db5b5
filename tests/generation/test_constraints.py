"""Constrained answers of models with random weights, and what grammars of odd schemas accept."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.evaluation.judge import are_valid
from calltune.formats import FORMATS
from calltune.formats.format import Format
from calltune.generation.engine import Prompt, complete
from calltune.types import Json, ParsedOutput, Tool, ToolCall

from support import tiny
from support.random_model import Random, accepts
from support.tiers import cases

FAMILIES = pytest.mark.parametrize("name", FORMATS)


def tool(name: str, required: Sequence[str] = (), **properties: Json) -> Tool:
    parameters = {"type": "object", "properties": properties, "required": list(required)}
    return Tool(name, "", parameters, {"name": name, "parameters": parameters})


def of_schema(name: str, schema: dict[str, Json]) -> Tool:
    return Tool(name, "", {"type": "object", "properties": {}, "required": []} | schema, {})


SHORT = {"type": "string", "maxLength": 5}
TREE = {
    "type": "object",
    "properties": {
        "value": {"type": "integer", "minimum": 0, "maximum": 99},
        "left": {"$ref": "#/$defs/tree"},
        "leaves": {"type": "array", "items": {"$ref": "#/$defs/tree"}, "maxItems": 2},
    },
    "required": ["value"],
}
CLOSED: dict[str, Json] = {"properties": {"a": {}}, "additionalProperties": False}
ODD = {
    "enum": tool("color", ["c"], c={"enum": ["red", 'dark "red"', 3, None, {"a": ["é\\", 1.5]}]}),
    "const": tool("fixed", ["v"], v={"const": "as\nit is"}),
    "nested": tool(
        "nested",
        ["place"],
        place={
            "type": "object",
            "properties": {"x": {"type": "integer"}, "name": SHORT, "on": {"type": "boolean"}},
            "required": ["name"],
        },
        often=SHORT,
    ),
    "arrays": tool(
        "matrix",
        ["rows"],
        rows={
            "type": "array",
            "items": {"type": "array", "items": {"type": "boolean"}, "minItems": 2, "maxItems": 3},
            "minItems": 1,
            "maxItems": 2,
        },
    ),
    "tuple": tool(
        "tuple",
        ["t"],
        t={
            "type": "array",
            "prefixItems": [{"type": "boolean"}, {"type": "null"}],
            "items": {"enum": ["rest"]},
            "minItems": 1,
            "maxItems": 4,
        },
    ),
    "anyOf": tool(
        "either",
        ["x"],
        x={"anyOf": [{"type": "integer"}, {"type": "null"}, {"type": "array", "items": SHORT}]},
        y={"type": ["boolean", "null"]},
    ),
    "allOf": tool("both", ["x"], x={"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 11}]}),
    "ranges": tool(
        "ranges",
        ["a", "b"],
        a={"type": "integer", "minimum": -5, "exclusiveMaximum": 12},
        b={"type": "number", "minimum": 0, "maximum": 1},
    ),
    "none": tool("no_arguments"),
    "optional": tool("optional", [], a={"enum": [1]}, b={"enum": [2]}, c={"enum": [3]}),
    "unicode": tool(
        "größe_测量", ['naïve "key"'], **{'naïve "key"': SHORT, "🙂": {"enum": ["🙂"]}}
    ),
    "reference": of_schema(
        "tree",
        {"properties": {"root": TREE}, "required": ["root"], "$defs": {"tree": TREE}},
    ),
    "dictionary": of_schema("dictionary", {"additionalProperties": {"enum": [1, 2]}}),
    "mixed": of_schema(
        "mixed",
        {
            "properties": {"known": {"enum": ["k"]}},
            "required": ["known"],
            "additionalProperties": {"type": "boolean"},
        },
    ),
    "closed part": of_schema(
        "closed",
        {
            "allOf": [
                {"properties": {"a": {"enum": [1]}}, "additionalProperties": {"type": "integer"}},
                {"properties": {"b": {"minimum": 5, "maximum": 7}, "c": SHORT}, "required": ["b"]},
            ]
        },
    ),
    "open parts": of_schema(
        "open",
        {
            "properties": {"a": {"enum": [1]}},
            "anyOf": [
                {"properties": {"b": {"enum": [2]}}, "required": ["b"]},
                {"properties": {"c": {"enum": [3]}}, "required": ["c"]},
            ],
        },
    ),
    "lengths": tool("code", ["c"], c={"type": "string", "minLength": 2, "maxLength": 3}),
    "impossible optional": tool("odd", ["x"], x={"enum": ["y"]}, z={"not": {}}),
}


def check(prompt_format: Format, text: str, tools: Sequence[Tool]) -> ParsedOutput:
    reading = prompt_format.parse(text)
    # Whether a free key stands twice is the one thing that a grammar cannot say.
    if reading.problem != "a key twice in one object":
        assert reading.problem is None, (text, reading)
        assert are_valid(reading.calls, {t.name: t for t in tools}), (text, reading.calls)
    return reading


@FAMILIES
@pytest.mark.both_tiers
@pytest.mark.parametrize("odd", ODD)
def test_constrained_answers_parse_and_satisfy_the_schema(
    random_models: dict[str, Random], name: str, odd: str
) -> None:
    at_random, tools = random_models[name], [ODD[odd]]
    count = cases(12, 32)
    texts = at_random.answers(tools, count)
    readings = [check(at_random.prompt_format, text, tools) for text in texts]
    assert len(texts) >= count // 2
    assert sum(bool(reading.calls) for reading in readings) >= cases(2, 8)


@FAMILIES
def test_one_of_sixty_tools_is_called_or_several_or_none(
    random_models: dict[str, Random], name: str
) -> None:
    at_random = random_models[name]
    tools = [tool(f"tool_{i}", ["x"], x={"enum": list(range(i + 1))}) for i in range(60)]
    readings = [
        check(at_random.prompt_format, text, tools) for text in at_random.answers(tools, 40)
    ]
    counts = {len(reading.calls) for reading in readings}
    assert 0 in counts and 1 in counts and max(counts) > 1
    assert len({call.name for reading in readings for call in reading.calls}) > 5


characters = st.text(st.characters(codec="utf-8"), max_size=8)
arguments = st.fixed_dictionaries(
    {"text": characters, "count": st.integers(-(10**20), 10**20)},
    optional={
        "share": st.floats(-1e200, 1e200).filter(lambda x: not 0 < abs(x) < 1e-200),
        "tags": st.lists(characters, max_size=3),
        "inside": st.fixed_dictionaries({}, optional={"on": st.booleans(), "none": st.none()}),
        "free": st.dictionaries(characters, st.none() | st.lists(st.booleans(), max_size=2)),
    },
)
WIDE = tool(
    'f"ä\\',
    ["text", "count"],
    text={"type": "string"},
    count={"type": "integer"},
    share={"type": "number"},
    tags={"type": "array", "items": {"type": "string"}},
    inside={
        "type": "object",
        "properties": {"on": {"type": "boolean"}, "none": {"type": "null"}},
    },
    free={"type": "object"},
)


def in_order(values: dict[str, Json], schema: dict[str, Json]) -> dict[str, Json]:
    return {key: values[key] for key in schema["properties"] if key in values}


@FAMILIES
@pytest.mark.both_tiers
@settings(max_examples=cases(40, 150))
@given(made=st.lists(arguments, max_size=3))
def test_the_grammar_accepts_what_is_written(
    random_models: dict[str, Random], name: str, made: list[dict[str, Json]]
) -> None:
    at_random = random_models[name]
    calls = []
    for each in made:
        if "inside" in each:
            inside = WIDE.parameters["properties"]["inside"]
            each = each | {"inside": in_order(each["inside"], inside)}
        calls.append(ToolCall(WIDE.name, in_order(each, WIDE.parameters)))
    assert accepts(at_random, [ODD["none"], WIDE], at_random.prompt_format.render_calls(calls))


@FAMILIES
@pytest.mark.parametrize(
    "call",
    [
        ToolCall("other", {}),
        ToolCall("code", {}),
        ToolCall("code", {"c": "a"}),
        ToolCall("code", {"c": "abcd"}),
        ToolCall("code", {"c": 12}),
        ToolCall("code", {"c": "ab", "d": 1}),
        ToolCall("ranges", {"a": 12, "b": 0.5}),
        ToolCall("ranges", {"a": 11, "b": 1.01}),
        ToolCall("both", {"x": 2}),
        ToolCall("color", {"c": "blue"}),
        ToolCall("matrix", {"rows": [[True]]}),
        ToolCall("tuple", {"t": [True, False]}),
        ToolCall("mixed", {"known": "k", "more": 1}),
        ToolCall("closed", {"a": 1, "b": 5.5}),
        ToolCall("closed", {"a": 1, "b": 6, "c": "ab"}),
        ToolCall("open", {"a": 1}),
        ToolCall("open", {"a": 1, "d": 3}),
        ToolCall("no_arguments", {"x": 1}),
    ],
)
def test_the_grammar_refuses_what_the_schemas_refuse(
    random_models: dict[str, Random], name: str, call: ToolCall
) -> None:
    at_random, tools = random_models[name], list(ODD.values())
    assert not accepts(at_random, tools, at_random.prompt_format.render_calls([call]))
    right = ToolCall("code", {"c": "abc"})
    assert accepts(at_random, tools, at_random.prompt_format.render_calls([right, right]))


@FAMILIES
def test_what_cannot_be_enforced_is_left_out_and_named(
    random_models: dict[str, Random], name: str
) -> None:
    at_random = random_models[name]
    unique = {"type": "array", "items": {"enum": [1, 2]}, "uniqueItems": True}
    tools = [
        tool("unique", ["x"], x=unique),
        tool("broken", ["x"], x={"type": "string", "pattern": "(?<=a)b("}),
        tool("impossible", ["x"], x={"not": {}}),
        tool("circle", ["x"], x={"$ref": "#/properties/x"}),
        tool("strange", ["x"], x={"type": "quaternion"}),
        tool("wrong kinds", ["x"], x={"type": "array", "minItems": "2"}),
        tool("wrong type", ["x"], x={"type": 5}),
        tool("elsewhere", ["x"], x={"$dynamicRef": "#"}),
        tool("lists", ["x"], x={"allOf": [{"prefixItems": [{}]}, {"items": {"enum": [2]}}]}),
        of_schema("no object", {"type": "string"}),
        of_schema("closed", {"allOf": [CLOSED, {"properties": {"b": {}}, "required": ["b"]}]}),
        of_schema("itself", {"allOf": [{"$ref": "#"}, {"required": ["x"]}], "minProperties": 1}),
        ODD["lengths"],
    ]
    constrained = at_random.constrainer.constrain(tools)
    named = {note.partition(": ")[0] for note in constrained.unenforced_keywords}
    assert named == {tool.name for tool in tools} - {"code"}
    write = at_random.prompt_format.render_calls
    assert accepts(at_random, tools, write([ToolCall("unique", {"x": [1, 1]})]))
    assert accepts(at_random, tools, write([ToolCall("broken", {"x": "any"})]))
    assert accepts(at_random, tools, write([ToolCall("strange", {"x": {"w": 1}})]))
    for name, arguments in (("impossible", {"x": 1}), ("no object", {}), ("closed", {"b": 1})):
        assert not accepts(at_random, tools, write([ToolCall(name, arguments)]))
    assert not accepts(at_random, tools, write([ToolCall("code", {"c": "abcd"})]))
    for text in at_random.answers(tools, 16):
        reading = at_random.prompt_format.parse(text)
        assert reading.problem in (None, "a key twice in one object")


@FAMILIES
def test_a_schema_too_large_for_a_grammar_costs_only_itself(
    random_models: dict[str, Random], name: str
) -> None:
    levels = {
        f"l{level}": {
            "anyOf": [
                {
                    "type": "object",
                    "properties": {
                        side + str(i): {"$ref": f"#/$defs/l{level + 1}"} for side in "ab"
                    },
                }
                for i in range(60)
            ]
        }
        for level in range(200)
    }
    bomb = {"properties": {"x": {"$ref": "#/$defs/l0"}}, "$defs": levels | {"l200": {}}}
    tools = [of_schema("bomb", bomb), ODD["lengths"]]
    at_random = random_models[name]
    constrained = at_random.constrainer.constrain(tools)
    assert constrained.constraint is not None
    assert not accepts(
        at_random, tools, at_random.prompt_format.render_calls([ToolCall("code", {"c": "a"})])
    )


def test_forced_tokens_are_fed_in_one_pass(random_models: dict[str, Random]) -> None:
    at_random = random_models["gemma"]
    tools = [ODD["const"]]
    widths: list[int] = []

    class Watched:
        layers = at_random.model.layers
        make_cache = at_random.model.make_cache

        def __call__(self, tokens: Any, cache: Any) -> Any:
            widths.append(tokens.shape[1])
            return at_random.model(tokens, cache=cache)

    prompt = Prompt("x", [7, 8, 9], at_random.constrainer.constrain(tools).constraint)
    (answer,) = complete(
        Watched(), [prompt], stop_tokens=at_random.stops, max_tokens=600, batch_size=1
    )
    # Only the characters of "call, or no call" and "another, or the end" are not forced.
    assert len(answer.tokens) > 20 and len(widths) < len(answer.tokens) / 2
    alone = [
        c.tokens
        for c in complete(
            at_random.model,
            [
                Prompt(str(i), [7, 8, 9], at_random.constrainer.constrain(tools).constraint)
                for i in range(5)
            ],
            stop_tokens=at_random.stops,
            max_tokens=600,
            batch_size=3,
        )
    ]
    assert alone == [answer.tokens] * 5


def test_a_mask_looked_at_alone_is_the_one_made_with_others(
    random_models: dict[str, Random], monkeypatch: pytest.MonkeyPatch
) -> None:
    at_random = random_models["chatml"]
    from calltune.generation import constraints

    tools = [ODD["enum"]]
    one, other = (at_random.constrainer.constrain(tools).constraint for _ in range(2))
    size = tiny.LLAMA_CONFIG["vocab_size"]
    monkeypatch.setattr(constraints, "SLOW_SECONDS", 0.0)
    together = constraints.token_bitmasks([(one, 0), (other, 1)], 3, size)
    assert one.is_slow and other.is_slow
    monkeypatch.setattr(constraints, "SLOW_SECONDS", 1e9)
    alone = constraints.token_bitmasks([(one, 0), (other, 1)], 3, size)
    assert (alone == together).all() and not one.is_slow
    assert (alone[0] == alone[1]).all() and (alone[0] != alone[2]).any()
    assert one.problem is None
    monkeypatch.setattr(constraints, "MAX_SECONDS", -1e3)
    assert "took more than" in (one.problem or "")
