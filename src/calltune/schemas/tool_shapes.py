"""The shapes in which APIs and frameworks write tools, told apart and made one.

Read are OpenAI's tools of both APIs, Anthropic's, MCP's (and its whole answer to `tools/list`),
Gemini's, Bedrock's, Cohere's, LangChain's and smolagents', alone, in lists, by name, or as JSON in
strings. Parameters stay as they are written: `parameters` reads them.

Source: the references of OpenAI (chat completions and responses, `tools`), Anthropic (messages,
`tools`), the Model Context Protocol (`tools/list`), Gemini (`FunctionDeclaration`), Bedrock
(Converse, `toolConfig`), Cohere (chat, v1), langchain-core (`convert_to_openai_function`) and
smolagents (`Tool`).
"""

import json
from collections.abc import Iterator
from typing import NamedTuple

from calltune.schemas.parameters import is_schema
from calltune.types import Json

_LISTS = (
    *("tools", "functions", "functionDeclarations", "function_declarations"),
    *("toolConfig", "tool_config", "result"),
)
"""Keys under which lists of tools stand, inside each other too."""
_WRAPPERS = ("function", "toolSpec", "tool_spec")
"""Keys under which one tool stands."""
_SCHEMA_KEYS = (
    *("parameters", "input_schema", "inputSchema"),
    *("parametersJsonSchema", "parameters_json_schema", "args_schema"),
)
"""Keys that only tools have, under which their parameters stand."""
_OTHER_KEYS = (
    *("parameter_definitions", "input_parameters", "inputs", "args", "arguments"),
    *("jsonSchema", "json_schema", "schema"),
)
"""Keys whose value is read as parameters where it describes some."""
_INNER = ("json", "jsonSchema", "json_schema", "schema")
"""Keys that may stand between: Bedrock's, and those of JavaScript's libraries."""
_OF_A_TOOL = ("name", "title", "description", "type", "strict")
_OWN_TYPES = ("function", "custom", "tool")
"""Types of tools that the caller runs; others are their provider's."""


class WrittenTool(NamedTuple):
    """One tool as it was written, in one shape."""

    name: str
    description: str
    parameters: Json
    """As they were written; None where there are none."""
    raw: dict[str, Json]
    """Without wrappers, and with the parameters under `parameters`."""
    item: dict[str, Json]
    """The whole item of the list."""


class NotATool(NamedTuple):
    """An item of a list of tools that is no tool."""

    name: str
    """What it is called; "" where it does not say."""
    reason: str
    """A short phrase, the same for every item with this fault."""
    value: Json


def find_tools(written: Json) -> Iterator[WrittenTool | NotATool]:
    """The tools in a list or in what holds one, and the items that are none, in their order."""
    written = decoded(written)
    if isinstance(written, list):
        for item in written:
            yield from find_tools(item)
    elif (inner := _held(written)) is not None:
        yield from find_tools(inner)
    else:
        yield _tool(written)


def holds_tools(written: Json) -> bool:
    """Whether this is a list, a tool or an object that holds tools, and no other object."""
    written = decoded(written)
    if isinstance(written, dict):
        return _held(written) is not None or _is_like_a_tool(written)
    return isinstance(written, list)


def decoded(written: Json) -> Json:
    """The JSON object or list in a string; what is none stays as it is."""
    if not isinstance(written, str) or not written.lstrip().startswith(("{", "[")):
        return written
    try:
        return json.loads(written)
    except (ValueError, RecursionError):
        return written


def _held(written: Json) -> Json:
    """What an object holds tools in: a list, or an object that holds one; None if nothing."""
    if not isinstance(written, dict):
        return None
    if isinstance(written.get("name"), str):
        # OpenAI's namespaces have both a name and tools.
        return written.get("tools") if written.get("type") == "namespace" else None
    for key in _LISTS:
        inner = decoded(written.get(key))
        if isinstance(inner, list) or (isinstance(inner, dict) and _held(inner) is not None):
            return inner
    return None if _is_like_a_tool(written) else _by_name(written)


