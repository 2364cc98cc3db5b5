"""How many numbers a position the arrays inside one decoder layer have.

Eager steps (CPU) keep every array of the forward pass. Compiled ones (GPU) keep what their
kernels give, with norms and rotations as one kernel each; `fused/` keeps what its functions take.
"""

from typing import NamedTuple

from calltune.tune.model_shape import ModelShape
from calltune.tune.plan_facts import Choices, Machine, Size, is_adapted


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
