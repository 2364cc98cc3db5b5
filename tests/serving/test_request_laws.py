"""Any body is read, or refused in one sentence that names the field: nothing else may happen."""

import copy
import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calltune.formats import FORMATS
from calltune.serving.errors import APIError
from calltune.serving.request_body import read_chat_request
from calltune.serving.request_messages import requested_messages
from calltune.serving.request_options import (
    offered_tools,
    output_with_tools,
    output_without_tools,
    requested_samplings,
    requested_stop_strings,
)
from calltune.serving.responses_request import ItemStore, read_responses_request

from support.tiers import cases

SCHEMA = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
FUNCTION = {"name": "f", "description": "Do.", "parameters": SCHEMA, "strict": False}
CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief.", "name": "s"},
        {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
        {
            "role": "assistant",
            "content": None,
            "refusal": None,
            "tool_calls": [
                {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
            ],
            "function_call": {"name": "g", "arguments": "{}"},
        },
        {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "done"}]},
        {"role": "function", "name": "g", "content": "done"},
    ],
    "tools": [
        {"type": "function", "function": FUNCTION},
        {"name": "a", "input_schema": SCHEMA},
        {"functionDeclarations": [{"name": "d", "parameters": SCHEMA}]},
    ],
    "tool_choice": {
        "type": "allowed_tools",
        "allowed_tools": {"mode": "auto", "tools": [{"type": "function", "name": "f"}]},
    },
    "response_format": {"type": "json_schema", "json_schema": {"name": "t", "schema": SCHEMA}},
    "structured_outputs": {"json": None, "regex": None},
    "temperature": 0.5,
    "top_p": 0,
    "stop": ["a"],
    "n": 2,
    "seed": 1,
    "max_tokens": 5,
    "stream": False,
    "stream_options": {"include_usage": True},
    "parallel_tool_calls": False,
    "logit_bias": {},
    "function_call": "none",
}
RESPONSES: dict[str, Any] = {
    "model": "m",
    "instructions": "Be brief.",
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "Hi"}]},
        {"type": "function_call", "call_id": "1", "name": "f", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "1", "output": "done"},
        {"type": "reasoning", "id": "r", "summary": []},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "a"}]},
    ],
    "tools": [{"type": "function", **FUNCTION}],
    "tool_choice": {"type": "function", "name": "f"},
    "text": {"format": {"type": "json_schema", "name": "t", "schema": SCHEMA}, "verbosity": "low"},
    "max_output_tokens": 5,
    "temperature": 0,
    "store": True,
    "metadata": {},
    "previous_response_id": None,
}
ODD: list[Any] = [
    *(None, True, False, 0, 1, -1, 2**70, 0.5, 1e300, "", "a", "none", "auto", "{", "null", "é\n"),
    *([], {}, [None], [[]], [{}], ["a"], {"a": 1}, {"type": []}, {"type": {}}, {"name": []}),
    *({"type": "function"}, {"type": "text"}, {"type": "json_schema"}, {"function": {}}),
    *({"function": []}, {"tools": [{"name": "x"}]}, {"role": "user"}, {"schema": []}),
]


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The paths to all parts of a JSON value."""
    if path:
        yield path
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(part, (*path, key))


def changed(body: Any, path: tuple[Any, ...], value: Any) -> Any:
    body = copy.deepcopy(body)
    part = body
    for key in path[:-1]:
        part = part[key]
    part[path[-1]] = copy.deepcopy(value)
    return body


def read(body: Any, is_responses: bool) -> None:
    """All that is done with a request before it goes to a model."""
    if is_responses:
        query = read_responses_request(body, ItemStore())
        try:
            use(query.chat)
        except APIError as error:
            raise query.named(error) from None
    else:
        use(read_chat_request(body))


def use(request: Any) -> None:
    messages = requested_messages(request.messages)
    json.dumps(offered_tools(request))
    output_with_tools(request, text_is_separate=False)
    output_without_tools(request)
    requested_samplings(request)
    requested_stop_strings(request)
    for prompt_format in FORMATS.values():
        prompt_format.render_prompt(
            [prompt_format.escape_control_tokens(message) for message in messages], ()
        )


@pytest.mark.both_tiers
@pytest.mark.parametrize("is_responses", [False, True])
def test_any_part_may_be_anything(is_responses: bool) -> None:
    body = RESPONSES if is_responses else CHAT
    read(body, is_responses)
    all_places = list(places(body))
    # In the default tier each odd value at a few places, each place with a few odd values.
    step = cases(3, 1)
    for number, (path, value) in enumerate((p, v) for p in all_places for v in ODD):
        if number % step:
            continue
        try:
            read(changed(body, path, value), is_responses)
        except APIError as error:
            assert error.status == 400 and error.param, (path, value, error.message)
            assert error.param in error.message, (path, value, error.message)
            assert "\n" not in error.message and len(error.message) < 600
            assert re.split(r"[.\[]", error.param)[0] in body, (path, value, error.param)


@settings(deadline=None)
@given(
    st.sampled_from(list(places(CHAT))),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=5),
        lambda part: (
            st.lists(part, max_size=3)
            | st.dictionaries(st.sampled_from(["type", "name", "function", "text", "a"]), part)
        ),
        max_leaves=5,
    ),
)
def test_any_json_is_read_or_refused(path: tuple[Any, ...], value: Any) -> None:
    try:
        read(changed(CHAT, path, value), is_responses=False)
    except APIError as error:
        assert error.status == 400 and error.param and error.param in error.message
