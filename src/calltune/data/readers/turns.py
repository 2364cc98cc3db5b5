"""Turns of a conversation as datasets write them, made into messages.

Roles go by many names; calls stand in a key, in parts of the content, in the text, or in a turn of
their own. Results are put in the order of their calls, by `tool_call_id`.

Source: OpenAI's chat messages, Anthropic's content blocks, ShareGPT as LLaMA-Factory and ms-swift
write it, ChatGLM3's fine-tuning format.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from calltune.data.readers.calls import (
    ARGUMENT_KEYS,
    WRAPPERS,
    UnusableCall,
    read_call,
    read_calls,
)
from calltune.data.readers.notations import read_turn
from calltune.data.readers.offer import RowTools, blocks
from calltune.data.readers.values import decode_text
from calltune.files import dumps
from calltune.schemas.tools import UnusableRow
from calltune.types import Json, Message, ToolCall

ROLES = {
    **dict.fromkeys(("system", "developer"), "system"),
    **dict.fromkeys(("user", "human", "prompter"), "user"),
    **dict.fromkeys(("assistant", "gpt", "model", "bot", "chatgpt", "ai"), "assistant"),
    **dict.fromkeys(("function_call", "function-call", "tool_call", "tool_calls"), "call"),
    **dict.fromkeys(("tool", "function", "observation", "environment", "ipython"), "tool"),
    **dict.fromkeys(("tool_response", "tool_result", "tool_results", "tool-response"), "tool"),
    **dict.fromkeys(("function_response", "function-response", "function_result"), "tool"),
}
"""The names of roles in datasets; "call" is a turn that holds nothing but calls."""
_RESULT_NAMES = ("name", "tool_name", "function_name")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message of a conversation, with the ids that tie results to calls."""

    message: Message
    call_ids: tuple[str, ...] = ()
    """The ids of the message's calls, "" where one has none."""
    result_of: str = ""
    """For a result: the id of its call, if it gives one."""
    is_trained: bool = True
    joins_before: bool = False
    """Whether its calls belong to the turn of the assistant right before it."""


def read_turns(written: Json, offer: RowTools) -> list[Turn]:
    """The turns of a conversation: a list of messages, or JSON in a string.

    Raises:
        UnusableRow: it is no such list, or a message cannot be read; the detail begins with the
            place and the role of that message.
    """
    if isinstance(written, str):
        written = decode_text(written, "messages are not JSON")
    if not isinstance(written, list) or not written:
        raise UnusableRow("no messages", written)
    turns: list[Turn] = []
    for number, item in enumerate(written, start=1):
        if not isinstance(item, dict):
            raise UnusableRow("message that is not an object", item)
        said = item.get("role") if item.get("role") is not None else item.get("from")
        try:
            turns.extend(_turns(item, said, offer))
        except UnusableRow as unusable:
            raise unusable.within(f"message {number} ({said})") from None
    return order_results(_joined(turns))


