"""OpenAI's Responses API through its Python client, and what of it is refused."""

import json
from typing import Any

import httpx
import openai
import pytest
from pydantic import BaseModel

from calltune.serving.errors import APIError
from calltune.serving.request_messages import requested_messages
from calltune.serving.responses_request import ItemStore, read_responses_request
from calltune.types import Message, ToolCall

from support.running import COLOURS, PAINT, Running

FLAT = {"type": "function", **PAINT["function"]}
CALL = {"type": "function_call", "call_id": "c1", "name": "paint", "arguments": '{"coats": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "done"}


def create(server: Running, **more: Any) -> Any:
    given = {"model": "tiny", "input": "Make the wall nice.", "max_output_tokens": 200} | more
    with server.client as client:
        return client.responses.create(**given)


def messages(*items: Any, **more: Any) -> tuple[Message, ...]:
    body = {"model": "m", "input": list(items)} | more
    return requested_messages(read_responses_request(body, ItemStore()).chat.messages)


def test_items_become_messages() -> None:
    said = {
        "type": "message",
        "id": "msg_1",
        "role": "assistant",
        "status": "completed",
        "content": [{"type": "output_text", "text": "Well.", "annotations": []}],
    }
    second = {**CALL, "call_id": "c2", "arguments": "{"}
    parts = [{"type": "input_text", "text": "ok"}]
    assert messages(
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "reasoning", "id": "rs_1", "summary": []},
        said,
        CALL,
        second,
        {**RESULT, "call_id": "c2", "output": parts},
        RESULT,
        {"role": "user", "content": "More."},
        CALL,
        RESULT,
        instructions="You paint.",
    ) == (
        Message("system", "You paint."),
        Message("system", "Be brief."),
        Message("user", "Hi"),
        Message(
            "assistant", "Well.", (ToolCall("paint", {"coats": 1}), ToolCall("paint", {}, "{"))
        ),
        Message("tool", "done", tool_name="paint"),
        Message("tool", "ok", tool_name="paint"),
        Message("user", "More."),
        Message("assistant", "", (ToolCall("paint", {"coats": 1}),)),
        Message("tool", "done", tool_name="paint"),
    )


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"conversation": "conv_1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"input": []}, "input"),
        ({"input": 5}, "input"),
        ({"input": [{"type": "computer_call"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": "a"}, RESULT]}, "input[1].tool_call_id"),
        (
            {
                "instructions": "x",
                "input": [{"role": "user", "content": [{"type": "input_image"}]}],
            },
            "input[0].content",
        ),
        ({"input": [{"type": "item_reference", "id": "msg_1"}]}, "input[0].id"),
        ({"tools": [FLAT, {"type": "web_search"}]}, "tools[1].type"),
        ({"tools": [{"type": "function"}]}, "tools[0]"),
        ({"tools": [FLAT], "tool_choice": {"type": "web_search"}}, "tool_choice"),
        ({"text": {"format": {"type": "json_schema", "name": "t"}}}, "text.format.schema"),
        ({"text": {"format": {"type": "yaml"}}}, "text.format.type"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"temperature": 3}, "temperature"),
        ({"top_logprobs": 2}, "top_logprobs"),
    ],
)
def test_what_cannot_be_used_is_named_by_its_field(more: dict[str, Any], param: str) -> None:
    with pytest.raises(APIError) as error:
        query = read_responses_request({"model": "m", "input": "a"} | more, ItemStore())
        try:
            requested_messages(query.chat.messages)
        except APIError as fault:
            raise query.named(fault) from None
    assert (error.value.status, error.value.param) == (400, param)
    assert param in error.value.message and "messages" not in error.value.message


def test_neutral_values_are_accepted() -> None:
    neutral = {
        "include": ["reasoning.encrypted_content"],
        "reasoning": {"effort": "low"},
        "text": {"verbosity": "low"},
        "truncation": "auto",
        "service_tier": "auto",
        "store": False,
        "background": False,
        "previous_response_id": None,
        "top_logprobs": 0,
        "tools": [],
        "stream_options": None,
        "max_tool_calls": None,
    }
    assert messages({"role": "user", "content": "a"}, **neutral) == (Message("user", "a"),)


def test_kept_items_are_the_last_ones() -> None:
    items = ItemStore(max_items=2)
    items.keep({"id": str(number)} for number in range(3))
    assert items.get("0") is None and items.get("2") == {"id": "2"} and items.get([]) is None


def test_a_call_its_result_and_a_text(small_server: Running) -> None:
    asked = [{"role": "user", "content": "Make the wall nice."}]
    first = create(
        small_server, input=asked, tools=[FLAT], tool_choice="required", instructions="Go."
    )
    (call, *_) = first.output
    assert first.status == "completed" and call.type == "function_call"
    arguments = json.loads(call.arguments)
    assert arguments["colour"] in COLOURS and 1 <= arguments["coats"] <= 3
    assert first.usage.total_tokens == first.usage.input_tokens + first.usage.output_tokens
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    sent = create(small_server, input=[*asked, call.to_dict(), result], max_output_tokens=4)
    # The AI SDK refers to items that it has got from here.
    reference = {"type": "item_reference", "id": call.id}
    referred = create(small_server, input=[*asked, reference, result], max_output_tokens=4)
    assert sent.output_text == referred.output_text and sent.output[0].type == "message"
    assert sent.usage == referred.usage
    assert sent.status == "incomplete" and sent.incomplete_details.reason == "max_output_tokens"
    forgotten = create(small_server, store=False, max_output_tokens=2)
    with pytest.raises(openai.BadRequestError, match="store: false") as refused:
        create(
            small_server, input=[*asked, {"type": "item_reference", "id": forgotten.output[0].id}]
        )
    assert refused.value.param == "input[1].id"


class Wall(BaseModel):
    colour: str
    is_wet: bool


def test_a_schema_of_text_is_enforced(small_server: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": COLOURS}, "is_wet": {"type": "boolean"}},
        "required": ["colour", "is_wet"],
        "additionalProperties": False,
    }
    wanted = {"format": {"type": "json_schema", "name": "wall", "strict": True, "schema": schema}}
    found = create(small_server, text=wanted, temperature=1.2)
    assert Wall.model_validate_json(found.output_text).colour in COLOURS


@pytest.mark.parametrize("more", [{"tool_choice": "required"}, {"tool_choice": "none"}])
def test_a_stream_builds_the_response(small_server: Running, more: dict[str, Any]) -> None:
    given: Any = {"tools": [FLAT], "max_output_tokens": 60, "temperature": 0, **more}
    whole = create(small_server, **given)
    asked = {"model": "tiny", "input": "Make the wall nice."} | given
    with small_server.client as client, client.responses.stream(**asked) as stream:
        events = list(stream)
        built = stream.get_final_response() if whole.status == "completed" else None
    assert [event.sequence_number for event in events if event.type != "response.output_text.done"]
    assert events[0].type == "response.created"
    assert events[-1].type == f"response.{whole.status}"
    final = built or events[-1].response
    plain = [item.to_dict() for item in whole.output]
    for written, expected in zip(final.output, plain, strict=True):
        kept = written.to_dict()
        if expected["type"] == "function_call":
            assert kept["arguments"] == expected["arguments"]
        else:
            assert written.content[0].text == expected["content"][0]["text"]
    assert final.usage == whole.usage
    numbers = [event.sequence_number for event in events]
    assert numbers == list(range(len(numbers)))


def test_an_error_in_a_stream_is_raised_by_the_client(
    small_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    from calltune.serving.answers import Answers

    async def failing(self: Answers) -> Any:
        raise APIError(503, "Too late.", code="timeout")
        yield

    monkeypatch.setattr(Answers, "events", failing)
    with (
        small_server.client as client,
        client.responses.create(model="tiny", input="a", stream=True) as stream,
        pytest.raises(openai.APIError, match="Too late"),
    ):
        list(stream)


def test_paths_that_are_not_there_say_what_to_set(small_server: Running) -> None:
    for path in ("/v1/responses/resp_1", "/v1/embeddings", "/chat/completions"):
        missing = httpx.get(f"{small_server.url}{path}")
        assert missing.status_code == 404
        message = missing.json()["error"]["message"]
        assert path in message and "base URL to end in /v1" in message
