"""Requests as OpenAI's SDKs and other servers' clients write them: read alike, or refused."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.serving.errors import APIError
from calltune.serving.request_body import read_chat_request
from calltune.serving.request_options import (
    offered_tools,
    output_with_tools,
    output_without_tools,
    requested_choice,
    requested_samplings,
    requested_stop_strings,
)
from calltune.serving.request_schema import ChatRequest

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
SCHEMA = {"type": "object", "properties": {"x": {"enum": ["a", "b"]}}, "required": ["x"]}
F = {"name": "f", "description": "Do.", "parameters": SCHEMA}
G = {"name": "g", "description": "", "parameters": {"type": "object", "properties": {}}}
TOOLS = [{"type": "function", "function": F}, {"type": "function", "function": G}]


def read(**more: Any) -> ChatRequest:
    body = {"model": "m", "messages": [{"role": "user", "content": "?"}]} | more
    return read_chat_request(body)


def refused(**more: Any) -> str:
    """The field that a request is refused for, which the message names."""
    with pytest.raises(APIError) as error:
        request = read(**more)
        offered_tools(request)
    assert error.value.status == 400 and error.value.param is not None
    assert error.value.param in error.value.message and "\n" not in error.value.message
    return error.value.param


def names(request: ChatRequest) -> list[str]:
    return [tool["name"] for tool in offered_tools(request)]


@pytest.mark.parametrize(
    "more",
    [
        {"logprobs": False, "top_logprobs": None, "logit_bias": {}, "prediction": None},
        {"top_logprobs": 0, "frequency_penalty": 0.0, "presence_penalty": 0, "best_of": 1},
        {"store": True, "metadata": {"a": "b"}, "user": "u", "service_tier": "auto"},
        {"reasoning_effort": "low", "verbosity": "low", "safety_identifier": "s"},
        {"prediction": {"type": "content", "content": "x"}, "prompt_cache_key": "k"},
        {"parallel_tool_calls": True, "tools": None, "tool_choice": None},
        {"parallel_tool_calls": False, "tools": []},
        {"modalities": ["text"], "audio": None, "web_search_options": None},
        {"functions": [], "function_call": "none"},
        {"functions": None, "function_call": None},
        {"function_call": "auto"},
        {"n": 1, "stop": None, "seed": None, "max_tokens": None, "temperature": None},
        {"stop": ""},
        {"stop": [""]},
        {"stop": []},
        {"top_k": 40, "min_p": 0.1},
        {"top_k": -1, "temperature": 1},
        {"repetition_penalty": 1.0, "min_tokens": 0, "ignore_eos": False},
        {"stream": False, "stream_options": {"include_usage": True, "include_obfuscation": False}},
        {"response_format": {"type": "text"}, "guided_json": None, "structured_outputs": None},
        {"extra_field": {"any": ["thing"]}, "chat_template_kwargs": {"enable_thinking": False}},
        {"tool_choice": "none"},
        {"tool_choice": "auto", "tools": []},
    ],
)
def test_values_without_effect_are_accepted(more: dict[str, Any]) -> None:
    request = read(**more)
    assert offered_tools(request) == [] and requested_stop_strings(request) == []
    assert output_without_tools(request).allows_text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("frequency_penalty", 0.5),
        ("presence_penalty", -1),
        ("repetition_penalty", 1.1),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "alloy"}),
        ("web_search_options", {}),
        ("guided_regex", "a+"),
        ("guided_choice", ["a"]),
        ("grammar", "root ::= x"),
        ("min_tokens", 4),
        ("temperature", 3),
        ("top_p", 1.5),
        ("n", 0),
        ("stop", ["a"] * 5),
        ("functions", "f"),
        ("function_call", {"name": "f"}),
        ("tool_choice", "required"),
    ],
)
def test_what_would_change_the_answer_is_refused_by_name(field: str, value: Any) -> None:
    assert refused(**{field: value}) == field


def test_the_reason_is_that_of_the_type_that_was_given() -> None:
    with pytest.raises(APIError, match="at most 4"):
        read(stop=["a"] * 5)
    assert output_without_tools(read(format="json")).schema == {"type": "object"}


def test_top_k_is_refused_where_it_would_matter() -> None:
    assert refused(top_k=40, temperature=1) == "top_k"
    assert read(top_k=40, temperature=1, top_p=0)


def test_top_p_0_is_greedy() -> None:
    assert requested_samplings(read(top_p=0, temperature=1)) == [None]
    assert requested_samplings(read(top_p=0)) == [None]
    (sampling,) = requested_samplings(read(top_p=1, temperature=1))
    assert sampling is not None and sampling.top_p == 1


@pytest.mark.parametrize(
    ("choice", "offered", "calls"),
    [
        (None, "fg", (0, 2)),
        ("auto", "fg", (0, 2)),
        ("none", "", None),
        ("required", "fg", (1, 2)),
        ("any", "fg", (1, 2)),
        ("g", "g", (1, 1)),
        ({"type": "auto"}, "fg", (0, 2)),
        ({"type": "any"}, "fg", (1, 2)),
        ({"type": "none"}, "", None),
        ({"type": "tool", "name": "f"}, "f", (1, 1)),
        ({"type": "function", "name": "f"}, "f", (1, 1)),
        ({"type": "function", "function": {"name": "f"}}, "f", (1, 1)),
        ({"function": {"name": "f"}}, "f", (1, 1)),
        (
            {"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [TOOLS[1]]}},
            "g",
            (0, 2),
        ),
        (
            {
                "type": "allowed_tools",
                "mode": "required",
                "tools": [{"type": "function", "name": "f"}],
            },
            "f",
            (1, 2),
        ),
    ],
)
def test_each_choice_of_tools_is_understood(choice: Any, offered: str, calls: Any) -> None:
    request = read(tools=TOOLS, tool_choice=choice)
    assert "".join(names(request)) == offered
    if calls is not None:
        output = output_with_tools(request, text_is_separate=False)
        assert (output.min_calls, min(output.max_calls, 2)) == calls


@pytest.mark.parametrize(
    ("choice", "param"),
    [
        ("", "tool_choice"),
        ("always", "tool_choice"),
        ("unknown", "tool_choice"),
        (5, "tool_choice"),
        ([], "tool_choice"),
        ({}, "tool_choice"),
        ({"type": []}, "tool_choice"),
        ({"type": "tool", "name": "unknown"}, "tool_choice"),
        ({"type": "function", "function": {}}, "tool_choice.function.name"),
        ({"type": "file_search"}, "tool_choice"),
        ({"type": "allowed_tools"}, "tool_choice"),
        ({"type": "allowed_tools", "mode": "required", "tools": []}, "tool_choice"),
        ({"type": "allowed_tools", "tools": [{"name": "unknown"}]}, "tool_choice"),
        ({"type": "allowed_tools", "mode": "x", "tools": []}, "tool_choice.allowed_tools.mode"),
    ],
)
def test_other_choices_are_refused(choice: Any, param: str) -> None:
    assert refused(tools=TOOLS, tool_choice=choice) == param


def test_the_older_spelling_of_tools_is_read() -> None:
    request = read(functions=[F, G], function_call={"name": "g"})
    assert names(request) == ["g"] and requested_choice(request).is_single
    assert names(read(functions=[F, G], function_call="none")) == []
    assert names(read(functions=[F, G], function_call="auto")) == ["f", "g"]
    assert output_with_tools(read(functions=[F]), False).max_calls == 1
    assert refused(functions=[F], tools=TOOLS) == "functions"
    assert refused(functions=[F], function_call={"name": "x"}) == "function_call"
    assert refused(functions=[{}]) == "functions[0].name"


@pytest.mark.parametrize(
    "tool",
    [
        {"type": "function", **F},
        F,
        {"function": F},
        {"name": "f", "description": "Do.", "input_schema": SCHEMA},
        {"type": "custom", "name": "f", "description": "Do.", "input_schema": SCHEMA},
        {"name": "f", "title": "F", "description": "Do.", "inputSchema": SCHEMA},
        {"type": "function", "function": {**F, "strict": None}},
        {"functionDeclarations": [F]},
        {"toolSpec": {"name": "f", "description": "Do.", "inputSchema": {"json": SCHEMA}}},
    ],
)
def test_tools_of_other_shapes_are_read(tool: Any) -> None:
    assert offered_tools(read(tools=[tool])) == [F]


def test_a_tool_that_is_offered_twice_is_one() -> None:
    assert offered_tools(read(tools=[TOOLS[0], TOOLS[0]])) == [F]
    other = {"type": "function", "function": {**F, "description": "Undo."}}
    assert refused(tools=[TOOLS[0], other]) == "tools"


@pytest.mark.parametrize(
    ("tools", "param"),
    [
        ([*TOOLS, {"type": "web_search_preview"}], "tools[2].type"),
        ([{"type": "custom", "custom": {"name": "f"}}], "tools[0].type"),
        ([{"type": "function", "function": {"name": ""}}], "tools[0].function.name"),
        ([{"type": "function", "function": {"name": "f", "parameters": []}}], None),
        (["f"], "tools[0]"),
        ([{"description": "nameless"}], "tools[0].function"),
        ([{"type": "custom", "name": "f", "format": {"type": "text"}}], "tools[0].type"),
        ("f", "tools"),
    ],
)
def test_what_is_no_function_is_refused(tools: Any, param: str | None) -> None:
    assert refused(tools=tools) == (param or "tools[0].function.parameters")


@pytest.mark.parametrize(
    "more",
    [
        {"response_format": {"type": "json_schema", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "json_schema", "schema": SCHEMA}},
        {"response_format": {"type": "json_schema", "name": "t", "strict": True, "schema": SCHEMA}},
        {"response_format": {"type": "json_schema", "json_schema": SCHEMA}},
        {"response_format": {"type": "json_schema", "json_schema": {"schema": json.dumps(SCHEMA)}}},
        {"response_format": {"type": "json_object", "schema": SCHEMA}},
        {"response_format": {"type": "json_object", "json_schema": {"schema": SCHEMA}}},
        {"response_format": {"type": "json", "value": SCHEMA}},
        {"extra_body": {"guided_json": SCHEMA}},
        {"guided_json": SCHEMA},
        {"guided_json": json.dumps(SCHEMA), "response_format": {"type": "text"}},
        {"json_schema": SCHEMA},
        {"structured_outputs": {"json": SCHEMA}},
    ],
)
def test_a_schema_is_enforced_wherever_it_is_written(more: dict[str, Any]) -> None:
    output = output_without_tools(read(**more))
    assert output.schema == SCHEMA and not output.allows_text


@pytest.mark.parametrize(
    ("more", "param"),
    [
        ({"response_format": {"type": "json_schema"}}, "response_format.schema"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "t"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": "{"}}},
            "response_format.json_schema.schema",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": []}},
            "response_format.json_schema",
        ),
        ({"response_format": {"type": "yaml"}}, "response_format.type"),
        ({"response_format": {"type": "text", "schema": SCHEMA}}, "response_format.type"),
        ({"response_format": "yaml"}, "response_format.type"),
        ({"guided_json": []}, "guided_json"),
        ({"format": "xml"}, "format"),
        ({"structured_outputs": {"regex": "a"}}, "structured_outputs.regex"),
        ({"structured_outputs": 5}, "structured_outputs"),
        (
            {"guided_json": SCHEMA, "response_format": {"type": "json_object"}},
            "guided_json",
        ),
    ],
)
def test_what_is_no_schema_is_refused(more: dict[str, Any], param: str) -> None:
    assert refused(**more) == param


REFUSED = {
    "schema-missing": "response_format.json_schema.schema",
    "schema-null": "response_format.json_schema.schema",
    "builtin-tool": "tools[1].type",
    "empty": "tool_choice",
    "required-empty-tools": "tool_choice",
}
"""The cases that OpenAI refuses, too, and the field at fault."""


@pytest.mark.parametrize(
    "file",
    sorted(
        file
        for kind in ("09-top-p-0", "10-neutral-values", "18-json-object-schema", "28-tool-choice")
        for file in (CASES / kind).glob("*.json")
    ),
    ids=lambda file: file.stem,
)
def test_requests_of_the_cases_are_read_or_refused_by_name(file: Path) -> None:
    body = json.loads(file.read_text())
    if file.stem in REFUSED:
        assert refused(**body) == REFUSED[file.stem]
        return
    request = read_chat_request(body)
    offered_tools(request)
    if "18-" in file.parent.name:
        assert output_without_tools(request).schema["required"] == ["team"]
