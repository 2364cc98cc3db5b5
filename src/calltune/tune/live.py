"""The line of a terminal that changes while a run goes on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class LiveLine:
    """A bar on the terminal's last line, and printed lines above it.

    Where there is no terminal the printed lines are all; with `shown` false there is nothing.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._console = Console(highlight=False, markup=False, quiet=not shown)
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            disable=not (shown and self._console.is_interactive),
        )
        self._task = self._bar.add_task("train", total=total, completed=done, note="")
        self.start, self.stop = self._bar.start, self._bar.stop

    def update(self, done: int, note: str) -> None:
        """Show how many steps are done, and the note beside them."""
        self._bar.update(self._task, completed=done, note=note)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        # A log's reader has no use for lines broken at a width that nobody chose.
        self._console.print(text, soft_wrap=True)

    @contextmanager
    def instead(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Another bar in the place of the ones shown."""
        shown = [task.id for task in self._bar.tasks if task.visible]
        for task in shown:
            self._bar.update(task, visible=False)
        other = self._bar.add_task(name, total=total, note="")
        self._bar.refresh()
        try:
            yield lambda count: self._bar.update(other, advance=count)
        finally:
            self._bar.remove_task(other)
            for task in shown:
                self._bar.update(task, visible=True)
