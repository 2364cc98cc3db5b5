from typing import Any

import pytest

from calltune.evaluation.failure_reasons import REASONS, abstention, reason
from calltune.evaluation.judge import judge
from calltune.formats import FORMATS, Format
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    Answer,
    ParsedOutput,
    Tool,
    ToolCall,
)

SCHEMA = {
    "type": "object",
    "properties": {"x": {"type": "integer"}, "unit": {"type": "string"}, "at": {"type": "object"}},
    "required": ["x"],
}
TOOLS = {name: Tool(name, "", SCHEMA, {}) for name in ("f", "g")}
UNIT = AcceptableArgument(("m", "metre"), is_optional=True)
RIGHT = (Answer("f", {"x": AcceptableArgument((1,)), "unit": UNIT}),)


def f(**arguments: Any) -> ToolCall:
    return ToolCall("f", arguments)


@pytest.mark.parametrize(
    ("calls", "expected"),
    [
        ((f(x=1),), None),
        ((), "no call"),
        ((ToolCall("h", {"x": 1}),), "invented function"),
        ((ToolCall("g", {"x": 1}),), "wrong function"),
        ((f(x=1), f(x=1)), "too many calls"),
        ((f(x=1, speed=2),), "invented argument"),
        ((f(unit="m"),), "missing argument"),
        ((f(x="1"),), "wrong type"),
        ((f(x=1.5),), "wrong type"),
        ((f(x=2),), "wrong value"),
        ((f(x=1, unit="cm"),), "wrong value"),
        # Another of the tool's arguments, which the answer does not have.
        ((f(x=1, at={}),), "wrong value"),
        # The first of several.
        ((f(x=2, speed=2),), "invented argument"),
    ],
)
def test_the_first_reason_is_told(calls: tuple[ToolCall, ...], expected: str | None) -> None:
    assert reason(ParsedOutput(calls), RIGHT, TOOLS) == expected


def test_a_tool_that_takes_any_argument_has_none_invented() -> None:
    open_one = {"f": Tool("f", "", SCHEMA | {"additionalProperties": True}, {})}
    found = judge(ParsedOutput((f(x=1, speed=2),)), RIGHT, open_one)
    assert found.reason == "wrong value" and not found.invents_argument
    closed = judge(ParsedOutput((f(x=1, speed=2),)), RIGHT, TOOLS)
    assert closed.reason == "invented argument" and closed.invents_argument


def test_too_few_calls() -> None:
    assert reason(ParsedOutput((f(x=1),)), RIGHT * 2, TOOLS) == "too few calls"


def test_of_several_calls_those_are_held_together_that_differ_least() -> None:
    answers = (
        Answer("f", {"x": AcceptableArgument((1,))}),
        Answer("f", {"x": AcceptableArgument((2,))}),
    )
    assert reason(ParsedOutput((f(x=2), f(x="a"))), answers, TOOLS) == "wrong type"
    both = (
        Answer("f", {"x": AcceptableArgument((1,))}),
        Answer("g", {"x": AcceptableArgument((2,))}),
    )
    assert reason(ParsedOutput((ToolCall("g", {"x": 3}), f(x=1))), both, TOOLS) == "wrong value"


def test_a_type_that_is_among_the_right_values_is_not_wrong() -> None:
    answers = (
        Answer(
            "f",
            {
                "x": AcceptableArgument(("all", 1)),
                "at": AcceptableArgument((AcceptableObject({}),)),
            },
        ),
    )
    assert reason(ParsedOutput((f(x="none", at={}),)), answers, TOOLS) == "wrong value"
    assert reason(ParsedOutput((f(x=1, at={"y": 1}),)), answers, TOOLS) == "wrong value"
    assert reason(ParsedOutput((f(x=1, at=[]),)), answers, TOOLS) == "wrong type"


def test_unreadable_text_is_cut_off_where_the_limit_ended_it() -> None:
    broken = ParsedOutput((), "unclosed brace")
    assert reason(broken, RIGHT, TOOLS) == "not readable"
    assert reason(broken, RIGHT, TOOLS, "length") == "cut off"
    assert reason(broken, (), TOOLS) == "not readable"


def test_abstention_has_three_outcomes() -> None:
    assert abstention(ParsedOutput(()), ()) == "abstained"
    assert abstention(ParsedOutput((f(x=1),)), ()) == "called anyway"
    assert abstention(ParsedOutput((), "unclosed brace"), ()) == "malformed"
    assert abstention(ParsedOutput(()), RIGHT) is None
    assert reason(ParsedOutput((f(x=1),)), (), TOOLS) == "called anyway"


def test_a_judgement_has_a_reason_just_where_it_is_not_exact() -> None:
    for calls in ((), (f(x=1),), (f(x=1, unit="Metre"),)):
        found = judge(ParsedOutput(calls), RIGHT, TOOLS)
        assert (found.reason is None) == found.is_exact
        assert found.reason is None or found.reason in REASONS
    # Spelt otherwise: right by BFCL's rules, not exactly.
    assert found.is_ast and not found.is_exact and found.reason == "wrong value"


@pytest.mark.parametrize("prompt_format", FORMATS.values(), ids=FORMATS.keys())
@pytest.mark.parametrize(
    "goes_on", [" and so on" * 1000, "[" * 10_000, '{"x":' * 10_000, "\\" * 999]
)
def test_a_model_that_never_stops_is_cut_off(prompt_format: Format, goes_on: str) -> None:
    for written in (
        prompt_format.render_calls([f(x=1)]),
        prompt_format.render_calls([f(x=1)])[:-20],
        "Let me think. ",
    ):
        found = judge(prompt_format.parse(written + goes_on), RIGHT, TOOLS, "length")
        assert found.reason == "cut off" and not found.is_parsed


@pytest.mark.parametrize("prompt_format", FORMATS.values(), ids=FORMATS.keys())
def test_a_call_that_ends_just_at_the_limit_is_right(prompt_format: Format) -> None:
    found = judge(prompt_format.parse(prompt_format.render_calls([f(x=1)])), RIGHT, TOOLS, "length")
    assert found.is_exact and found.reason is None
