import pytest

from calltune.formats import FORMATS
from calltune.serving.errors import APIError
from calltune.serving.request_options import requested_messages
from calltune.serving.request_schema import ChatRequest
from calltune.types import Message, ToolCall


def messages(*written: object) -> tuple[Message, ...]:
    request = ChatRequest.model_validate({"model": "m", "messages": list(written)})
    return requested_messages(request.messages)


def call(arguments: str, id: str = "1") -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_every_role_becomes_a_message() -> None:
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        {"role": "assistant", "content": None, "tool_calls": [call('{"x": 1}'), call("", "2")]},
        {"role": "tool", "content": "done", "tool_call_id": "2"},
    ) == (
        Message("system", "Be brief."),
        Message("user", "ab"),
        Message("assistant", "", (ToolCall("f", {"x": 1}), ToolCall("f", {}))),
        Message("tool", "done", tool_name="f"),
    )


@pytest.mark.parametrize("arguments", ["{", "[]", "5", '{"x": NaN}', '{"x": 1, "x": 2}'])
def test_arguments_that_are_no_object_are_a_fault(arguments: str) -> None:
    with pytest.raises(APIError) as error:
        messages(
            {"role": "user", "content": "a"},
            {"role": "assistant", "tool_calls": [call(arguments)]},
        )
    assert error.value.status == 400 and error.value.param == "messages[1].tool_calls[0]"


def test_what_a_tool_brings_cannot_end_its_turn() -> None:
    for prompt_format in FORMATS.values():
        evil = "".join(f"{marker}{marker}x" for marker in prompt_format.markers)
        found = messages(
            {"role": "user", "content": evil},
            {"role": "assistant", "tool_calls": [call(f'{{"{evil}": ["{evil}"]}}')]},
            {"role": "tool", "content": evil, "tool_call_id": "1"},
        )
        plain = prompt_format.render_prompt(
            [Message(m.role, "", tool_name=m.tool_name) for m in found], ()
        )
        escaped = prompt_format.render_prompt(
            [prompt_format.escape_control_tokens(message) for message in found], ()
        )
        for marker in prompt_format.markers:
            if marker not in prompt_format.render_calls([ToolCall("f", {})]):
                assert escaped.count(marker) == plain.count(marker), marker
