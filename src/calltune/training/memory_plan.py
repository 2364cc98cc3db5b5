"""How much memory a training takes, from shapes and row lengths alone: `Planner` gives a `Plan`.

The terms say which arrays exist at once; `layer_memory` has those inside a layer. Checked against
`mx.get_peak_memory()` of CPU runs, and of runs with the CUDA kernels on an H100.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from calltune.data.batching import Splits, TokenRow, batches_by_length
from calltune.files import read_json
from calltune.models import loading
from calltune.training.distributed import DistributedGroup
from calltune.training.dry_run import (
    LIMITS,
    DryRun,
    Limits,
    Machine,
    ModelSize,
    buckets_for,
    dry_run,
)
from calltune.training.layer_memory import LayerNumbers, Size, lora_numbers, mask_numbers
from calltune.training.model_shape import ModelShape, float_bytes, shape_of
from calltune.training.options import TrainOptions
from calltune.training.packed_lora import SHARED_INPUT_GROUPS
from calltune.training.step import count_recomputed


class Part(NamedTuple):
    """Something that takes memory, and how much."""

    name: str
    n_bytes: int


class Phase(NamedTuple):
    """What exists in memory at the worst moment of one phase of a run."""

    name: str
    parts: tuple[Part, ...]

    @property
    def n_bytes(self) -> int:
        """Bytes of all parts together."""
        return _total(self.parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's memory by phase, and what the run would be."""

    phases: tuple[Phase, ...]
    run: DryRun
    is_dense: bool
    """Quantized weights are dequantized."""

    @property
    def largest(self) -> Phase:
        """The phase that needs the most memory."""
        return max(self.phases, key=lambda phase: phase.n_bytes)

    @property
    def peak(self) -> int:
        """The most bytes that exist at once."""
        return self.largest.n_bytes


@dataclass(frozen=True, slots=True)
class Planner:
    """What the phases of a run need: of one model, on one machine."""

    shape: ModelShape
    machine: Machine
    number_bytes: int
    """Bytes of an activation, and of a weight that is not quantized."""
    stored_bytes: int
    """Bytes of the model's weight files."""
    limits: Limits = LIMITS

    def plan(self, rows: Splits[TokenRow], options: TrainOptions) -> Plan:
        """The plan of a run with these rows and options, in one process.

        Raises:
            OptionError: the options do not fit the model.
        """
        is_dense = loading.is_dense(
            options.compute, self.machine.device, self.stored_bytes, self.machine.memory
        )
        weights = _Weights(self.shape, self.number_bytes, is_dense)
        size = ModelSize(
            self.shape.n_layers, self.shape.hidden, self.number_bytes, weights.of_all_layers
        )
        run = dry_run(size, rows, options, self.machine, DistributedGroup(), limits=self.limits)
        phases = _RunPhases(self, run, weights)
        return Plan(tuple(phases.all()), run, is_dense)


def planner_for(folder: Path, machine: Machine) -> Planner:
    """The planner for the model in a folder; its weights are not read.

    Raises:
        ModelNotFound: mlx_lm cannot load the model.
        OptionError: the model is no decoder with one feed-forward part a layer.
    """
    model, _ = loading.load_stored(folder)
    number_bytes = 4 if machine.precision == "float32" else float_bytes(model)
    shape = shape_of(model, read_json(folder / "config.json"), SHARED_INPUT_GROUPS, number_bytes)
    return Planner(shape, machine, number_bytes, loading.stored_bytes(folder))


class _Weights(NamedTuple):
    """The bytes of a model's weights while training."""

    shape: ModelShape
    number_bytes: int
    is_dense: bool

    @property
    def of_all_layers(self) -> int:
        return self.of_layers(self.shape.n_layers)

    def of_layers(self, n_layers: int) -> int:
        """Those of `n_layers` layers, and of what is in no layer."""
        shape = self.shape
        if self.is_dense or not shape.is_quantized:
            return (n_layers * shape.layer_weights + shape.outside_weights) * self.number_bytes
        return n_layers * shape.layer_bytes + shape.outside_bytes

    def loading(self, is_eager: bool) -> int:
        """All of them; or the largest matrix while it is dequantized, which is the first."""
        shape = self.shape
        if not (is_eager and self.is_dense and shape.is_quantized):
            return self.of_all_layers
        # MLX's CPU unpacks into one array and scales that into another.
        unpacking = 2 * shape.largest_matrix * self.number_bytes
        return max(self.of_all_layers, unpacking + shape.largest_matrix_bytes)


