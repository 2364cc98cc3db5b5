"""What stands behind the marker of a call: JSON, Python, XML, or a name with JSON after it.

Each reader takes a text and a position and gives the calls that begin there and the index after
them, or None where none of its kind begins there. What begins like a call and is broken is
refused.

Source: the chat templates of Llama 3 and 4, Qwen3-Coder, GLM 4.5, DeepSeek V3, Kimi K2, Mistral,
FunctionGemma, Gemma and Claude; the answers of ToolACE and of BFCL.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from calltune.data.readers.calls import UnusableCall, is_call, read_call, read_calls
from calltune.data.readers.offer import RowTools
from calltune.data.readers.values import (
    closing_index,
    decode_text,
    locate_value,
    split_arguments,
)
from calltune.schemas.keywords import declared_types, property_schema
from calltune.schemas.tools import UnusableRow
from calltune.types import Json, ToolCall

UNREADABLE = "call that cannot be read"


class LocatedCalls(NamedTuple):
    """Calls that were found in a text, and the index after them."""

    calls: tuple[ToolCall, ...]
    end: int


def read_payload(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """The calls that begin at `at` in any notation; None where none begins there.

    Raises:
        UnusableCall: a call begins there and cannot be read.
    """
    for reader in _READERS:
        if (found := reader(text, at, offer)) is not None:
            return found
    return None


def json_calls(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """Calls as JSON or a Python literal: `{"name", "arguments"}`, or a list of such."""
    if text[at : at + 1] not in ("{", "["):
        return None
    try:
        found = locate_value(text, at)
    except UnusableRow as unusable:
        raise UnusableCall(unusable.reason, unusable.detail) from None
    if found is None or not (is_call(found.value, offer) or found.value == []):
        return None
    return LocatedCalls(read_calls(found.value, offer), found.end)


def python_calls(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """Calls as Python: `[f(x=1), g()]`, or one or more of them without brackets."""
    opening = _PYTHON_OPENING.match(text, at)
    assert opening is not None
    calls: list[ToolCall] = []
    at = opening.end()
    while (found := _python_call(text, at, offer)) is not None:
        calls.append(found.calls[0])
        between = _BETWEEN.match(text, found.end)
        end, at = found.end, between.end() if between else found.end
    if not calls:
        return None
    for bracket in reversed([c for c in opening[0] if c in "(["]):
        closing = re.compile(rf"\s*,?\s*\{')' if bracket == '(' else ']'}").match(text, end)
        if closing is None:
            raise UnusableCall(UNREADABLE, text[opening.start() :])
        end = closing.end()
    return LocatedCalls(tuple(calls), end)


def xml_calls(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """A call as XML: `<function=f><parameter=x>`, `<invoke name="f">`, or GLM's `<arg_key>`."""
    if (opening := _FUNCTION_TAG.match(text, at)) is not None:
        name, parameter = opening["name"], _PARAMETER
        end_of_call = re.compile(r"</(?:[｜|]\w+[｜|])?(?:function|invoke)>")
        closing = end_of_call.search(text, opening.end())
        if closing is None:
            raise UnusableCall(UNREADABLE, text[at:])
        body, end = text[opening.end() : closing.start()], closing.end()
    elif (opening := _GLM_NAME.match(text, at)) is not None and (
        opening["has_arguments"] or opening["name"] in offer.by_name
    ):
        name, parameter = opening["name"], _GLM_PARAMETER
        closing = re.compile(r"</tool_call>|\Z").search(text, opening.end())
        assert closing is not None
        body, end = text[opening.end() : closing.start()], closing.end()
    else:
        return None
    if body.strip().startswith("{"):
        call = {"name": name, "arguments": body.strip()}
        return LocatedCalls((read_call(call, offer),), end)
    arguments: dict[str, Json] = {}
    for found in parameter.finditer(body):
        key, value = found["key"].strip(), found["value"]
        if key in arguments or _XML_MARK.search(value):
            raise UnusableCall(UNREADABLE, text[at:])
        is_text = found.groupdict().get("string")
        # Qwen puts each value on lines of its own.
        is_wrapped = found[0].startswith("<parameter=")
        arguments[key] = _xml_value(value, name, key, is_text, is_wrapped, offer)
    if parameter.sub("", body).strip():
        raise UnusableCall(UNREADABLE, text[at:])
    return LocatedCalls((read_call({"name": name, "arguments": arguments}, offer),), end)


