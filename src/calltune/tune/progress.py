"""What a training run shows and records while it goes on."""

import json
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import mlx.core as mx
from mlx_lm.tuner.callbacks import TrainingCallback

from calltune.calls import Json
from calltune.errors import CalltuneError
from calltune.jsonl import output_error


class Diverged(CalltuneError):
    """The loss is no longer a number."""


class Progress(TrainingCallback):  # type: ignore[misc]
    """One live line, a printed line at each report, and a line in metrics.jsonl.

    It takes the place of mlx_lm's `TrainUI` (same methods) and is its callback too.
    """

    def __init__(self, iters: int, metrics_file: Path) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.tokens = 0
        """Real tokens trained on so far, prompts included; the batch iterator adds to it."""
        self._tokens_reported = 0
        self._iters = iters
        self._file = metrics_file
        self._console = Console(highlight=False)
        self._bar = Bar(
            TextColumn("train"),
            BarColumn(24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeRemainingColumn(),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task("train", total=iters, note="")

    def __enter__(self) -> Self:
        """Start the live line."""
        self._started = self._reported = time.perf_counter()
        self._bar.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Take the live line away."""
        self._bar.stop()

    def advance(self) -> None:
        """One step is done."""
        self._bar.advance(self._task)

    @contextmanager
    def val_task(self, total: int) -> Iterator[Callable[[], None]]:
        """Show that validation runs; what is yielded is called after each of its batches."""
        before = self._bar.tasks[0].fields["note"]
        self._bar.update(self._task, note="validating")
        started = time.perf_counter()
        try:
            yield lambda: None
        finally:
            # Validation is no training time.
            self._reported += time.perf_counter() - started
            self._bar.update(self._task, note=before)

    def report_train(self, *_: object) -> None:
        """Nothing: `on_train_loss_report` knows more."""

    def report_val(self, *_: object) -> None:
        """Nothing: `on_val_loss_report` knows more."""

    def report_save(self, *_: object) -> None:
        """Nothing: calltune saves by itself."""

    def on_train_loss_report(self, train_info: dict[str, Any]) -> None:
        """Print and record a training report.

        Raises:
            Diverged: the loss is not finite.
        """
        step, loss = int(train_info["iteration"]), float(train_info["train_loss"])
        if not math.isfinite(loss):
            raise Diverged(
                f"The loss is {loss} at step {step}; lower --learning-rate or --num-layers "
                "(the last checkpoint is kept)"
            )
        now = time.perf_counter()
        speed = (self.tokens - self._tokens_reported) / (now - self._reported)
        self._tokens_reported, self._reported = self.tokens, now
        peak_gb = mx.get_peak_memory() / 1e9
        left = (now - self._started) / step * (self._iters - step)
        self._bar.update(self._task, note=f"loss {loss:.3f}")
        self._console.print(
            f"  step {step:>5}  train loss {loss:.3f}  {speed:,.0f} tokens/s  "
            f"{peak_gb:.1f} GB  {left / 60:.1f} min left"
        )
        self.record(
            {
                "step": step,
                "train_loss": loss,
                "learning_rate": float(train_info["learning_rate"]),
                "tokens_per_second": speed,
                "tokens": self.tokens,
                "peak_gb": peak_gb,
                "elapsed_s": now - self._started,
            }
        )

    def on_val_loss_report(self, val_info: dict[str, Any]) -> None:
        """Print and record a validation report."""
        step, loss = int(val_info["iteration"]), float(val_info["val_loss"])
        self._console.print(f"  step {step:>5}  valid loss {loss:.3f}")
        self.record({"step": step, "val_loss": loss, "val_s": float(val_info["val_time"])})

    def record(self, metrics: dict[str, Json]) -> None:
        """Append one line to metrics.jsonl."""
        try:
            with self._file.open("a") as file:
                file.write(json.dumps(metrics) + "\n")
        except OSError as error:
            raise output_error(self._file, error) from error
