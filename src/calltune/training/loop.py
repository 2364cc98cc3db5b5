"""The training loop: steps, reports, validation, checkpoints, an end."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from calltune.data.batching import TokenRow
from calltune.training.checkpoint import Position
from calltune.training.distributed import DistributedGroup
from calltune.training.loader import DeviceBatch, Loader
from calltune.training.logging import Diverged, Progress, StepReport
from calltune.training.schedule import LearningRate
from calltune.training.step import (
    Gradients,
    Step,
    StepResult,
    TrainState,
    Weights,
    add_gradients,
)


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how a model is trained."""

    iters: int
    """Batches; an update is made of `accumulate` of them."""
    learning_rate: LearningRate
    accumulate: int = 1
    steps_per_report: int = 10
    steps_per_eval: int = 200
    save_every: int = 100
    patience: int = 0
    """Validations without a new best after which training ends; 0 never ends it."""
    valid_positions: int = 2048
    """Positions in a validation batch, at most."""
    seed: int = 0
    """Of what is drawn in a step, by dropout."""


class SaveCallbacks(NamedTuple):
    """Where a run's results go; called in the first process only."""

    checkpoint: Callable[[TrainState, Position], None]
    best: Callable[[Weights], None]


class Loop:
    """One run, from where it is to its end."""

    def __init__(
        self,
        step: Step,
        loader: Loader,
        valid_rows: Sequence[TokenRow],
        schedule: Schedule,
        group: DistributedGroup,
        progress: Progress,
        callbacks: SaveCallbacks,
    ) -> None:
        self._step, self._loader, self._valid_rows = step, loader, valid_rows
        self._schedule, self._group = schedule, group
        self._progress, self._callbacks = progress, callbacks

    def run(self, trained: TrainState, start: Position) -> TrainState:
        """Train to the end of the schedule, or until patience ends; what was trained.

        Raises:
            Diverged: a loss is not finite. Checkpoints written before are kept.
        """
        self._step.split_model.model.train()
        self._at = start
        self._clock = time.perf_counter() - start.elapsed_s
        self._unsettled: list[tuple[int, StepResult | Gradients, DeviceBatch, float]] = []
        self._sum: Gradients | None = None
        self._in_sum: list[DeviceBatch] = []
        if start.step == 0 and self._valid_rows:
            self._validate(trained.weights)
        save_is_due = False
        batches = self._loader.training(start.step, self._schedule.iters)
        for number, batch in enumerate(batches, start=start.step + 1):
            if self._is_patience_over():
                break
            trained = self._one(trained, batch, number)
            is_last = number == self._schedule.iters
            if number % self._schedule.steps_per_report == 0 or is_last:
                self._report()
            if self._valid_rows and (number % self._schedule.steps_per_eval == 0 or is_last):
                self._validate(trained.weights)
            save_is_due |= number % self._schedule.save_every == 0
            if (save_is_due or is_last or self._is_patience_over()) and self._sum is None:
                self._save(trained)
                save_is_due = False
        self._settle()
        if self._sum is not None:
            self._save(trained)
        return trained

    def validate(self, weights: Weights) -> float:
        """The mean loss over the validation rows, nats per trained token; without dropout."""
        total, count = 0.0, 0
        self._step.split_model.model.eval()
        with self._progress.phase("validating", len(self._valid_rows)) as advance:
            batches = self._loader.validation(self._valid_rows, self._schedule.valid_positions)
            for batch in batches:
                total += float(self._step.loss(weights, batch.arrays))
                count += batch.host.n_trained
                advance(len(batch.host.rows) * self._group.size)
        self._step.split_model.model.train()
        total, n_trained = self._group.sum_numbers(total, count)
        return total / n_trained

    def _one(self, trained: TrainState, batch: DeviceBatch, number: int) -> TrainState:
        """One batch; an update where it is the last of its group."""
        self._draw_anew(number)
        accumulate = self._schedule.accumulate
        rate = self._schedule.learning_rate.at((number - 1) // accumulate)
        is_alone = accumulate == 1 and self._group.size == 1
        result: StepResult | Gradients
        if is_alone:
            result = self._step.step(trained, batch.arrays, batch.host.n_trained, rate)
            trained = result.trained
        else:
            result = self._step.gradients(trained.weights, batch.arrays)
            self._sum, self._in_sum = add_gradients(self._sum, result), [*self._in_sum, batch]
            if number % accumulate == 0 or number == self._schedule.iters:
                trained = self._update(trained, rate)
        mx.async_eval(trained, result.loss, self._sum)  # type: ignore[no-untyped-call]
        self._settle()
        self._unsettled.append((number, result, batch, rate))
        return trained

    def _draw_anew(self, number: int) -> None:
        """Let what a step draws depend on its number alone, so that a run can go on exactly."""
        drawn = np.random.SeedSequence([self._schedule.seed, number, self._group.rank])
        mx.random.seed(int(drawn.generate_state(1)[0]))

    def _update(self, trained: TrainState, rate: float) -> TrainState:
        """An update with the gradients of all batches and processes since the last one."""
        assert self._sum is not None
        summed = Gradients(self._sum.loss, self._group.all_sum(self._sum.of))
        (n_trained,) = self._group.sum_numbers(sum(batch.host.n_trained for batch in self._in_sum))
        self._sum, self._in_sum = None, []
        return self._step.update(trained, summed, n_trained, rate).trained

    def _settle(self) -> None:
        """Take in the loss of steps that are under way: one step late, so that none waits."""
        for number, result, batch, rate in self._unsettled:
            host = batch.host
            sums = self._group.sum_numbers(
                float(result.loss), host.n_trained, host.n_tokens, batch.n_positions
            )
            loss, n_trained, n_tokens, n_positions = sums
            self._progress.step(
                StepReport(
                    step=number,
                    loss_sum=loss,
                    n_trained=int(n_trained),
                    n_tokens=int(n_tokens),
                    n_padded=int(n_positions),
                    learning_rate=rate,
                    grad_norm=None,
                )
            )
            self._at = replace(self._at, step=number, tokens=self._at.tokens + int(n_tokens))
        self._unsettled.clear()

    def _report(self) -> None:
        self._settle()
        self._progress.report(self._at.step)

    def _validate(self, weights: Weights) -> None:
        self._settle()
        started = time.perf_counter()
        loss = self.validate(weights)
        lowest = math.inf if self._at.best_loss is None else self._at.best_loss
        is_best = self._at.step > 0 and loss < lowest
        if is_best:
            self._at = replace(self._at, best_loss=loss, best_step=self._at.step, worse=0)
            if self._group.is_rank0:
                self._callbacks.best(weights)
        elif self._at.step > 0:
            self._at = replace(self._at, worse=self._at.worse + 1)
        seconds = time.perf_counter() - started
        self._progress.validated(self._at.step, loss, seconds, is_best)

    def _save(self, trained: TrainState) -> None:
        self._settle()
        mx.eval(trained)
        if not all(mx.isfinite(value).all().item() for value in trained.weights.values()):
            raise Diverged(
                f"The weights are no longer finite at step {self._at.step}; lower "
                "--learning-rate (the last checkpoint is kept)"
            )
        elapsed = time.perf_counter() - self._clock
        self._at = replace(self._at, elapsed_s=elapsed)
        if self._group.is_rank0:
            self._callbacks.checkpoint(trained, self._at)

    def _is_patience_over(self) -> bool:
        return 0 < self._schedule.patience <= self._at.worse
