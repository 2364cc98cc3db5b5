"""What a training run shows and records while it goes on.

metrics.jsonl: what a training run measured, one JSON object a line, each with its step.

The line of a terminal that changes while a run goes on.

How much of a run's time is training.
"""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Self

import mlx.core as mx

from calltune.errors import CalltuneError, DataError
from calltune.files import atomic_write, dumps, output_error
from calltune.training.trackers import Tracker
from calltune.types import Json


class ProgressBar:
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


def append(path: Path, record: dict[str, Json]) -> None:
    """Add a line in one write, so that a killed run leaves at most the last one cut."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab") as file:
            file.write(dumps(record).encode() + b"\n")
    except OSError as error:
        raise output_error(path, error) from error


def truncate_metrics(metrics_file: Path, step: int) -> int:
    """Take what was recorded after `step` out of a metrics file; the number of lines taken out.

    So is a last line that was cut short. Without a file there is nothing to do.

    Raises:
        DataError: a whole line is no record of a step.
        OutputError: the file cannot be written.
    """
    if not metrics_file.exists():
        return 0
    lines = metrics_file.read_bytes().splitlines(keepends=True)
    kept = [
        line
        for number, line in enumerate(lines, start=1)
        if line.endswith(b"\n") and _step_of(line, metrics_file, number) <= step
    ]
    if len(kept) < len(lines):
        with atomic_write(metrics_file) as file:
            file.writelines(kept)
    return len(lines) - len(kept)


def _step_of(line: bytes, path: Path, number: int) -> int:
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}, line {number}: no record of a step; mend or remove it") from error


class Stopwatch:
    """Seconds since it was made, and how many of them were training."""

    def __init__(self) -> None:
        self._started, self._away_s = perf_counter(), 0.0

    def elapsed_s(self) -> float:
        """All of them."""
        return perf_counter() - self._started

    def training_s(self) -> float:
        """Those outside `away`."""
        return self.elapsed_s() - self._away_s

    @contextmanager
    def away(self) -> Iterator[None]:
        """What the block takes is not training; a block in another counts once."""
        before_s, started = self._away_s, perf_counter()
        try:
            yield
        finally:
            self._away_s = before_s + perf_counter() - started


class Diverged(CalltuneError):
    """The loss is no longer a number."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One training step, over all processes that took part in it."""

    step: int
    """Counted from 1."""
    loss_sum: float
    """Nats, summed over the trained tokens."""
    n_trained: int
    """Tokens that the loss is of."""
    n_tokens: int
    """Tokens of the rows, prompts included."""
    n_padded: int
    """Positions computed: `n_tokens` and the padding."""
    learning_rate: float
    grad_norm: float | None
    """Length of the gradient before it was clipped, where it is known."""


