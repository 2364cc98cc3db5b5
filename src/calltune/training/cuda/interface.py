"""The interface of the kernels between a layer's matrix products, and their parameters.

Shapes: N tokens, B rows, L positions, D hidden size or head size, H query heads, G key heads, F
feed-forward size, V vocabulary, R LoRA rank, T trained positions.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import mlx.core as mx


@dataclass(frozen=True, slots=True, eq=False)
class Norm:
    """RMSNorm: x / sqrt(mean(x^2) + eps) * weight."""

    weight: mx.array
    """(D,), in the activations' type."""
    eps: float


@dataclass(frozen=True, slots=True, eq=False)
class Heads:
    """How a packed product is split into queries, keys and values."""

    n_queries: int
    """Query heads, H."""
    n_keys: int
    """Key heads, and as many value heads, G."""
    size: int
    """Numbers in a head, D."""
    scale: float
    """Attention's scale; queries are multiplied by it."""
    cosine: mx.array
    """(max_length, D / 2) float32: the cosine of each position's rotation angles."""
    sine: mx.array
    """(max_length, D / 2) float32: their sine."""
    q_norm: Norm | None
    k_norm: Norm | None
    window: int
    """How many positions a query attends to, its own included; 0 is all up to it."""

    @property
    def group(self) -> int:
        """Query heads that share a key head."""
        return self.n_queries // self.n_keys


class Branch(NamedTuple):
    """A LoRA product (N, D) in its parts: r + z b."""

    r: mx.array
    """(N, D), the frozen product."""
    z: mx.array
    """(N, R)."""
    b: mx.array
    """(R, D)."""


class Following(NamedTuple):
    """What follows a residual sum: a norm, and the first half of a LoRA product."""

    norm: Norm
    a: mx.array
    """(R, D), the matrix transposed."""


class Sum(NamedTuple):
    """A residual sum (N, D), and what the part that follows needs of it, if one does."""

    h: mx.array
    """(N, D), the sum."""
    y: mx.array | None
    """(N, D), the norm of h."""
    z: mx.array | None
    """(N, R), y a'."""


class SumGradients(NamedTuple):
    """Gradients with respect to a branch's r and z, and to x that it is added to."""

    dr: mx.array
    dz: mx.array
    dx: mx.array


class Parts(NamedTuple):
    """q (B, G, L * H / G, D), positions before heads; k and v (B, G, L, D)."""

    q: mx.array
    k: mx.array
    v: mx.array


class Losses(NamedTuple):
    """Cross-entropies (T,) float32 in nats and the gradient of their sum, (T, V)."""

    losses: mx.array
    gradient: mx.array


class Moments(NamedTuple):
    """A weight and Adam's moving averages of its gradient and of the gradient's square."""

    weight: mx.array
    m: mx.array
    v: mx.array


@dataclass(frozen=True, slots=True)
class AdamRates:
    """The constants of `mlx.optimizers.Adam`; there is no bias correction."""

    beta_1: float
    beta_2: float
    eps: float


class Kernels(Protocol):
    """The functions and their gradients, which `kernels` computes.

    The tests define them in plain MLX operations (`tests/support/reference_kernels.py`).
    """

    def add_and_norm(
        self, branch: Branch, x: mx.array, post: Norm | None, following: Following | None
    ) -> Sum:
        """The sum h = x + post(r + z b), y = norm(h) and z = y a', for x (N, D)."""

    def add_and_norm_back(
        self,
        branch: Branch,
        h: mx.array,
        given: Sum,
        post: Norm | None,
        following: Following | None,
    ) -> SumGradients:
        """The gradients of `add_and_norm`; `given` are those of the sum's parts."""

    def split_heads(self, packed: mx.array, heads: Heads) -> Parts:
        """Queries, keys and values of `packed` (B, L, (H + 2 G) D), normed and rotated."""

    def split_heads_back(
        self, packed: mx.array, dq: mx.array, dk: mx.array, dv: mx.array, heads: Heads
    ) -> mx.array:
        """The gradient with respect to `packed`."""

    def causal_softmax(self, scores: mx.array, heads: Heads) -> mx.array:
        """Attention weights, the causal softmax of `scores` (B, G, L * H / G, L)."""

    def causal_softmax_back(self, shares: mx.array, dshares: mx.array, heads: Heads) -> mx.array:
        """The gradient with respect to the scores."""

    def gated(self, packed: mx.array, is_gelu: bool) -> mx.array:
        """activation(gate) * up, (…, F), of gate and up side by side in `packed` (…, 2 F)."""

    def gated_back(
        self, packed: mx.array, doutput: mx.array, is_gelu: bool
    ) -> tuple[mx.array, mx.array]:
        """The gradient with respect to `packed`, and the output recomputed."""

    def cross_entropy(self, logits: mx.array, targets: mx.array, weights: mx.array) -> Losses:
        """Losses of `logits` (T, V) for `targets` (T,) int32, times `weights` (T,) float32."""

    def adam(
        self,
        gradients: Sequence[mx.array],
        mask: mx.array | None,
        before: Moments,
        factor: mx.array,
        learning_rate: mx.array,
        rates: AdamRates,
    ) -> Moments:
        """One update in float32 with `factor` times the gradient.

        The gradients (rows, columns) one after the other are those of the weight, in their order;
        each is multiplied by the mask. Adam: Kingma and Ba, https://arxiv.org/abs/1412.6980.
        """
