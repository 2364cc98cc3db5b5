"""Tools as datasets and APIs write them, checked and read into records.

Source: the shapes of tools are those of `tool_shapes`.
"""

import json
import math
from dataclasses import dataclass
from typing import Self

from calltune.files import NotKept
from calltune.schemas.parameters import read_parameters
from calltune.schemas.tool_shapes import NotATool, WrittenTool, find_tools
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
    """What was repaired or left out, the same text for all faults of a kind."""

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
            raise UnusableRow(
                item.reason if isinstance(item, NotKept) else "number that JSON does not have", item
            )
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
    """The tools of a row, in any shape that `tool_shapes` knows, or as JSON in a string.

    One that is listed twice is kept once, with a note.

    Raises:
        UnusableRow: there are no tools, one of them is not a tool, or two of one name differ.
    """
    tools = decode_json(written, "tools are not JSON")
    if tools is None or tools == []:
        raise UnusableRow("no tools")
    if not isinstance(tools, list | dict):
        raise UnusableRow("tools are not a list", tools)
    by_name: dict[str, Tool] = {}
    notes: dict[str, None] = {}
    for found in find_tools(tools):
        if isinstance(found, NotATool):
            raise UnusableRow(found.reason, found.value)
        schema, remarks = read_parameters(tool_parameters(found))
        tool = Tool(found.name, found.description, schema, found.raw)
        notes.update({remark.kind: None for remark in remarks})
        if by_name.setdefault(tool.name, tool) is not tool:
            if by_name[tool.name].raw != tool.raw:
                raise UnusableRow("two different tools of one name", tool.name)
            notes["tool offered twice"] = None
    if not by_name:
        raise UnusableRow("no tools", tools)
    return OfferedTools(by_name, tuple(notes))


def tool_parameters(tool: WrittenTool) -> dict[str, Json]:
    """The parameters of a tool as they were written, for `parameters.read_parameters`.

    Raises:
        UnusableRow: they are not an object, or as `check_json`.
    """
    parameters = tool.parameters
    if isinstance(parameters, str) and parameters.strip():
        parameters = decode_json(parameters, "tool parameters are not JSON")
    # Nothing in it, in whatever way that is written.
    parameters = parameters or {}
    if not isinstance(parameters, dict):
        raise UnusableRow("tool parameters are not an object", parameters)
    check_json(tool.raw)
    return parameters


def _refuse_broken(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnusableRow("broken Unicode", text) from None