def order_results(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with each run of results in the order of the calls before it.

    Raises:
        UnusableRow: a result is of a call that nobody made, or of none in particular.
    """
    ordered: list[Turn] = []
    names: dict[str, str] = {}
    at = 0
    while at < len(turns):
        end = at
        while end < len(turns) and turns[end].message.role == "tool":
            end += 1
        if end == at:
            turn = turns[at]
            calls = zip(turn.call_ids, turn.message.calls, strict=False)
            names.update((i, call.name) for i, call in calls if i)
            ordered.append(turn)
            at += 1
            continue
        before = ordered[-1] if ordered else None
        ordered.extend(_results_in_order(list(turns[at:end]), before, names))
        at = end
    return ordered


def _results_in_order(
    results: list[Turn], before: Turn | None, names: dict[str, str]
) -> list[Turn]:
    ids = before.call_ids if before is not None else ()
    calls = before.message.calls if before is not None else ()
    if not any(ids) and len(calls) == len(results) == 1:
        # The one result of the one call, whatever its id: the call has none.
        return [_named(results[0], calls[0].name)]
    for result in results:
        if result.result_of and result.result_of not in names:
            raise UnusableRow(
                "result of a call that was not made", f"tool_call_id {result.result_of}"
            )
    # One id may have been given to several calls: its results go to them in order.
    places: dict[str, list[int]] = {}
    for index, call_id in enumerate(ids):
        places.setdefault(call_id, []).append(index)
    named: list[Turn] = []
    order: list[int] = []
    for result in results:
        waiting = places.get(result.result_of, []) if result.result_of else []
        index = (waiting.pop(0) if len(waiting) > 1 else waiting[0]) if waiting else -1
        order.append(index)
        name = calls[index].name if index >= 0 else names.get(result.result_of, "")
        named.append(_named(result, name))
    if all(index >= 0 for index in order):
        return [named[at] for at in sorted(range(len(named)), key=order.__getitem__)]
    called = [call.name for call in calls]
    told = [result.message.tool_name for result in named]
    is_told_apart = sorted(called) == sorted(told) and len(set(called)) == len(called)
    if is_told_apart and not any(result.result_of for result in named):
        return sorted(named, key=lambda result: called.index(result.message.tool_name))
    return named


def _named(result: Turn, name: str) -> Turn:
    if result.message.tool_name or not name:
        return result
    return replace(result, message=replace(result.message, tool_name=name))


def _joined(turns: Sequence[Turn]) -> list[Turn]:
    """The turns with calls that follow a turn of the assistant at once made part of it."""
    joined: list[Turn] = []
    for turn in turns:
        before = joined[-1] if joined else None
        if turn.joins_before and before is not None and before.message.role == "assistant":
            first, second = before.message, turn.message
            content = "\n".join(filter(None, (first.content, second.content)))
            message = Message("assistant", content, first.calls + second.calls)
            ids = before.call_ids + turn.call_ids
            joined[-1] = replace(before, message=message, call_ids=ids)
        else:
            joined.append(turn)
    return joined


def _turns(written: dict[str, Json], said: Json, offer: RowTools) -> list[Turn]:
    role = ROLES.get(said.strip().lower()) if isinstance(said, str) else None
    if role is None:
        raise UnusableRow("unknown role", said)
    content = written.get("content") if written.get("content") is not None else written.get("value")
    is_trained = written.get("weight") != 0
    if role == "assistant":
        return _assistant(written, content, offer, is_trained)
    if role == "call":
        return [_call_turn(content, offer, is_trained)]
    if role == "tool" and isinstance(written.get("parameters"), dict):
        return _chatglm(written, offer)
    if role == "tool":
        return _results(written, content)
    return _with_tool_results(role, content)


def _assistant(
    written: dict[str, Json], content: Json, offer: RowTools, is_trained: bool
) -> list[Turn]:
    texts, blocks_of_calls = _parts(content, "tool_use")
    calls, ids = _calls_of_keys(written, offer)
    for block in blocks_of_calls:
        calls.append(read_call(block, offer))
        ids.append(_id(block))
    said = read_turn("".join(texts), offer)
    if said.calls and not calls:
        calls, ids = list(said.calls), [""] * len(said.calls)
    elif said.calls and list(said.calls) != calls:
        raise UnusableCall("other calls in the text than beside it", "".join(texts))
    # ShareGPT's values come with the line ends that stood around them.
    words = said.words.strip() if "value" in written else said.words
    return [Turn(Message("assistant", words, tuple(calls)), tuple(ids), is_trained=is_trained)]


def _calls_of_keys(written: dict[str, Json], offer: RowTools) -> tuple[list[ToolCall], list[str]]:
    """The calls in `tool_calls` and in the older `function_call`, with their ids."""
    items = written.get("tool_calls")
    if isinstance(items, str):
        items = decode_text(items, "tool calls are not JSON") if items.strip() else None
    if isinstance(items, dict):
        items = [items]
    if items is not None and not isinstance(items, list):
        raise UnusableCall("tool calls are not a list", items)
    found = [item for item in items or [] if item is not None]
    older = written.get("function_call")
    if isinstance(older, str):
        older = decode_text(older, "tool calls are not JSON") if older.strip() else None
    # Arrow fills the struct of a call that is not there with nulls.
    if isinstance(older, dict) and any(value is not None for value in older.values()):
        found.append(older)
    calls: list[ToolCall] = []
    for item in found:
        try:
            calls.append(read_call(item, offer))
        except UnusableRow as unusable:
            raise unusable.within("tool_calls") from None
    return calls, [_id(item) for item in found]


def _id(call: Json) -> str:
    inner = [call.get(w) for w in WRAPPERS] if isinstance(call, dict) else []
    for level in (call, *inner):
        for key in ("id", "tool_call_id", "call_id", "toolUseId"):
            if isinstance(level, dict) and isinstance(found := level.get(key), str) and found:
                return found
    return ""


def _call_turn(content: Json, offer: RowTools, is_trained: bool) -> Turn:
    """A turn of the role function_call: calls as JSON, or in any notation."""
    ids: list[str] = []
    if isinstance(content, dict | list):
        calls = read_calls(content, offer)
        ids = [_id(item) for item in (content if isinstance(content, list) else [content])]
    else:
        said = read_turn(_text(content), offer)
        calls = said.calls
        if not calls or said.words:
            try:
                value = decode_text(_text(content), "call that cannot be read")
            except UnusableRow as unusable:
                raise UnusableCall(unusable.reason, unusable.detail) from None
            calls = read_calls(value, offer)
        ids = [""] * len(calls)
    if not calls:
        raise UnusableCall("call that cannot be read", content)
    message = Message("assistant", "", tuple(calls))
    return Turn(message, tuple(ids), is_trained=is_trained, joins_before=True)


def _chatglm(written: dict[str, Json], offer: RowTools) -> list[Turn]:
    """ChatGLM3's turn of a tool: its name, the call's parameters, and what it observed."""
    call = read_call({k: written.get(k) for k in ("name", *ARGUMENT_KEYS)}, offer)
    turns = [Turn(Message("assistant", "", (call,)), ("",), joins_before=True)]
    if (seen := written.get("observation")) is not None:
        turns.append(Turn(Message("tool", _text(seen), tool_name=call.name)))
    return turns


def _results(written: dict[str, Json], content: Json) -> list[Turn]:
    name = next((written[k] for k in _RESULT_NAMES if isinstance(written.get(k), str)), "")
    result_of = written.get("tool_call_id")
    result_of = result_of if isinstance(result_of, str) else ""
    text = _text(content)
    found = blocks(text, "tool_response") or [text.strip() if "value" in written else text]
    if len(found) > 1:
        result_of = ""
    return [
        Turn(Message("tool", block, tool_name=name or _result_name(block)), result_of=result_of)
        for block in found
    ]


def _result_name(block: str) -> str:
    if not block.lstrip().startswith("{"):
        return ""
    try:
        result = decode_text(block, "")
    except UnusableRow:
        return ""
    name = result.get("name") if isinstance(result, dict) else None
    return name if isinstance(name, str) else ""


def _with_tool_results(role: str, content: Json) -> list[Turn]:
    """A turn of the user or the system; Anthropic's users hand over the results of tools."""
    texts, results = _parts(content, "tool_result")
    turns = [
        Turn(Message("tool", _text(block.get("content"))), result_of=str(block["tool_use_id"]))
        for block in results
        if isinstance(block.get("tool_use_id"), str)
    ]
    if len(turns) < len(results):
        raise UnusableRow("result of a call that was not made", results)
    text = "".join(texts)
    return [*turns, Turn(Message(role, text))] if text or not turns else turns


def _parts(content: Json, kind: str) -> tuple[list[str], list[dict[str, Json]]]:
    """The texts of a content, and its blocks of a kind."""
    if content is None:
        return [], []
    if isinstance(content, str):
        return [content], []
    if not isinstance(content, list):
        raise UnusableRow("content that is not text", content)
    texts: list[str] = []
    found: list[dict[str, Json]] = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else part
        if isinstance(part, dict) and part.get("type") == kind:
            found.append(part)
        elif isinstance(part, dict) and part.get("type") in ("thinking", "redacted_thinking"):
            continue
        elif isinstance(text, str):
            texts.append(text)
        else:
            raise UnusableRow("content that is not text", content)
    return texts, found


def _text(content: Json) -> str:
    if isinstance(content, dict):
        return dumps(content)
    return "".join(_parts(content, "")[0])
