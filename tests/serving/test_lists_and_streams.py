"""What reaches clients beside the answer: headers of long lists, comments of streams."""

import time
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import openai
import pytest

from calltune.serving.errors import APIError
from calltune.serving.tool_list import LEFT_OUT_HEADER

from support.running import ASK, PAINT, Running


def tool(name: str, description: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"x": {"type": "boolean"}}, "required": ["x"]}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": schema},
    }


MANY = [tool(f"tool_{number}", f"Does number {number} " * 3) for number in range(60)]
MANY[47] = tool("paint_a_wall", "Makes a wall nice. " * 3)


def ask(server: Running, **more: Any) -> dict[str, Any]:
    return {"model": "tiny", "messages": ASK, "max_tokens": 60} | more


def test_a_list_beyond_the_context_is_cut_to_what_suits_the_question(small_server: Running) -> None:
    body = ask(small_server, tools=MANY, tool_choice="required", parallel_tool_calls=False)
    response = small_server.post(body)
    assert response.status_code == 200, response.text
    count, _, names = response.headers[LEFT_OUT_HEADER].partition(":")
    left_out = names.strip().split(", ")
    assert int(count) == len(left_out) > 20 and "paint_a_wall" not in left_out
    assert response.json()["usage"]["prompt_tokens"] <= 1500 - 256
    (choice,) = response.json()["choices"]
    for call in choice["message"].get("tool_calls", ()):
        assert call["function"]["name"] not in left_out
    streamed = small_server.post(body | {"stream": True})
    assert streamed.headers[LEFT_OUT_HEADER] == response.headers[LEFT_OUT_HEADER]
    assert LEFT_OUT_HEADER not in small_server.post(ask(small_server, tools=[PAINT])).headers


def test_a_tool_that_must_be_called_or_was_called_is_never_left_out(small_server: Running) -> None:
    named = ask(small_server, tools=MANY, tool_choice={"type": "tool", "name": "tool_59"})
    response = small_server.post(named)
    assert response.status_code == 200 and LEFT_OUT_HEADER not in response.headers
    call = {"id": "1", "function": {"name": "tool_59", "arguments": "{}"}}
    messages = [
        *ASK,
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "done"},
    ]
    response = small_server.post(ask(small_server, tools=MANY, messages=messages))
    assert response.status_code == 200, response.text
    assert "tool_59" not in response.headers[LEFT_OUT_HEADER].split(": ")[1].split(", ")


def test_a_tool_that_no_context_holds_is_a_400(small_server: Running) -> None:
    response = small_server.post(ask(small_server, tools=[tool("large", "word " * 2_000)]))
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "context_length_exceeded"


def test_the_older_spelling_is_answered_in_its_own(small_server: Running) -> None:
    body = ask(small_server, functions=[PAINT["function"]], function_call={"name": "paint"})
    body["max_tokens"] = 200
    (choice,) = small_server.post(body).json()["choices"]
    assert choice["finish_reason"] == "function_call" and choice["message"]["content"] is None
    assert choice["message"]["function_call"]["name"] == "paint"
    assert "tool_calls" not in choice["message"]
    given: Any = {key: value for key, value in body.items() if key != "stream"}
    with small_server.client as client:
        chunks = list(client.chat.completions.create(stream=True, **given))
    parts = [part for chunk in chunks if (part := chunk.choices[0].delta.function_call) is not None]
    assert parts[0].name == "paint"
    arguments = "".join(part.arguments or "" for part in parts)
    assert arguments == choice["message"]["function_call"]["arguments"]
    assert chunks[-1].choices[0].finish_reason == "function_call"


def slow_events(monkeypatch: pytest.MonkeyPatch, fails: bool = False) -> None:
    """Make answers wait, as they do for a long prompt, then go on or fail."""
    import asyncio

    from calltune.serving.answers import AnswerEvent, Answers

    events = Answers.events

    async def late(self: Answers) -> AsyncGenerator[AnswerEvent, None]:
        await asyncio.sleep(0.4)
        if fails:
            raise APIError(422, "The answer is off.", "tools", "answer_off_schema")
        async for event in events(self):
            yield event

    monkeypatch.setattr(Answers, "events", late)
    monkeypatch.setattr("calltune.serving.clients.KEEP_ALIVE_SECONDS", 0.1)
    monkeypatch.setattr("calltune.serving.app.FIRST_EVENT_SECONDS", 0.05)


def test_a_stream_begins_at_once_and_is_never_silent(
    small_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_events(monkeypatch)
    started = time.monotonic()
    url = f"{small_server.url}/v1/chat/completions"
    with httpx.stream("POST", url, json=ask(small_server, stream=True, max_tokens=4)) as response:
        assert response.status_code == 200 and time.monotonic() - started < 0.35
        lines = [line for line in response.iter_lines() if line]
    first = next(index for index, line in enumerate(lines) if line.startswith("data:"))
    assert first >= 2 and all(line.startswith(":") for line in lines[:first])
    assert lines[-1] == "data: [DONE]"
    given: Any = {"model": "tiny", "messages": ASK, "max_tokens": 4, "stream": True}
    with small_server.client as client:
        chunks = list(client.chat.completions.create(**given))
    assert chunks[-1].choices[0].finish_reason in ("stop", "length")


def test_an_error_in_a_stream_that_has_begun_is_its_last_event(
    small_server: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow_events(monkeypatch, fails=True)
    text = small_server.post(ask(small_server, stream=True)).text
    assert "answer_off_schema" in text and text.endswith("data: [DONE]\n\n")
    given: Any = {"model": "tiny", "messages": ASK, "stream": True}
    with (
        small_server.client as client,
        client.chat.completions.create(**given) as stream,
        pytest.raises(openai.APIError, match="The answer is off"),
    ):
        list(stream)
    metrics = httpx.get(f"{small_server.url}/metrics").text
    assert 'calltune_requests_total{status="422"} 2.0' in metrics
