"""What a chat request asks for: its messages, the tools offered, the output, and the sampling."""

import secrets
from collections.abc import Sequence

from calltune.formats.grammar import MAX_CALLS, OutputSpec
from calltune.formats.parser import ParseError, call_key, decode_strict
from calltune.generation.sequence import Sampling
from calltune.serving.errors import APIError
from calltune.serving.request_schema import (
    AnyMessage,
    AssistantMessage,
    CallMade,
    ChatRequest,
    Content,
    NamedChoice,
    ObjectFormat,
    SchemaFormat,
    ToolMessage,
)
from calltune.types import Json, Message, ToolCall


def requested_messages(written: Sequence[AnyMessage]) -> tuple[Message, ...]:
    """The messages as calltune's; a tool's result gets the tool's name from the call before it.

    Raises:
        APIError: a result belongs to no call, or a call's arguments are not a JSON object (400).
    """
    names: dict[str, str] = {}
    return tuple(_message(item, f"messages[{i}]", names) for i, item in enumerate(written))


def calls_since_user(messages: Sequence[Message]) -> set[str]:
    """The keys (see `call_key`) of the calls made since the user's last message."""
    last = max((i for i, each in enumerate(messages) if each.role == "user"), default=-1)
    return {call_key(call) for message in messages[last + 1 :] for call in message.calls}


def offered_tools(request: ChatRequest) -> list[dict[str, Json]]:
    """The functions that may be called, each with name, description and parameters."""
    if request.tool_choice == "none":
        return []
    functions = [tool.function for tool in request.tools or ()]
    if isinstance(request.tool_choice, NamedChoice):
        name = request.tool_choice.function.name
        functions = [function for function in functions if function.name == name]
    return [
        {
            "name": function.name,
            "description": function.description or "",
            "parameters": function.parameters or {"type": "object", "properties": {}},
        }
        for function in functions
    ]


def output_with_tools(request: ChatRequest, text_is_separate: bool) -> OutputSpec:
    """What an answer may be if tools are offered.

    With `text_is_separate` it may be calls, or that none is needed; text or JSON in their place
    is then generated separately.
    """
    is_named = isinstance(request.tool_choice, NamedChoice)
    max_calls = 1 if is_named or request.parallel_tool_calls is False else MAX_CALLS
    if is_named or request.tool_choice == "required":
        return OutputSpec(min_calls=1, max_calls=max_calls)
    if text_is_separate:
        return OutputSpec(max_calls=max_calls)
    schema = _answer_schema(request)
    return OutputSpec(max_calls=max_calls, allows_text=schema is None, schema=schema)


def output_without_tools(request: ChatRequest) -> OutputSpec:
    """What an answer may be without tools: text, or JSON of the requested schema."""
    schema = _answer_schema(request)
    return OutputSpec(max_calls=0, allows_text=schema is None, schema=schema)


def is_strict(request: ChatRequest) -> bool:
    """Whether to refuse schemas that a grammar cannot enforce completely."""
    functions = [tool.function for tool in request.tools or ()]
    output = request.response_format
    if isinstance(output, SchemaFormat) and output.json_schema.strict:
        return True
    return any(function.strict for function in functions)


def requested_samplings(request: ChatRequest) -> list[Sampling | None]:
    """The sampling of each of the request's `n` answers; their seeds follow each other."""
    n = request.n or 1
    if not request.temperature:
        return [None] * n
    seed = secrets.randbits(62) if request.seed is None else request.seed & (2**62 - 1)
    top_p = 1.0 if request.top_p is None else request.top_p
    return [Sampling(request.temperature, top_p, seed + index) for index in range(n)]


def requested_stop_strings(request: ChatRequest) -> list[str]:
    """The strings that end an answer in text."""
    return [request.stop] if isinstance(request.stop, str) else request.stop or []


def _answer_schema(request: ChatRequest) -> Json:
    match request.response_format:
        case SchemaFormat(json_schema=named):
            return named.schema_
        case ObjectFormat():
            return {"type": "object"}
    return None


def _message(written: AnyMessage, place: str, names: dict[str, str]) -> Message:
    """One message; `names` collects the names of called tools by the id of the call."""
    match written:
        case AssistantMessage():
            calls = written.tool_calls or ()
            made = tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls))
            names.update({call.id: call.function.name for call in calls})
            return Message("assistant", _text(written.content), made)
        case ToolMessage():
            if written.tool_call_id not in names:
                raise APIError(
                    400,
                    f"{place} is the result of {written.tool_call_id!r:.80}, and no message before "
                    "it has a call with this id",
                    f"{place}.tool_call_id",
                )
            text = _text(written.content)
            return Message("tool", text, tool_name=names[written.tool_call_id])
        case _:
            role = "user" if written.role == "user" else "system"
            return Message(role, _text(written.content))


def _call(written: CallMade, place: str) -> ToolCall:
    try:
        arguments = decode_strict(written.function.arguments.strip() or "{}")
    except ParseError as problem:
        raise APIError(400, f"{place} has arguments that are {problem}", place) from None
    if not isinstance(arguments, dict):
        raise APIError(400, f"{place} has arguments that are not a JSON object", place)
    return ToolCall(written.function.name, arguments)


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)
