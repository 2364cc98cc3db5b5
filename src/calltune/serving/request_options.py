"""What a chat request asks for: the tools offered, the output, and the sampling."""

import secrets
from collections.abc import Sequence
from typing import NamedTuple

from calltune.formats.grammar import MAX_CALLS, THE_ANSWER, OutputSpec
from calltune.formats.parser import call_key
from calltune.generation.sequence import Sampling
from calltune.serving.errors import APIError
from calltune.serving.request_schema import (
    AllowedChoice,
    ChatRequest,
    FunctionName,
    NamedChoice,
    ObjectFormat,
    SchemaFormat,
)
from calltune.types import Json, Message


class ToolChoice(NamedTuple):
    """Which tools may be called, and whether one must be."""

    names: frozenset[str] | None = None
    """None is any tool on offer."""
    is_required: bool = False
    is_single: bool = False
    """Whether there may be one call at most."""


def calls_since_user(messages: Sequence[Message]) -> set[str]:
    """The keys (see `call_key`) of the calls made since the user's last message."""
    last = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
    return {
        call_key(call)
        for message in messages[last + 1 :]
        for call in message.calls
        if not call.malformed
    }


def requested_choice(request: ChatRequest) -> ToolChoice:
    """The choice of tools in either spelling.

    Raises:
        APIError: it names a tool that is not offered, or requires one where there is none (400).
    """
    field, choice = _tool_choice(request)
    names = {function.name for function in request.offers}
    unknown = sorted((choice.names or frozenset()) - names)
    if unknown:
        raise APIError(400, f"{field} names {unknown[0]!r:.80}, which is not offered", field)
    if choice.is_required and not (names if choice.names is None else choice.names):
        raise APIError(400, f"{field} requires a call, and no tool may be called", field)
    return choice


def offered_tools(request: ChatRequest) -> list[dict[str, Json]]:
    """The functions that may be called, each with name, description and parameters.

    Raises:
        APIError: two different ones have the same name (400), or as `requested_choice`.
    """
    names = requested_choice(request).names
    offered: dict[str, dict[str, Json]] = {}
    for function in request.offers:
        tool: dict[str, Json] = {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        }
        if offered.setdefault(function.name, tool) != tool:
            text = f"Two different tools are called {function.name!r:.80}; rename one"
            raise APIError(400, text, "tools")
    return [tool for name, tool in offered.items() if names is None or name in names]


def output_with_tools(request: ChatRequest, text_is_separate: bool) -> OutputSpec:
    """What an answer may be if tools are offered.

    With `text_is_separate` it may be calls, or that none is needed; text or JSON in their place
    is then generated separately.
    """
    choice = requested_choice(request)
    max_calls = 1 if choice.is_single or request.parallel_tool_calls is False else MAX_CALLS
    if choice.is_required:
        return OutputSpec(min_calls=1, max_calls=max_calls)
    if text_is_separate:
        return OutputSpec(max_calls=max_calls)
    schema = _answer_schema(request)
    return OutputSpec(max_calls=max_calls, allows_text=schema is None, schema=schema)


def output_without_tools(request: ChatRequest) -> OutputSpec:
    """What an answer may be without tools: text, or JSON of the requested schema."""
    schema = _answer_schema(request)
    return OutputSpec(max_calls=0, allows_text=schema is None, schema=schema)


def strict_schemas(request: ChatRequest) -> tuple[str, ...]:
    """Whose schemas are refused unless a grammar enforces them: tools, and `THE_ANSWER`."""
    output = request.response_format
    is_strict = isinstance(output, SchemaFormat) and bool(output.json_schema.strict)
    functions = (function.name for function in request.offers if function.strict)
    return (*functions, *([THE_ANSWER] if is_strict else []))


def requested_samplings(request: ChatRequest) -> list[Sampling | None]:
    """The sampling of each of the request's `n` answers; their seeds follow each other.

    `top_p` 0 leaves the likeliest token alone, as temperature 0 does.
    """
    n = request.n or 1
    top_p = 1.0 if request.top_p is None else request.top_p
    if not request.temperature or not top_p:
        return [None] * n
    seed = secrets.randbits(62) if request.seed is None else request.seed & (2**62 - 1)
    return [Sampling(request.temperature, top_p, seed + index) for index in range(n)]


def requested_stop_strings(request: ChatRequest) -> list[str]:
    """The strings that end an answer in text."""
    stops = [request.stop] if isinstance(request.stop, str) else request.stop or []
    return [stop for stop in stops if stop]


def _tool_choice(request: ChatRequest) -> tuple[str, ToolChoice]:
    """The field that the choice is in, and the choice."""
    if request.tool_choice is not None or request.function_call is None:
        match request.tool_choice:
            case "none":
                choice = ToolChoice(frozenset())
            case NamedChoice(function=named):
                choice = ToolChoice(frozenset({named.name}), True, True)
            case AllowedChoice(allowed_tools=allowed):
                names = frozenset(tool.function.name for tool in allowed.tools)
                choice = ToolChoice(names, allowed.mode == "required")
            case other:
                is_single = request.is_older_spelling
                choice = ToolChoice(is_required=other == "required", is_single=is_single)
        return "tool_choice", choice
    match request.function_call:
        case "none":
            choice = ToolChoice(frozenset(), is_single=True)
        case FunctionName(name=name):
            choice = ToolChoice(frozenset({name}), True, True)
        case _:
            choice = ToolChoice(is_single=True)
    return "function_call", choice


def _answer_schema(request: ChatRequest) -> Json:
    match request.response_format:
        case SchemaFormat(json_schema=named):
            return named.schema_
        case ObjectFormat():
            return {"type": "object"}
    return None
