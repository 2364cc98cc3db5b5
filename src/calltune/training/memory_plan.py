"""How much memory a training run takes, from shapes and row lengths alone.

The terms say which arrays exist at once; `plan_layer` has those inside a layer. Checked against
`mx.get_peak_memory()` of CPU runs, and of fused ones on an H100.

What the memory planner is told: the machine, the code's limits, a run's choices and rows.

How many numbers a position the arrays inside one decoder layer have.

Eager steps (CPU) keep every array of the forward pass. Compiled ones (GPU) keep what their
kernels give, with norms and rotations as one kernel each; `fused/` keeps what its functions take.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from calltune.data.batching import Buckets, TokenRow, batches_by_length, epoch
from calltune.training.model_shape import Linear, ModelShape
from calltune.training.step import count_recomputed

Place = Literal["memory", "disk", "off"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where a step is computed."""

    is_eager: bool
    """Array by array on a CPU, not compiled."""
    number_bytes: int
    """Bytes of an activation, and of a weight that is not quantised."""
    memory: int
    """Bytes a run may use."""
    is_fused: bool = False
    """The trained layers run as `fused/` does, given that it knows the model's family."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What the training code holds itself to, in positions, numbers and bytes."""

    kept_positions: int
    valid_positions: int
    bulk_positions: int
    chunk_logits: int
    fill_bytes: int
    cache_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """What of a run's options decides its memory."""

    batch_size: int
    n_trained: int
    """Layers that are trained, from the top."""
    rank: int = 8
    kind: Literal["lora", "rslora", "dora", "full"] = "lora"
    modules: tuple[str, ...] = ()
    """Linear layers with LoRA; none means all."""
    has_dropout: bool = False
    grad_checkpoint: bool = True
    prefix_cache: Literal["auto", "memory", "disk", "off"] = "auto"
    is_dense: bool = True
    """Quantised weights are dequantised."""
    iters: int = 500
    seed: int = 42


class Rows(NamedTuple):
    """The rows of a run; those of validation are the ones that it uses."""

    train: Sequence[TokenRow]
    valid: Sequence[TokenRow]


class Size(NamedTuple):
    """A batch: B * L positions, L of them a row, T trained."""

    positions: int
    length: int
    targets: int


def is_adapted(linear: Linear, chosen: Choices) -> bool:
    """Whether LoRA is put on a linear layer."""
    return chosen.kind != "full" and (not chosen.modules or linear.name in chosen.modules)


def lora_numbers(group: tuple[Linear, ...], chosen: Choices) -> int:
    """Numbers in a group's LoRA matrices; packed ones are zero between their blocks."""
    adapted = [linear for linear in group if is_adapted(linear, chosen)]
    is_packed = len(adapted) == len(group) and chosen.kind != "dora" and not chosen.has_dropout
    outputs = sum(linear.n_outputs for linear in adapted)
    inputs = sum(linear.n_inputs for linear in adapted)
    return chosen.rank * (inputs + outputs * (len(group) if is_packed else 1))


def mask_numbers(group: tuple[Linear, ...], chosen: Choices) -> int:
    """Numbers in the mask that keeps a packed group's zeros."""
    is_packed = len(group) > 1 and all(is_adapted(linear, chosen) for linear in group)
    outputs = sum(linear.n_outputs for linear in group)
    return chosen.rank * len(group) * outputs if is_packed else 0


class LayerNumbers(NamedTuple):
    """What one layer of a model needs on a machine."""

    shape: ModelShape
    machine: Machine

    @property
    def carried(self) -> int:
        """Numbers that a recomputed layer keeps: its input, and that input's norm if fused."""
        return self.shape.hidden * (2 if self.machine.is_fused else 1)

    def kept(self, size: Size, chosen: Choices) -> int:
        """Numbers that are kept for the backward pass."""
        shape, is_eager = self.shape, self.machine.is_eager
        if self.machine.is_fused:
            # q k v side by side, then apart; the scores after the softmax.
            attention = 3 * shape.queries + 4 * shape.keys + shape.heads * size.length
            inner = sum(len(group) for group in shape.groups) * chosen.rank
            return 6 * shape.hidden + attention + 2 * shape.ffn + inner
        norms = shape.norms * (3 if is_eager else 1)
        rotations = (shape.queries + shape.keys) * (4 if is_eager else 1)
        attention = 2 * shape.queries
        if is_eager:
            attention += shape.queries + shape.heads * size.length
        between = 2 * (shape.ffn + shape.hidden)
        return norms + self._products(chosen) + rotations + attention + between

    def backward(self, size: Size) -> int:
        """Numbers in the backward pass, beside all that is kept."""
        shape, scores = self.shape, self.shape.heads * size.length
        if self.machine.is_fused:
            return 4 * shape.ffn + 4 * shape.hidden + 2 * scores
        if not self.machine.is_eager:
            return 8 * shape.ffn + 4 * shape.hidden + 3 * scores
        # When attention's turn comes, what the feed-forward part kept is gone.
        return max(6 * shape.ffn, 3 * scores - 6 * shape.ffn - 5 * shape.hidden)

    def forward(self, size: Size) -> int:
        """Numbers that a forward pass needs at once when nothing is kept."""
        shape = self.shape
        attention = 4 * (shape.hidden + shape.queries + shape.keys)
        if self.machine.is_eager:
            attention += shape.heads * size.length
        return max(attention, 4 * (shape.hidden + shape.ffn))

    def _products(self, chosen: Choices) -> int:
        """Outputs of linear layers: frozen, and with LoRA's added; LoRA's inner ones."""
        total = 0
        for group in self.shape.groups:
            outputs = sum(linear.n_outputs for linear in group)
            adapted = [linear for linear in group if is_adapted(linear, chosen)]
            total += outputs + sum(linear.n_outputs + chosen.rank for linear in adapted)
            if chosen.has_dropout:
                total += sum(2 * linear.n_inputs + linear.n_outputs for linear in adapted)
        return total


