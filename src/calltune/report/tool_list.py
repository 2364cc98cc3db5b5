"""The table of tools in the terminal, and notes on what could not be converted."""

from collections.abc import Iterable, Sequence
from typing import TextIO

from calltune.report.terminal import open_console, print_table
from calltune.terminal_text import escape_line
from calltune.tools.toolset import Note
from calltune.types import Json, Tool

_MAX_ARGUMENTS_LENGTH = 60
_MAX_DESCRIPTION_LENGTH = 80
_MAX_NOTE_LENGTH = 300


def print_tools(tools: Sequence[Tool]) -> None:
    """Print one line a tool: name, arguments (those that may be left out with a ?), description."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("tool", no_wrap=True)
    table.add_column("arguments", overflow="fold")
    table.add_column("description", no_wrap=True, overflow="ellipsis")
    for tool in tools:
        first = (tool.description.strip().splitlines() or [""])[0]
        cells = (tool.name, _arguments(tool.parameters), _cut(first, _MAX_DESCRIPTION_LENGTH))
        table.add_row(*map(Text, cells))
    print_table(open_console(), table)


def print_notes(notes: Iterable[Note], to: TextIO | None = None) -> None:
    """Print one line a note, after the name of its tool, to `to` (the standard output)."""
    for note in notes:
        text = f"{note.tool}: {note.text}" if note.tool else note.text
        print(f"  note: {_cut(text, _MAX_NOTE_LENGTH)}", file=to)


def _arguments(parameters: dict[str, Json]) -> str:
    required = parameters["required"]
    names = [name if name in required else f"{name}?" for name in parameters["properties"]]
    return _cut(", ".join(names), _MAX_ARGUMENTS_LENGTH)


def _cut(text: str, characters: int) -> str:
    shown = escape_line(text)
    return shown if len(shown) <= characters else f"{shown[: characters - 1]}…"
