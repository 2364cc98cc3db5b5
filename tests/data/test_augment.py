import random
from typing import Any

from calltune.data.augment import with_random_names, without_needed_tools
from calltune.schemas.tools import read_tools
from calltune.types import AcceptableArgument, Answer, Example, Message, Tool, ToolCall


def tool(name: str, description: str = "", *, wrapped: bool = False, flat: bool = False) -> Tool:
    properties = {"city": {"type": "string"}, "days": {"type": "integer"}}
    parameters: dict[str, Any] = {
        "type": "object",
        "properties": properties,
        "required": ["city"],
    }
    function = {
        "name": name,
        "description": description,
        "parameters": properties if flat else parameters,
    }
    (found,) = read_tools(
        [{"type": "function", "function": function} if wrapped else function]
    ).tools
    return found


def example(*tools: Tool, query: str = "Will it rain in Rome?", called: int = 1) -> Example:
    answers = tuple(Answer(t.name, {"city": AcceptableArgument(("Rome",))}) for t in tools[:called])
    return Example("row", (Message("user", query),), tools, answers, "source")


FORECAST = "Forecast temperature, wind and humidity for one city, given a date."
NEEDED = tool("get_weather", FORECAST)
NEAR = tool("find_hotel", "Book a room for some nights in one city.")
FAR = tool("factorial", "Multiply.")
SAME_TOPIC = tool("weather_report", "Report.")
IN_QUERY = tool("rain_radar", "Show a map for one city, given a date.")
ALIKE = tool("outlook", FORECAST)
POOL = [NEEDED, FAR, SAME_TOPIC, IN_QUERY, ALIKE, NEAR]


def test_the_needed_tool_gives_way_to_one_that_is_near_but_will_not_do() -> None:
    found = without_needed_tools(example(NEEDED), POOL, random.Random(0))
    assert found is not None
    assert found.tools == (NEAR,) and found.answers == ()
    assert found.id == "row/no-call" and found.query == "Will it rain in Rome?"


def test_other_tools_stay_where_they_were() -> None:
    other = tool("play_music")
    found = without_needed_tools(example(NEEDED, other), POOL, random.Random(0))
    assert found is not None and found.tools == (NEAR, other)
    # With none that is near, fewer are offered.
    found = without_needed_tools(example(NEEDED, other), [SAME_TOPIC], random.Random(0))
    assert found is not None and found.tools == (other,)


def test_a_tool_is_offered_once_and_two_needed_ones_both_go() -> None:
    both = example(NEEDED, tool("sunrise", "When the sun comes up in one city."), called=2)
    found = without_needed_tools(both, [NEAR, FAR], random.Random(0))
    assert found is not None and sorted(t.name for t in found.tools) == ["factorial", "find_hotel"]
    found = without_needed_tools(both, [NEAR], random.Random(0))
    assert found is not None and found.tools == (NEAR,)


def test_nothing_is_made_without_a_need_or_without_another_tool() -> None:
    assert without_needed_tools(example(NEEDED, called=0), POOL, random.Random(0)) is None
    assert without_needed_tools(example(NEEDED), [NEEDED, SAME_TOPIC], random.Random(0)) is None


def assert_renamed(found: Example | None, count: int) -> None:
    assert found is not None and found.id == "row/masked" and len(found.tools) == count
    (first, *_) = found.tools
    (answer,) = found.answers
    assert answer.name == first.name not in ("get_weather", "")
    assert list(answer.arguments.values()) == [AcceptableArgument(("Rome",))]
    names = list(first.parameters["properties"])
    assert len(set(names)) == 2 and not {"city", "days"} & set(names)
    # The argument that was the city is still the one that is text, and required.
    (city,) = answer.arguments
    assert first.parameters["properties"][city]["type"] == "string"
    assert first.parameters["required"] in ([city], names)


def test_functions_and_arguments_get_random_names_in_tools_and_answers_alike() -> None:
    for wrapped in (False, True):
        rainy = tool("get_weather", "Tell it.", wrapped=wrapped)
        found = with_random_names(example(rainy, tool("other", wrapped=wrapped)), random.Random(1))
        assert_renamed(found, 2)
        assert found is not None
        assert "function" not in found.tools[0].raw
        assert found.tools[0].description == "Tell it."
        assert "get_weather" not in str(found.tools) and "city" not in str(found.answers)


def test_tools_in_the_flat_form_are_renamed_too() -> None:
    assert_renamed(with_random_names(example(tool("get_weather", flat=True)), random.Random(1)), 1)


def test_names_depend_on_the_generator_alone() -> None:
    one, same, other = (
        with_random_names(example(NEEDED), random.Random(seed)) for seed in (1, 1, 2)
    )
    assert one == same != other


def test_what_cannot_be_renamed_throughout_is_left() -> None:
    call = Message("assistant", "", (ToolCall("get_weather", {"city": "Oslo"}),))
    talked = Example("row", (call, Message("user", "?")), (NEEDED,), (), "source")
    assert with_random_names(talked, random.Random(0)) is None
    open_one = {"type": "object", "properties": {}, "additionalProperties": True}
    (anything,) = read_tools([{"name": "get_weather", "parameters": open_one}]).tools
    assert with_random_names(example(anything), random.Random(0)) is None
    text = {"name": "get_weather", "parameters": '{"city": {"type": "str"}}'}
    (as_text,) = read_tools([text]).tools
    assert with_random_names(example(as_text), random.Random(0)) is None
