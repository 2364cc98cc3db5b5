import pytest

from calltune.evaluation.judge import (
    are_valid,
    invented_arguments,
    invents_function,
)
from calltune.types import Json, Tool, ToolCall


def tool(properties: dict[str, Json], **more: Json) -> Tool:
    return Tool("f", "", {"type": "object", "properties": properties, "required": []} | more, {})


def is_valid(offered: Tool, **arguments: Json) -> bool:
    return are_valid((ToolCall("f", arguments),), {"f": offered})


def test_arguments_must_have_the_types_of_the_schema() -> None:
    offered = tool({"x": {"type": "integer"}, "unit": {"enum": ["m", "cm"]}}, required=["x"])
    assert is_valid(offered, x=1)
    assert is_valid(offered, x=1, unit="cm")
    assert not is_valid(offered, x="1")
    assert not is_valid(offered, x=1, unit="km")
    assert not is_valid(offered, unit="m")


def test_an_argument_that_the_tool_does_not_have_is_not_valid() -> None:
    call = ToolCall("f", {"x": 1, "speed": 2})
    assert invented_arguments(call, tool({"x": {}})) == ["speed"]
    assert not are_valid((call,), {"f": tool({"x": {}})})
    open_one = tool({"x": {}}, additionalProperties=True)
    assert invented_arguments(call, open_one) == [] and are_valid((call,), {"f": open_one})


def test_a_function_that_is_not_on_offer_is_not_valid() -> None:
    calls = (ToolCall("g", {}),)
    assert invents_function(calls, {"f": tool({})})
    assert not are_valid(calls, {"f": tool({})})
    assert are_valid((), {})


@pytest.mark.parametrize(
    "broken",
    [
        {"type": "nonsense"},
        {"type": 7},
        {"pattern": "("},
        {"enum": 5},
        {"anyOf": "none"},
        {"$ref": "#/nowhere"},
        {"minimum": "a"},
    ],
)
def test_a_broken_schema_is_not_held_against_a_call(broken: Json) -> None:
    assert is_valid(tool({"x": broken}), x="text")
    assert is_valid(tool({"x": broken}), x=1)


def test_a_reference_to_an_address_is_never_fetched() -> None:
    # Nothing listens there, and a request would be refused at once: it must not be made at all.
    assert is_valid(tool({"x": {"$ref": "http://127.0.0.1:9/schema.json"}}), x=1)
