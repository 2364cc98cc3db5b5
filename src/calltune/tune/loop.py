"""The training loop: mlx_lm's trainer, fed with calltune's batches and loss."""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx_lm.tuner import trainer

from calltune.batches import Batch, TokenRow, epoch, in_order
from calltune.tune.adapter import checkpointed
from calltune.tune.loss import completion_loss
from calltune.tune.progress import Progress


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how a model is trained."""

    iters: int
    batch_size: int
    learning_rate: float
    val_batches: int
    """Validation uses this many batches of rows, always the same ones; -1 is all."""
    steps_per_report: int
    steps_per_eval: int
    save_every: int
    grad_accumulation_steps: int
    grad_checkpoint: bool
    seed: int


def train(
    model: Any,
    train_rows: Sequence[TokenRow],
    valid_rows: Sequence[TokenRow],
    schedule: Schedule,
    progress: Progress,
    save: Callable[[int], None],
) -> None:
    """Train the model's trainable weights in place; `save(step)` is called every `save_every`.

    Rows must have been tokenised; every row is used once before any is used again.
    """
    import mlx.optimizers as optimizers

    rng = np.random.default_rng(schedule.seed)

    # mlx_lm's trainer calls this with loop=True for training and without for validation.
    def iterate_batches(
        dataset: Sequence[TokenRow], loop: bool = False, **_: object
    ) -> Iterator[tuple[mx.array, ...]]:
        if not loop:
            for batch in in_order(dataset, schedule.batch_size):
                yield _arrays(batch)
            return
        step = 0
        while True:
            for batch in epoch(dataset, schedule.batch_size, rng):
                progress.tokens += batch.n_tokens
                yield _arrays(batch)
                # The trainer asks for the next batch when the step is done: its only hook.
                step += 1
                if step % schedule.save_every == 0:
                    save(step)

    with tempfile.TemporaryDirectory() as scratch, _shown_by(progress):
        arguments = trainer.TrainingArgs(
            batch_size=schedule.batch_size,
            iters=schedule.iters,
            val_batches=-1,
            steps_per_report=schedule.steps_per_report,
            steps_per_eval=schedule.steps_per_eval,
            # The trainer's own saving is not atomic: it goes to a folder that is thrown away.
            steps_per_save=schedule.iters + 1,
            adapter_file=str(Path(scratch) / "adapters.safetensors"),
            grad_accumulation_steps=schedule.grad_accumulation_steps,
        )
        with checkpointed(model, schedule.grad_checkpoint):
            trainer.train(
                model=model,
                optimizer=optimizers.Adam(learning_rate=schedule.learning_rate),
                train_dataset=train_rows,
                val_dataset=_fixed_sample(valid_rows, schedule),
                args=arguments,
                loss=completion_loss,
                iterate_batches=iterate_batches,
                training_callback=progress,
            )
    save(schedule.iters)


def _arrays(batch: Batch) -> tuple[mx.array, ...]:
    return tuple(
        mx.array(part) for part in (batch.inputs, batch.positions, batch.targets, batch.weights)
    )


def _fixed_sample(rows: Sequence[TokenRow], schedule: Schedule) -> Sequence[TokenRow]:
    most = schedule.val_batches * schedule.batch_size
    if schedule.val_batches < 0 or len(rows) <= most:
        return rows
    chosen = np.random.default_rng(schedule.seed).choice(len(rows), most, replace=False)
    return [rows[i] for i in chosen.tolist()]


@contextmanager
def _shown_by(progress: Progress) -> Iterator[None]:
    """Let mlx_lm's trainer report to `progress`: its own display is not an argument."""
    own = trainer.TrainUI
    trainer.TrainUI = lambda *_, **__: progress
    try:
        yield
    finally:
        trainer.TrainUI = own
