import json

import pytest

from calltune.data.readers.recognise import parse
from calltune.schemas.tools import UnusableRow
from calltune.types import Json, Message, ToolCall, exact_answer

TOOL = {
    "type": "function",
    "function": {
        "name": "look",
        "parameters": {"type": "object", "properties": {"at": {"type": "string"}}},
    },
}
ANSWER = (exact_answer(ToolCall("look", {"at": "sea"})),)


def conversation(*turns: tuple[str, str]) -> dict[str, Json]:
    return {"id": "h1", "conversations": [{"from": role, "value": text} for role, text in turns]}


def system(tools: str) -> tuple[str, str]:
    return "system", f"Signatures stand within <tools> </tools> tags. <tools> {tools} </tools>"


ASKED = ("human", "Sea?")
CALLED = (
    "gpt",
    'Let me see.\n<tool_call>\n{"name": "look", "arguments": {"at": "sea"}}\n</tool_call>',
)


@pytest.mark.parametrize(
    "tools", [json.dumps([TOOL]), str([TOOL]), f"{json.dumps(TOOL)}\n{json.dumps(TOOL)}"]
)
def test_tools_are_read_from_the_system_message(tools: str) -> None:
    (example,) = parse(conversation(system(tools), ASKED, CALLED), "r").examples
    assert example.tools[0].raw == TOOL["function"]
    assert example.messages == (Message("user", "Sea?"),)
    assert (example.id, example.answers) == ("h1#1", ANSWER)


def test_tools_are_read_from_their_column() -> None:
    row = conversation(("system", "Be brief."), ASKED, CALLED) | {"tools": json.dumps([TOOL])}
    (example,) = parse(row, "r").examples
    assert example.messages[0] == Message("system", "Be brief.")


def test_a_call_in_python_quotes_is_read() -> None:
    called = ("gpt", "<tool_call>{'name': 'look', 'arguments': {'at': 'sea'}}</tool_call>")
    assert (
        parse(conversation(system(json.dumps([TOOL])), ASKED, called), "r").examples[0].answers
        == ANSWER
    )


def test_results_and_calls_before_are_kept_as_messages() -> None:
    result = ("tool", '<tool_response>{"name": "look", "content": "blue"}</tool_response>')
    row = conversation(system(json.dumps([TOOL])), ASKED, CALLED, result, CALLED)
    second = parse(row, "r").examples[1]
    assert second.messages[1] == Message(
        "assistant", "Let me see.", (ToolCall("look", {"at": "sea"}),)
    )
    assert second.messages[2] == Message(
        "tool", '{"name": "look", "content": "blue"}', tool_name="look"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<tool_call>{", "call that cannot be read"),
        ("<tool_call>" * 400_000, "call that cannot be read"),
        ("<tool_call>nope</tool_call>", "call that cannot be read"),
        ("<tool_call></tool_call>", "call that cannot be read"),
        ("<tool_call>{1, 2}</tool_call>", "call that cannot be read"),
        ("<tool_call>" + "(" * 5000 + "</tool_call>", "call that cannot be read"),
        ('<tool_call>{"name": "leap"}</tool_call>', "call to a tool that is not offered"),
    ],
)
def test_an_unreadable_call_says_why(text: str, expected: str) -> None:
    with pytest.raises(UnusableRow) as caught:
        parse(conversation(system(json.dumps([TOOL])), ASKED, ("gpt", text)), "r")
    assert caught.value.reason == expected
