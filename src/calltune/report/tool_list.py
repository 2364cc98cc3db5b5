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
_MIN_ARGUMENTS_WIDTH = 20
_MAX_LINE_LENGTH = 64 + _MAX_ARGUMENTS_LENGTH + _MAX_DESCRIPTION_LENGTH + 4
"""Characters of a line with the longest name of a tool."""


def print_tools(tools: Sequence[Tool]) -> None:
    """Print one line a tool: name, arguments (those that may be left out with a ?), description."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console = open_console()
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    table.add_column("tool", no_wrap=True)
    width = _MIN_ARGUMENTS_WIDTH if console.is_terminal else None
    table.add_column("arguments", overflow="fold", min_width=width)
    table.add_column("description", no_wrap=True, overflow="ellipsis")
    for tool in tools:
        first = (tool.description.strip().splitlines() or [""])[0]
        cells = (tool.name, _arguments(tool.parameters), _cut(first, _MAX_DESCRIPTION_LENGTH))
        table.add_row(*map(Text, cells))
    if not console.is_terminal:
        # Where nothing says how wide a line may be, names and arguments need not be broken.
        console.width = max(console.width, _MAX_LINE_LENGTH)
    print_table(console, table)


def print_notes(notes: Iterable[Note], to: TextIO | None = None) -> None:
    """Print one line for each kind of note to `to` (the standard output).

    A single note is printed after the name of its tool; several of a kind as their number, what
    they have in common, and the first.
    """
    by_kind: dict[str, list[Note]] = {}
    for note in notes:
        by_kind.setdefault(note.kind or note.text, []).append(note)
    for kind, alike in by_kind.items():
        first = alike[0]
        text = f"{first.tool}: {first.text}" if first.tool else first.text
        if len(alike) > 1:
            text = f"{len(alike):,} times: {kind}; first {text}"
        print(f"  note: {_cut(text, _MAX_NOTE_LENGTH)}", file=to)


def _arguments(parameters: dict[str, Json]) -> str:
    required = parameters["required"]
    parts = [parameters]
    for keyword in ("allOf", "anyOf", "oneOf"):
        parts += [part for part in parameters.get(keyword, ()) if isinstance(part, dict)]
    names = dict.fromkeys(name for part in parts for name in part.get("properties", ()))
    shown = [name if name in required else f"{name}?" for name in names]
    return _cut(", ".join(shown), _MAX_ARGUMENTS_LENGTH)


def _cut(text: str, characters: int) -> str:
    shown = escape_line(text)
    return shown if len(shown) <= characters else f"{shown[: characters - 1]}…"
