"""The messages of a request as calltune's."""

from collections.abc import Sequence

from calltune.calls import Message, ToolCall
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
