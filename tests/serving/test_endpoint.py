import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from support.running import ASK, COLOURS, PAINT, SAND, Running, serving
from support.tiers import cases

FAMILIES = {"gemma": "tiny_gemma", "chatml": "tiny_llama"}


@pytest.fixture(scope="module", params=list(FAMILIES))
def server(request: pytest.FixtureRequest) -> Iterator[Running]:
    folder: Path = request.getfixturevalue(FAMILIES[request.param])
    with serving(folder, request.param) as running:
        yield running


def create(server: Running, **more: Any) -> Any:
    given = {"model": "tiny", "messages": ASK, "tools": [PAINT, SAND]} | more
    return server.client.chat.completions.create(**given)


def check_call(call: Any) -> None:
    assert call.type == "function" and call.id.startswith("call_")
    arguments = json.loads(call.function.arguments)
    if call.function.name == "paint":
        assert arguments["colour"] in COLOURS and 1 <= arguments["coats"] <= 3
    else:
        assert call.function.name == "sand" and arguments["grain"] in (80, 120)


def test_a_required_call_comes_and_keeps_to_its_schema(server: Running) -> None:
    for seed in range(4):
        reply = create(
            server, tool_choice="required", parallel_tool_calls=False, temperature=1.5, seed=seed
        )
        (choice,) = reply.choices
        (call,) = choice.message.tool_calls
        check_call(call)
        assert choice.finish_reason == "tool_calls" and choice.message.content is None
        assert reply.usage.total_tokens == (
            reply.usage.prompt_tokens + reply.usage.completion_tokens
        )
        assert reply.usage.prompt_tokens > 50 and reply.usage.completion_tokens > 5


def test_the_named_function_is_called_and_no_other(server: Running) -> None:
    named = {"type": "function", "function": {"name": "sand"}}
    for seed in range(4):
        reply = create(server, tool_choice=named, temperature=1.5, seed=seed)
        (call,) = reply.choices[0].message.tool_calls
        check_call(call)
        assert call.function.name == "sand"


def test_with_none_there_are_words(server: Running) -> None:
    message = create(server, tool_choice="none", max_tokens=8).choices[0].message
    assert message.tool_calls is None and isinstance(message.content, str)


def test_auto_gives_calls_or_words(server: Running) -> None:
    kinds = set()
    for seed in range(12):
        reply = create(server, temperature=1.5, seed=seed, max_tokens=60)
        (choice,) = reply.choices
        kinds.add(bool(choice.message.tool_calls))
        for call in choice.message.tool_calls or ():
            check_call(call)
        assert choice.message.tool_calls or choice.finish_reason in ("stop", "length")
    assert kinds <= {True, False}


def test_a_seed_draws_the_same_answer_and_n_draws_others(server: Running) -> None:
    def texts(**more: Any) -> list[str]:
        reply = create(server, tools=openai.NOT_GIVEN, temperature=1.0, max_tokens=12, **more)
        return [choice.message.content for choice in reply.choices]

    three = texts(seed=5, n=3)
    assert len(set(three)) == 3
    assert texts(seed=5) == three[:1] and texts(seed=5, n=3) == three


def test_json_of_a_schema_comes_where_it_is_asked_for(server: Running) -> None:
    schema = {
        "type": "object",
        "properties": {"colour": {"enum": COLOURS}, "is_wet": {"type": "boolean"}},
        "required": ["colour", "is_wet"],
    }
    wanted = {"type": "json_schema", "json_schema": {"name": "wall", "schema": schema}}
    reply = create(server, tools=openai.NOT_GIVEN, response_format=wanted, temperature=1.2, seed=1)
    found = json.loads(reply.choices[0].message.content)
    assert found["colour"] in COLOURS and isinstance(found["is_wet"], bool)
    assert reply.choices[0].finish_reason == "stop"


def gathered(stream: Any) -> dict[str, Any]:
    """What a client makes of a stream's deltas."""
    content, reason, usage = "", None, None
    calls: dict[int, dict[str, str]] = {}
    for chunk in stream:
        usage = chunk.usage or usage
        for choice in chunk.choices:
            content += choice.delta.content or ""
            reason = choice.finish_reason or reason
            for part in choice.delta.tool_calls or ():
                call = calls.setdefault(part.index, {"name": "", "arguments": ""})
                call["name"] += part.function.name or ""
                call["arguments"] += part.function.arguments or ""
    return {
        "content": content or None,
        "calls": [calls[index] for index in sorted(calls)],
        "reason": reason,
        "usage": usage.to_dict() if usage else None,
    }


@pytest.mark.both_tiers
@pytest.mark.parametrize(
    "more",
    [
        {"tool_choice": "required"},
        {"tool_choice": "auto"},
        pytest.param({"tool_choice": "required", "max_tokens": 40}, marks=pytest.mark.slow),
        pytest.param({"tool_choice": "none", "max_tokens": 25}, marks=pytest.mark.slow),
        {"tool_choice": "none", "max_tokens": 60, "stop": ["e", "a", "\x00"]},
    ],
)
def test_a_stream_has_the_content_of_a_whole_response(server: Running, more: Any) -> None:
    for seed in range(cases(3, 5)):
        given = more | {"temperature": 1.3, "seed": seed}
        reply = create(server, **given)
        (choice,) = reply.choices
        stream = create(server, stream=True, stream_options={"include_usage": True}, **given)
        assert gathered(stream) == {
            "content": choice.message.content or None,
            "calls": [
                {"name": call.function.name, "arguments": call.function.arguments}
                for call in choice.message.tool_calls or ()
            ],
            "reason": choice.finish_reason,
            "usage": reply.usage.to_dict(),
        }


def test_an_answer_ends_before_a_stop_string(server: Running) -> None:
    given = {"tool_choice": "none", "max_tokens": 40, "temperature": 1.0, "seed": 3}
    whole = create(server, **given).choices[0].message.content
    stop = whole[len(whole) // 2 :][:2]
    cut = create(server, stop=stop, **given).choices[0]
    assert cut.message.content == whole[: whole.index(stop)] and cut.finish_reason == "stop"


def test_results_of_calls_come_back_in(server: Running) -> None:
    first = create(server, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    result = {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "done"}
    reply = create(server, messages=[*ASK, message.to_dict(), result], max_tokens=5)
    assert reply.usage.prompt_tokens > first.usage.prompt_tokens + 20


def test_the_models_are_listed(server: Running) -> None:
    assert [model.id for model in server.client.models.list()] == ["tiny"]
    assert server.client.models.retrieve("tiny").id == "tiny"
    with pytest.raises(openai.NotFoundError):
        server.client.models.retrieve("other")
