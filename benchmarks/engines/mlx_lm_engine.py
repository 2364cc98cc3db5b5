"""mlx_lm's own trainer: its `train`, its batches, its loss, its compiled step, its evaluation.

`train` runs to its end once called; it is held between blocks from inside its batch iterator,
which it asks for a batch only when the step before is done.
"""

import tempfile
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset
from rows import Row, Rows
from settings import Setting
from worker import Block, WorkerChannel

from engines import mlx_model

FOREVER = 10**9
Batch = tuple[mx.array, mx.array]


class TokenDataset:
    """Rows that are tokens already, in the form of mlx_lm's datasets: dicts, and a `process`."""

    def __init__(self, rows: list[Row]) -> None:
        self._rows = [
            {"tokens": row.tokens.tolist(), "offset": row.completion_start} for row in rows
        ]

    def process(self, row: dict[str, Any]) -> tuple[list[int], int]:
        """A row's tokens, and how many of them are not trained on."""
        return row["tokens"], row["offset"]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)


class MlxLm:
    """mlx_lm's model and trainer."""

    def __init__(self, rows: Rows, setting: Setting) -> None:
        self._setting = setting
        self._model = mlx_model.build(setting)
        self._train = CacheDataset(TokenDataset(rows.train))
        self._valid = CacheDataset(TokenDataset(rows.valid))

    def train(self, channel: WorkerChannel) -> None:
        """Run mlx_lm's trainer over the blocks that the channel asks for."""
        np.random.seed(self._setting.seed)

        def batches(**arguments: Any) -> Iterator[Batch]:
            theirs = trainer.iterate_batches(**arguments)
            for count in channel.blocks(self):
                seen: list[Batch] = []
                started = time.perf_counter()
                for batch in islice(theirs, count):
                    seen.append(batch)
                    yield batch
                channel.done(_block(time.perf_counter() - started, seen))

        with tempfile.TemporaryDirectory() as scratch:
            arguments = trainer.TrainingArgs(
                batch_size=self._setting.batch_size,
                iters=FOREVER,
                steps_per_save=FOREVER,
                max_seq_length=self._setting.max_seq_length,
                adapter_file=str(Path(scratch) / "adapters.safetensors"),
            )
            trainer.train(
                self._model,
                optimizers.Adam(learning_rate=self._setting.learning_rate),
                self._train,
                args=arguments,
                iterate_batches=batches,
            )

    def validate(self) -> Block:
        """mlx_lm's `evaluate` over all validation rows that fill a batch."""
        seen: list[Batch] = []

        def batches(**arguments: Any) -> Iterator[Batch]:
            for batch in trainer.iterate_batches(**arguments):
                seen.append(batch)
                yield batch

        started = time.perf_counter()
        loss = trainer.evaluate(
            self._model,
            self._valid,
            self._setting.batch_size,
            num_batches=-1,
            max_seq_length=self._setting.max_seq_length,
            iterate_batches=batches,
        )
        seconds = time.perf_counter() - started
        self._model.train()
        return _block(seconds, seen, float(loss))

    def peak_gb(self) -> float:
        """MLX's own count."""
        return mx.get_peak_memory() / 1e9

    def release(self) -> None:
        """Empty MLX's cache."""
        mlx_model.release()

    def details(self) -> dict[str, Any]:
        """The device."""
        return {"device": mlx_model.device_name()}


def serve(rows: Rows, setting: Setting, channel: WorkerChannel) -> None:
    """Train until the channel is closed."""
    MlxLm(rows, setting).train(channel)


def _block(seconds: float, seen: list[Batch], loss: float | None = None) -> Block:
    # Read after the clock has stopped: it waits for the device.
    tokens = int(np.sum([np.array(lengths)[:, 1].sum() for _, lengths in seen]))
    return Block(seconds, len(seen), tokens, sum(batch.size for batch, _ in seen), loss)
