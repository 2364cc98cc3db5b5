"""The messages of a request, with nothing in them that would break the turns apart."""

from collections.abc import Sequence
from dataclasses import replace

from calltune.calls import Json, Message, Tool, ToolCall
from calltune.formats.json_calls import decode
from calltune.formats.pieces import Unreadable
from calltune.serve.faults import Fault
from calltune.serve.wire import (
    AnyMessage,
    AssistantMessage,
    CallMade,
    Content,
    ToolMessage,
)


def read_messages(written: Sequence[AnyMessage]) -> tuple[Message, ...]:
    """The messages; a result has the name of the tool that it comes from.

    Raises:
        Fault: a result of no call, or arguments that are no JSON object.
    """
    names: dict[str, str] = {}
    return tuple(_message(item, f"messages[{i}]", names) for i, item in enumerate(written))


def defused(messages: Sequence[Message], markers: Sequence[str]) -> tuple[Message, ...]:
    """The messages, with a space in every control token that stands in what they say.

    A web page that comes back as a tool's result could otherwise end its turn and begin another.
    """
    return tuple(
        replace(
            message,
            content=_apart(message.content, markers),
            calls=tuple(
                ToolCall(_apart(call.name, markers), _json_apart(call.arguments, markers))
                for call in message.calls
            ),
            tool_name=_apart(message.tool_name, markers),
        )
        for message in messages
    )


def defused_tool(tool: Tool, markers: Sequence[str]) -> Tool:
    """The tool, written without control tokens."""
    return replace(tool, written=_json_apart(tool.written, markers))


def _message(written: AnyMessage, place: str, names: dict[str, str]) -> Message:
    match written:
        case AssistantMessage():
            calls = written.tool_calls or ()
            made = tuple(_call(call, f"{place}.tool_calls[{i}]") for i, call in enumerate(calls))
            names.update({call.id: call.function.name for call in calls})
            return Message("assistant", _text(written.content), made)
        case ToolMessage():
            if written.tool_call_id not in names:
                raise Fault(
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
        arguments = decode(written.function.arguments.strip() or "{}")
    except Unreadable as problem:
        raise Fault(400, f"{place} has arguments that are {problem}", place) from None
    if not isinstance(arguments, dict):
        raise Fault(400, f"{place} has arguments that are no JSON object", place)
    return ToolCall(written.function.name, arguments)


def _text(content: Content | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.text for part in content)


def _apart(text: str, markers: Sequence[str]) -> str:
    for marker in markers:
        text = text.replace(marker, f"{marker[0]} {marker[1:]}")
    return text


def _json_apart(value: Json, markers: Sequence[str]) -> Json:
    if isinstance(value, str):
        return _apart(value, markers)
    if isinstance(value, list):
        return [_json_apart(item, markers) for item in value]
    if isinstance(value, dict):
        return {_apart(k, markers): _json_apart(item, markers) for k, item in value.items()}
    return value
