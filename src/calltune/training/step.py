"""One training step: loss, gradients and Adam update as functions of the state and a batch.

Nothing here keeps state: trained weights and optimiser state go in and come out, so that a run can
be saved between any two steps and resumed exactly.
"""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.optimizers as optimizers
from mlx.utils import tree_map, tree_unflatten

from calltune.models.numpy_ops import use_numpy_ops
from calltune.training.activations import checkpoint_activations
from calltune.training.cuda.interface import AdamRates, Kernels, Moments
from calltune.training.loss import (
    CHUNK_LOGITS,
    completion_loss,
    completion_loss_no_grad,
)
from calltune.training.split_model import SplitModel
from calltune.training.stacked_params import StackedParams

Weights = dict[str, mx.array]


class StepBatch(NamedTuple):
    """A batch as MLX arrays: B rows, L positions, T trained positions, D hidden size."""

    inputs: mx.array
    """Tokens (B, L) int32."""
    positions: mx.array
    """(T,) int32: indices into the flattened inputs."""
    targets: mx.array
    """(T,) int32: the token after each of these positions."""
    weights: mx.array
    """(T,) float32: 1 for trained tokens, 0 for padding."""
    frozen: mx.array | None
    """(B, L, D): the frozen layers' output, or None to compute it."""


class Gradients(NamedTuple):
    """The summed loss of a batch in nats, and the gradients of that sum for stacked weights."""

    loss: mx.array
    of: Weights


class TrainState(NamedTuple):
    """What changes from step to step: trained weights and optimiser state."""

    weights: Weights
    """Stacked: see `stacked_params.StackedParams`."""
    optimizer: dict[str, Any]
    """Adam's state, as `mlx.optimizers` keeps it."""


class StepResult(NamedTuple):
    """The state after a step, its loss and its gradient's norm."""

    trained: TrainState
    loss: mx.array
    """Summed over the trained tokens, nats."""
    norm: mx.array
    """The norm of the mean loss's gradient before clipping; 0 where nothing is clipped."""


@dataclass(frozen=True, slots=True)
class StepOptions:
    """How a step is computed."""

    clip: float = 0.0
    """The gradient is scaled down to this norm; 0 leaves it as it is."""
    kept_positions: int | None = None
    """The positions whose activations each layer may keep for the backward pass; None for all.

    In larger batches as few layers as possible are recomputed, so that all together keep no more
    (gradient checkpointing: Chen et al., https://arxiv.org/abs/1604.06174).
    """
    compiled: bool = False
    """Whether steps go through `mx.compile`; each batch shape is traced once."""
    use_numpy: bool = False
    """Whether the loss takes NumPy's exponentials: faster on a Linux CPU."""
    norms_are_frozen: bool = True
    """Whether no norm is trained; False in full fine-tuning."""


