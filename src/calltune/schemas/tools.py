"""Tools and calls as datasets and APIs write them, checked and read into records.

Source: OpenAI's function tools, `{"type": "function", "function": {name, description, parameters}}`
or the function alone, which xlam, BFCL, Hermes and MCP share; calls are `{name, arguments}`.
"""

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from calltune.schemas.parameters import allows, read_parameters
from calltune.types import MAX_DEPTH, Json, Tool, ToolCall


class UnusableRow(Exception):
    """A row, or a tool or call in it, that cannot be used; it is dropped and counted."""

    reason: str
    """A short phrase, the same for every row with this fault."""
    detail: str
    """The value at fault, truncated."""

    def __init__(self, reason: str, value: Json = "") -> None:
        self.reason = reason
        self.detail = shortened(value)
        super().__init__(f"{reason}: {self.detail}" if self.detail else reason)


@dataclass(frozen=True, slots=True)
class OfferedTools:
    """The tools that a row or request offers, by name."""

    by_name: dict[str, Tool]
    notes: tuple[str, ...]
    """What was not understood but does no harm: types, a tool offered twice."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools in the order of the row."""
        return tuple(self.by_name.values())


def shortened(value: Json, length: int = 80) -> str:
    """`value` on one line for a message, truncated to `length` characters before it is escaped."""
    text = value if isinstance(value, str) else repr(value)
    cut = " ".join(text[: length + 1].split())
    plain = cut.encode("utf-8", "backslashreplace").decode()
    return plain if len(text) <= length else plain[: length - 1] + "…"


def check_json(value: Json) -> Json:
    """`value` itself, if it can be written as JSON again.

    Raises:
        UnusableRow: it is nested more than `MAX_DEPTH` deep, a string in it is not valid Unicode,
            or a number is not finite.
    """
    open_values: list[tuple[Json, int]] = [(value, 0)]
    while open_values:
        item, depth = open_values.pop()
        if isinstance(item, str):
            _refuse_broken(item)
        elif isinstance(item, float) and not math.isfinite(item):
            raise UnusableRow("number that JSON does not have", item)
        elif isinstance(item, dict | list) and depth == MAX_DEPTH:
            raise UnusableRow("nested too deeply")
        elif isinstance(item, dict):
            open_values.extend((part, depth + 1) for pair in item.items() for part in pair)
        elif isinstance(item, list):
            open_values.extend((part, depth + 1) for part in item)
    return value


def decode_json(value: Json, reason: str) -> Json:
    """The JSON in `value` if that is a string, else `value`.

    Raises:
        UnusableRow: with `reason`, if the string is not JSON; or as `check_json`.
    """
    if not isinstance(value, str):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        raise UnusableRow(reason, value) from None
    return check_json(found)


def read_tools(written: Json) -> OfferedTools:
    """The tools of a row: a list (or one tool), or JSON in a string.

    Each is `{name, description, parameters}`, alone or under `function`. One that is listed
    twice is kept once, with a note.

    Raises:
        UnusableRow: there are no tools, one of them is not a tool, or two of one name differ.
    """
    tools = decode_json(written, "tools are not JSON")
    if isinstance(tools, dict):
        tools = [tools]
    if tools is None or tools == []:
        raise UnusableRow("no tools")
    if not isinstance(tools, list):
        raise UnusableRow("tools are not a list", tools)
    by_name: dict[str, Tool] = {}
    notes: dict[str, None] = {}
    for item in tools:
        tool, remarks = _read_tool(item)
        notes.update(dict.fromkeys(remarks))
        if by_name.setdefault(tool.name, tool) is not tool:
            if by_name[tool.name].raw != tool.raw:
                raise UnusableRow("two different tools of one name", tool.name)
            notes["tool offered twice"] = None
    return OfferedTools(by_name, tuple(notes))


def read_calls(written: Json, offer: OfferedTools) -> tuple[ToolCall, ...]:
    """Calls written as a list of `{name, arguments}` (or one), each to a tool that is offered.

    Raises:
        UnusableRow: it is not a list, or as `read_call`.
    """
    if isinstance(written, dict):
        written = [written]
    if not isinstance(written, list):
        raise UnusableRow("answers are not a list of calls", written)
    return tuple(read_call(item, offer) for item in written)


def read_call(written: Json, offer: OfferedTools) -> ToolCall:
    """One call, `{name, arguments}`; arguments may be JSON in a string.

    Raises:
        UnusableRow: it has no name, its arguments are not an object, or as `check_call`.
    """
    if not isinstance(written, dict) or not isinstance(name := written.get("name"), str):
        raise UnusableRow("call without a name", written)
    arguments = decode_json(written.get("arguments", {}), "arguments are not JSON")
    if arguments is None:
        arguments = {}
    if not isinstance(arguments, dict):
        raise UnusableRow("arguments are not an object", arguments)
    check_call(name, arguments, offer)
    return ToolCall(name, arguments)


def check_call(name: str, arguments: Iterable[str], offer: OfferedTools) -> Tool:
    """The tool that a call is to.

    Raises:
        UnusableRow: the tool is not offered, or does not take one of the arguments.
    """
    tool = offer.by_name.get(name)
    if tool is None:
        raise UnusableRow("call to a tool that is not offered", name)
    for argument in arguments:
        if not allows(tool.parameters, argument):
            raise UnusableRow("argument the tool does not have", f"{name}: {shortened(argument)}")
    return tool


def _read_tool(written: Json) -> tuple[Tool, tuple[str, ...]]:
    inner = written.get("function", written) if isinstance(written, dict) else written
    if not isinstance(inner, dict):
        raise UnusableRow("tool that is not an object", inner)
    name = inner.get("name")
    if not isinstance(name, str) or not name.strip():
        raise UnusableRow("tool without a name", inner)
    parameters = decode_json(inner.get("parameters"), "tool parameters are not JSON")
    if parameters is None:
        parameters = {}
    if not isinstance(parameters, dict):
        raise UnusableRow("tool parameters are not an object", parameters)
    description = inner.get("description")
    reading = read_parameters(parameters)
    text = description if isinstance(description, str) else ""
    # `raw` is without OpenAI's wrapper: prompt formats that want one add it.
    return Tool(name, text, reading.schema, inner), reading.notes


def _refuse_broken(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableRow("broken Unicode", text) from None