class Progress:
    """One live line, a printed line at each report, a line in metrics.jsonl, and trackers.

    Without a terminal there is no live line, and with `shown` false nothing is printed at all.
    A tracker that fails is let go with a note; training goes on.
    """

    def __init__(
        self,
        total_steps: int,
        metrics_file: Path | None,
        first_step: int = 0,
        trackers: Sequence[Tracker] = (),
        shown: bool = True,
        *,
        first_tokens: int = 0,
        first_elapsed_s: float = 0.0,
    ) -> None:
        """`first_…` are the steps, tokens and seconds behind a run that goes on where it was."""
        self._total_steps, self._first_step = total_steps, first_step
        self._file = metrics_file
        self._trackers = list(trackers)
        self._line = ProgressBar(total_steps, first_step, shown)
        self._sums = _Sums()
        self._tokens = first_tokens
        self._first_elapsed_s = first_elapsed_s
        self._first_step_s: float | None = None
        self._start_clock()

    def __enter__(self) -> Self:
        """Start the live line and the clock."""
        self._start_clock()
        self._line.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the live line away and finish the trackers, however training ended."""
        self._line.stop()
        for tracker in list(self._trackers):
            with self._let_go_if_failing(tracker):
                tracker.finish()

    def step(self, report: StepReport) -> None:
        """One step is done: bring the live line up to date.

        Raises:
            Diverged: the loss or the gradient is not finite.
        """
        _check_finite("loss", report.loss_sum, report.step)
        _check_finite("gradient's length", report.grad_norm or 0.0, report.step)
        self._sums.add(report)
        self._tokens += report.n_tokens
        if self._first_step_s is None:
            self._first_step_s = self._watch.training_s()
        self._line.update(report.step, self._in_words(report.step, self._measured()))

    def report(self, step: int) -> None:
        """Print and record the means over the steps since the last report; nothing without any.

        `train_loss` is per trained token, `learning_rate` the last step's, `elapsed_s` all time
        spent; `tokens_per_second` is without the time of phases.
        """
        if not self._sums.n_steps:
            return
        metrics = self._measured()
        self._sums, self._reported_s = _Sums(), self._watch.training_s()
        self._line.print(f"  step {step:>5}  train {self._in_words(step, metrics)}")
        self._record(step, metrics)

    def validated(self, step: int, loss: float, seconds: float, is_best: bool) -> None:
        """Print and record a validation.

        Raises:
            Diverged: the loss is not finite.
        """
        _check_finite("validation loss", loss, step)
        best = "  best so far" if is_best else ""
        self._line.print(f"  step {step:>5}  valid loss {loss:.3f}{best}")
        self._record(step, {"val_loss": loss, "val_s": seconds})

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show something else that goes on; what is yielded adds to how much of it is done.

        The time of the block is no training time. A phase may hold another.
        """
        with self._watch.away(), self._line.instead(name, total) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Print one line above the live one."""
        self._line.print(text)

    def _start_clock(self) -> None:
        self._watch, self._reported_s = Stopwatch(), 0.0
        self._first_step_s = None

    def _measured(self) -> dict[str, float]:
        """What metrics.jsonl says of the steps since the last report."""
        training_s = self._watch.training_s() - self._reported_s
        return self._sums.means() | {
            "tokens_per_second": self._sums.n_tokens / training_s,
            "tokens": self._tokens,
            "peak_gb": mx.get_peak_memory() / 1e9,
            "elapsed_s": self._first_elapsed_s + self._watch.elapsed_s(),
        }

    def _in_words(self, step: int, metrics: dict[str, float]) -> str:
        left_s = self._left_s(step)
        left = f"{left_s / 60:.1f} min" if left_s < 5400 else f"{left_s / 3600:.1f} h"
        return (
            f"loss {metrics['train_loss']:.3f}  {metrics['tokens_per_second']:,.0f} tokens/s  "
            f"{metrics['peak_gb']:.1f} GB  {left} left"
        )

    def _left_s(self, step: int) -> float:
        """Training time that the steps to come will take at the pace so far."""
        n_done, spent_s = step - self._first_step, self._watch.training_s()
        if n_done > 1 and self._first_step_s is not None:
            # Kernels are compiled in the first step, so it says little about the others.
            n_done, spent_s = n_done - 1, spent_s - self._first_step_s
        return spent_s / n_done * (self._total_steps - step)

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        if self._file is not None:
            append(self._file, {"step": step} | metrics)
        for tracker in list(self._trackers):
            with self._let_go_if_failing(tracker):
                tracker.log(step, metrics)

    @contextmanager
    def _let_go_if_failing(self, tracker: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._trackers.remove(tracker)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.note(f"{tracker.name} failed and gets nothing more ({reason})")


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"The {what} is {value} at step {step}; lower --learning-rate or --num-layers "
            "(the last checkpoint is kept)"
        )


@dataclass(slots=True)
class _Sums:
    """What the steps since the last report add up to."""

    n_steps: int = 0
    n_trained: int = 0
    n_tokens: int = 0
    n_padded: int = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    grad_norm: float = 0.0
    n_grad_norms: int = 0

    def add(self, report: StepReport) -> None:
        self.n_steps += 1
        self.n_trained += report.n_trained
        self.n_tokens += report.n_tokens
        self.n_padded += report.n_padded
        self.loss += report.loss_sum
        self.learning_rate = report.learning_rate
        if report.grad_norm is not None:
            self.grad_norm += report.grad_norm
            self.n_grad_norms += 1

    def means(self) -> dict[str, float]:
        means = {
            "train_loss": self.loss / self.n_trained,
            "learning_rate": self.learning_rate,
            "padding_share": 1 - self.n_tokens / self.n_padded,
        }
        if self.n_grad_norms:
            means["grad_norm"] = self.grad_norm / self.n_grad_norms
        return means
