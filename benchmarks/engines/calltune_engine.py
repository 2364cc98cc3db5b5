"""calltune's trainer: its loop, its step, its batches and its cache of the frozen layers."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from calltune.models.backend import choose, configure_small_steps

BACKEND = choose()

import mlx.core as mx  # noqa: E402
from rows import Row, Rows  # noqa: E402
from settings import Setting  # noqa: E402
from worker import Block, Desk  # noqa: E402

from calltune.commands.train import LARGE_BATCH  # noqa: E402
from calltune.data.batching import COARSE, FINE, TokenRow  # noqa: E402
from calltune.models.memory import limit_queued_memory  # noqa: E402
from calltune.training import adapter  # noqa: E402
from calltune.training.activation_cache import CachePlacement, CacheSource, build_cache  # noqa: E402
from calltune.training.checkpoint import Position  # noqa: E402
from calltune.training.cuda.decoder import fuse  # noqa: E402
from calltune.training.cuda.kernels import CudaKernels  # noqa: E402
from calltune.training.distributed import DistributedGroup  # noqa: E402
from calltune.training.loader import DeviceBatch, Loader  # noqa: E402
from calltune.training.logging import Progress  # noqa: E402
from calltune.training.loop import Loop, SaveCallbacks, Schedule  # noqa: E402
from calltune.training.run import FILL_BYTES, KEPT_POSITIONS, VALID_POSITIONS  # noqa: E402
from calltune.training.schedule import LearningRate  # noqa: E402
from calltune.training.split_model import split_at  # noqa: E402
from calltune.training.step import Step, StepOptions, estimate_step_bytes  # noqa: E402
from engines import mlx_model  # noqa: E402

ENDLESS = 10**9
"""Steps; the desk says when it is enough."""


class HeldLoader(Loader):
    """Batches that wait for the next command after each block of steps."""

    desk: Desk
    engine: "Calltune"

    def training(self, done: int, total: int) -> Iterator[DeviceBatch]:
        """Batches as long as the desk wants them."""
        batches = super().training(done, total)
        for count in self.desk.blocks(self.engine):
            started = time.perf_counter()
            tokens = positions = 0
            for _ in range(count):
                batch = next(batches)
                tokens += batch.host.n_tokens
                # A row's last token is only a target: the width of its tokens is one more.
                positions += batch.n_positions + len(batch.host.inputs)
                yield batch
            mx.synchronize()
            self.desk.done(Block(time.perf_counter() - started, count, tokens, positions))


class Calltune:
    """calltune's model and loop."""

    def __init__(self, rows: Rows, setting: Setting) -> None:
        on_cpu = BACKEND.device == "cpu"
        if setting.batch_size < LARGE_BATCH:
            # As train does; MLX reads it when it first uses the GPU.
            configure_small_steps()
        group = DistributedGroup()
        model = mlx_model.base(setting)
        mx.eval(model.parameters())
        shape = adapter.AdapterShape("lora", setting.num_layers, setting.rank, setting.scale, 0.0)
        adapter.attach(model, shape, setting.seed)
        adapter.pack_layers(model)
        split_model = split_at(model, shape.n_frozen(model))
        train, self._valid = token_rows(rows.train), token_rows(rows.valid)
        buckets = FINE if on_cpu else COARSE
        self.loader = HeldLoader(train, setting.batch_size, setting.seed, buckets, group)
        if BACKEND.device == "cuda":
            split_model.fused = fuse(
                split_model, CudaKernels(), self.loader.longest([*train, *self._valid])
            )
        mx.reset_peak_memory()
        started = time.perf_counter()
        if BACKEND.device != "cpu":
            limit_queued_memory(FILL_BYTES)
        place = CachePlacement("memory", 0, "asked for")
        self.loader.prefix = build_cache(
            split_model,
            [*train, *self._valid],
            place,
            CacheSource(Path(), BACKEND.precision, Path()),
            lambda _: None,
        )
        self._fill_s = time.perf_counter() - started
        self._fill_peak = mx.get_peak_memory()
        # The validation rows' share is not the training's.
        self._tokens = sum(len(row.tokens) for row in train)
        self._share = self._tokens / (self._tokens + sum(len(row.tokens) for row in self._valid))
        kept = None if on_cpu or setting.batch_size >= LARGE_BATCH else KEPT_POSITIONS
        self._step = Step(
            split_model, StepOptions(compiled=not on_cpu, use_numpy=on_cpu, kept_positions=kept)
        )
        schedule = Schedule(
            iters=ENDLESS,
            learning_rate=LearningRate(setting.learning_rate),
            steps_per_report=ENDLESS,
            steps_per_eval=ENDLESS,
            save_every=ENDLESS,
            valid_positions=VALID_POSITIONS,
        )
        self._trained = self._step.begin(adapter.trainable(model))
        if kept is not None:
            limit_queued_memory(estimate_step_bytes(split_model, kept))
        nowhere = SaveCallbacks(lambda *_: None, lambda *_: None)
        self.progress = Progress(ENDLESS, None, shown=False)
        self.loop = Loop(self._step, self.loader, [], schedule, group, self.progress, nowhere)
        self._validation = Loop(
            self._step, self.loader, self._valid, schedule, group, self.progress, nowhere
        )

    def train(self) -> None:
        """Train until the desk closes."""
        self.loop.run(self._trained, Position())

    def validate(self) -> Block:
        """The loss over all validation rows."""
        started = time.perf_counter()
        loss = self._validation.validate(self._trained.weights)
        seconds = time.perf_counter() - started
        batch = list(self.loader.validation(self._valid, VALID_POSITIONS))
        tokens = sum(each.host.n_tokens for each in batch)
        padded = sum(each.n_positions + len(each.host.inputs) for each in batch)
        return Block(seconds, len(batch), tokens, padded, loss)

    def peak_gb(self) -> float:
        """MLX's own count, filling the cache included."""
        return mx.get_peak_memory() / 1e9

    def release(self) -> None:
        """Empty MLX's cache."""
        mlx_model.release()

    def details(self) -> dict[str, Any]:
        """The device, and what filling the cache of the frozen layers took."""
        assert self.loader.prefix is not None
        return {
            "device": mlx_model.device_name(),
            "prefix_fill_s": self._fill_s * self._share,
            "prefix_tokens": self._tokens,
            "prefix_gb": self.loader.prefix.n_bytes / 1e9,
            "prefix_peak_gb": self._fill_peak / 1e9,
            "fused_layers": self._step.split_model.fused is not None,
        }


def serve(rows: Rows, setting: Setting, desk: Desk) -> None:
    """Train until the desk closes."""
    engine = Calltune(rows, setting)
    engine.loader.desk, engine.loader.engine = desk, engine
    with engine.progress:
        engine.train()


def token_rows(rows: list[Row]) -> list[TokenRow]:
    """The rows as calltune's batches take them."""
    return [
        TokenRow(str(index), tuple(row.tokens.tolist()), row.completion_start)
        for index, row in enumerate(rows)
    ]
