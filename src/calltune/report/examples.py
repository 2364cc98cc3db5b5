"""Single examples in the terminal: the query, the expected calls, what each model wrote."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from calltune.evaluation.compare import Comparison
from calltune.evaluation.exact_match import differences
from calltune.evaluation.records import Record
from calltune.evaluation.results import Results
from calltune.files import dumps
from calltune.terminal_text import escape_for_terminal, escape_line
from calltune.types import reference_call

if TYPE_CHECKING:
    from rich.console import Console

SHOWN_CHARACTERS = 1200
"""A longer text is truncated to this length."""


class Block(NamedTuple):
    """One labelled part of an example."""

    label: str
    text: str
    style: str


def print_changed(comparison: Comparison, base: Results, tuned: Results) -> None:
    """Print the examples that tuning fixed, then those that it broke."""
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    before, after = base.records, tuned.records
    for what, ids in (("Fixed", comparison.fixed), ("Broken", comparison.broken)):
        for number, id in enumerate(ids, start=1):
            console.print(
                Text(f"{what} {number} of {len(ids)}: {escape_line(id, SHOWN_CHARACTERS)}", "bold")
            )
            for block in _blocks(before[id], after[id]):
                console.print(Text(block.label, "dim"))
                _print_indented(console, block)
            console.print()


def print_record(console: "Console", record: Record) -> None:
    """Print one example of one model: the query, the expected calls, what the model wrote."""
    from rich.text import Text

    console.print(Text(escape_line(record.id, SHOWN_CHARACTERS), "bold"))
    blocks = [
        Block("query", record.query, ""),
        Block("expected", right_calls(record), "cyan"),
        *_written_blocks("model wrote", record),
    ]
    for block in blocks:
        console.print(Text(block.label, "dim"))
        _print_indented(console, block)
    console.print()


def _print_indented(console: "Console", block: Block) -> None:
    from rich.padding import Padding
    from rich.text import Text

    text = Text(escape_for_terminal(block.text, SHOWN_CHARACTERS), block.style)
    console.print(Padding(text, (0, 0, 0, 4), expand=False))


def _blocks(before: Record, after: Record) -> Iterator[Block]:
    yield Block("query", before.query, "")
    yield Block("expected", right_calls(before), "cyan")
    for label, record in (("base wrote", before), ("tuned wrote", after)):
        yield from _written_blocks(label, record)


def _written_blocks(label: str, record: Record) -> Iterator[Block]:
    is_exact = record.judgement.is_exact
    yield Block(label, record.text or "(nothing)", "green" if is_exact else "red")
    if not is_exact:
        yield Block("  differences", wrongs(record), "")


def right_calls(record: Record) -> str:
    """The expected calls, one a line."""
    calls = (reference_call(answer, record.query) for answer in record.expected)
    return "\n".join(f"{call.name} {dumps(call.arguments)}" for call in calls) or "(no call)"


def wrongs(record: Record) -> str:
    """What is wrong with the calls of a record, one difference a line."""
    found = "\n".join(differences(record.parsed, record.expected))
    # Records hold no tools, so this one difference cannot be told from the values.
    return found or "(equal values: a number such as 5.0 stands where the tool asks for an integer)"