class Step:
    """Gradients, updates and losses of one model.

    Adam is `mlx.optimizers.Adam`, without bias correction (https://arxiv.org/abs/1412.6980).
    """

    def __init__(self, split_model: SplitModel, options: StepOptions) -> None:
        self.split_model = split_model
        self._options = options
        self._stacked = StackedParams(split_model.model, {})
        self._optimizer = optimizers.Adam(learning_rate=0.0)
        wrap: Callable[..., Any] = mx.compile if options.compiled else _with_numpy_ops
        self._gradients = wrap(self._plain_gradients)
        self._update = wrap(self._plain_update)
        self._whole = wrap(self._plain_whole)
        self._loss = wrap(self._plain_loss)

    def begin(self, weights: Weights) -> TrainState:
        """The state before the first step, from trained weights by name; call it once, first."""
        self._stacked = StackedParams(self.split_model.model, weights)
        stacks = self._stacked.stack(weights)
        self._optimizer.init(stacks)
        state = self._optimizer.state
        mx.eval(stacks, state)
        return TrainState(stacks, state)

    def unstack(self, stacks: Weights) -> Weights:
        """Stacked weights or gradients by their names in the model."""
        return self._stacked.unstack(stacks)

    def gradients(self, weights: Weights, batch: StepBatch) -> Gradients:
        """The loss and the gradients of one batch; nothing is updated."""
        return Gradients(*self._gradients(weights, *batch))

    def update(
        self, trained: TrainState, gradients: Gradients, n_trained: float, rate: float
    ) -> StepResult:
        """One update at learning rate `rate` with gradients summed over `n_trained` tokens."""
        count, lr = mx.array(n_trained), mx.array(rate)
        weights, state, norm = self._update(*trained, gradients.of, count, lr)
        return _step_result(weights, state, norm, gradients.loss)

    def step(
        self, trained: TrainState, batch: StepBatch, n_trained: float, rate: float
    ) -> StepResult:
        """The gradients and the update of one batch with `n_trained` trained tokens."""
        count, lr = mx.array(n_trained), mx.array(rate)
        return _step_result(*self._whole(*trained, count, lr, *batch))

    def loss(self, weights: Weights, batch: StepBatch) -> mx.array:
        """The loss of a batch in nats, summed over its trained tokens."""
        return self._loss(weights, *batch)  # type: ignore[no-any-return]

    def _plain_gradients(self, weights: Weights, *arrays: Any) -> tuple[mx.array, Weights]:
        def loss(weights: Weights) -> mx.array:
            return self._summed_loss(self._ready(weights), StepBatch(*arrays))

        total, gradients = mx.value_and_grad(loss)(weights)
        return total, self._stacked.mask_gradients(gradients)

    def _plain_loss(self, weights: Weights, *arrays: Any) -> mx.array:
        batch, use_numpy = StepBatch(*arrays), self._options.use_numpy
        rows = self._rows(self._ready(weights), batch, 0)
        return completion_loss_no_grad(
            self.split_model, rows, batch.targets, batch.weights, use_numpy
        )

    def _ready(self, weights: Weights) -> Weights:
        return self._stacked.for_forward(weights, self.split_model.dtype)

    def _summed_loss(self, used: Weights, batch: StepBatch) -> mx.array:
        n_layers = len(self.split_model.model.layers) - self.split_model.n_frozen
        recompute = count_recomputed(n_layers, batch.inputs.size, self._options.kept_positions)
        rows, use_numpy = self._rows(used, batch, recompute), self._options.use_numpy
        return completion_loss(self.split_model, rows, batch.targets, batch.weights, use_numpy)

    def _rows(self, used: Weights, batch: StepBatch, recompute: int) -> mx.array:
        """The head's input (T, D) at the trained positions."""
        self.split_model.model.update(tree_unflatten(list(used.items())))
        with (
            checkpoint_activations(self._options.norms_are_frozen)
            if self._options.compiled
            else nullcontext()
        ):
            hidden = self.split_model.hidden(batch.inputs, batch.frozen, recompute)
        return hidden.reshape(-1, hidden.shape[-1])[batch.positions]

    def _plain_update(
        self, weights: Weights, state: dict[str, Any], gradients: Weights, count: Any, rate: Any
    ) -> tuple[Weights, dict[str, Any], mx.array]:
        norm, factor = mx.array(0.0), 1.0 / count
        if self._options.clip:
            squares = (mx.square(g.astype(mx.float32)).sum() for g in gradients.values())
            norm = mx.sqrt(sum(squares, mx.array(0.0))) / count
            factor = mx.minimum(self._options.clip / (norm + 1e-6), 1.0) / count
        # Adam writes into the dicts of its state; those given are kept as they are.
        self._optimizer.state = tree_map(lambda value: value, state) | {"learning_rate": rate}
        scaled = {
            name: (value.astype(mx.float32) * factor).astype(weights[name].dtype)
            for name, value in gradients.items()
        }
        weights = self._optimizer.apply_gradients(scaled, weights)
        return weights, dict(self._optimizer.state), norm

    def _plain_whole(
        self, weights: Weights, state: dict[str, Any], count: Any, rate: Any, *batch: Any
    ) -> tuple[Any, ...]:
        fused = self.split_model.fused
        if fused is None or self._options.clip:
            loss, gradients = self._plain_gradients(weights, *batch)
            return *self._plain_update(weights, state, gradients, count, rate), loss
        # Gradients of single matrices go into the update as they are, without being stacked.
        loss, of_used = mx.value_and_grad(self._summed_loss)(
            self._ready(weights), StepBatch(*batch)
        )
        return *self._fused_update(fused.kernels, weights, state, of_used, count, rate), loss

    def _fused_update(
        self,
        kernels: Kernels,
        weights: Weights,
        state: dict[str, Any],
        of_used: Weights,
        count: mx.array,
        rate: mx.array,
    ) -> tuple[Weights, dict[str, Any], mx.array]:
        """The optimiser's update, in one kernel for each stack."""
        (beta_1, beta_2), eps = self._optimizer.betas, self._optimizer.eps
        stacks, rates = self._stacked, AdamRates(beta_1, beta_2, eps)
        factors = {scale: scale / count for scale in {stacks.scale(key) for key in weights}}
        updated = {
            key: kernels.adam(
                stacks.members(key, of_used),
                stacks.mask(key),
                Moments(weight, **state[key]),
                factors[stacks.scale(key)],
                rate,
                rates,
            )
            for key, weight in weights.items()
        }
        after: dict[str, Any] = {"step": state["step"] + 1, "learning_rate": rate}
        after |= {key: {"m": moments.m, "v": moments.v} for key, moments in updated.items()}
        return {key: moments.weight for key, moments in updated.items()}, after, mx.array(0.0)


def count_recomputed(n_layers: int, positions: int, kept: int | None) -> int:
    """How many layers are recomputed so that the rest keep what all would for `kept` positions."""
    if kept is None or positions <= kept:
        return 0
    return n_layers - n_layers * kept // positions


def estimate_step_bytes(split_model: SplitModel, positions: int) -> int:
    """An estimate of the bytes that a compiled step of `positions` needs beside the weights.

    Each trained layer keeps about 60 numbers of the hidden size per position (measured on Gemma 3,
    whose feed-forward part is 6 times as wide), fused ones 25; the head works in chunks.
    """
    n_layers = len(split_model.model.layers) - split_model.n_frozen
    n_numbers, n_chunks = (60, 6) if split_model.fused is None else (25, 4)
    head = n_chunks * CHUNK_LOGITS * 4
    return (
        n_numbers * split_model.hidden_size * split_model.dtype.size * n_layers * positions + head
    )


def add_gradients(one: Gradients | None, other: Gradients) -> Gradients:
    """The losses and gradients of two batches, summed; `one` may be None."""
    if one is None:
        return other
    return Gradients(one.loss + other.loss, tree_map(mx.add, one.of, other.of))


def _with_numpy_ops(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with NumPy's loops where MLX's CPU backend has no vectorised ones."""

    def run(*arguments: Any) -> Any:
        with use_numpy_ops():
            return function(*arguments)

    return run


def _step_result(
    weights: Weights, state: dict[str, Any], norm: mx.array, loss: mx.array
) -> StepResult:
    return StepResult(TrainState(weights, state), loss, norm)
