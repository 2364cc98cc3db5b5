"""The training loop: steps, reports, validation, checkpoints, early stopping."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import mlx.core as mx
import numpy as np

from calltune.data.batching import TokenRow
from calltune.training.checkpoint import Position
from calltune.training.distributed import DistributedGroup
from calltune.training.loader import DeviceBatch, Loader
from calltune.training.logging import Diverged, RunLogger, StepReport
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
    """How long a model is trained, and what happens at which step."""

    iters: int
    """Number of steps, one batch each; an update is made of `accumulate` of them."""
    learning_rate: LearningRate
    accumulate: int = 1
    steps_per_report: int = 10
    steps_per_eval: int = 200
    save_every: int = 100
    patience: int = 0
    """Validations without a new best after which training stops; 0 trains to the end. The one
    before the first step is the first that may be the best."""
    valid_positions: int = 2048
    """Positions in a validation batch, at most."""
    seed: int = 0
    """Random seed of dropout."""


def _discard(*_: object) -> None:
    pass


class SaveCallbacks(NamedTuple):
    """What is done with a run's results; called in the first process only."""

    checkpoint: Callable[[TrainState, Position], None] = _discard
    """Gets the state and the position at every save."""
    best: Callable[[Weights], None] = _discard
    """Gets the weights with the lowest validation loss so far, where a step made it lower than it
    was before the first one."""


