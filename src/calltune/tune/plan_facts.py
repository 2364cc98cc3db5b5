"""What the memory planner is told: the machine, the code's limits, a run's choices and rows."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from calltune.batches import TokenRow
from calltune.tune.model_shape import Linear

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
