from typing import Any

import pytest

from calltune.evaluation.ast_match import is_ast_match, standard
from calltune.types import (
    AcceptableArgument,
    AcceptableObject,
    Answer,
    Json,
    ParsedOutput,
    Tool,
    ToolCall,
)


def tool(required: tuple[str, ...] = (), **types: Json) -> Tool:
    properties = {k: v if isinstance(v, dict) else {"type": v} for k, v in types.items()}
    schema: dict[str, Json] = {"type": "object", "properties": properties}
    return Tool("f", "", schema | {"required": list(required)}, {})


def passes_as(right: Any, written: Json, kind: Json = "string") -> bool:
    choice = right if isinstance(right, AcceptableArgument) else AcceptableArgument((right,))
    call = ToolCall("f", {"x": written})
    return is_ast_match(ParsedOutput((call,)), (Answer("f", {"x": choice}),), {"f": tool(x=kind)})


@pytest.mark.parametrize(
    ("right", "written"),
    [
        ("San Francisco, CA", "san francisco ca"),
        ("April 1, 2024", "april 1 2024"),
        ("2024-01-05", "2024/01/05"),
        ("it's", 'it"s'),
        ("3.5.2024", "3/5/2024"),
        ("a_b*c^2", "abc2"),
        ("costs 5.", "costs 5"),
        ("1,000", "1000"),
        ("x", AcceptableArgument(("y", "X"))),
    ],
)
def test_spelling_does_not_matter(right: Any, written: Any) -> None:
    if isinstance(written, AcceptableArgument):
        right, written = written, right
    assert passes_as(right, written)


@pytest.mark.parametrize(
    ("right", "written"), [("-5", "5"), ("1.5", "15"), (".5", "5"), ("x = -2", "x = 2"), ("a", "b")]
)
def test_signs_and_points_of_numbers_do(right: str, written: str) -> None:
    assert not passes_as(right, written)


def test_text_that_stands_for_something_else_is_no_prose() -> None:
    assert passes_as("my_list", "my_list", "array")
    assert not passes_as("my_list", "mylist", "array")


@pytest.mark.parametrize(
    ("right", "written", "kind", "passed"),
    [
        (5.0, 5, "number", True),
        (5, 5.0, "number", True),
        (5, 5.0, "integer", False),
        (5, 5.0, {}, True),
        (5, 6, "integer", False),
        (1, True, "integer", False),
        (True, 1, "boolean", False),
        (True, True, "boolean", True),
        (None, None, "string", True),
        ("5", 5, "string", False),
        ([1.0, 2.0], [1, 2], {"type": "array", "items": {"type": "number"}}, True),
        ([1, 2], [2, 1], {"type": "array"}, False),
        ([["A b"]], [["ab"]], {"type": "array"}, True),
        ({"a": {"b": "C d"}}, {"a": {"b": "cd"}}, "object", True),
        ({"a": 1}, {"a": 1, "b": 2}, "object", False),
    ],
)
def test_values_of_other_types(right: Json, written: Json, kind: Json, passed: bool) -> None:
    assert passes_as(right, written, kind) is passed


def test_fields_of_an_object_have_choices_of_their_own() -> None:
    fields = AcceptableObject(
        {
            "unit": AcceptableArgument(("Metre", "m")),
            "n": AcceptableArgument((1,), is_optional=True),
        }
    )
    assert passes_as(fields, {"unit": "metre"}, "object")
    assert passes_as(fields, {"unit": "M", "n": 1}, "object")
    assert not passes_as(fields, {"unit": "M", "n": 2}, "object")
    assert not passes_as(fields, {"n": 1}, "object")


def test_a_required_argument_must_be_there_whatever_the_answer_allows() -> None:
    answers = (Answer("f", {"x": AcceptableArgument((1,), is_optional=True)}),)
    nothing = ParsedOutput((ToolCall("f", {}),))
    assert is_ast_match(nothing, answers, {"f": tool(x="integer")})
    assert not is_ast_match(nothing, answers, {"f": tool(("x",), x="integer")})


def test_calls_are_paired_so_that_all_fit_where_they_can() -> None:
    wide = Answer("f", {"x": AcceptableArgument((1, 2))})
    narrow = Answer("f", {"x": AcceptableArgument((1,))})
    calls = (ToolCall("f", {"x": 1}), ToolCall("f", {"x": 2}))
    tools = {"f": tool(x="integer")}
    assert is_ast_match(ParsedOutput(calls), (wide, narrow), tools)
    assert not is_ast_match(ParsedOutput(calls[:1] * 2), (narrow, Answer("g", {})), tools)
    assert not is_ast_match(ParsedOutput(calls[:1]), (wide, narrow), tools)


def test_broken_text_never_passes_and_silence_passes_for_no_call() -> None:
    assert is_ast_match(ParsedOutput(()), (), {})
    assert not is_ast_match(ParsedOutput((), "unclosed brace"), (), {})


def test_standard_text() -> None:
    assert standard("It's -1.5 °C, e.g.") == 'it"s\N{MINUS SIGN}1\N{MIDDLE DOT}5°ceg'