def gemma_calls(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """FunctionGemma's `call:f{x:<escape>a<escape>,n:2}`; Gemma 4 quotes with `<|"|>`."""
    opening = re.compile(r"call:\s*(?P<name>[^\s{]+)\s*(?=\{)").match(text, at)
    if opening is None:
        return None
    found = _gemma_value(text, opening.end())
    if found is None or not isinstance(found[0], dict):
        raise UnusableCall(UNREADABLE, text[at:])
    call = read_call({"name": opening["name"], "arguments": found[0]}, offer)
    return LocatedCalls((call,), found[1])


def named_calls(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    """A name, then its arguments as JSON: Mistral, DeepSeek, Kimi, ReAct, GPT-OSS."""
    opening = _NAME_THEN_JSON.match(text, at)
    if opening is None:
        return None
    try:
        found = locate_value(text, opening.end())
    except UnusableRow as unusable:
        raise UnusableCall(unusable.reason, unusable.detail) from None
    if found is None:
        raise UnusableCall(UNREADABLE, text[at:])
    call = read_call({"name": opening["name"], "arguments": found.value}, offer)
    return LocatedCalls((call,), found.end)


_READERS: tuple[Callable[[str, int, RowTools], LocatedCalls | None], ...] = (
    json_calls,
    python_calls,
    xml_calls,
    gemma_calls,
    named_calls,
)
_PYTHON_OPENING = re.compile(r"\s*(?:print\s*(?P<print>\())?\s*\[?\s*")
_BETWEEN = re.compile(r"[\s,;]*")
_IDENTIFIER = re.compile(r"(?:[A-Za-z_][\w.\-/]*)(?=\()")
_KEYWORD = re.compile(r"\s*(?P<key>[^=\"'(){}\[\]]+?)\s*=(?!=)\s*(?P<value>.*)\Z", re.DOTALL)
_FUNCTION_TAG = re.compile(
    r"""<(?:[｜|]\w+[｜|])?(?:function=["']?|invoke\s+name=["'])(?P<name>[^>"']+)["']?\s*>"""
)
_PARAMETER = re.compile(
    r"""<(?:[｜|]\w+[｜|])?parameter(?:=["']?|\s+name=["'])(?P<key>[^>"']+?)["']?"""
    r"""(?:\s+string=["'](?P<string>true|false)["'])?\s*>(?P<value>.*?)"""
    r"""</(?:[｜|]\w+[｜|])?parameter>""",
    re.DOTALL,
)
_GLM_NAME = re.compile(
    r"(?P<name>[^\s<>{}()\[\]]+)\s*(?=(?P<has_arguments><arg_key>)|</tool_call>)"
)
_GLM_PARAMETER = re.compile(
    r"<arg_key>(?P<key>.*?)</arg_key>\s*<arg_value>(?P<value>.*?)</arg_value>", re.DOTALL
)
_XML_MARK = re.compile(
    r"</?(?:[｜|]\w+[｜|])?(?:parameter|function|invoke|arg_key|arg_value|tool_call)\b"
)
_NAME_THEN_JSON = re.compile(
    r"(?:function(?:<｜tool▁sep｜>|\s+))?"
    r"(?P<name>[^\s{}\[\]()<>:\"',`｜|]+(?::(?!\d)[^\s{}\[\]()<>:]+)?)"
    r"(?::\d+)?"
    r"(?:\s|:|=|```(?:json)?|\[CALL_ID\]\s*[\w-]*|\[ARGS\]|<\|constrain\|>(?:json)?|<\|message\|>"
    r"|<｜tool▁sep｜>|<\|tool_call_argument_begin\|>|<\|content\|>|Action Input:|✿ARGS✿:"
    r"|</tool>|</name>|<tool_input>|<arguments>|<parameters>|<input>|<args>)*"
    r"(?=\{)"
)


def _python_call(text: str, at: int, offer: RowTools) -> LocatedCalls | None:
    name = _python_name(text, at, offer)
    if name is None:
        return None
    opening = at + len(name)
    end = closing_index(text, opening)
    if end is None:
        raise UnusableCall(UNREADABLE, text[at:])
    arguments: dict[str, Json] = {}
    for part in split_arguments(text[opening + 1 : end - 1]):
        if part.startswith("**"):
            found = _python_value(part[2:], text[at:])
            if not isinstance(found, dict) or found.keys() & arguments.keys():
                raise UnusableCall(UNREADABLE, text[at:])
            arguments.update(found)
            continue
        keyword = _KEYWORD.match(part)
        if keyword is None:
            raise UnusableCall("argument without a name", f"{name}: {part}")
        if keyword["key"] in arguments:
            raise UnusableCall("argument given twice", f"{name}: {keyword['key']}")
        arguments[keyword["key"]] = _python_value(keyword["value"], text[at:])
    return LocatedCalls((read_call({"name": name, "arguments": arguments}, offer),), end)


def _python_name(text: str, at: int, offer: RowTools) -> str | None:
    """The name of a function that is called here; offered names may hold any characters."""
    offered = [name for name in offer.by_name if text.startswith(f"{name}(", at)]
    if offered:
        return max(offered, key=len)
    found = _IDENTIFIER.match(text, at)
    return found[0] if found else None


def _python_value(text: str, call: str) -> Json:
    try:
        return decode_text(text, UNREADABLE)
    except UnusableRow:
        raise UnusableCall(UNREADABLE, call) from None


def _xml_value(
    text: str, name: str, key: str, is_text: str | None, is_wrapped: bool, offer: RowTools
) -> Json:
    """The value of a parameter in XML, which says of itself neither that it is text nor not.

    The tool's schema says it: what could be both is refused.
    """
    plain = text
    if is_wrapped and len(text) > 1 and text.startswith("\n") and text.endswith("\n"):
        plain = text[1:-1]
    if is_text == "true":
        return text
    try:
        decoded = decode_text(plain, UNREADABLE)
    except UnusableRow:
        decoded = plain
    tool = offer.by_name.get(name)
    kinds = declared_types(property_schema(tool.parameters, key)) if tool else ()
    if is_text == "false" or (kinds and "string" not in kinds):
        return decoded
    if isinstance(decoded, str) or list(kinds) == ["string"]:
        return plain
    if kinds and not any(_is_of(decoded, kind) for kind in kinds):
        return plain
    raise UnusableCall("argument that may be text or not", f"{name}: {key}: {plain}")


def _is_of(value: Json, kind: str) -> bool:
    match kind:
        case "boolean":
            return isinstance(value, bool)
        case "integer" | "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case "object":
            return isinstance(value, dict)
        case "null":
            return value is None
    return isinstance(value, str)


_GEMMA_QUOTE = re.compile(r"<escape>|<\|\"\|>")
_GEMMA_KEY = re.compile(r"\s*(?:<escape>|<\|\"\|>)?([^:{}\[\],<]+?)(?:<escape>|<\|\"\|>)?\s*:\s*")
_GEMMA_PLAIN = re.compile(r"[^,{}\[\]\s<]+")


def _gemma_value(text: str, at: int, depth: int = 0) -> tuple[Json, int] | None:
    """A value in FunctionGemma's notation, and the index after it."""
    if depth > 64:
        return None
    if (quote := _GEMMA_QUOTE.match(text, at)) is not None:
        end = text.find(quote[0], quote.end())
        return None if end < 0 else (text[quote.end() : end], end + len(quote[0]))
    if text[at : at + 1] not in ("{", "["):
        plain = _GEMMA_PLAIN.match(text, at)
        if plain is None:
            return None
        try:
            return decode_text(plain[0], UNREADABLE), plain.end()
        except UnusableRow:
            return None
    is_object = text[at] == "{"
    keys: dict[str, Json] = {}
    items: list[Json] = []
    at += 1
    while not text.startswith("}" if is_object else "]", at):
        key = None
        if is_object:
            if (key := _GEMMA_KEY.match(text, at)) is None or key[1] in keys:
                return None
            at = key.end()
        found = _gemma_value(text, at, depth + 1)
        if found is None:
            return None
        value, at = found
        if key is not None:
            keys[key[1]] = value
        else:
            items.append(value)
        if text.startswith(",", at):
            at += 1
        elif not text.startswith("}" if is_object else "]", at):
            return None
    return (keys if is_object else items), at + 1
