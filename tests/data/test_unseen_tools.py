from calltune.data.splits import count_unseen_tools, tool_identities
from calltune.types import Answer, Example, Json, Message, Tool

CITY = {"city": {"type": "string", "description": "The city"}}


def tool(
    name: str, properties: dict[str, Json] | None = None, required: list[str] | None = None
) -> Tool:
    schema = {"type": "object", "properties": properties or {}, "required": required or []}
    return Tool(name, "", schema, {})


def example(tools: list[Tool], *needed: str) -> Example:
    answers = tuple(Answer(name, {}) for name in needed)
    return Example("e", (Message("user", "?"),), tuple(tools), answers, "xlam")


def test_needed_tools_count_and_those_offered_beside_them_do_not() -> None:
    seen = tool_identities([example([tool("f"), tool("g")], "f")])
    assert count_unseen_tools(example([tool("f"), tool("new")], "f"), seen) == 0
    # Offered in training is seen, needed or not.
    assert count_unseen_tools(example([tool("g"), tool("new")], "g"), seen) == 0
    assert count_unseen_tools(example([tool("f"), tool("new")], "f", "new", "new"), seen) == 1


def test_where_nothing_is_to_be_called_all_that_is_offered_counts() -> None:
    seen = tool_identities([example([tool("f")], "f")])
    assert count_unseen_tools(example([tool("f")]), seen) == 0
    assert count_unseen_tools(example([tool("f"), tool("new"), tool("newer")]), seen) == 2


def is_seen(one: Tool, other: Tool) -> bool:
    return (
        count_unseen_tools(
            example([other], other.name), tool_identities([example([one], one.name)])
        )
        == 0
    )


def test_a_tool_is_its_name_and_its_parameters_whatever_describes_them() -> None:
    weather = tool("weather", CITY, ["city"])
    assert is_seen(weather, tool("weather", {"city": {"type": "string"}}, ["city"]))
    assert not is_seen(weather, tool("forecast", CITY, ["city"]))
    assert not is_seen(weather, tool("weather", CITY))
    assert not is_seen(weather, tool("weather", {"city": {"type": "integer"}}, ["city"]))
    assert not is_seen(weather, tool("weather", CITY | {"day": {"type": "string"}}, ["city"]))


def test_order_does_not_make_another_tool() -> None:
    kinds = {"a": {"type": "string"}, "b": {"type": "string"}}
    turned = dict(reversed(kinds.items()))
    assert is_seen(tool("f", kinds, ["a", "b"]), tool("f", turned, ["b", "a"]))


def test_an_argument_called_description_is_one() -> None:
    assert not is_seen(tool("f"), tool("f", {"description": {"type": "string"}}))
    nested = {"at": {"type": "object", "properties": {"title": {"type": "string"}}}}
    bare = {"at": {"type": "object", "properties": {}}}
    assert not is_seen(tool("f", nested), tool("f", bare))
