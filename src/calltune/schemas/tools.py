"""Tools as datasets and APIs write them, checked and read into records.

Source: OpenAI's function tools, `{"type": "function", "function": {name, description, parameters}}`
or the function alone, which xlam, BFCL, Hermes and MCP share.
"""

import json
import math
from dataclasses import dataclass
from typing import Self

from calltune.schemas.parameters import read_parameters
from calltune.types import MAX_DEPTH, Json, Tool


class UnusableRow(Exception):
    """A row, or a tool or call in it, that cannot be used; it is dropped and counted."""

    reason: str
    """A short phrase, the same for every row with this fault."""
    detail: str
    """The value at fault, truncated."""

    def __init__(self, reason: str, value: Json = "") -> None:
        self.reason = reason
        self.detail = shortened(value)
        super().__init__(reason)

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason

    def within(self, place: str) -> Self:
        """This fault, with the place in the row in front of the value at fault."""
        self.detail = f"{place}: {self.detail}" if self.detail else place
        return self


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