class _RunPhases:
    """The phases of one run, and what exists at the worst moment of each."""

    def __init__(self, planner: Planner, run: DryRun, weights: _Weights) -> None:
        self._run, self._weights = run, weights
        self._shape, self._limits = planner.shape, planner.limits
        self._number_bytes = planner.number_bytes
        self._buckets = buckets_for(planner.machine)
        self._is_eager = planner.machine.is_cpu
        is_lora = run.adapter.fine_tune_type in ("lora", "rslora") and not run.adapter.modules
        # Given that the kernels know the model's family.
        self._is_fused = planner.machine.device == "cuda" and is_lora and not run.adapter.dropout
        self._layer = LayerNumbers(self._shape, run.adapter, self._is_eager, self._is_fused)

    def all(self) -> Iterator[Phase]:
        """From loading to validation."""
        run = self._run
        is_cached = run.cache.mode != "off"
        layers = run.n_trained if is_cached else run.n_layers
        lasting = (
            Part("weights", self._weights.of_layers(layers)),
            Part("trained: values, Adam's state", self._trained()),
            Part(
                "output of the frozen layers",
                run.cache.n_bytes if run.cache.mode == "memory" else 0,
            ),
        )
        yield Phase("loading", (Part("weights", self._weights.loading(self._is_eager)),))
        if is_cached:
            yield self._filling(lasting)
        yield Phase("training", (*lasting, *self._training()))
        if run.valid_rows:
            yield Phase("validation", (*lasting, *self._validation()))

    def _sizes(self, batches: Iterator[list[TokenRow]], n_rows: int) -> Iterator[Size]:
        buckets = self._buckets
        for batch in batches:
            length = buckets.length(max(len(row.tokens) for row in batch) - 1)
            count = max(len(batch), n_rows if buckets.pads_rows else 1)
            targets = sum(len(row.tokens) - row.completion_start for row in batch)
            yield Size(count * length, length, buckets.targets(targets))

    def _trained_numbers(self) -> int:
        run = self._run
        if run.adapter.fine_tune_type == "full":
            return run.n_trained * self._shape.layer_weights
        return run.n_trained * sum(lora_numbers(g, run.adapter) for g in self._shape.groups)

    def _trained(self) -> int:
        """In the model, in stacks, and Adam's two moments; where blocks are zero, a mask."""
        adapter = self._run.adapter
        copies = 3 if adapter.fine_tune_type == "full" else 4
        masks = 0
        if adapter.fine_tune_type in ("lora", "rslora") and not adapter.dropout:
            masks = sum(mask_numbers(group, adapter) for group in self._shape.groups)
        return 4 * (copies * self._trained_numbers() + self._run.n_trained * masks)

    def _filling(self, lasting: tuple[Part, ...]) -> Phase:
        _, trained, cache = lasting
        rows = self._run.used_rows
        sizes = self._sizes(batches_by_length(rows, self._limits.bulk_positions), 1)
        forward = max(self._bytes(size, self._layer.forward(size)) for size in sizes)
        if not self._is_eager:
            # What is queued may take so much.
            forward = max(forward, self._limits.fill_bytes - cache.n_bytes)
        weights = Part("weights", self._weights.of_all_layers)
        return Phase("frozen layers", (weights, trained, cache, Part("activations", forward)))

    def _training(self) -> tuple[Part, ...]:
        loader, n_steps = self._run.loader, self._run.schedule.iters
        # Later epochs have the same rows in other company.
        batches = islice(loader.global_batches(), min(n_steps, loader.steps_per_epoch))
        sizes = self._sizes(batches, loader.batch_size)
        return max((self._step(size) for size in sizes), key=_total)

    def _validation(self) -> tuple[Part, ...]:
        copies = Part("rounded copies", self._copies())

        def needed(size: Size) -> tuple[Part, ...]:
            # The last chunk's logits are held until the next ones are there.
            logits = 2 * self._chunk(size)
            forward = self._bytes(size, self._layer.forward(size))
            return Part("activations", forward), Part("head", logits), copies

        rows, limit = self._run.valid_rows, self._limits.valid_positions
        return max(map(needed, self._sizes(batches_by_length(rows, limit), 1)), key=_total)

    def _step(self, size: Size) -> tuple[Part, ...]:
        return (
            Part("activations of the largest batch", self._activations(size)),
            *self._after_forward(size),
            Part("rounded copies", self._copies()),
        )

    def _after_forward(self, size: Size) -> tuple[Part, ...]:
        """The head, then the top layer's backward pass; what is queued holds both on a GPU."""
        n_chunks = 1 if self._is_eager else 2 if self._is_fused else 6
        head = Part("head", self._chunk(size) * n_chunks)
        backward = self._bytes(size, self._layer.backward(size))
        layer = Part("backward pass of one layer", backward)
        if self._is_eager:
            return (max(head, layer, key=lambda part: part.n_bytes),)
        return head, layer

    def _copies(self) -> int:
        """Trained weights as the layers use them: in stacks, and one by one."""
        return 2 * 4 * self._trained_numbers()

    def _activations(self, size: Size) -> int:
        """Bytes that a step keeps for the backward pass."""
        n_trained = self._run.n_trained
        recomputed = count_recomputed(n_trained, size.positions, self._run.step.kept_positions)
        # A recomputed layer keeps its input, and all else when its turn comes.
        whole = max(n_trained - recomputed, min(1, recomputed))
        numbers = whole * self._layer.kept(size) + recomputed * self._layer.carried
        return self._bytes(size, numbers)

    def _bytes(self, size: Size, numbers: int) -> int:
        """Of so many numbers a position."""
        return numbers * size.positions * self._number_bytes

    def _chunk(self, size: Size) -> int:
        """Bytes of the logits that exist at once, in float32."""
        limit = max(64, self._limits.chunk_logits // self._shape.vocabulary // 64 * 64)
        return min(size.targets, limit) * self._shape.vocabulary * 4


def _total(parts: Sequence[Part]) -> int:
    return sum(part.n_bytes for part in parts)