class Part(NamedTuple):
    """One thing that takes memory."""

    name: str
    n_bytes: int


class Phase(NamedTuple):
    """What exists at the worst moment of one phase of a run."""

    name: str
    parts: tuple[Part, ...]

    @property
    def n_bytes(self) -> int:
        """All parts together."""
        return _total(self.parts)


@dataclass(frozen=True, slots=True)
class Plan:
    """A run's memory by phase."""

    phases: tuple[Phase, ...]
    place: Place
    """Where the frozen layers' output goes."""

    @property
    def largest(self) -> Phase:
        """The phase that needs most."""
        return max(self.phases, key=lambda phase: phase.n_bytes)

    @property
    def peak(self) -> int:
        """The most bytes that exist at once."""
        return self.largest.n_bytes


@dataclass(frozen=True, slots=True)
class Planner:
    """What a run's phases need."""

    shape: ModelShape
    machine: Machine
    limits: Limits
    buckets: Buckets

    def plan(self, rows: Rows, chosen: Choices) -> Plan:
        """The plan of a run with these rows and options."""
        used = [row for batch in self._batches(rows, chosen) for row in batch]
        cached = self._cache(rows, used, chosen)
        place = self._place(cached, chosen)
        released = chosen.n_trained if place != "off" else self.shape.n_layers
        held = (
            Part("weights", self._weights(released, chosen)),
            Part("trained: values, Adam's state", self._trained(chosen)),
            Part("output of the frozen layers", cached if place == "memory" else 0),
        )
        phases = [
            Phase("loading", (Part("weights", self._loading(chosen)),)),
            Phase("training", (*held, *self._training(rows, chosen))),
        ]
        if rows.valid:
            validation = self._validation(rows.valid, chosen)
            phases.append(Phase("validation", (*held, *validation)))
        if place != "off":
            phases.insert(1, self._filling(held, [*used, *rows.valid], chosen))
        return Plan(tuple(phases), place)

    def _batches(self, rows: Rows, chosen: Choices) -> list[list[TokenRow]]:
        batches = epoch(rows.train, chosen.batch_size, chosen.seed, 0, self.buckets)
        return batches[: chosen.iters]

    def _sizes(self, batches: Iterator[list[TokenRow]], n_rows: int) -> Iterator[Size]:
        for batch in batches:
            length = self.buckets.length(max(len(row.tokens) for row in batch) - 1)
            count = max(len(batch), n_rows if self.buckets.pads_rows else 1)
            targets = sum(len(row.tokens) - row.completion_start for row in batch)
            yield Size(count * length, length, self.buckets.targets(targets))

    def _weights(self, n_layers: int, chosen: Choices) -> int:
        shape, size = self.shape, self.machine.number_bytes
        if chosen.is_dense or not shape.is_quantised:
            return (n_layers * shape.layer_weights + shape.outside_weights) * size
        return n_layers * shape.layer_bytes + shape.outside_bytes

    def _loading(self, chosen: Choices) -> int:
        """All weights; or the largest matrix while it is unpacked, which is the first."""
        shape = self.shape
        whole = self._weights(shape.n_layers, chosen)
        if not (self.machine.is_eager and chosen.is_dense and shape.is_quantised):
            return whole
        # MLX's CPU unpacks into one array and scales that into another.
        unpacking = 2 * shape.largest_matrix * self.machine.number_bytes
        return max(whole, unpacking + shape.largest_matrix_bytes)

    def _trained_numbers(self, chosen: Choices) -> int:
        if chosen.kind == "full":
            return chosen.n_trained * self.shape.layer_weights
        return chosen.n_trained * sum(lora_numbers(group, chosen) for group in self.shape.groups)

    def _trained(self, chosen: Choices) -> int:
        """In the model, in stacks, and Adam's two moments; where blocks are zero, a mask."""
        copies = 3 if chosen.kind == "full" else 4
        masks = 0
        if chosen.kind in ("lora", "rslora") and not chosen.has_dropout:
            masks = sum(mask_numbers(group, chosen) for group in self.shape.groups)
        return 4 * (copies * self._trained_numbers(chosen) + chosen.n_trained * masks)

    def _cache(self, rows: Rows, used: Sequence[TokenRow], chosen: Choices) -> int:
        n_positions = sum(len(tokens) - 1 for tokens in {r.tokens for r in [*used, *rows.valid]})
        return n_positions * self.shape.hidden * self.machine.number_bytes

    def _place(self, n_bytes: int, chosen: Choices) -> Place:
        if chosen.n_trained == self.shape.n_layers:
            return "off"
        if chosen.prefix_cache != "auto":
            return chosen.prefix_cache
        is_small = n_bytes <= self.machine.memory * self.limits.cache_share
        return "memory" if is_small else "disk"

    def _filling(self, held: tuple[Part, ...], rows: Sequence[TokenRow], chosen: Choices) -> Phase:
        _, trained, cache = held
        sizes = self._sizes(batches_by_length(rows, self.limits.bulk_positions), 1)
        forward = max(self._bytes(size, self._layer.forward(size)) for size in sizes)
        if not self.machine.is_eager:
            # What is queued may take so much.
            forward = max(forward, self.limits.fill_bytes - cache.n_bytes)
        weights = Part("weights", self._weights(self.shape.n_layers, chosen))
        return Phase("frozen layers", (weights, trained, cache, Part("activations", forward)))

    def _training(self, rows: Rows, chosen: Choices) -> tuple[Part, ...]:
        sizes = self._sizes(iter(self._batches(rows, chosen)), chosen.batch_size)
        return max((self._step(size, chosen) for size in sizes), key=_total)

    def _validation(self, rows: Sequence[TokenRow], chosen: Choices) -> tuple[Part, ...]:
        copies = Part("rounded copies", self._copies(chosen))

        def needed(size: Size) -> tuple[Part, ...]:
            # The last chunk's logits are held until the next ones are there.
            logits = 2 * self._chunk(size)
            forward = self._bytes(size, self._layer.forward(size))
            return Part("activations", forward), Part("head", logits), copies

        sizes = self._sizes(batches_by_length(rows, self.limits.valid_positions), 1)
        return max(map(needed, sizes), key=_total)

    def _step(self, size: Size, chosen: Choices) -> tuple[Part, ...]:
        return (
            Part("activations of the largest batch", self._activations(size, chosen)),
            *self._after_forward(size),
            Part("rounded copies", self._copies(chosen)),
        )

    def _after_forward(self, size: Size) -> tuple[Part, ...]:
        """The head, then the top layer's backward pass; what is queued holds both on a GPU."""
        machine = self.machine
        n_chunks = 1 if machine.is_eager else 2 if machine.is_fused else 6
        head = Part("head", self._chunk(size) * n_chunks)
        backward = self._bytes(size, self._layer.backward(size))
        layer = Part("backward pass of one layer", backward)
        if machine.is_eager:
            return (max(head, layer, key=lambda part: part.n_bytes),)
        return head, layer

    def _copies(self, chosen: Choices) -> int:
        """Trained weights as the layers use them: in stacks, and one by one."""
        return 2 * 4 * self._trained_numbers(chosen)

    def _activations(self, size: Size, chosen: Choices) -> int:
        """Bytes that a step keeps for the backward pass."""
        limit = self.limits.kept_positions if chosen.grad_checkpoint else None
        if self.machine.is_eager:
            limit = None
        recomputed = count_recomputed(chosen.n_trained, size.positions, limit)
        # A recomputed layer keeps its input, and all else when its turn comes.
        whole = max(chosen.n_trained - recomputed, min(1, recomputed))
        numbers = whole * self._layer.kept(size, chosen) + recomputed * self._layer.carried
        return self._bytes(size, numbers)

    def _bytes(self, size: Size, numbers: int) -> int:
        """Of so many numbers a position."""
        return numbers * size.positions * self.machine.number_bytes

    @property
    def _layer(self) -> LayerNumbers:
        return LayerNumbers(self.shape, self.machine)

    def _chunk(self, size: Size) -> int:
        """Bytes of the logits that exist at once, in float32."""
        most = max(64, self.limits.chunk_logits // self.shape.vocabulary // 64 * 64)
        return min(size.targets, most) * self.shape.vocabulary * 4


def _total(parts: Sequence[Part]) -> int:
    return sum(part.n_bytes for part in parts)
