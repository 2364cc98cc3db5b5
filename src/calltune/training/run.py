"""A whole run put together: adapter, frozen outputs, step, batches, loop, files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from calltune.data.batching import COARSE, FINE, TokenRow
from calltune.downloads import cache_folder
from calltune.errors import OptionError
from calltune.models.backend import Backend
from calltune.models.loading import LoadedModel
from calltune.models.memory import device_bytes, limit_queued_memory
from calltune.training import adapter, checkpoint
from calltune.training.activation_cache import CacheMode, CacheSource, build_cache, choose_placement
from calltune.training.adapter import AdapterShape
from calltune.training.checkpoint import Checkpoint, Position, truncate_run
from calltune.training.cuda.decoder import fuse
from calltune.training.cuda.kernels import CudaKernels
from calltune.training.distributed import DistributedGroup
from calltune.training.loader import Loader
from calltune.training.logging import Progress
from calltune.training.loop import Loop, SaveCallbacks, Schedule
from calltune.training.schedule import Kind, LearningRate
from calltune.training.split_model import SplitModel, WholeModel, split_at
from calltune.training.step import (
    Step,
    StepOptions,
    TrainState,
    Weights,
    estimate_step_bytes,
)
from calltune.training.trackers import open_trackers
from calltune.types import Json

KEPT_POSITIONS = 1280
"""With gradient checkpointing, larger batches are recomputed in part."""
FILL_BYTES = 2 * 10**9
"""What computing the frozen layers' output may take on a GPU, the cache included; more where one
layer needs more."""
VALID_POSITIONS = 2048
"""Positions in a validation batch, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What of the options of `calltune train` a run needs; they are described there."""

    adapter_path: Path
    iters: int
    epochs: int | None = None
    val_batches: int = 20
    learning_rate: float = 1e-4
    lr_schedule: Kind = "constant"
    warmup_steps: int = 0
    batch_size: int = 2
    grad_accumulation_steps: int = 1
    max_grad_norm: float = 0.0
    num_layers: int = 8
    fine_tune_type: adapter.Kind = "lora"
    rank: int = 8
    scale: float = 20.0
    dropout: float = 0.0
    modules: tuple[str, ...] = ()
    prefix_cache: CacheMode = "auto"
    compute: Literal["auto", "quantized", "dense"] = "auto"
    grad_checkpoint: bool = True
    steps_per_report: int = 10
    steps_per_eval: int = 200
    patience: int = 0
    save_every: int = 100
    keep_checkpoints: int = 3
    resume_adapter_file: Path | None = None
    seed: int = 42
    report_to: tuple[str, ...] = ()

    @property
    def shape(self) -> AdapterShape:
        """What is trained."""
        return AdapterShape(
            self.fine_tune_type, self.num_layers, self.rank, self.scale, self.dropout, self.modules
        )


class Session:
    """One call of `calltune train`."""

    def __init__(
        self, loaded: LoadedModel, backend: Backend, settings: Settings, run_fingerprint: Json
    ) -> None:
        self.group = DistributedGroup()
        self._loaded, self._backend = loaded, backend
        self._settings, self._run_fingerprint = settings, run_fingerprint
        self._on_cpu = backend.device == "cpu"
        self._folder = settings.adapter_path
        self._metrics = settings.adapter_path / "metrics.jsonl"

    def run(
        self, rows: Sequence[TokenRow], valid_rows: Sequence[TokenRow], config: dict[str, Json]
    ) -> None:
        """Train from the beginning, or from where an interrupted run was; write the adapter."""
        settings = self._settings
        model = self._loaded.model
        adapter.check_trainable(settings.shape, self._loaded.folder, self._loaded.reference)
        self._config = config | adapter.attach(model, settings.shape, settings.seed)
        if settings.resume_adapter_file is not None:
            adapter.resume(model, settings.resume_adapter_file)
            print(f"Starting from the weights in {settings.resume_adapter_file}")
        adapter.pack_layers(model)
        split_model = split_at(model, settings.shape.n_frozen(model))
        if isinstance(split_model, WholeModel):
            print(f"{type(model).__module__} cannot be cut into layers: every step runs all of it")
        loader = self._loader(rows)
        schedule = self._schedule(loader)
        valid = self._fixed_sample(valid_rows)
        if self._backend.device == "cuda":
            split_model.fused = fuse(split_model, CudaKernels(), loader.longest([*rows, *valid]))
            if split_model.fused is None:
                print("calltune's CUDA kernels do not fit these layers; MLX's own run, slower")
        step = Step(split_model, self._step_options())
        trained, start = self._beginning(step)
        with self._progress(schedule, start) as progress:
            self._freeze(split_model, loader, schedule, valid, progress)
            if not self._on_cpu:
                limit_queued_memory(estimate_step_bytes(split_model, self._max_kept(loader)))
            callbacks = SaveCallbacks(
                lambda trained, position: self._save(step, trained, position),
                lambda weights: self._save_best(step, weights),
            )
            loop = Loop(step, loader, valid, schedule, self.group, progress, callbacks)
            loop.run(trained, start)
        self.group.barrier()

    def _loader(self, rows: Sequence[TokenRow]) -> Loader:
        buckets = FINE if self._on_cpu else COARSE
        return Loader(rows, self._settings.batch_size, self._settings.seed, buckets, self.group)

    def _schedule(self, loader: Loader) -> Schedule:
        chosen = self._settings
        iters = chosen.iters
        if chosen.epochs is not None:
            iters = chosen.epochs * loader.steps_per_epoch
        updates = -(-iters // chosen.grad_accumulation_steps)
        return Schedule(
            iters=iters,
            learning_rate=LearningRate(
                chosen.learning_rate, chosen.lr_schedule, chosen.warmup_steps, updates
            ),
            accumulate=chosen.grad_accumulation_steps,
            steps_per_report=chosen.steps_per_report,
            steps_per_eval=chosen.steps_per_eval,
            save_every=chosen.save_every,
            patience=chosen.patience,
            valid_positions=VALID_POSITIONS,
            seed=chosen.seed,
        )

    def _step_options(self) -> StepOptions:
        # Eager functions keep what they recompute beside what they computed first.
        is_recomputed = self._settings.grad_checkpoint and not self._on_cpu
        return StepOptions(
            clip=self._settings.max_grad_norm,
            kept_positions=KEPT_POSITIONS if is_recomputed else None,
            # Dropout draws anew in every step, and MLX's CPU backend gains nothing.
            compiled=not self._on_cpu and not self._settings.dropout,
            use_numpy=self._on_cpu,
            norms_are_frozen=self._settings.fine_tune_type != "full",
        )

    def _max_kept(self, loader: Loader) -> int:
        """Positions whose activations are kept, at most."""
        limit = self._step_options().kept_positions
        return loader.max_positions if limit is None else min(limit, loader.max_positions)

    def _fixed_sample(self, rows: Sequence[TokenRow]) -> Sequence[TokenRow]:
        """The rows that every validation uses."""
        most = self._settings.val_batches * self._settings.batch_size
        if self._settings.val_batches < 0 or len(rows) <= most:
            return rows
        rng = np.random.default_rng(self._settings.seed)
        return [rows[i] for i in rng.choice(len(rows), most, replace=False).tolist()]

    def _beginning(self, step: Step) -> tuple[TrainState, Position]:
        """The state to start from: the last checkpoint of this run, or none."""
        found: Checkpoint | None = checkpoint.latest(self._folder / "state", self._run_fingerprint)
        self._agree_on(0 if found is None else found.position.step)
        begun = step.begin(adapter.trainable(step.split_model.model))
        if self.group.is_rank0:
            truncate_run(self._folder, 0 if found is None else found.position.step)
        if found is None:
            return begun, Position()
        print(f"Going on after step {found.position.step}, where the run was interrupted")
        # In the order of an uninterrupted run: sums over the weights round by it.
        weights = {name: found.trained.weights[name] for name in begun.weights}
        trained = TrainState(weights, found.trained.optimizer)
        if self.group.is_rank0:
            # The run may have been killed between its checkpoint and its adapter.
            self._save_adapter(step, trained, found.position)
        return trained, found.position

    def _agree_on(self, step: int) -> None:
        """See that every process goes on after the same step, once all have looked."""
        (total,) = self.group.sum_numbers(step)
        if total != step * self.group.size:
            raise OptionError(
                f"The processes found different checkpoints in {self._folder / 'state'}; put "
                "--adapter-path on a disk that they share, or remove that folder to start again"
            )

    def _progress(self, schedule: Schedule, start: Position) -> Progress:
        is_first = self.group.is_rank0
        names = self._settings.report_to if is_first else ()
        return Progress(
            schedule.iters,
            self._metrics if is_first else None,
            first_step=start.step,
            trackers=open_trackers(names, self._folder, self._config, first_step=start.step),
            shown=is_first,
            first_tokens=start.tokens,
            first_elapsed_s=start.elapsed_s,
        )

    def _freeze(
        self,
        split_model: SplitModel,
        loader: Loader,
        schedule: Schedule,
        valid: Sequence[TokenRow],
        progress: Progress,
    ) -> None:
        """Compute what the frozen layers give for every row that the run will use."""
        rows = [*loader.seen(schedule.iters), *self.group.shard(valid)]
        if not rows:
            # There may be fewer rows than processes.
            return
        folder = cache_folder() / "prefix"
        place = choose_placement(
            split_model, rows, self._settings.prefix_cache, device_bytes(self._backend), folder
        )
        if place.mode != "off":
            progress.note(
                f"Frozen layers: {split_model.n_frozen} of {len(split_model.model.layers)}, "
                f"their output for {len(set(rows))} rows kept {_in_place(place.mode)} "
                f"({place.n_bytes / 1e9:.2f} GB)"
            )
        elif split_model.n_frozen:
            progress.note(f"Frozen layers are computed in every step: {place.reason}")
        source = CacheSource(self._loaded.folder, self._backend.precision, folder)
        with progress.phase("frozen layers", len(set(rows))) as advance:
            if not self._on_cpu:
                limit_queued_memory(FILL_BYTES)
            loader.prefix = build_cache(split_model, rows, place, source, advance)

    def _save(self, step: Step, trained: TrainState, position: Position) -> None:
        checkpoint.save(self._folder / "state", trained, position, self._run_fingerprint)
        self._save_adapter(step, trained, position)

    def _save_adapter(self, step: Step, trained: TrainState, position: Position) -> None:
        chosen, keep = self._settings, self._settings.keep_checkpoints
        # A save that falls due within a group of accumulated batches waits for the group's end.
        is_numbered = position.step % chosen.save_every < chosen.grad_accumulation_steps
        weights = adapter.exported(self._loaded.model, step.unstack(trained.weights))
        adapter.save(
            self._folder, weights, self._config, position.step if is_numbered else None, keep
        )

    def _save_best(self, step: Step, weights: Weights) -> None:
        exported = adapter.exported(self._loaded.model, step.unstack(weights))
        adapter.save(self._folder / "best", exported, self._config)


def _in_place(mode: str) -> str:
    return "in memory" if mode == "memory" else "on disk"
