"""How many numbers a position the arrays inside one decoder layer have, adapters included.

Eager steps (CPU) keep every array of the forward pass; compiled ones (GPU) keep what their kernels
give, with norms and rotations as one kernel each; the CUDA kernels keep what their functions take.
"""

from typing import NamedTuple

from calltune.training.adapter import AdapterShape
from calltune.training.model_shape import Linear, ModelShape


class Size(NamedTuple):
    """The size of a batch."""

    positions: int
    """Rows times length."""
    length: int
    """Positions in a row, padding included."""
    targets: int
    """Trained positions, padding included."""


def is_adapted(linear: Linear, adapter: AdapterShape) -> bool:
    """Whether LoRA is put on a linear layer."""
    has_lora = adapter.fine_tune_type != "full"
    return has_lora and (not adapter.modules or linear.name in adapter.modules)


def lora_numbers(group: tuple[Linear, ...], adapter: AdapterShape) -> int:
    """Numbers in a group's LoRA matrices; packed ones are zero between their blocks."""
    adapted = [linear for linear in group if is_adapted(linear, adapter)]
    is_whole = len(adapted) == len(group)
    is_packed = is_whole and adapter.fine_tune_type != "dora" and not adapter.dropout
    outputs = sum(linear.n_outputs for linear in adapted)
    inputs = sum(linear.n_inputs for linear in adapted)
    return adapter.rank * (inputs + outputs * (len(group) if is_packed else 1))


def mask_numbers(group: tuple[Linear, ...], adapter: AdapterShape) -> int:
    """Numbers in the mask that keeps the zeros of a packed group."""
    is_packed = len(group) > 1 and all(is_adapted(linear, adapter) for linear in group)
    outputs = sum(linear.n_outputs for linear in group)
    return adapter.rank * len(group) * outputs if is_packed else 0


class LayerNumbers(NamedTuple):
    """Numbers a position in the arrays of one decoder layer."""

    shape: ModelShape
    adapter: AdapterShape
    is_eager: bool
    """Computed array by array on a CPU, not compiled."""
    is_fused: bool
    """Computed by calltune's CUDA kernels."""

    @property
    def carried(self) -> int:
        """Numbers that a recomputed layer keeps: its input, and that input's norm if fused."""
        return self.shape.hidden * (2 if self.is_fused else 1)

    def kept(self, size: Size) -> int:
        """Numbers that are kept for the backward pass."""
        shape, is_eager = self.shape, self.is_eager
        if self.is_fused:
            # q k v side by side, then apart; the scores after the softmax.
            attention = 3 * shape.queries + 4 * shape.keys + shape.heads * size.length
            inner = sum(len(group) for group in shape.groups) * self.adapter.rank
            return 6 * shape.hidden + attention + 2 * shape.ffn + inner
        norms = shape.norms * (3 if is_eager else 1)
        rotations = (shape.queries + shape.keys) * (4 if is_eager else 1)
        attention = 2 * shape.queries
        if is_eager:
            attention += shape.queries + shape.heads * size.length
        between = 2 * (shape.ffn + shape.hidden)
        return norms + self._products() + rotations + attention + between

    def backward(self, size: Size) -> int:
        """Numbers in the backward pass, beside all that is kept."""
        shape, scores = self.shape, self.shape.heads * size.length
        if self.is_fused:
            return 4 * shape.ffn + 4 * shape.hidden + 2 * scores
        if not self.is_eager:
            return 8 * shape.ffn + 4 * shape.hidden + 3 * scores
        # When attention's turn comes, what the feed-forward part kept is gone.
        return max(6 * shape.ffn, 3 * scores - 6 * shape.ffn - 5 * shape.hidden)

    def forward(self, size: Size) -> int:
        """Numbers that a forward pass needs at once when nothing is kept."""
        shape = self.shape
        attention = 4 * (shape.hidden + shape.queries + shape.keys)
        if self.is_eager:
            attention += shape.heads * size.length
        return max(attention, 4 * (shape.hidden + shape.ffn))

    def _products(self) -> int:
        """Outputs of linear layers: frozen, and with LoRA's add_gradients; LoRA's inner ones."""
        total = 0
        for group in self.shape.groups:
            outputs = sum(linear.n_outputs for linear in group)
            adapted = [linear for linear in group if is_adapted(linear, self.adapter)]
            total += outputs + sum(linear.n_outputs + self.adapter.rank for linear in adapted)
            if self.adapter.dropout:
                total += sum(2 * linear.n_inputs + linear.n_outputs for linear in adapted)
        return total
