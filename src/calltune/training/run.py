"""`build_run`: the one place where a training is put together from its parts.

`calltune train`, the training benchmark and the tests all train what it returns.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
from mlx.utils import tree_flatten

from calltune.data.batching import Buckets, Splits, TokenRow
from calltune.models.loading import LoadedModel
from calltune.models.memory import limit_queued_memory
from calltune.training import adapter
from calltune.training.activation_cache import CacheSource, build_cache
from calltune.training.cuda.decoder import fuse
from calltune.training.cuda.kernels import CudaKernels
from calltune.training.distributed import DistributedGroup
from calltune.training.dry_run import (
    LIMITS,
    DryRun,
    Machine,
    ModelSize,
    activations_folder,
    adapter_shape,
    dry_run,
)
from calltune.training.loader import Loader
from calltune.training.logging import RunLogger
from calltune.training.loop import Loop, SaveCallbacks, Schedule
from calltune.training.options import TrainOptions
from calltune.training.split_model import SplitModel, WholeModel, split_at
from calltune.training.step import Step, StepOptions, TrainState, Weights, estimate_step_bytes
from calltune.types import Json


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A training put together: its parts, and the state before its first step."""

    model: Any
    options: TrainOptions
    plan: DryRun
    """What was settled before anything was computed."""
    step: Step
    trained: TrainState
    """Trained weights and optimizer state before the first step."""
    loader: Loader
    schedule: Schedule
    valid_rows: Sequence[TokenRow]
    group: DistributedGroup
    adapter_config: dict[str, Json]
    """The part of adapter_config.json that mlx_lm needs to load the adapter."""
    source: CacheSource
    """What the cached activations are of."""

    def fill_cache(self, logger: RunLogger) -> None:
        """Compute the frozen layers' output for every row that the run will use.

        Does nothing where there is no cache; otherwise the frozen layers' memory is given back.
        """
        rows, place, split_model = self.plan.used_rows, self.plan.cache, self.step.split_model
        if not rows:
            # There may be fewer rows than processes.
            return
        n_rows = len(set(rows))
        if place.mode != "off":
            where = "in memory" if place.mode == "memory" else "on disk"
            n_layers = len(self.model.layers)
            logger.note(
                f"Frozen layers: {split_model.n_frozen} of {n_layers}, their output for {n_rows} "
                f"rows kept {where} ({place.n_bytes / 1e9:.2f} GB)"
            )
        elif split_model.n_frozen:
            logger.note(f"Frozen layers are computed in every step: {place.reason}")
        with logger.phase("frozen layers", n_rows) as advance:
            if not self.plan.machine.is_cpu:
                limit_queued_memory(LIMITS.fill_bytes)
            self.loader.cache = build_cache(split_model, rows, place, self.source, advance)

    def loop(
        self,
        logger: RunLogger,
        callbacks: SaveCallbacks,
        valid_rows: Sequence[TokenRow] | None = None,
    ) -> Loop:
        """The loop over all steps; call it after `fill_cache`.

        It validates on `valid_rows`, those of the run where none are given.
        """
        if not self.plan.machine.is_cpu:
            limit_queued_memory(
                estimate_step_bytes(self.step.split_model, self.plan.max_kept_positions)
            )
        rows = self.valid_rows if valid_rows is None else valid_rows
        return Loop(self.step, self.loader, rows, self.schedule, self.group, logger, callbacks)

    def adapter_weights(self, weights: Weights) -> Weights:
        """Trained weights, or gradients of them, by the names that mlx_lm gives them."""
        return adapter.exported(self.model, self.step.unstack(weights))


def build_run(
    loaded: LoadedModel,
    rows: Splits[TokenRow],
    options: TrainOptions,
    machine: Machine,
    *,
    has_adapter: bool = False,
    step_options: StepOptions | None = None,
    buckets: Buckets | None = None,
) -> Run:
    """Put a training together; the model gets its adapter, in place, and is split into layers.

    `loaded` is the base model as `models.loading.load` gives it, and `rows` are those that fit
    into `options.max_seq_length`. `machine` was measured before the model was loaded. With
    `has_adapter` the model has the adapter of these options already. `step_options` and `buckets`
    take the place of those that follow from the options. No file is written, no cache filled.

    Raises:
        OptionError: the options do not fit the model: too many layers, unknown modules, full
            fine-tuning of a quantized model, or a cache without frozen layers.
        ModelNotFound: `options.resume_adapter_file` is missing, broken or another model's.
    """
    model, shape = loaded.model, adapter_shape(options)
    weight_bytes = sum(array.nbytes for _, array in _arrays(model))
    config: dict[str, Json] = {}
    if not has_adapter:
        adapter.check_trainable(shape, loaded.folder, loaded.reference)
        config = adapter.attach(model, shape, options.seed)
    if options.resume_adapter_file is not None:
        adapter.resume(model, options.resume_adapter_file)
        print(f"Starting from the weights in {options.resume_adapter_file}")
    adapter.pack_layers(model)
    split_model = split_at(model, shape.n_frozen(len(model.layers)))
    if isinstance(split_model, WholeModel):
        print(f"{type(model).__module__} cannot be split into layers: every step runs all of it")
    group = DistributedGroup()
    plan = dry_run(_size(split_model, weight_bytes), rows, options, machine, group)
    if step_options is not None:
        plan = replace(plan, step=step_options)
    if buckets is not None:
        loader = Loader(rows.train, options.batch_size, options.seed, buckets, group)
        plan = replace(plan, loader=loader)
    if options.patience and not plan.valid_rows:
        print("--patience has no effect: there are no rows to validate on")
    if machine.device == "cuda":
        split_model.fused = fuse(
            split_model, CudaKernels(), plan.loader.longest([*rows.train, *plan.valid_rows])
        )
        if split_model.fused is None:
            print("calltune's CUDA kernels do not fit these layers; MLX's own run, slower")
    step = Step(split_model, plan.step)
    return Run(
        model=model,
        options=options,
        plan=plan,
        step=step,
        trained=step.begin(adapter.trainable(model)),
        loader=plan.loader,
        schedule=plan.schedule,
        valid_rows=plan.valid_rows,
        group=group,
        adapter_config=config,
        source=CacheSource(loaded.folder, machine.precision, activations_folder()),
    )


def _size(split_model: SplitModel, weight_bytes: int) -> ModelSize:
    """The size of a split model. Its layers are not run: MLX is lazy."""
    hidden, dtype = split_model.hidden_size, split_model.dtype
    if split_model.n_frozen:
        output = split_model.run_frozen(mx.zeros((1, 2), mx.int32))
        hidden, dtype = output.shape[-1], output.dtype
    can_split = not isinstance(split_model, WholeModel)
    return ModelSize(len(split_model.model.layers), hidden, dtype.size, weight_bytes, can_split)


def _arrays(model: Any) -> list[tuple[str, mx.array]]:
    return list(tree_flatten(model.parameters()))
