"""Reader of the Hermes form of ShareGPT: conversations with tools and calls between tags.

Tools are in `<tools>` of the system message or in a column of their own, calls in `<tool_call>`,
results in `<tool_response>`. A system message that lists the tools is left out of the examples:
it spells out one prompt format, and every prompt format here renders the tools itself.

Source: https://huggingface.co/datasets/NousResearch/hermes-function-calling-v1
"""

import ast
import json
import warnings

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
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "tool": "tool",
}
_MAX_LITERAL_LENGTH = 200_000


def matches(row: dict[str, Json]) -> bool:
    """Whether a row has the keys of this dataset format."""
    return "conversations" in row


def parse(row: dict[str, Json], row_id: str) -> ParsedRow:
    """One example for each turn of the model that calls tools.

    Raises:
        UnusableRow: no query, no tools, no turn to learn from, or a call that cannot be read.
    """
    check_json(row)
    turns = [_turn(item) for item in _items(row.get("conversations"))]
    offer = _offer(row, turns)
    messages: list[Message] = []
    for role, text in turns:
        if role == "assistant":
            messages.append(_assistant(text, offer))
        elif role == "tool":
            messages.extend(_results(text))
        elif role == "user" or not _blocks(text, "tools"):
            messages.append(Message(role, text))
    return split_conversation(tuple(messages), offer, row_name(row, row_id), "hermes")


def _items(written: Json) -> list[Json]:
    items = decode_json(written, "conversations are not JSON")
    if not isinstance(items, list) or not items:
        raise UnusableRow("no messages", items)
    return items


def _turn(written: Json) -> tuple[str, str]:
    if not isinstance(written, dict):
        raise UnusableRow("message that is not an object", written)
    role, text = written.get("from"), written.get("value")
    if not isinstance(role, str) or role not in _ROLES:
        raise UnusableRow("unknown role", role)
    if not isinstance(text, str):
        raise UnusableRow("content that is not text", text)
    return _ROLES[role], text


def _offer(row: dict[str, Json], turns: list[tuple[str, str]]) -> OfferedTools:
    if row.get("tools"):
        return read_tools(row["tools"])
    # The instructions around the list mention the tags too, with nothing between them.
    found = [b for role, text in turns if role == "system" for b in _blocks(text, "tools")]
    tools: list[Json] = []
    for block in found:
        for item in _list_or_lines(block):
            tools.extend(item if isinstance(item, list) else [item])
    return read_tools(tools)


def _list_or_lines(block: str) -> list[Json]:
    try:
        return [_literal(block, "tools are not JSON")]
    except UnusableRow:
        return [_literal(line, "tools are not JSON") for line in block.splitlines() if line.strip()]


def _assistant(text: str, offer: OfferedTools) -> Message:
    calls: list[ToolCall] = []
    for block in _blocks(text, "tool_call"):
        found = _literal(block, "call is not JSON")
        for item in found if isinstance(found, list) else [found]:
            calls.append(read_call(item, offer))
    return Message("assistant", text.partition("<tool_call>")[0].strip(), tuple(calls))


def _results(text: str) -> list[Message]:
    blocks = _blocks(text, "tool_response") or [text.strip()]
    return [Message("tool", block, tool_name=_result_name(block)) for block in blocks]


def _result_name(block: str) -> str:
    try:
        result = decode_json(block, "")
    except UnusableRow:
        return ""
    name = result.get("name") if isinstance(result, dict) else None
    return name if isinstance(name, str) else ""


def _blocks(text: str, tag: str) -> list[str]:
    """The text between each pair of tags, without blank ones; linear in the text's length."""
    found = []
    for piece in text.split(f"<{tag}>")[1:]:
        block, closing, _ = piece.partition(f"</{tag}>")
        if not closing:
            raise UnusableRow(f"<{tag}> that is not closed", piece)
        if block.strip():
            found.append(block.strip())
    return found


def _literal(text: str, reason: str) -> Json:
    """JSON, or a Python literal that JSON can hold: many published calls have single quotes."""
    try:
        return decode_json(text, reason)
    except UnusableRow:
        if len(text) > _MAX_LITERAL_LENGTH:
            raise
    try:
        with warnings.catch_warnings(action="ignore"):
            found = json.dumps(ast.literal_eval(text.strip()))
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
        raise UnusableRow(reason, text) from None
    return decode_json(found, reason)
