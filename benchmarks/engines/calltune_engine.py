"""calltune's trainer, put together as `calltune train` does it and stepped from outside."""

import time
from pathlib import Path
from typing import Any

from calltune.models.backend import choose, configure_small_steps

BACKEND = choose()

import mlx.core as mx  # noqa: E402
from rows import Row, Rows  # noqa: E402
from settings import Setting  # noqa: E402
from worker import Block, WorkerChannel  # noqa: E402

from calltune.data.batching import Splits, TokenRow  # noqa: E402
from calltune.models.loading import LoadedModel  # noqa: E402
from calltune.training.checkpoint import Position  # noqa: E402
from calltune.training.dry_run import measure  # noqa: E402
from calltune.training.logging import RunLogger  # noqa: E402
from calltune.training.loop import SaveCallbacks  # noqa: E402
from calltune.training.options import LARGE_BATCH, TrainOptions  # noqa: E402
from calltune.training.run import build_run  # noqa: E402
from engines import mlx_model  # noqa: E402

ENDLESS = 10**9
"""Steps; the benchmark says when it is enough."""


class Calltune:
    """A run of calltune's that is trained block by block."""

    def __init__(self, rows: Rows, setting: Setting) -> None:
        if setting.batch_size < LARGE_BATCH:
            # As train does; MLX reads it when it first uses the GPU.
            configure_small_steps()
        machine = measure(BACKEND)
        model = mlx_model.base(setting)
        mx.eval(model.parameters())
        loaded = LoadedModel(model, None, Path(setting.folder), setting.name)
        tokens = Splits(token_rows(rows.train), token_rows(rows.valid))
        self._run = build_run(loaded, tokens, train_options(setting), machine)
        logger = RunLogger(ENDLESS, None, shown=False)
        mx.reset_peak_memory()
        started = time.perf_counter()
        self._run.fill_cache(logger)
        self._fill_s = time.perf_counter() - started
        self._fill_peak = mx.get_peak_memory()
        # The validation rows' share is not the training's.
        self._tokens = sum(len(row.tokens) for row in tokens.train)
        n_tokens = self._tokens + sum(len(row.tokens) for row in tokens.valid)
        self._share = self._tokens / n_tokens
        # Validations come when they are asked for, not between the steps of a block.
        self._loop = self._run.loop(logger, SaveCallbacks(), valid_rows=())
        self._validation = self._run.loop(logger, SaveCallbacks())
        self._batches = self._loop.steps(self._run.trained, Position())

    def steps(self, count: int) -> Block:
        """Train on the next `count` batches; done when the device is."""
        started = time.perf_counter()
        tokens = positions = 0
        for _ in range(count):
            batch = next(self._batches)
            tokens += batch.host.n_tokens
            # A row's last token is only a target: the width of its tokens is one more.
            positions += batch.n_positions + len(batch.host.inputs)
        mx.synchronize()
        return Block(time.perf_counter() - started, count, tokens, positions)

    def validate(self) -> Block:
        """The loss over all validation rows, of the weights as they are now."""
        started = time.perf_counter()
        loss = self._validation.validate(self._loop.trained.weights)
        seconds = time.perf_counter() - started
        run = self._run
        batches = list(run.loader.validation(run.valid_rows, run.schedule.valid_positions))
        tokens = sum(batch.host.n_tokens for batch in batches)
        padded = sum(batch.n_positions + len(batch.host.inputs) for batch in batches)
        return Block(seconds, len(batches), tokens, padded, loss)

    def peak_gb(self) -> float:
        """MLX's own count, filling the cache included."""
        return mx.get_peak_memory() / 1e9

    def release(self) -> None:
        """Empty MLX's cache."""
        mlx_model.release()

    def details(self) -> dict[str, Any]:
        """The device, and what filling the cache of the frozen layers took."""
        assert self._run.loader.cache is not None
        return {
            "device": mlx_model.device_name(),
            "prefix_fill_s": self._fill_s * self._share,
            "prefix_tokens": self._tokens,
            "prefix_gb": self._run.loader.cache.n_bytes / 1e9,
            "prefix_peak_gb": self._fill_peak / 1e9,
            "fused_layers": self._run.step.split_model.fused is not None,
        }


def serve(rows: Rows, setting: Setting, channel: WorkerChannel) -> None:
    """Train a block whenever the channel asks for one."""
    channel.serve(Calltune(rows, setting))


def train_options(setting: Setting) -> TrainOptions:
    """The setting as options of `calltune train`."""
    return TrainOptions(
        num_layers=setting.num_layers,
        rank=setting.rank,
        scale=setting.scale,
        batch_size=setting.batch_size,
        learning_rate=setting.learning_rate,
        max_seq_length=setting.max_seq_length,
        seed=setting.seed,
        iters=ENDLESS,
        steps_per_report=ENDLESS,
        steps_per_eval=ENDLESS,
        save_every=ENDLESS,
        val_batches=-1,
        prefix_cache="memory",
        # As users of large batches on a large GPU do.
        grad_checkpoint=setting.batch_size < LARGE_BATCH,
    )


def token_rows(rows: list[Row]) -> list[TokenRow]:
    """The rows as calltune's batches take them."""
    return [
        TokenRow(str(index), tuple(row.tokens.tolist()), row.completion_start)
        for index, row in enumerate(rows)
    ]
