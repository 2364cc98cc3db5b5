"""What a training run logs: a progress bar, printed lines, metrics.jsonl, and trackers."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Self

import mlx.core as mx

from calltune.errors import CalltuneError
from calltune.terminal_text import Heartbeat
from calltune.training.metrics_file import append_metrics
from calltune.training.trackers import Tracker


class ProgressBar:
    """A progress bar on the terminal's last line, and printed lines above it.

    Where the output is no terminal there are only the printed lines, and after some seconds without
    one a line that says how far it is; with `shown` false there is nothing.
    """

    def __init__(self, total: int, done: int, shown: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
        from rich.progress import Progress as Bar

        self._console = Console(highlight=False, markup=False, emoji=False, quiet=not shown)
        is_live = shown and self._console.is_interactive
        self._bar = Bar(
            TextColumn("{task.description}", markup=False),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=self._console,
            transient=True,
            disable=not is_live,
        )
        self._task = self._bar.add_task("train", total=total, completed=done, note="")
        self._heartbeat = Heartbeat(self._state, self.print) if shown and not is_live else None

    def start(self) -> None:
        """Show it."""
        self._bar.start()
        if self._heartbeat is not None:
            self._heartbeat.start()

    def stop(self) -> None:
        """Remove it."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
        self._bar.stop()

    def update(self, done: int, note: str) -> None:
        """Show how many steps are done, and a note beside the bar."""
        self._bar.update(self._task, completed=done, note=note)

    def print(self, text: str) -> None:
        """Print a line above the bar."""
        # Lines of a log file should not be wrapped at an arbitrary width.
        self._console.print(text, soft_wrap=True)
        if self._heartbeat is not None:
            self._heartbeat.postpone()

    def _state(self) -> str:
        """How far the bar is, as a line."""
        shown = [task for task in self._bar.tasks if task.visible]
        if not shown:
            return ""
        note = shown[-1].fields["note"]
        done, total = shown[-1].completed, shown[-1].total or 0
        return f"  {shown[-1].description}: {done:.0f} of {total:.0f}{note and '  '}{note}"

    @contextmanager
    def replaced(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show another bar in place of this one; the function that is yielded advances it."""
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


class Stopwatch:
    """Seconds since it was created, in all and without pauses."""

    def __init__(self) -> None:
        self._started, self._paused_s = perf_counter(), 0.0

    def elapsed_s(self) -> float:
        """All seconds since it was created."""
        return perf_counter() - self._started

    def training_s(self) -> float:
        """The seconds outside `paused` blocks."""
        return self.elapsed_s() - self._paused_s

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time of the block out of `training_s`; nested blocks count once."""
        before_s, started = self._paused_s, perf_counter()
        try:
            yield
        finally:
            self._paused_s = before_s + perf_counter() - started


class Diverged(CalltuneError):
    """The loss or a weight is no longer a finite number."""


@dataclass(frozen=True, slots=True)
class StepReport:
    """One training step, summed over all processes."""

    step: int
    """Counted from 1."""
    loss_sum: float
    """Loss in nats, summed over the trained tokens."""
    n_trained: int
    """Number of tokens that the loss was computed on."""
    n_tokens: int
    """Number of tokens in the rows, prompts included."""
    n_padded: int
    """Number of positions computed: `n_tokens` and the padding."""
    learning_rate: float


@dataclass(frozen=True, slots=True)
class Unreported:
    """Sums over the steps since the last report."""

    n_steps: int = 0
    n_trained: int = 0
    n_tokens: int = 0
    n_padded: int = 0
    loss: float = 0.0
    learning_rate: float = 0.0
    """Of the last step."""

    def plus(self, report: StepReport) -> "Unreported":
        """The sums with one more step."""
        return Unreported(
            self.n_steps + 1,
            self.n_trained + report.n_trained,
            self.n_tokens + report.n_tokens,
            self.n_padded + report.n_padded,
            self.loss + report.loss_sum,
            report.learning_rate,
        )

    def means(self) -> dict[str, float]:
        """The metrics of the steps together."""
        return {
            "train_loss": self.loss / self.n_trained,
            "learning_rate": self.learning_rate,
            "padding_share": 1 - self.n_tokens / self.n_padded,
        }


class RunLogger:
    """Logs a run: a progress bar, a printed line at each report, metrics.jsonl, and trackers.

    With `shown` false nothing is printed. A tracker that fails is dropped with a note; training
    goes on.
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
        unreported: Unreported = Unreported(),
    ) -> None:
        """Take where a resumed run begins.

        `first_…` are the steps, tokens and seconds that it has behind it, and `unreported` the sums
        over those of the steps that no report has told.
        """
        self._total_steps, self._first_step = total_steps, first_step
        self._file = metrics_file
        self._trackers = list(trackers)
        self._line = ProgressBar(total_steps, first_step, shown)
        self.unreported = unreported
        """Sums over the steps since the last report."""
        # Their time was another process's, so they do not count for the speed.
        self._n_untimed = unreported.n_tokens
        self._tokens = first_tokens
        self._first_elapsed_s = first_elapsed_s
        self._first_step_s: float | None = None
        self._start_clock()

    def __enter__(self) -> Self:
        """Show the progress bar and start the clock."""
        self._start_clock()
        self._line.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Remove the progress bar and finish the trackers, however training ended."""
        self._line.stop()
        for tracker in list(self._trackers):
            with self._drop_if_failing(tracker):
                tracker.finish()

    def step(self, report: StepReport) -> None:
        """Count a step, and update the progress bar.

        Raises:
            Diverged: the loss is not finite.
        """
        _check_finite("loss", report.loss_sum, report.step)
        self.unreported = self.unreported.plus(report)
        self._tokens += report.n_tokens
        if self._first_step_s is None:
            self._first_step_s = self._watch.training_s()
        self._line.update(report.step, self._summary(report.step, self._measured()))

    def report(self, step: int) -> None:
        """Print and record the means over the steps since the last report, if there were any.

        `train_loss` is per trained token, `learning_rate` the last step's, `elapsed_s` all time
        spent; `tokens_per_second` is without the time of phases.
        """
        if not self.unreported.n_steps:
            return
        metrics = self._measured()
        self.unreported, self._n_untimed = Unreported(), 0
        self._reported_s = self._watch.training_s()
        self._line.print(f"  step {step:>5}  train {self._summary(step, metrics)}")
        self._record(step, metrics)

    def validated(self, step: int, loss: float, seconds: float, is_best: bool) -> None:
        """Print and record a validation.

        Raises:
            Diverged: the loss is not finite.
        """
        _check_finite("validation loss", loss, step)
        best = "  best so far" if is_best and step else ""
        self._line.print(f"  step {step:>5}  valid loss {loss:.3f}{best}")
        self._record(step, {"val_loss": loss, "val_s": seconds})

    def stopped_early(self, step: int, n_validations: int) -> None:
        """Print and record that training ends before its last step, as `--patience` asks."""
        last = "validation" if n_validations == 1 else f"{n_validations} validations"
        self._line.print(
            f"  step {step:>5}  stopped before step {self._total_steps}: the last {last} brought "
            "no new best (--patience)"
        )
        if self._file is not None:
            append_metrics(self._file, {"step": step, "stopped": "patience"})

    def best(self, step: int, loss: float) -> None:
        """Print which weights were the best ones, at the end of a run."""
        self._line.print(
            f"Lowest validation loss {loss:.3f} after step {step}: those weights are in best/"
            if step
            else f"No validation was better than the one before the first step, {loss:.3f}: best/ "
            "holds the weights that training began with"
        )

    @contextmanager
    def phase(self, name: str, total: int) -> Iterator[Callable[[int], None]]:
        """Show the progress of something other than training, `total` items long.

        The function that is yielded takes the number of items done since its last call. The time
        of the block does not count as training time. Phases can be nested.
        """
        with self._watch.paused(), self._line.replaced(name, total) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Print one line above the progress bar."""
        self._line.print(text)

    def _start_clock(self) -> None:
        self._watch, self._reported_s = Stopwatch(), 0.0
        self._first_step_s = None

    def _measured(self) -> dict[str, float]:
        """The metrics of the steps since the last report."""
        training_s = self._watch.training_s() - self._reported_s
        n_timed = self.unreported.n_tokens - self._n_untimed
        return self.unreported.means() | {
            "tokens_per_second": n_timed / training_s,
            "tokens": self._tokens,
            "peak_gb": mx.get_peak_memory() / 1e9,
            "elapsed_s": self._first_elapsed_s + self._watch.elapsed_s(),
        }

    def _summary(self, step: int, metrics: dict[str, float]) -> str:
        left_s = self._left_s(step)
        left = f"{left_s / 60:.1f} min" if left_s < 5400 else f"{left_s / 3600:.1f} h"
        return (
            f"loss {metrics['train_loss']:.3f}  {metrics['tokens_per_second']:,.0f} tokens/s  "
            f"{metrics['peak_gb']:.1f} GB  {left} left"
        )

    def _left_s(self, step: int) -> float:
        """Estimated training time of the remaining steps, in seconds."""
        n_done, spent_s = step - self._first_step, self._watch.training_s()
        if n_done > 1 and self._first_step_s is not None:
            # Kernels are compiled in the first step, so it says little about the others.
            n_done, spent_s = n_done - 1, spent_s - self._first_step_s
        return spent_s / n_done * (self._total_steps - step)

    def _record(self, step: int, metrics: dict[str, float]) -> None:
        if self._file is not None:
            append_metrics(self._file, {"step": step} | metrics)
        for tracker in list(self._trackers):
            with self._drop_if_failing(tracker):
                tracker.log(step, metrics)

    @contextmanager
    def _drop_if_failing(self, tracker: Tracker) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self._trackers.remove(tracker)
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            self.note(f"{tracker.name} failed and is not used any more ({reason})")


def _check_finite(what: str, value: float, step: int) -> None:
    if not math.isfinite(value):
        raise Diverged(
            f"The {what} is {value} at step {step}; lower --learning-rate or --num-layers "
            "(the last checkpoint is kept)"
        )
