"""The tools that a row offers: in a column of their own, or in the text of its system message.

A system message whose text lists the tools is left out of the examples: it spells out one prompt
format, and every prompt format here renders the tools itself.

Source: `<tools>` of Hermes, https://huggingface.co/datasets/NousResearch/hermes-function-calling-v1;
lists in the text of Glaive (one object after the other), ToolACE and ToolBench (a list).
"""

import json
import re
from dataclasses import dataclass
from functools import lru_cache

from calltune.data.readers.arrow_nulls import tools_without_nulls
from calltune.data.readers.values import decode_text, locate_value
from calltune.schemas.tools import OfferedTools, UnusableRow, read_tools
from calltune.types import Json, Tool

_NAMED = re.compile(r"""(?:\[\s*)?\{\s*["'](?:name|type|function|description)["']\s*:""")

_DESCRIBED = re.compile(
    r"""(?:\[\s*)?\{\s*["']name["']\s*:\s*["'][^"']*["']\s*,\s*["']description["']"""
)


@dataclass(frozen=True, slots=True)
class RowTools:
    """The tools that a row offers, and what was remarked while it was read."""

    by_name: dict[str, Tool]
    remarks: dict[str, None]
    """What was not understood or left out but does no harm, in order; `note` adds to it."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """The tools in the order of the row."""
        return tuple(self.by_name.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """The remarks, each once."""
        return tuple(self.remarks)

    def note(self, remark: str) -> None:
        """Add a remark, once."""
        self.remarks[remark] = None


def read_offer(written: Json) -> RowTools:
    """The tools in a row's column: a list, one tool, or either as JSON; each item may be JSON too.

    Raises:
        UnusableRow: as `read_tools`.
    """
    if isinstance(written, str):
        written = decode_text(written, "tools are not JSON") if written.strip() else None
    if isinstance(written, dict):
        written = [written]
    if isinstance(written, list):
        written = [
            decode_text(item, "tools are not JSON") if isinstance(item, str) else item
            for item in written
        ]
    cleaned = tools_without_nulls(written)
    offer = _read_all(cleaned)
    remarks = dict.fromkeys(offer.notes)
    if cleaned is not written:
        remarks["keys that are null are left out of tools"] = None
    return RowTools(offer.by_name, remarks)


def _read_all(tools: Json) -> OfferedTools:
    """As `read_tools`; a tool that earlier rows offered is not read again."""
    if not isinstance(tools, list) or not tools or not all(isinstance(t, dict) for t in tools):
        return read_tools(tools)
    parts = [_read_one(json.dumps(tool)) for tool in tools]
    names = [name for part in parts for name in part.by_name]
    if len(set(names)) < len(tools) or len(names) != len(tools):
        return read_tools(tools)
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return OfferedTools({n: t for part in parts for n, t in part.by_name.items()}, tuple(notes))


@lru_cache(maxsize=10_000)
def _read_one(text: str) -> OfferedTools:
    return read_tools([json.loads(text)])


def tagged_tools(text: str) -> list[Json]:
    """The tools between `<tools>` tags, as lists or one on each line.

    Raises:
        UnusableRow: a tag is not closed, or what is between is not JSON.
    """
    tools: list[Json] = []
    # The instructions around the list mention the tags too, with nothing between them.
    for block in blocks(text, "tools"):
        for item in _list_or_lines(block):
            tools.extend(item if isinstance(item, list) else [item])
    return tools


def listed_tools(text: str) -> list[Json]:
    """The tools that a text lists as JSON: lists of them, or one object after the other.

    Raises:
        UnusableRow: what looks like a tool with a description is not JSON.
    """
    tools: list[Json] = []
    at = 0
    while (found := _NAMED.search(text, at)) is not None:
        located = locate_value(text, found.start())
        if located is None:
            if _DESCRIBED.match(text, found.start()):
                raise UnusableRow("tools are not JSON", text[found.start() :])
            at = found.end()
            continue
        at = located.end
        items = located.value if isinstance(located.value, list) else [located.value]
        tools.extend(item for item in items if _is_tool(item))
    return tools


def blocks(text: str, tag: str) -> list[str]:
    """The text between each pair of tags, without blank ones; linear in the text's length.

    Raises:
        UnusableRow: a tag is not closed.
    """
    found = []
    for piece in text.split(f"<{tag}>")[1:]:
        block, closing, _ = piece.partition(f"</{tag}>")
        if not closing:
            raise UnusableRow(f"<{tag}> that is not closed", piece)
        if block.strip():
            found.append(block.strip())
    return found


def _list_or_lines(block: str) -> list[Json]:
    try:
        return [decode_text(block, "tools are not JSON")]
    except UnusableRow:
        lines = [line for line in block.splitlines() if line.strip()]
        return [decode_text(line, "tools are not JSON") for line in lines]


def _is_tool(written: Json) -> bool:
    inner = written.get("function", written) if isinstance(written, dict) else None
    if not isinstance(inner, dict) or not isinstance(inner.get("name"), str):
        return False
    # A call has a name too, in the examples that instructions give.
    return "parameters" in inner or "description" in inner
