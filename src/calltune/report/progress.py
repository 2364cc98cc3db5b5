"""A progress bar while a model is evaluated, and with --verbose each example."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from calltune.evaluation.records import Record
from calltune.report.examples import print_record

Show = Callable[[Record, int, int], None]
"""Called with a new record, how many are done, and of how many."""


@contextmanager
def progress_of(title: str, verbose: bool) -> Iterator[Show]:
    """A progress bar titled `title`; what it yields advances it."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    console = Console(highlight=False)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(24),
        MofNCompleteColumn(),
        TextColumn("{task.fields[right]} right"),
        TimeRemainingColumn(),
    )
    right = 0
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(title, total=None, right=0)

        def show(record: Record, done: int, of: int) -> None:
            nonlocal right
            right += record.judgement.is_exact
            bar.update(task, completed=done, total=of, right=right)
            if verbose:
                print_record(console, record)

        yield show
