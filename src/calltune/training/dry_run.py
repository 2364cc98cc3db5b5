"""A run before anything is computed: its layers, steps, batches, and where its cache goes.

A training is built on it and `calltune plan` reads it, so that a plan is of the run that would
take place. All that is derived from the options of a run is derived here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from calltune.data.batching import COARSE, FINE, Buckets, Splits, TokenRow
from calltune.downloads import cache_folder
from calltune.models.backend import Backend
from calltune.models.dense import Precision
from calltune.models.memory import device_bytes
from calltune.training.activation_cache import (
    MAX_BATCH_POSITIONS,
    CachePlacement,
    choose_placement,
    count_positions,
    free_on_disk,
)
from calltune.training.adapter import AdapterShape
from calltune.training.distributed import DistributedGroup
from calltune.training.loader import Loader
from calltune.training.loop import Schedule
from calltune.training.loss import CHUNK_LOGITS
from calltune.training.options import TrainOptions
from calltune.training.schedule import LearningRate
from calltune.training.step import StepOptions


def activations_folder() -> Path:
    """Where activations that are cached on disk are kept for later runs."""
    return cache_folder() / "prefix"


@dataclass(frozen=True, slots=True)
class Machine:
    """Where a run computes, and what it may use there."""

    device: Literal["metal", "cuda", "cpu"]
    precision: Precision
    """Of weights and activations."""
    memory: int
    """Bytes: a GPU's memory, or what the machine has available before the model is loaded."""
    free_disk: int
    """Bytes free where activations are cached on disk."""

    @property
    def is_cpu(self) -> bool:
        """Whether steps are computed array by array on a CPU, not compiled."""
        return self.device == "cpu"


def measure(backend: Backend) -> Machine:
    """The machine that this process runs on; call it before a model is loaded."""
    free_disk = free_on_disk(activations_folder())
    return Machine(backend.device, backend.precision, device_bytes(backend), free_disk)


class ModelSize(NamedTuple):
    """What of a model decides how it is trained."""

    n_layers: int
    hidden: int
    """Numbers in the output of a layer at one position."""
    number_bytes: int
    """Bytes of one of those numbers."""
    weight_bytes: int
    """Bytes of all weights as they are while training: dequantized or not."""
    can_split: bool = True
    """The frozen layers can be run apart from the trained ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The sizes that training keeps to, in positions, numbers and bytes."""

    kept_positions: int = 1280
    """With gradient checkpointing, larger batches are recomputed in part."""
    valid_positions: int = 2048
    """Positions in a validation batch, at most."""
    fill_bytes: int = 2 * 10**9
    """What filling the cache may take on a GPU, the cache included; more where one layer needs
    more."""
    bulk_positions: int = MAX_BATCH_POSITIONS
    chunk_logits: int = CHUNK_LOGITS


LIMITS = Limits()


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """A run before anything is computed."""

    machine: Machine
    adapter: AdapterShape
    n_layers: int
    """Layers of the model."""
    n_trained: int
    """Those that are trained, from the top."""
    step: StepOptions
    loader: Loader
    schedule: Schedule
    valid_rows: Sequence[TokenRow]
    """The rows that every validation uses."""
    used_rows: Sequence[TokenRow]
    """The training and validation rows that this process will use."""
    cache: CachePlacement
    """Where the frozen layers' output for `used_rows` goes."""

    @property
    def max_kept_positions(self) -> int:
        """Positions whose activations are kept for the backward pass, at most."""
        limit, largest = self.step.kept_positions, self.loader.max_positions
        return largest if limit is None else min(limit, largest)


def dry_run(
    model: ModelSize,
    rows: Splits[TokenRow],
    options: TrainOptions,
    machine: Machine,
    group: DistributedGroup,
    *,
    limits: Limits = LIMITS,
) -> DryRun:
    """What a training of this model on these rows would be; nothing is computed.

    Raises:
        OptionError: the model has too few layers, or a cache was asked for and no layer is frozen.
    """
    adapter = adapter_shape(options)
    n_trained = adapter.n_trained(model.n_layers)
    buckets = buckets_for(machine)
    loader = Loader(rows.train, options.batch_size, options.seed, buckets, group)
    schedule = make_schedule(options, loader.steps_per_epoch, limits)
    valid = sample_valid_rows(rows.valid, options)
    used = [*loader.seen(schedule.iters), *group.shard(valid)]
    # What is available on a CPU was measured before the weights were there.
    memory = machine.memory - (model.weight_bytes if machine.is_cpu else 0)
    cache = choose_placement(
        model.n_layers - n_trained if model.can_split else 0,
        count_positions(used) * model.hidden * model.number_bytes,
        options.prefix_cache,
        memory,
        machine.free_disk,
    )
    return DryRun(
        machine=machine,
        adapter=adapter,
        n_layers=model.n_layers,
        n_trained=n_trained,
        step=step_options(options, machine, limits),
        loader=loader,
        schedule=schedule,
        valid_rows=valid,
        used_rows=used,
        cache=cache,
    )


def adapter_shape(options: TrainOptions) -> AdapterShape:
    """Which weights are trained."""
    return AdapterShape(
        options.fine_tune_type,
        options.num_layers,
        options.rank,
        options.scale,
        options.dropout,
        options.modules,
    )


def buckets_for(machine: Machine) -> Buckets:
    """The shapes that batches are padded to."""
    return FINE if machine.is_cpu else COARSE


def step_options(options: TrainOptions, machine: Machine, limits: Limits = LIMITS) -> StepOptions:
    """How a step is computed."""
    # Eager functions keep what they recompute beside what they computed first.
    is_recomputed = options.grad_checkpoint and not machine.is_cpu
    return StepOptions(
        clip=options.max_grad_norm,
        kept_positions=limits.kept_positions if is_recomputed else None,
        # Dropout draws anew in every step, and MLX's CPU backend gains nothing.
        compiled=not machine.is_cpu and not options.dropout,
        use_numpy=machine.is_cpu,
        norms_are_frozen=options.fine_tune_type != "full",
    )


def make_schedule(options: TrainOptions, steps_per_epoch: int, limits: Limits = LIMITS) -> Schedule:
    """How long a model is trained, and what happens at which step."""
    iters = options.iters
    if options.epochs is not None:
        iters = options.epochs * steps_per_epoch
    updates = -(-iters // options.grad_accumulation_steps)
    return Schedule(
        iters=iters,
        learning_rate=LearningRate(
            options.learning_rate, options.lr_schedule, options.warmup_steps, updates
        ),
        accumulate=options.grad_accumulation_steps,
        steps_per_report=options.steps_per_report,
        steps_per_eval=options.steps_per_eval,
        save_every=options.save_every,
        patience=options.patience,
        valid_positions=limits.valid_positions,
        seed=options.seed,
    )


def sample_valid_rows(rows: Sequence[TokenRow], options: TrainOptions) -> Sequence[TokenRow]:
    """The rows that every validation uses: all, or a sample that depends on the seed alone."""
    n_rows = options.val_batches * options.batch_size
    if options.val_batches < 0 or len(rows) <= n_rows:
        return rows
    rng = np.random.default_rng(options.seed)
    return [rows[i] for i in rng.choice(len(rows), n_rows, replace=False).tolist()]
