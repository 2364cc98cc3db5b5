"""Parts that every table in the terminal shares."""

from typing import TYPE_CHECKING

from calltune.evaluation.bfcl import MeanRate
from calltune.evaluation.metrics import Rate
from calltune.terminal_text import escape_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MAX_NAME_LENGTH = 40
MAX_PATH_LENGTH = 1200
"""Longer names and paths are truncated to these lengths."""


def open_console() -> "Console":
    """A console that shows text as it is: it highlights nothing, and takes nothing for markup."""
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)


def plain_table(*headings: str) -> "Table":
    """An empty table without a frame; the first column is text, the others numbers."""
    from rich import box
    from rich.table import Table

    # Narrow enough for five-digit counts in 80 columns.
    table = Table(
        box=box.SIMPLE_HEAD,
        header_style="bold",
        padding=(0, 1, 0, 0),
        pad_edge=False,
        show_edge=False,
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=True)
    return table


def print_table(console: "Console", table: "Table") -> None:
    """Print the table between empty lines."""
    console.print()
    console.print(table)
    console.print()


def percent(share: float) -> str:
    """A share from 0 to 1 in whole per cent."""
    return f"{round(100 * share)} %"


def interval(rate: Rate | MeanRate) -> str:
    """The ends of a rate's interval, in whole per cent."""
    return f"{percent(rate.low)} to {percent(rate.high)}"


def model_name(model: str, adapter: str | None) -> str:
    """How a model and its adapter are shown to the user."""
    return escape_line(f"{model} + {adapter}" if adapter else model, MAX_PATH_LENGTH)
