"""Reader of OpenAI's fine-tuning format: messages with tool calls, and tools.

The older spelling with `functions` and `function_call` is read too.

Source: https://platform.openai.com/docs/guides/supervised-fine-tuning
"""

from calltune.data.readers.examples import ParsedRow, row_name, split_conversation
from calltune.schemas.tools import (
    OfferedTools,
    UnusableRow,
    check_json,
    decode_json,
    read_call,
    read_tools,
)
from calltune.types import Json, Message, ToolCall

_ROLES = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
    "function": "tool",
}


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "messages" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """One example for each assistant turn that calls tools, and has not the weight 0.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a message that is none.
    """
    check_json(row)
    offer = read_tools(row.get("tools") or row.get("functions"))
    written = decode_json(row.get("messages"), "messages are not JSON")
    if not isinstance(written, list) or not written:
        raise UnusableRow("no messages", written)
    messages: list[Message] = []
    untrained: set[int] = set()
    names_by_id: dict[str, str] = {}
    for index, item in enumerate(written):
        if not isinstance(item, dict):
            raise UnusableRow("message that is not an object", item)
        messages.append(_message(item, offer, names_by_id))
        if item.get("weight") == 0:
            untrained.add(index)
    return split_conversation(tuple(messages), offer, row_name(row, row_id), "openai", untrained)


def _message(written: dict[str, Json], offer: OfferedTools, names_by_id: dict[str, str]) -> Message:
    role = written.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise UnusableRow("unknown role", role)
    content = _text(written.get("content"))
    if _ROLES[role] == "tool":
        return Message("tool", content, tool_name=_answered_tool(written, names_by_id))
    calls = _calls(written, offer, names_by_id) if role == "assistant" else ()
    return Message(_ROLES[role], content, calls)


def _calls(
    written: dict[str, Json], offer: OfferedTools, names_by_id: dict[str, str]
) -> tuple[ToolCall, ...]:
    if written.get("function_call") is not None:
        return (read_call(written["function_call"], offer),)
    items = decode_json(written.get("tool_calls"), "tool calls are not JSON")
    if items is None:
        return ()
    if not isinstance(items, list):
        raise UnusableRow("tool calls are not a list", items)
    calls = []
    for item in items:
        inner = item.get("function", item) if isinstance(item, dict) else item
        call = read_call(inner, offer)
        if isinstance(call_id := item.get("id"), str):
            names_by_id[call_id] = call.name
        calls.append(call)
    return tuple(calls)


def _answered_tool(written: dict[str, Json], names_by_id: dict[str, str]) -> str:
    name, call_id = written.get("name"), written.get("tool_call_id")
    if isinstance(name, str):
        return name
    return names_by_id.get(call_id, "") if isinstance(call_id, str) else ""


def _text(content: Json) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise UnusableRow("content that is not text", content)
    parts = [part.get("text") if isinstance(part, dict) else part for part in content]
    texts = [part for part in parts if isinstance(part, str)]
    if len(texts) < len(parts):
        raise UnusableRow("content that is not text", content)
    return "".join(texts)