class Loop:
    """Trains a model step by step: reports, validates and saves on the way.

    With several processes each runs its own loop; losses and gradients are summed over them.
    """

    def __init__(
        self,
        step: Step,
        loader: Loader,
        valid_rows: Sequence[TokenRow],
        schedule: Schedule,
        group: DistributedGroup,
        logger: RunLogger,
        callbacks: SaveCallbacks,
    ) -> None:
        self._step, self._loader, self._valid_rows = step, loader, valid_rows
        self._schedule, self._group = schedule, group
        self._logger, self._callbacks = logger, callbacks

    def run(self, trained: TrainState, start: Position) -> TrainState:
        """Train to the end of the schedule, or until patience ends; the state at the end.

        Raises:
            Diverged: a loss is not finite. Checkpoints written before are kept.
        """
        for _ in self.steps(trained, start):
            pass
        return self.trained

    def steps(self, trained: TrainState, start: Position) -> Iterator[DeviceBatch]:
        """The same step by step: each batch once it was trained on, which is queued, not done.

        Reports, validations and saves that are due after a step take place before its batch is
        given. `self.trained` is the state after the last step.

        Raises:
            Diverged: a loss is not finite.
        """
        self.trained = trained
        return self._steps(start)

    def _steps(self, start: Position) -> Iterator[DeviceBatch]:
        self._step.split_model.model.train()
        self._at = start
        self._clock = time.perf_counter() - start.elapsed_s
        self._pending: list[_Pending] = []
        self._sum: Gradients | None = None
        self._in_sum: list[DeviceBatch] = []
        if start.step == 0 and self._valid_rows:
            self._validate()
        save_is_due = False
        batches = self._loader.training(start.step, self._schedule.iters)
        for number, batch in enumerate(batches, start=start.step + 1):
            if self._is_patience_over():
                break
            self._train_on(batch, number)
            is_last = number == self._schedule.iters
            if number % self._schedule.steps_per_report == 0 or is_last:
                self._report()
            if self._valid_rows and (number % self._schedule.steps_per_eval == 0 or is_last):
                self._validate()
                if self._is_patience_over() and not is_last:
                    self._logger.stopped_early(number, self._at.worse)
            save_is_due |= number % self._schedule.save_every == 0
            if (save_is_due or is_last or self._is_patience_over()) and self._sum is None:
                self._save()
                save_is_due = False
            yield batch
        self._log_pending()
        if self._sum is not None:
            self._save()
        self._report_end()

    def validate(self, weights: Weights) -> float:
        """The mean loss over the validation rows, in nats per trained token, without dropout."""
        total, count = 0.0, 0
        self._step.split_model.model.eval()
        with self._logger.phase("validating", len(self._valid_rows)) as advance:
            batches = self._loader.validation(self._valid_rows, self._schedule.valid_positions)
            for batch in batches:
                total += float(self._step.loss(weights, batch.arrays))
                count += batch.host.n_trained
                advance(len(batch.host.rows) * self._group.size)
        self._step.split_model.model.train()
        total, n_trained = self._group.sum_numbers(total, count)
        return total / n_trained

    def _train_on(self, batch: DeviceBatch, number: int) -> None:
        """One batch; an update where it is the last of its group."""
        self._seed_step(number)
        accumulate = self._schedule.accumulate
        rate = self._schedule.learning_rate.at((number - 1) // accumulate)
        is_alone = accumulate == 1 and self._group.size == 1
        result: StepResult | Gradients
        if is_alone:
            result = self._step.step(self.trained, batch.arrays, batch.host.n_trained, rate)
            self.trained = result.trained
        else:
            result = self._step.gradients(self.trained.weights, batch.arrays)
            self._sum, self._in_sum = add_gradients(self._sum, result), [*self._in_sum, batch]
            if number % accumulate == 0 or number == self._schedule.iters:
                self._update(rate)
        mx.async_eval(self.trained, result.loss, self._sum)  # type: ignore[no-untyped-call]
        self._log_pending()
        self._pending.append(_Pending(number, result.loss, batch, rate))

    def _seed_step(self, number: int) -> None:
        """Let what a step draws depend on its number alone, so that a run can be resumed exactly.

        Other group draw other numbers.
        """
        seed = np.random.SeedSequence([self._schedule.seed, number, self._group.rank])
        mx.random.seed(int(seed.generate_state(1)[0]))

    def _update(self, rate: float) -> None:
        """An update with the gradients of all batches and group since the last one."""
        assert self._sum is not None
        summed = Gradients(self._sum.loss, self._group.all_sum(self._sum.of))
        (n_trained,) = self._group.sum_numbers(sum(batch.host.n_trained for batch in self._in_sum))
        self._sum, self._in_sum = None, []
        self.trained = self._step.update(self.trained, summed, n_trained, rate).trained

    def _log_pending(self) -> None:
        """Log the loss of steps that were queued: one step late, so that none is waited for."""
        for number, loss, batch, rate in self._pending:
            host = batch.host
            sums = self._group.sum_numbers(
                float(loss), host.n_trained, host.n_tokens, batch.n_positions
            )
            loss_sum, n_trained, n_tokens, n_positions = sums
            self._logger.step(
                StepReport(
                    step=number,
                    loss_sum=loss_sum,
                    n_trained=int(n_trained),
                    n_tokens=int(n_tokens),
                    n_padded=int(n_positions),
                    learning_rate=rate,
                )
            )
            self._at = replace(self._at, step=number, tokens=self._at.tokens + int(n_tokens))
        self._pending.clear()

    def _report(self) -> None:
        self._log_pending()
        self._logger.report(self._at.step)

    def _validate(self) -> None:
        self._log_pending()
        started = time.perf_counter()
        loss = self.validate(self.trained.weights)
        lowest = math.inf if self._at.best_loss is None else self._at.best_loss
        is_best = loss < lowest
        if is_best:
            self._at = replace(self._at, best_loss=loss, best_step=self._at.step, worse=0)
            if self._group.is_rank0 and self._at.step > 0:
                self._callbacks.best(self.trained.weights)
        else:
            self._at = replace(self._at, worse=self._at.worse + 1)
        seconds = time.perf_counter() - started
        self._logger.validated(self._at.step, loss, seconds, is_best)

    def _save(self) -> None:
        self._log_pending()
        mx.eval(self.trained)
        if not all(mx.isfinite(value).all().item() for value in self.trained.weights.values()):
            raise Diverged(
                f"The weights are no longer finite at step {self._at.step}; lower "
                "--learning-rate (the last checkpoint is kept)"
            )
        elapsed = time.perf_counter() - self._clock
        unreported = self._logger.unreported
        self._at = replace(self._at, elapsed_s=elapsed, unreported=unreported)
        if self._group.is_rank0:
            self._callbacks.checkpoint(self.trained, self._at)

    def _is_patience_over(self) -> bool:
        return 0 < self._schedule.patience <= self._at.worse

    def _report_end(self) -> None:
        if self._at.best_loss is not None:
            self._logger.best(self._at.best_step, self._at.best_loss)


class _Pending(NamedTuple):
    """A step that was queued and whose loss is not logged yet."""

    number: int
    loss: mx.array
    batch: DeviceBatch
    rate: float
