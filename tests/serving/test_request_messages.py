import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calltune.formats import FORMATS
from calltune.serving.errors import APIError
from calltune.serving.request_body import read_chat_request
from calltune.serving.request_messages import requested_messages
from calltune.types import Message, ToolCall

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"


def messages(*written: object) -> tuple[Message, ...]:
    return requested_messages(read_chat_request({"model": "m", "messages": list(written)}).messages)


def call(arguments: Any, id: str | None = "1", name: str = "f") -> dict[str, object]:
    return {"id": id, "type": "function", "function": {"name": name, "arguments": arguments}}


def answer(*calls: dict[str, object], **more: object) -> dict[str, object]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)} | more


def result(content: Any, id: str | None = "1") -> dict[str, object]:
    return {"role": "tool", "content": content, "tool_call_id": id}


def prompts(found: tuple[Message, ...]) -> Iterator[str]:
    for prompt_format in FORMATS.values():
        escaped = [prompt_format.escape_control_tokens(message) for message in found]
        yield prompt_format.render_prompt(escaped, ())


def test_every_role_becomes_a_message() -> None:
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
        answer(call('{"x": 1}'), call("", "2")),
        result("done", "2"),
    ) == (
        Message("system", "Be brief."),
        Message("user", "ab"),
        Message("assistant", "", (ToolCall("f", {"x": 1}), ToolCall("f", {}))),
        Message("tool", "done", tool_name="f"),
    )


def test_what_clients_write_in_place_of_a_string_is_read() -> None:
    parts = [
        {"type": "input_text", "text": "a"},
        {"type": "output_text", "text": "b", "annotations": []},
        {"type": "refusal", "refusal": "c"},
        {"type": "thinking", "thinking": "Hm."},
        "d",
    ]
    assert messages(
        {"role": "user", "name": "me", "content": parts},
        {"role": "assistant"},
        {"role": "assistant", "content": []},
        {"role": "assistant", "content": None, "refusal": "No."},
        {"role": "assistant", "content": "x", "tool_calls": None, "audio": None, "annotations": []},
        answer(call({"x": 1}), call(None, "2"), call("{}", "3")),
        result([{"type": "text", "text": "e"}]),
        result(None, "2"),
        result({"degrees": 21}, "3"),
        answer(function_call={"name": "g", "arguments": "{}"}, tool_calls=None),
        {"role": "function", "name": "g", "content": "older"},
    ) == (
        Message("user", "abcd"),
        Message("assistant", ""),
        Message("assistant", ""),
        Message("assistant", "No."),
        Message("assistant", "x"),
        Message("assistant", "", (ToolCall("f", {"x": 1}), ToolCall("f", {}), ToolCall("f", {}))),
        Message("tool", "e", tool_name="f"),
        Message("tool", "", tool_name="f"),
        Message("tool", '{"degrees": 21}', tool_name="f"),
        Message("assistant", "", (ToolCall("g", {}),)),
        Message("tool", "older", tool_name="g"),
    )


@pytest.mark.parametrize(
    "arguments",
    [
        "{",
        "[]",
        "5",
        "null",
        '{"x": NaN}',
        '{"x": 1, "x": 2}',
        '{"x": ' + "9" * 5_000,
        "x",
    ],
)
def test_arguments_that_are_no_object_are_shown_as_they_were(arguments: str) -> None:
    found = messages({"role": "user", "content": "a"}, answer(call(arguments)), result("no"))
    assert found[1].calls == (ToolCall("f", {}, arguments),)
    for prompt in prompts(found):
        assert arguments in prompt or json.dumps(arguments)[1:-1] in prompt


def test_arguments_that_were_encoded_twice_are_shown_as_they_were() -> None:
    cut = '{"colour": "red", "coats":'
    found = messages({"role": "user", "content": "a"}, answer(call(json.dumps(cut))))
    assert found[1].calls == (ToolCall("f", {}, cut),)


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_no_arguments_end_a_conversation(arguments: str) -> None:
    found = messages({"role": "user", "content": "a"}, answer(call(arguments)), result("no"))
    (made,) = found[1].calls
    assert made.malformed in ("", arguments.strip(), arguments.strip().strip('"'))
    assert all("no" in prompt for prompt in prompts(found))


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        # Of one turn, in order; of two turns, to the last; of one that is answered, beside it.
        ([answer(call("", "1", "f"), call("", "1", "g")), result("a"), result("b")], "fa gb"),
        (
            [answer(call("", "1", "f")), result("a"), answer(call("", "1", "g")), result("b")],
            "fa gb",
        ),
        ([answer(call("", "1", "f")), answer(call("", "1", "g")), result("b")], "gb"),
        ([answer(call("", "1", "f"), call("", "2", "g")), result("b", "2"), result("a")], "fa gb"),
        ([answer(call("", "1", "f")), result("a"), result("b")], "fa fb"),
        (
            [answer(call("", None, "f"), call("", "", "g")), result("a", None), result("b", "")],
            "fa gb",
        ),
    ],
)
def test_results_stand_in_the_order_of_their_calls(written: list[Any], expected: str) -> None:
    found = messages({"role": "user", "content": "?"}, *written)
    results = [f"{each.tool_name}{each.content}" for each in found if each.role == "tool"]
    assert " ".join(results) == expected


@pytest.mark.parametrize(
    ("written", "param"),
    [
        ([result("a", "other")], "messages[0].tool_call_id"),
        ([answer(call("")), result("a", "other")], "messages[1].tool_call_id"),
        ([answer({"id": "1", "type": "function"})], "messages[0].tool_calls[0].function"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content"),
        ([{"role": "user", "content": None}], "messages[0].content"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "robot", "content": "a"}], "messages[0].role"),
        ([{"content": "a"}], "messages[0].role"),
        (
            [answer({"id": "1", "function": {"arguments": ""}})],
            "messages[0].tool_calls[0].function.name",
        ),
    ],
)
def test_what_cannot_be_shown_is_a_400_that_names_the_field(written: list[Any], param: str) -> None:
    with pytest.raises(APIError) as error:
        messages(*written)
    assert error.value.status == 400 and error.value.param == param
    assert param in error.value.message


@pytest.mark.parametrize(
    "file",
    sorted(
        file
        for kind in ("05-empty-assistant", "06-bad-args-history", "08-reused-ids")
        for file in (CASES / kind).glob("*.json")
    ),
    ids=lambda file: file.stem,
)
def test_conversations_of_the_cases_are_read(file: Path) -> None:
    body = json.loads(file.read_text())
    found = requested_messages(read_chat_request(body).messages)
    assert len(found) == len(body["messages"])
    names = [message.tool_name for message in found if message.role == "tool"]
    assert names == ["get_weather", "get_time"][: len(names)]


def test_what_a_tool_brings_cannot_end_its_turn() -> None:
    for prompt_format in FORMATS.values():
        evil = "".join(f"{marker}{marker}x" for marker in prompt_format.markers)
        found = messages(
            {"role": "user", "content": evil},
            answer(call(f'{{"{evil}": ["{evil}"]}}'), call(evil, "2")),
            result(evil),
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
