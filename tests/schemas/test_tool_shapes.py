"""Every shape of a tool gives the same tool, read as a row's and as a list's."""

import json
from pathlib import Path
from typing import Any

import pytest

from calltune.schemas.tools import UnusableRow, read_tools
from calltune.tools import from_openai

CASES = Path(__file__).parents[1] / "cases" / "tools_and_endpoint"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 9}},
    "required": ["city"],
}
GEMINI = {
    "type": "OBJECT",
    "properties": {"city": {"type": "STRING"}, "days": {"type": "INTEGER", "maximum": 9}},
    "required": ["city"],
}
FLAT = {
    "city": {"type": "str", "required": True},
    "days": {"type": "int", "maximum": 9, "required": False},
}
ABOUT = {"name": "weather", "description": "Tell it."}
PLAIN = {**ABOUT, "parameters": SCHEMA}
MCP = {**ABOUT, "inputSchema": SCHEMA}
BEDROCK = {**ABOUT, "inputSchema": {"json": SCHEMA}}
SHAPES: dict[str, Any] = {
    "openai": [{"type": "function", "function": {**ABOUT, "parameters": SCHEMA}}],
    "openai responses": [{"type": "function", "strict": False, **ABOUT, "parameters": SCHEMA}],
    "openai namespace": [{"type": "namespace", "name": "n", "tools": [PLAIN]}],
    "openai functions": {"functions": [{**ABOUT, "parameters": SCHEMA}]},
    "a request": {"model": "m", "messages": [], "tools": [{**ABOUT, "parameters": SCHEMA}]},
    "anthropic": [{**ABOUT, "input_schema": SCHEMA}],
    "anthropic custom": [{"type": "custom", **ABOUT, "input_schema": SCHEMA}],
    "mcp": {"tools": [{**ABOUT, "inputSchema": SCHEMA, "annotations": {}}], "nextCursor": "x"},
    "mcp answer": {"jsonrpc": "2.0", "id": 1, "result": {"tools": [MCP]}},
    "gemini": [{"functionDeclarations": [{**ABOUT, "parameters": GEMINI}]}],
    "gemini python": {"function_declarations": [{**ABOUT, "parameters_json_schema": SCHEMA}]},
    "gemini json schema": [{"functionDeclarations": [{**ABOUT, "parametersJsonSchema": SCHEMA}]}],
    "bedrock": {"toolConfig": {"tools": [{"toolSpec": BEDROCK}]}},
    "bedrock text": [{"toolSpec": {**ABOUT, "inputSchema": {"json": json.dumps(SCHEMA)}}}],
    "cohere": [{**ABOUT, "parameter_definitions": FLAT}],
    "ai sdk": {"weather": {"description": "Tell it.", "inputSchema": {"jsonSchema": SCHEMA}}},
    "by name": {"tools": {"weather": {"description": "Tell it.", "parameters": SCHEMA}}},
    "langchain": [{"title": "weather", "description": "Tell it.", **SCHEMA}],
    "langchain args_schema": [{**ABOUT, "args_schema": SCHEMA}],
    "smolagents": [{**ABOUT, "inputs": {**FLAT, "city": {"type": "string", "required": True}}}],
    "xlam": [{**ABOUT, "parameters": FLAT}],
    "named parameters": [{**ABOUT, "parameters": [{"name": n, **p} for n, p in FLAT.items()]}],
    "schema around it": [{**ABOUT, **SCHEMA}],
    "one alone": {**ABOUT, "parameters": SCHEMA},
    "text": json.dumps([{**ABOUT, "parameters": SCHEMA}]),
    "texts": [json.dumps({"type": "function", "function": {**ABOUT, "parameters": SCHEMA}})],
    "text inside": [{"function": json.dumps({**ABOUT, "parameters": json.dumps(SCHEMA)})}],
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_is_the_same_tool(shape: str) -> None:
    row = read_tools(SHAPES[shape])
    (tool,) = row.tools
    assert (tool.name, tool.description) == ("weather", "Tell it.")
    assert tool.parameters == SCHEMA and row.notes == ()
    # Prompts show the raw tool, and prepared rows keep it alone.
    assert tool.raw["name"] == "weather"
    assert read_tools([tool.raw]).tools[0].parameters == SCHEMA
    if not isinstance(SHAPES[shape], str):
        listed = from_openai(SHAPES[shape])
        assert [each.parameters for each in listed.tools] == [SCHEMA] and listed.notes == ()


@pytest.mark.parametrize("name", ["anthropic.json", "jsonrpc.json", "mcp.json"])
def test_lists_of_other_apis_are_read(name: str) -> None:
    (tool,) = from_openai(CASES / "26-anthropic-list" / name).tools
    assert list(tool.parameters["properties"]) == tool.parameters["required"] == ["city"]


def test_tools_that_run_elsewhere_are_named_and_the_others_kept() -> None:
    hosted = [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 5},
        {"type": "mcp", "server_label": "x"},
        {"googleSearch": {}},
        {"cachePoint": {"type": "default"}},
    ]
    toolset = from_openai([*hosted, {**ABOUT, "input_schema": SCHEMA}])
    assert [tool.name for tool in toolset.tools] == ["weather"]
    assert [note.tool for note in toolset.notes] == ["web_search", "tool 2", "tool 3", "tool 4"]
    with pytest.raises(UnusableRow, match="tool that its provider runs"):
        read_tools([hosted[0]])


@pytest.mark.parametrize(
    "written",
    [
        {"name": "f", "parameters": None},
        {"name": "f", "parameters": ""},
        {"name": "f", "inputSchema": None, "parameters": {}},
        {"type": "function", "function": {"name": "f"}},
        {"function": "f"},
        {"name": "f", "description": None, "input_schema": {"type": "object", "properties": None}},
    ],
)
def test_a_tool_may_take_no_arguments(written: Any) -> None:
    (tool,) = read_tools([written]).tools
    assert (tool.name, tool.description) == ("f", "")
    assert tool.parameters == {"type": "object", "properties": {}, "required": []}


def test_required_may_stand_beside_the_parameters_or_the_function() -> None:
    flat = {"title": {"type": "str"}, "tag": {"type": "str"}}
    whole = {"type": "dict", "properties": flat}
    for written in (
        {"name": "f", "parameters": flat, "required": ["title"]},
        {"name": "f", "parameters": {**flat, "required": ["title"]}},
        {"type": "function", "function": {"name": "f", "parameters": whole}, "required": ["title"]},
    ):
        (tool,) = read_tools([written]).tools
        assert tool.parameters["required"] == ["title"]
        assert list(tool.parameters["properties"]) == ["title", "tag"]
        assert read_tools([tool.raw]).tools[0].parameters == tool.parameters
