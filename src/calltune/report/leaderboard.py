"""The table of BFCL accuracies of one model, in the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from calltune.evaluation.bfcl import MeanRate, Section
from calltune.evaluation.metrics import Rate
from calltune.report.terminal import (
    interval,
    model_name,
    open_console,
    plain_table,
    print_table,
)

if TYPE_CHECKING:
    from rich.table import Table

_SIMPLE = (
    "Non-Live AST is the plain mean of its four; Java and JavaScript are not run, so simple is "
    "simple_python alone."
)
_NO_OVERALL = (
    "No overall score: 70 % of BFCL's are multi-turn and agentic categories, which are not run."
)
_THERE = "BFCL counts text that does not parse as no call; calltune does not."


def print_leaderboard(
    model: str, adapter: str | None, ours: Sequence[Section], theirs: Sequence[Section]
) -> None:
    """Print the accuracies, BFCL's own count where it differs, and why there is no overall score.

    Args:
        model: The model's name.
        adapter: The adapter's, if any.
        ours: The sections by calltune's judgement.
        theirs: The same sections as BFCL counts.
    """
    from rich.text import Text

    console = open_console()
    n = sum(rate.of for section in ours for rate in section.categories.values())
    console.print()
    console.print(Text(f"BFCL, single-turn Python: {n:,} answers", "bold"))
    console.print(Text(model_name(model, adapter)), soft_wrap=True)
    table = plain_table("", "accuracy", "n", "95 % interval")
    for number, (section, there) in enumerate(zip(ours, theirs, strict=True)):
        if number:
            table.add_section()
        _add_section(table, section, there)
    print_table(console, table)
    notes = [
        _SIMPLE if any("simple_python" in section.categories for section in ours) else "",
        _THERE if list(ours) != list(theirs) else "",
        _NO_OVERALL,
    ]
    for note in filter(None, notes):
        console.print(Text(note))
    console.print()


def _add_section(table: "Table", ours: Section, theirs: Section) -> None:
    _add(table, ours.name, ours.total, theirs.total)
    for name, rate in ours.categories.items():
        _add(table, f"  {name}", rate, theirs.categories[name])


def _add(
    table: "Table", name: str, ours: Rate | MeanRate | None, theirs: Rate | MeanRate | None
) -> None:
    _add_rate(table, name, ours)
    if ours != theirs:
        indent = " " * (len(name) - len(name.lstrip()))
        _add_rate(table, f"{indent}  BFCL's count", theirs)


def _add_rate(table: "Table", name: str, rate: Rate | MeanRate | None) -> None:
    if rate is None:
        table.add_row(name, "N/A")
    else:
        table.add_row(name, f"{100 * rate.rate:.2f} %", f"{rate.of:,}", interval(rate))
