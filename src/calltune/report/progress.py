"""A progress bar while a model is evaluated, and with --verbose each example.

Where the output is no terminal, a line now and then takes the bar's place.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from calltune.evaluation.records import Record
from calltune.report.examples import print_record
from calltune.terminal_text import Heartbeat

Show = Callable[[Record, int, int], None]
"""Called with a new record, how many are done, and of how many."""


@contextmanager
def progress_of(title: str, verbose: bool) -> Iterator[Show]:
    """A progress bar titled `title`, or lines that tell as much; what it yields advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(highlight=False, markup=False, emoji=False)
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[right]} right"),
        TimeRemainingColumn(),
    )
    n_new, right, so_far = 0, 0, f"{title}: no answer yet"

    def print_line(line: str) -> None:
        console.print(line, soft_wrap=True)

    with ExitStack() as stack:
        is_live = console.is_interactive
        bar = stack.enter_context(
            Progress(*columns, console=console, transient=True, disable=not is_live)
        )
        if not is_live:
            stack.enter_context(Heartbeat(lambda: so_far, print_line))
        task = bar.add_task(title, total=None, right=0)

        def show(record: Record, done: int, of: int) -> None:
            nonlocal n_new, right, so_far
            n_new += 1
            right += record.judgement.is_exact
            so_far = f"{title}: {done:,} of {of:,} answered, {right:,} of {n_new:,} new ones right"
            bar.update(task, completed=done, total=of, right=right)
            if verbose:
                print_record(console, record)

        yield show