def _by_name(written: dict[str, Json]) -> list[Json] | None:
    """The tools of an object that has them by name; None if it does not."""
    tools = {name: decoded(each) for name, each in written.items()}
    inner = [_unwrapped(each) for each in tools.values() if isinstance(each, dict)]
    are_tools = len(inner) == len(tools) and all(
        isinstance(each.get("description"), str) or _parameters_key(each) for each in inner
    )
    if not are_tools or not any(_parameters_key(each) for each in inner):
        return None
    return [{"name": name} | each for name, each in zip(tools, inner, strict=True)]


def _is_like_a_tool(written: dict[str, Json]) -> bool:
    """Whether an object is a tool, however faulty, and not several by name."""
    inner = _unwrapped(written)
    is_wrapped = inner is not written or any(isinstance(written.get(k), str) for k in _WRAPPERS)
    return is_wrapped or isinstance(inner.get("name"), str) or _is_titled_schema(inner)


def _is_titled_schema(written: dict[str, Json]) -> bool:
    """Whether a tool is written as the schema of its arguments, with its name for a title."""
    return isinstance(written.get("title"), str) and isinstance(written.get("properties"), dict)


def _unwrapped(written: dict[str, Json]) -> dict[str, Json]:
    """The tool without wrappers."""
    for key in _WRAPPERS:
        inner = decoded(written.get(key))
        if isinstance(inner, dict):
            inner = _unwrapped(inner)
            # It is written on either side of the wrapper.
            required = written.get("required")
            has_own = "required" in inner or not isinstance(required, list)
            return inner if has_own else inner | {"required": required}
    return written


def _tool(written: Json) -> WrittenTool | NotATool:
    if not isinstance(written, dict):
        return NotATool("", "tool that is not an object", written)
    inner = _unwrapped(written)
    if inner is written and not isinstance(function := written.get("function", ""), str):
        return NotATool("", "tool that is not an object", function)
    name, key = _name(inner), _parameters_key(inner)
    if name is None:
        return NotATool("", "tool without a name", inner)
    kind = inner.get("type")
    is_foreign = isinstance(kind, str) and kind not in _OWN_TYPES and key is None
    if is_foreign and not isinstance(inner.get("properties"), dict) and "title" not in inner:
        return NotATool(name, "tool that its provider runs", inner)
    description = inner.get("description")
    text = description if isinstance(description, str) else ""
    parameters = _parameters(inner, key)
    raw = inner
    if key not in (None, "parameters") or "name" not in inner or (key is None and parameters):
        raw = {"name": name, "description": text, "parameters": parameters}
    return WrittenTool(name, text, parameters, raw, written)


def _name(inner: dict[str, Json]) -> str | None:
    keys = ("name", "function", *(("title",) if _is_titled_schema(inner) else ()))
    names = (inner.get(key) for key in keys)
    return next((name for name in names if isinstance(name, str) and name.strip()), None)


def _parameters_key(inner: dict[str, Json]) -> str | None:
    """The key that the parameters of a tool stand under; None if it has none."""
    for key in _SCHEMA_KEYS:
        if inner.get(key) is not None:
            return key
    for key in _OTHER_KEYS:
        value = decoded(inner.get(key))
        if isinstance(value, dict) and (is_schema(value) or all(map(_describes, value.values()))):
            return key
    return "parameters" if "parameters" in inner else None


def _describes(value: Json) -> bool:
    return isinstance(value, dict) and bool(value.keys() & {"type", "description"})


def _parameters(inner: dict[str, Json], key: str | None) -> Json:
    """The parameters without what stands around them; not repaired."""
    if key is None:
        has_schema = isinstance(inner.get("properties"), dict)
        return {k: v for k, v in inner.items() if k not in _OF_A_TOOL} if has_schema else None
    found = decoded(inner[key])
    if isinstance(found, dict):
        for between in _INNER:
            within = decoded(found.get(between))
            if isinstance(within, dict) and not found.keys() & {"type", "properties"}:
                found = within
                break
    if isinstance(found, list) and found and all(_is_named(each) for each in found):
        found = {each["name"]: {k: v for k, v in each.items() if k != "name"} for each in found}
    required = inner.get("required")
    if isinstance(found, dict) and isinstance(required, list) and "required" not in found:
        return found | {"required": required}
    return found


def _is_named(written: Json) -> bool:
    return isinstance(written, dict) and isinstance(written.get("name"), str)
