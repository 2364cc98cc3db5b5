import json

import pytest

from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import Json, Message, ToolCall, exact_answer

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "look",
            "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
        },
    },
]


def call(at: str, call_id: str = "c1", as_text: bool = True) -> dict[str, Json]:
    arguments: Json = {"at": at}
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {
                "id": call_id,
                "type": "function",
                "function": {
                    "name": "look",
                    "arguments": json.dumps(arguments) if as_text else arguments,
                },
            }
        ],
    }


def user(text: str) -> dict[str, Json]:
    return {"role": "user", "content": text}


def test_each_turn_that_calls_becomes_an_example() -> None:
    messages = [
        {"role": "developer", "content": "Be brief."},
        user("Sea?"),
        call("sea"),
        {"role": "tool", "tool_call_id": "c1", "content": "blue"},
        {"role": "assistant", "content": "Blue."},
        user("Sky?"),
        call("sky", "c2", as_text=False),
    ]
    first, second = parse({"messages": messages, "tools": TOOLS}, "r1").examples
    assert (first.id, second.id) == ("r1#2", "r1#6")
    assert first.messages == (Message("system", "Be brief."), Message("user", "Sea?"))
    assert first.answers == (exact_answer(ToolCall("look", {"at": "sea"})),)
    assert second.messages[2].calls == (ToolCall("look", {"at": "sea"}),)
    assert second.messages[3] == Message("tool", "blue", tool_name="look")
    assert second.query == "Sky?"
    assert first.tools[0].raw == TOOLS[0]["function"]


def test_an_answer_in_words_is_an_example_that_calls_nothing() -> None:
    row = {"messages": [user("Hi"), {"role": "assistant", "content": "Hello."}], "tools": TOOLS}
    (example,) = parse(row, "r1").examples
    assert (example.id, example.answers) == ("r1#1", ())


def test_words_after_a_call_are_no_example() -> None:
    row = {
        "messages": [
            user("Sea?"),
            call("sea"),
            user("Thanks"),
            {"role": "assistant", "content": "Sure."},
        ],
        "tools": TOOLS,
    }
    assert [example.id for example in parse(row, "r1").examples] == ["r1#1"]


def test_a_turn_of_weight_zero_is_only_context() -> None:
    row = {
        "messages": [user("Sea?"), call("sea") | {"weight": 0}, user("Sky?"), call("sky")],
        "tools": TOOLS,
    }
    assert [example.id for example in parse(row, "r1").examples] == ["r1#3"]


def test_the_older_spelling_is_read() -> None:
    row = {
        "messages": [
            user("Sea?"),
            {"role": "assistant", "function_call": {"name": "look", "arguments": '{"at": "sea"}'}},
            {"role": "function", "name": "look", "content": "blue"},
            {"role": "assistant", "content": "Blue."},
        ],
        "functions": [TOOLS[0]["function"]],
    }
    (example,) = parse(row, "r1").examples
    assert example.answers == (exact_answer(ToolCall("look", {"at": "sea"})),)


def test_content_in_parts_is_joined() -> None:
    parts = [{"type": "text", "text": "Se"}, {"type": "text", "text": "a?"}]
    row = {"messages": [{"role": "user", "content": parts}, call("sea")], "tools": TOOLS}
    assert parse(row, "r1").examples[0].query == "Sea?"


@pytest.mark.parametrize(
    ("messages", "expected"),
    [
        ([], "no messages"),
        ([call("sea")], "no query"),
        ([user("Sea?")], "no turn to learn from"),
        ([{"role": "boss", "content": "x"}], "unknown role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "content that is not text"),
        ([user("Sea?"), {"role": "assistant", "tool_calls": 3}], "tool calls are not a list"),
        ([user("x")] * 501, "more than 500 messages"),
    ],
)
def test_an_unusable_conversation_says_why(messages: Json, expected: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        parse({"messages": messages, "tools": TOOLS}, "r1")
    assert caught.value.reason == expected
